"""Find images that show the same picture, whatever was done to one of them: encoded anew, turned, cropped, brightened.

Two steps. A fingerprint of 135 numbers for each image makes all-against-all a matter of matrix products, without an
index that could miss something; it is loose on purpose. What it proposes is then registered, one thumbnail on the
other, and measured. The fingerprint holds the low DCT coefficients of a thumbnail, as perceptual hashes do (Zauner,
Implementation and benchmarking of perceptual image hash functions, 2010), but keeps their size. Registration maximises
the enhanced correlation coefficient (Evangelidis and Psarakis, IEEE TPAMI 30(10), 2008), which OpenCV implements.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

import cv2
import numpy as np

THUMBNAIL = 64  # pixels on a side; the image is squashed to a square
# How a copy was turned, by number: bit 4 transposes, then bit 2 flips upside down, then bit 1 flips left to right.
ORIENTATIONS = (
    'as is', 'mirrored left to right', 'upside down', 'turned by 180',
    'transposed', 'turned by 90 clockwise', 'turned by 90 counter-clockwise', 'transposed and turned by 180',
)  # fmt: skip

COEFFICIENTS = 16  # of the DCT on each axis; those with u + v < 16 are kept, without the mean
FREQUENCIES = np.mgrid[:COEFFICIENTS, :COEFFICIENTS]
KEPT = (FREQUENCIES.sum(0) > 0) & (FREQUENCIES.sum(0) < COEFFICIENTS)
COMPRESSION = 0.5  # exponent of the coefficients, so that a few large ones do not decide alone
CROPPED_EDGE = 3  # pixels of the thumbnail, about 5 %: a second fingerprint leaves them out on each side
# Cosine of two fingerprints from which a pair is looked at more closely. Among 500 photos, copies with 5 % cut off on
# any sides, brightened and re-encoded have at least 0.60, and 5 of 10,000 pairs of different photos have 0.42.
LOOSE = 0.42
VARIANTS = ((0, 0), (0, 1), (1, 0))  # fingerprints compared: both whole, or one of the two cropped
CHUNK = 1024  # rows of the score matrix at a time
CANDIDATES = 8  # images looked at more closely for each image
CANDIDATES_WITHIN = 16  # the same within a set, where an image may have many copies
BATCH = 512  # pairs between two looks at the groups found so far

COARSE_BLUR = 8  # standard deviation of what a high-pass filter takes away before registration, in pixels
FINE_BLUR = 3  # and before the comparison: the details tell simple pictures apart, such as two parts of a cup
FLAT = 2.0  # standard deviation in grey levels that is no texture to compare; of 500 photos the flattest has 8.2
ECC_STEPS = 40
ECC_PRECISION = 1e-3
ECC_BLUR = 5  # size of the filter in pixels; less loses images cropped by 5 %
LARGEST_SCALING = 0.2  # the registration's matrix may differ from the identity by this much: twice 5 % on two sides
LARGEST_SHIFT = 0.2  # of the thumbnail's side
COARSE = 0.5  # correlation of thumbnails of half the size from which the whole ones are registered
# Correlation of two registered thumbnails' details from which they are copies. Copies as above have at least 0.78, but
# for a photo whose sky is clipped by brightening; the most similar of 130,000 pairs of different photos have 0.34.
SIMILAR = 0.65
ALIKE = 0.95  # the same without any registration, which is then spared


@dataclass(frozen=True)
class Match:
    """Image ``query`` is a copy of ``reference``, turned by ``ORIENTATIONS[orientation]``; similarity is at most 1."""

    query: int
    reference: int
    similarity: float
    orientation: int


def thumbnail(gray: np.ndarray) -> np.ndarray:
    """Shrink a grey image ``(H, W)`` uint8 to ``(64, 64)`` by the mean over areas."""
    return cv2.resize(gray, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn or mirror an image ``(H, W)`` by ``ORIENTATIONS[orientation]``."""
    if orientation & 4:
        image = image.T
    if orientation & 2:
        image = image[::-1]
    return image[:, ::-1] if orientation & 1 else image


def is_flat(small: np.ndarray) -> bool:
    """Whether a thumbnail has no texture to be known by, such as a plain colour or a smooth sky."""
    return bool(_high_passed(small, COARSE_BLUR).std() < FLAT)


def fingerprints(thumbnails: np.ndarray) -> np.ndarray:
    """Compute DCT coefficients of thumbnails, scaled up with the frequency and compressed.

    Photos have spectra that fall with 1 / frequency; without the scaling all photos of sky over ground look alike.

    Args:
        thumbnails: ``(N, 64, 64)`` uint8.

    Returns:
        ``(N, 2, 16, 16)`` float32: of the whole thumbnail and of its centre, each of unit length. Zero for a flat one.
    """
    weights = np.hypot(*FREQUENCIES) * KEPT
    made = np.zeros((len(thumbnails), 2, COEFFICIENTS, COEFFICIENTS), np.float32)
    for variant, edge in enumerate((0, CROPPED_EDGE)):
        cosines = _cosines(THUMBNAIL - 2 * edge)
        inside = slice(edge, THUMBNAIL - edge)
        for i, small in enumerate(thumbnails):
            if not is_flat(small):
                scaled = (cosines @ small[inside, inside] @ cosines.T) * weights
                compressed = np.sign(scaled) * np.abs(scaled) ** COMPRESSION
                made[i, variant] = compressed / np.linalg.norm(compressed)
    return made


def _cosines(size: int) -> np.ndarray:
    """The DCT-II as a (16, size) float32 matrix."""
    return np.cos(np.pi / size * np.outer(np.arange(COEFFICIENTS), np.arange(size) + 0.5)).astype(np.float32)


def turn_fingerprints(prints: np.ndarray, orientation: int) -> np.ndarray:
    """The fingerprints ``(N, 16, 16)`` of turned images: a flip changes the sign of its axis' odd coefficients."""
    signs = np.where(np.arange(COEFFICIENTS) % 2, -1, 1).astype(np.float32)
    if orientation & 4:
        prints = prints.swapaxes(1, 2)
    if orientation & 2:
        prints = prints * signs[:, None]
    return prints * signs if orientation & 1 else prints


def candidates(
    queries: np.ndarray,
    references: np.ndarray | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Iterator[tuple[int, int, int, float]]:
    """Yield pairs whose fingerprints agree loosely in some orientation, comparing all with all.

    Args:
        queries: ``(N, 2, 16, 16)``, see :func:`fingerprints`.
        references: ``(M, 2, 16, 16)``, or None: the queries themselves, each pair once with query < reference.
        progress: wraps the chunks of rows, such as tqdm.

    Yields:
        (query, reference, orientation of the query as against the reference, cosine) in the order of the queries; of
        each query its ``CANDIDATES`` most similar references, or ``CANDIDATES_WITHIN`` of its own set.
    """
    within = references is None
    references = queries if references is None else references
    rows = [np.ascontiguousarray(queries[:, variant][:, KEPT]) for variant in range(2)]
    turned = [
        [np.ascontiguousarray(turn_fingerprints(references[:, variant], o)[:, KEPT]) for variant in range(2)]
        for o in range(len(ORIENTATIONS))
    ]
    for start in progress(range(0, len(queries), CHUNK)):
        here = slice(start, start + CHUNK)
        first = start if within else 0  # the references before it had their turn as queries
        best = np.full((len(rows[0][here]), len(references) - first), -1, np.float32)
        scores = np.empty_like(best)
        for columns in turned:
            for of_query, of_reference in VARIANTS:
                np.matmul(rows[of_query][here], columns[of_reference][first:].T, out=scores)
                np.maximum(best, scores, out=best)
        if within:
            best[np.tril_indices(len(best), 0, best.shape[1])] = -1
        i, j = np.nonzero(best >= LOOSE)
        order = np.lexsort((-best[i, j], i))
        for row, found in groupby(order, key=lambda k: int(i[k])):
            query = start + row
            for k in list(found)[: CANDIDATES_WITHIN if within else CANDIDATES]:
                reference = first + int(j[k])
                for o, columns in enumerate(turned):
                    score = max(float(rows[a][query] @ columns[b][reference]) for a, b in VARIANTS)
                    if score >= LOOSE:
                        yield query, reference, o, score


def registered_similarity(small: np.ndarray, other: np.ndarray) -> float:
    """Measure how alike two thumbnails are, as they are or with one laid on the other by the best affine map.

    Args:
        small: ``(64, 64)`` uint8.
        other: the same; not turned against it.

    Returns:
        The correlation of their details where they overlap, in [-1, 1]: the lower one of laying the second on the first
        and the first on the second, as a map between different pictures is seldom found twice. 0 where no moderate crop
        or scaling joins them, or where thumbnails of half the size, which are looked at first, differ clearly.
    """
    unmoved = _correlation(_high_passed(small, FINE_BLUR), _high_passed(other, FINE_BLUR), np.eye(2, 3))
    if unmoved >= ALIKE:
        return unmoved
    similarity = _laid_similarity(small, other)
    return min(similarity, _laid_similarity(other, small)) if similarity >= SIMILAR else similarity


def _laid_similarity(small: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of the details, with the second thumbnail laid on the first."""
    first, second = _high_passed(small, COARSE_BLUR), _high_passed(other, COARSE_BLUR)
    half, other_half = (
        cv2.resize(image, (THUMBNAIL // 2, THUMBNAIL // 2), interpolation=cv2.INTER_AREA) for image in (first, second)
    )
    laid = _registered(half, other_half, np.eye(2, 3, dtype=np.float32))
    if laid is None or _correlation(half, other_half, laid) < COARSE:
        return 0.0
    laid[:, 2] *= 2  # from there on in pixels half as large
    laid = _registered(first, second, laid)
    return 0.0 if laid is None else _correlation(_high_passed(small, FINE_BLUR), _high_passed(other, FINE_BLUR), laid)


def _registered(first: np.ndarray, second: np.ndarray, start: np.ndarray) -> np.ndarray | None:
    """Find the affine map (2, 3) from pixels of the first image to those of the second; None if none is sensible."""
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, ECC_STEPS, ECC_PRECISION)
    try:
        # the stub wants a mask where OpenCV takes None
        _, laid = cv2.findTransformECC(  # type: ignore[call-overload]
            first, second, start, cv2.MOTION_AFFINE, criteria, None, ECC_BLUR
        )
    except cv2.error:  # it does not converge: the two have nothing in common
        return None
    change = laid - np.eye(2, 3)
    shift = change @ (len(first) / 2, len(first) / 2, 1)  # of the centre
    sensible = np.abs(change[:, :2]).max() <= LARGEST_SCALING and np.abs(shift).max() <= LARGEST_SHIFT * len(first)
    return laid if sensible else None


def _correlation(first: np.ndarray, second: np.ndarray, laid: np.ndarray) -> float:
    """Return the correlation of two images where they overlap, the second laid on the first by a map."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(second, laid, first.shape, flags=flags)
    overlap = cv2.warpAffine(np.ones_like(second), laid, first.shape, flags=flags) > 1 - 1e-3
    deviations = [image[overlap] - image[overlap].mean() for image in (first, moved)]
    lengths = np.linalg.norm(deviations[0]) * np.linalg.norm(deviations[1])
    return float(deviations[0] @ deviations[1] / lengths) if lengths else 0.0


def _high_passed(small: np.ndarray, blur: float) -> np.ndarray:
    small = np.ascontiguousarray(small, np.float32)
    return small - cv2.GaussianBlur(small, (0, 0), blur, borderType=cv2.BORDER_REFLECT)


def find_copies(
    queries: np.ndarray, references: np.ndarray, progress: Callable[[Iterable], Iterable] = iter
) -> list[Match]:
    """Find, for each query that is a copy of some reference, the most similar one.

    Args:
        queries: thumbnails ``(N, 64, 64)`` uint8.
        references: thumbnails ``(M, 64, 64)`` uint8.
        progress: wraps the steps of the search, such as tqdm.

    Returns:
        In the order of the queries. A flat image matches nothing.
    """
    best: dict[int, Match] = {}
    pairs = candidates(fingerprints(queries), fingerprints(references), progress)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for match in pool.map(lambda pair: _measured(queries, references, pair), pairs):
            known = best.get(match.query)
            if match.similarity >= SIMILAR and (known is None or match.similarity > known.similarity):
                best[match.query] = match
    return list(best.values())


def group_copies(thumbnails: np.ndarray, progress: Callable[[Iterable], Iterable] = iter) -> list[Match]:
    """Group images that are copies of one another; each member comes with the first of its group.

    Args:
        thumbnails: ``(N, 64, 64)`` uint8.
        progress: wraps the steps of the search, such as tqdm.

    Returns:
        One match for each member but the first of a group, in order; ``reference`` is the first. A copy of a copy may
        differ more from the first, so that the similarity given is below ``SIMILAR``.
    """
    first = list(range(len(thumbnails)))  # of each image's group, or one nearer to it

    def root(image: int) -> int:
        while first[image] != image:
            first[image] = first[first[image]]
            image = first[image]
        return image

    pairs = sorted(candidates(fingerprints(thumbnails), progress=progress), key=lambda pair: -pair[-1])
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for start in range(0, len(pairs), BATCH):
            # of a photo with many copies most pairs need no look, as both are in its group already
            unknown = [pair for pair in pairs[start : start + BATCH] if root(pair[0]) != root(pair[1])]
            for match in pool.map(lambda pair: _measured(thumbnails, thumbnails, pair), unknown):
                if match.similarity >= SIMILAR:
                    early, late = sorted((root(match.query), root(match.reference)))
                    first[late] = early
        members = [(i, root(i)) for i in range(len(thumbnails)) if root(i) != i]
        return list(pool.map(lambda member: _best_turn(thumbnails, *member), members))


def _measured(queries: np.ndarray, references: np.ndarray, pair: tuple[int, int, int, float]) -> Match:
    query, reference, orientation = pair[:3]
    similarity = registered_similarity(queries[query], turn(references[reference], orientation))
    return Match(query, reference, similarity, orientation)


def _best_turn(thumbnails: np.ndarray, query: int, reference: int) -> Match:
    best = _measured(thumbnails, thumbnails, (query, reference, 0, 0.0))
    for orientation in range(1, len(ORIENTATIONS)):
        if best.similarity < SIMILAR:
            other = _measured(thumbnails, thumbnails, (query, reference, orientation, 0.0))
            best = max(best, other, key=lambda match: match.similarity)
    return best
