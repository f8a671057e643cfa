"""The files of an audit: a table, a page with suspicious images side by side, and the keys to leave out."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np

from ddsa_arch.files.atomic import write_text
from ddsa_arch.files.images import encode_image, natural_key
from ddsa_arch.files.key_lists import COMMENT
from ddsa_arch.files.tables import write_csv
from ddsa_arch.sets import pair_faults
from ddsa_arch.sets.near_duplicates import ORIENTATIONS, Match

LEAK = 'leak'
DUPLICATE = 'duplicate'
NO_PARTNER = 'no partner'
BROKEN = 'broken'
FLAT = 'flat'
SWAPPED = 'swapped'
KINDS = {  # and what they mean
    LEAK: 'training images whose target shows the same picture as a target of a test set',
    DUPLICATE: 'images whose target shows the same picture as an earlier one of the same set',
    pair_faults.UNEQUAL_SIZES: 'pairs whose input and target have unequal sizes',
    pair_faults.IDENTICAL: 'pairs whose input is the target, without any rain',
    pair_faults.DARKER: 'pairs whose input is darker than the target, while rain makes pictures brighter',
    NO_PARTNER: 'images that stand on one side only',
    BROKEN: 'images that cannot be read',
    FLAT: 'targets without texture, which were compared by their bytes alone',
}

PICTURES_OF_A_KIND = 20
PICTURE_HEIGHT = 150  # pixels
PICTURE_WIDEST = 450

STYLE = """
body { font: 15px/1.5 sans-serif; color: #202020; max-width: 960px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse } td, th { border: 1px solid #ccc; padding: .2em .6em; text-align: left }
.pair { margin: 1em 0 } .pair img { vertical-align: bottom } figure { display: inline-block; margin: 0 6px 0 0 }
figcaption { font-size: 13px; overflow-wrap: anywhere } .swapped { color: #a00000; font-weight: bold }
"""


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    ``key`` is an image of ``set``; ``other_key`` of ``other_set`` is what it is alike to: for a leak the test image,
    for a duplicate the first of its group. ``similarity`` is a correlation, 1 for identical bytes; ``orientation`` says
    how ``key`` is turned as against ``other_key``.
    """

    kind: str
    set: str
    key: str
    other_set: str = ''
    other_key: str = ''
    similarity: float | None = None
    orientation: str = ''
    detail: str = ''


COLUMNS = ('kind', 'set', 'key', 'other_set', 'other_key', 'similarity', 'orientation', 'detail')


@dataclass
class Targets:
    """The targets of a set: the keys of equal files, and which files the search for near duplicates was given."""

    name: str
    groups: dict[bytes, list[str]] = field(default_factory=dict)  # by the file's digest, in the order of the set
    searched: list[bytes] = field(default_factory=list)  # the digest of each thumbnail
    files: dict[str, str] = field(default_factory=dict)  # the key of the clean image of each pair that has another


@dataclass(frozen=True)
class Picture:
    """A suspicious pair: what is said about it, and its images ``(H, W, 3)`` uint8 BGR with a label each."""

    title: str
    images: Sequence[tuple[str, np.ndarray]]


def duplicate_findings(targets: Targets, matches: Iterable[Match]) -> list[Finding]:
    """Return a finding for each member of a group of copies within a set, beside the first of the group.

    Args:
        targets: of the set.
        matches: see ``near_duplicates.group_copies``.
    """
    near = {targets.searched[match.query]: match for match in matches}
    findings = []
    for digest, members in targets.groups.items():
        match = near.get(digest)
        keys = list({targets.files.get(key, key): key for key in reversed(members)}.values())[::-1]  # one of each file
        first = keys[0] if match is None else targets.groups[targets.searched[match.reference]][0]
        place = targets.name, first, *_likeness(match)
        findings += [Finding(DUPLICATE, targets.name, key, *place) for key in keys if key != first]
    return findings


def leak_findings(training: Targets, test: Targets, matches: Iterable[Match]) -> list[Finding]:
    """Return a finding for each training key whose target copies a test target, beside the most similar one.

    Args:
        training: targets of the training set.
        test: targets of the test set.
        matches: of training thumbnails with test thumbnails, see ``near_duplicates.find_copies``.
    """
    near = {training.searched[match.query]: match for match in matches}
    findings = []
    for digest, keys in training.groups.items():
        match = None if digest in test.groups else near.get(digest)
        if match is not None or digest in test.groups:
            found = digest if match is None else test.searched[match.reference]
            place = test.name, test.groups[found][0], *_likeness(match)
            findings += [Finding(LEAK, training.name, key, *place) for key in keys]
    return findings


def _likeness(match: Match | None) -> tuple[float, str, str]:
    """Return similarity, orientation and detail of a match; without a match the files are equal."""
    if match is None:
        return 1.0, ORIENTATIONS[0], 'identical bytes'
    return match.similarity, ORIENTATIONS[match.orientation], 'near duplicate'


def write_findings(path: str | Path, findings: Iterable[Finding]) -> None:
    """Write all findings as CSV, whole or not at all."""
    rows = []
    for finding in findings:
        similarity = '' if finding.similarity is None else f'{finding.similarity:.3f}'
        rows.append({**asdict(finding), 'similarity': similarity})
    write_csv(path, rows, COLUMNS)


def write_excluded_keys(path: str | Path, findings: Iterable[Finding], training_set: str) -> int:
    """Write a training set's keys to leave out: those whose target is in a test set, and those of unequal sizes.

    One key a line, each once, under a comment line ``# why`` for all keys of the same reasons, in natural order; see
    ``key_lists.read_keys``.

    Args:
        path: text file, UTF-8.
        findings: of all sets.
        training_set: its name.

    Returns:
        The number of keys.
    """
    leaks: dict[str, list[str]] = {}  # the test sets by key
    unequal = set()
    for finding in (f for f in findings if f.set == training_set):
        if finding.kind == LEAK and finding.other_set not in leaks.setdefault(finding.key, []):
            leaks[finding.key].append(finding.other_set)
        elif finding.kind == pair_faults.UNEQUAL_SIZES:
            unequal.add(finding.key)
    groups: dict[str, list[str]] = {}
    keys = sorted(leaks.keys() | unequal, key=lambda key: (natural_key(key), key))
    for key in keys:
        reasons = [f'near duplicates of {", ".join(leaks[key])}'] if key in leaks else []
        reasons += [pair_faults.UNEQUAL_SIZES] if key in unequal else []
        groups.setdefault('; '.join(reasons), []).append(key)
    lines = [line for comment, members in groups.items() for line in (f'{COMMENT} {comment}', *members)]
    write_text(path, ''.join(f'{line}\n' for line in lines))
    return len(keys)


def choose_pictures(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Choose the findings to show: at most ``PICTURES_OF_A_KIND`` of a kind, the doubtful ones first.

    Of a group of duplicates, and of the training images that are one test image, the least similar stands for all.

    Returns:
        By kind, for kinds of which there is something to see.
    """
    shown: dict[str, dict[tuple[str, ...], Finding]] = {}
    for finding in sorted(findings, key=lambda f: 1.0 if f.similarity is None else f.similarity):
        if finding.kind not in (NO_PARTNER, BROKEN, SWAPPED):
            group = (finding.set, finding.other_set, finding.other_key or finding.key)
            shown.setdefault(finding.kind, {}).setdefault(group, finding)
    return {kind: list(groups.values())[:PICTURES_OF_A_KIND] for kind, groups in shown.items()}


def report_page(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    findings: Sequence[Finding],
    pictures: Mapping[str, Sequence[Picture]],
) -> str:
    """Return the report as one page of HTML that needs no other file.

    Args:
        header: of the summary table.
        rows: of the summary table, one for each set.
        findings: all of them, to count those without a picture.
        pictures: by kind.
    """
    parts = ['<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Audit of image pairs</title>']
    parts.append(f'<style>{STYLE}</style></head><body><h1>Audit of image pairs</h1>')
    table = [''.join(f'<th>{_escaped(cell)}</th>' for cell in header)]
    table += [''.join(f'<td>{_escaped(cell)}</td>' for cell in row) for row in rows]
    parts.append('<table>' + ''.join(f'<tr>{cells}</tr>' for cells in table) + '</table>')
    for finding in findings:
        if finding.kind == SWAPPED:
            parts.append(f'<p class="swapped">{_escaped(finding.set)}: {_escaped(finding.detail)}</p>')
    for kind, meaning in KINDS.items():
        count = sum(finding.kind == kind for finding in findings)
        if not count:
            continue
        parts.append(f'<h2>{_escaped(kind)}: {count}</h2><p>{_escaped(meaning[0].upper() + meaning[1:])}.</p>')
        shown = pictures.get(kind, ())
        parts += [_pair(picture) for picture in shown]
        if count > len(shown):
            more = 'more stand' if shown else 'stand without a picture'
            parts.append(f'<p>{count - len(shown)} {more} in audit.csv.</p>')
    if not findings:
        parts.append('<p>Nothing was found.</p>')
    return '\n'.join([*parts, '</body></html>', ''])


def _pair(picture: Picture) -> str:
    figures = ''.join(
        f'<figure><img alt="" src="data:image/jpeg;base64,{_small_jpeg(image)}">'
        f'<figcaption>{_escaped(label)}</figcaption></figure>'
        for label, image in picture.images
    )
    return f'<div class="pair"><div>{_escaped(picture.title)}</div>{figures}</div>'


def _small_jpeg(image: np.ndarray) -> str:
    """Return base64 of the image, shrunk to the page's height and width for a picture."""
    scale = min(PICTURE_HEIGHT / image.shape[0], PICTURE_WIDEST / image.shape[1], 1)
    height, width = (max(1, round(size * scale)) for size in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return base64.b64encode(encode_image(small, '.jpg')).decode('ascii')


def _escaped(text: object) -> str:
    return html.escape(str(text))
