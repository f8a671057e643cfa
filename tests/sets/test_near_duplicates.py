import cv2
import numpy as np
import pytest
from scipy.fft import dctn

from ddsa_arch.files.images import read_image
from ddsa_arch.sets import near_duplicates
from ddsa_arch.sets.near_duplicates import (
    COEFFICIENTS,
    LOOSE,
    ORIENTATIONS,
    SIMILAR,
    THUMBNAIL,
    candidates,
    find_copies,
    fingerprints,
    group_copies,
    is_flat,
    registered_similarity,
    thumbnail,
    turn,
    turn_fingerprints,
)
from ddsa_arch.sets.sample_photos import sample_photos, split_tiles


def gray(image):
    return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2GRAY)


def thumbnails(images):
    return np.stack([thumbnail(gray(image)) for image in images])


def parts_of_photos(size):
    """Different pictures of at most this size: parts of five photos, without the plain ones."""
    photos = sample_photos(['astronaut', 'chelsea', 'coffee', 'motorcycle_left', 'rocket'])
    cut = [tile for photo in photos.values() for tile in split_tiles(photo, size).values()]
    kept = [tile for tile in cut if not is_flat(thumbnail(gray(tile)))]
    assert len(kept) >= 40
    return kept


@pytest.fixture(scope='module')
def tiles():
    return parts_of_photos(170)


def recoded(image, quality=30):
    return cv2.imdecode(cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def cropped(image, top=0, bottom=0, left=0, right=0):
    """With these hundredths cut off the sides."""
    height, width = image.shape[:2]
    return image[height * top // 100 : height - height * bottom // 100,
                 width * left // 100 : width - width * right // 100]  # fmt: skip


def brightened(image, factor=1.0, plus=0):
    return np.clip(image * factor + plus, 0, 255).astype(np.uint8)


CHANGES = {
    'nothing': lambda image: image,
    'JPEG of quality 30': recoded,
    'half the size': lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    'twice the size': lambda image: cv2.resize(image, None, fx=2, fy=2),
    'grey': lambda image: np.repeat(gray(image)[:, :, None], 3, 2),
    'brighter by a factor': lambda image: brightened(image, 1.25),
    'brighter by 30': lambda image: brightened(image, plus=30),
    'darker': lambda image: brightened(image, 0.6),
    'less contrast': lambda image: brightened(image, 0.6, 50),
    'cropped left': lambda image: cropped(image, left=5),
    'cropped top and right': lambda image: cropped(image, top=5, right=5),
    'cropped all around': lambda image: cropped(image, 5, 5, 5, 5),
    'turned': lambda image: np.rot90(image),
    'all at once': lambda image: recoded(brightened(cropped(np.rot90(image)[:, ::-1], bottom=5, left=5), 1.15), 50),
}


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES.keys())
def test_changed_copies_are_found_and_nothing_else(change, tiles):
    """Every third picture is planted, changed, among pictures that are not in the other set."""
    wanted, strangers = tiles[::3], tiles[1::3]
    mixed = thumbnails([*strangers, *(change(image) for image in wanted)])
    found = [(match.query, match.reference) for match in find_copies(mixed, thumbnails(wanted))]
    assert set(found) <= {(len(strangers) + i, i) for i in range(len(wanted))}
    assert len(found) >= 0.95 * len(wanted)


@pytest.mark.parametrize('size', [110, 170])
def test_different_pictures_are_no_copies(size):
    """Among them are pictures of few edges, which some affine map lays on one another."""
    assert group_copies(thumbnails(parts_of_photos(size))) == []


def test_loose_fingerprints_alone_would_find_false_copies(tiles, monkeypatch):
    monkeypatch.setattr(near_duplicates, 'LOOSE', 0.3)
    small = thumbnails(tiles)
    assert len(list(candidates(fingerprints(small)))) > 10
    assert group_copies(small) == []


@pytest.mark.parametrize('orientation', range(8))
def test_orientation_is_told(orientation, tiles):
    turned = turn(gray(tiles[0]), orientation)
    match = find_copies(thumbnail(turned)[None], thumbnails(tiles))[0]
    assert (match.reference, match.orientation) == (0, orientation)
    assert match.similarity > 0.95


@pytest.mark.parametrize(
    ('name', 'by_numpy'),
    [
        ('as is', lambda image: image),
        ('mirrored left to right', np.fliplr),
        ('upside down', np.flipud),
        ('turned by 180', lambda image: np.rot90(image, 2)),
        ('transposed', np.transpose),
        ('turned by 90 clockwise', lambda image: np.rot90(image, -1)),
        ('turned by 90 counter-clockwise', np.rot90),
        ('transposed and turned by 180', lambda image: np.rot90(image.T, 2)),
    ],
)
def test_names_of_orientations(name, by_numpy, rng):
    image = rng.integers(0, 256, (3, 5))
    assert np.array_equal(turn(image, ORIENTATIONS.index(name)), by_numpy(image))


def test_fingerprint_of_a_turned_image_is_the_turned_fingerprint(tiles):
    small = thumbnails(tiles[:5])
    prints = fingerprints(small)
    for orientation in range(8):
        directly = fingerprints(np.stack([turn(image, orientation) for image in small]))
        for variant in range(2):
            turned = turn_fingerprints(prints[:, variant], orientation)
            np.testing.assert_allclose(turned, directly[:, variant], atol=2e-3)


def test_fingerprint_is_the_compressed_and_whitened_dct(tiles):
    """Against scipy's transform, coefficient by coefficient."""
    small = thumbnails(tiles[:3])
    for image, prints in zip(small, fingerprints(small), strict=True):
        for made, part in zip(prints, (image, image[3:-3, 3:-3]), strict=True):
            dct = dctn(part.astype(float), type=2)
            wanted = np.zeros((COEFFICIENTS, COEFFICIENTS))
            for u in range(COEFFICIENTS):
                for v in range(COEFFICIENTS - u):
                    scaled = dct[u, v] * (u * u + v * v) ** 0.5
                    wanted[u, v] = np.sign(scaled) * abs(scaled) ** 0.5
            np.testing.assert_allclose(made, wanted / np.linalg.norm(wanted), atol=2e-3)


def slow_candidates(queries, references):
    """Every pair and orientation in loops: {(query, reference, orientation): cosine}."""
    found = {}
    for i, query in enumerate(queries):
        for j, reference in enumerate(references):
            for orientation in range(8):
                score = max(
                    np.sum(query[a] * turn_fingerprints(reference[b][None], orientation)[0])
                    for a, b in ((0, 0), (0, 1), (1, 0))
                )
                if score >= LOOSE:
                    found[i, j, orientation] = score
    return found


def test_chunked_search_finds_what_loops_find(tiles, monkeypatch):
    monkeypatch.setattr(near_duplicates, 'CHUNK', 7)
    queries = fingerprints(thumbnails([*tiles[:9], *(np.rot90(tile) for tile in tiles[5:13])]))
    references = fingerprints(thumbnails([cropped(tile, left=5) for tile in tiles[3:16]]))
    wanted = slow_candidates(queries, references)
    assert len(wanted) >= 14
    found = {pair[:3]: pair[3] for pair in candidates(queries, references)}
    assert found == pytest.approx(wanted, abs=1e-5)

    within = {pair: score for pair, score in slow_candidates(queries, queries).items() if pair[0] < pair[1]}
    assert len(within) >= 4
    assert {pair[:3]: pair[3] for pair in candidates(queries)} == pytest.approx(within, abs=1e-5)


def test_of_many_candidates_the_most_similar_are_kept(tiles, monkeypatch):
    monkeypatch.setattr(near_duplicates, 'CANDIDATES', 2)
    copies = [recoded(tiles[0]), brightened(tiles[0], 1.3), cropped(tiles[0], 5, 5, 5, 5), tiles[0]]
    prints = fingerprints(thumbnails(copies)), fingerprints(thumbnails(tiles[:1]))
    scores = {pair[:2]: pair[3] for pair in candidates(prints[1], prints[0])}
    everything = slow_candidates(prints[1], prints[0])
    best = sorted(everything, key=everything.get)[-2:]
    assert set(scores) == {pair[:2] for pair in best}


@pytest.mark.parametrize('level', [0, 128, 255])
def test_flat_images_match_nothing(level, rng):
    """A plain colour with the noise of a re-encoding, and a smooth sky."""
    plain = np.full((200, 300, 3), level, np.uint8)
    noisy = recoded(np.clip(plain + rng.normal(0, 3, plain.shape), 0, 255).astype(np.uint8))
    sky = np.repeat(np.linspace(100, 112, 200, dtype=np.uint8)[:, None, None], 300, 1).repeat(3, 2)
    small = thumbnails([plain, plain, noisy, recoded(noisy), sky, sky])
    assert all(is_flat(image) for image in small)
    assert not fingerprints(small).any()
    assert group_copies(small) == find_copies(small, small) == []


def test_group_names_its_first_member_once_for_each_other(tiles):
    """Two groups of copies among strangers, one of them larger than the number of candidates of an image."""
    many = [brightened(tiles[0], 1, plus) for plus in range(0, 40, 2)]
    assert len(many) > near_duplicates.CANDIDATES_WITHIN
    few = [tiles[1], np.fliplr(tiles[1]), recoded(tiles[1])]
    matches = group_copies(thumbnails([tiles[2], *many, tiles[3], *few, tiles[4]]))
    wanted = [(1 + i, 1) for i in range(1, len(many))] + [(2 + len(many) + i, 2 + len(many)) for i in (1, 2)]
    assert [(match.query, match.reference) for match in matches] == wanted
    assert [match.orientation for match in matches[-2:]] == [1, 0]
    assert all(match.similarity >= SIMILAR for match in matches)


@pytest.mark.parametrize('order', [1, -1])
def test_the_most_similar_reference_is_named(order, tiles):
    references = [tiles[0], recoded(cropped(tiles[0], 5, 5, 5, 5)), tiles[1]][::order]
    found = find_copies(thumbnails(tiles[:1]), thumbnails(references))
    assert [(match.query, match.reference) for match in found] == [(0, 0 if order == 1 else 2)]
    assert found[0].similarity == pytest.approx(1)


def test_similarity_is_that_of_the_overlap(tiles):
    """A known shift: the registered similarity is that of the same pixels, though half a tenth of them is missing."""
    image = gray(tiles[0])
    first, second = thumbnail(image[:, :-8]), thumbnail(image[:, 8:])
    assert registered_similarity(first, second) > 0.95
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] < 0.8
    assert registered_similarity(first, thumbnail(gray(tiles[20]))) < 0.5
    assert registered_similarity(first, np.full((THUMBNAIL, THUMBNAIL), 7, np.uint8)) == 0


def test_no_images_are_no_error():
    none = np.empty((0, THUMBNAIL, THUMBNAIL), np.uint8)
    assert group_copies(none) == find_copies(none, none) == []


def test_repeated_backgrounds_of_real_sets(repository):
    """Nine of Rain100L's backgrounds are used twice; Rain200H's are others."""
    data = repository.parent / 'shared' / 'data'
    if not data.is_dir():
        pytest.skip('the real sets are not there')
    test_paths, train_paths = (
        sorted((data / name / 'target').iterdir()) for name in ('rain100l_test', 'rain200h_train')
    )
    images = [read_image(path) for path in test_paths]
    seen, repeated = {}, set()
    for i, image in enumerate(images):
        if image.tobytes() in seen:
            repeated.add((i, seen[image.tobytes()]))
        seen.setdefault(image.tobytes(), i)
    assert len(repeated) == 9
    small = thumbnails(images)
    assert {(match.query, match.reference) for match in group_copies(small)} == repeated
    assert find_copies(thumbnails(map(read_image, train_paths)), small) == []
