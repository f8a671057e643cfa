"""``ddsa data audit``: search sets of image pairs for test images in the training data, duplicates and faults."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ddsa_arch.data.image_source import ImageSource
from ddsa_arch.data.pair_opening import open_set
from ddsa_arch.errors import InputError
from ddsa_arch.files import lmdb_store
from ddsa_arch.files.atomic import write_text
from ddsa_arch.files.images import decode_image, natural_key, some
from ddsa_arch.files.key_lists import COMMENT
from ddsa_arch.files.matching import SIDES
from ddsa_arch.files.name_rules import AUTO
from ddsa_arch.sets import audit_report, pair_faults
from ddsa_arch.sets.audit_report import KINDS, Finding, Picture, Targets, duplicate_findings, leak_findings
from ddsa_arch.sets.near_duplicates import THUMBNAIL, find_copies, group_copies, is_flat, thumbnail

TRAIN, TEST = 'train', 'test'
DIGEST_BYTES = 16  # of BLAKE2b; enough that no two different images meet
HEADER = ('set', 'for', 'images', *KINDS)


@dataclass
class Looked:
    """The results of reading one pair."""

    key: str
    digest: bytes | None = None  # of the target's file; None where it cannot be decoded
    thumbnail: np.ndarray | None = None  # (64, 64) uint8 of the target; None likewise, and for a flat target
    faults: list[tuple[str, str]] = field(default_factory=list)  # kind and detail
    compared: bool = False  # whether both sides were there and of one size


@dataclass
class PairSet:
    """A set under audit."""

    name: str
    role: str
    sources: dict[str, ImageSource]
    targets: Targets
    partner: dict[str, str]  # the key of the clean image of each rainy one
    looked: list[Looked] = field(default_factory=list)
    # (N, 64, 64) uint8 of ``targets.searched``: of equal files the first alone
    thumbnails: np.ndarray = field(default_factory=lambda: np.empty((0, THUMBNAIL, THUMBNAIL), np.uint8))

    def target_of(self, key: str) -> str:
        """Return the key of the clean image of a pair."""
        return self.partner.get(key, key)

    def key_of(self, side: str, key: str) -> str:
        """Return the key of a pair's image on one side."""
        return self.target_of(key) if side == 'target' else key


@dataclass(frozen=True)
class AuditSummary:
    """The findings of an audit, and where they are written."""

    rows: list[tuple[object, ...]]  # one for each set, see ``HEADER``
    findings: list[Finding]
    table: Path
    page: Path
    excluded: dict[Path, int]  # the list of each training set, and how many keys it holds


def audit(
    train: Sequence[str | Path],
    tests: Sequence[str | Path],
    out: str | Path,
    progress: bool = False,
    match: str = AUTO,
) -> AuditSummary:
    """Search sets for test images among the training images, for duplicates within each set, and for faulty pairs.

    Args:
        train: sets; each is a folder with ``input.lmdb`` and ``target.lmdb``, with folders ``input`` and ``target`` (or
            others of known names), or one that holds both sides.
        tests: likewise.
        out: gets ``audit.csv``, ``report.html`` and ``exclude_keys.txt``; with several training sets
            ``exclude_keys_1.txt`` and so on, in their order. Made if it is missing.
        progress: show bars.
        match: the rule by which rainy and clean images of each set are paired, see ``files.name_rules``.

    Returns:
        The findings. A broken image or one without a partner is among them, and no error.

    Raises:
        InputError: no set, a path that is none, a set given twice, or a folder ``out`` that cannot be written.
    """
    if not train and not tests:
        raise InputError('no set to audit; give --train SET, --test SET or both')
    bar = partial(tqdm, disable=None if progress else True)
    sets = _open_sets(train, tests, match)
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'--out {out}: no folder can be made there ({error.strerror}); give another') from error
    findings = []
    for pair_set in sets:
        _look(pair_set, bar)
        findings += _faults(pair_set)
    for pair_set in sets:
        matches = group_copies(pair_set.thumbnails, partial(bar, desc=f'{pair_set.name}, duplicates'))
        findings += duplicate_findings(pair_set.targets, matches)
    for training in (s for s in sets if s.role == TRAIN):
        for test in (s for s in sets if s.role == TEST):
            search = partial(bar, desc=f'{training.name} and {test.name}')
            matches = find_copies(training.thumbnails, test.thumbnails, search)
            findings += leak_findings(training.targets, test.targets, matches)
    findings.sort(key=lambda f: list(KINDS).index(f.kind) if f.kind in KINDS else -1)
    return _write(out, sets, findings)


# --- sets --------------------------------------------------------------------------------------------------


def _open_sets(train: Sequence[str | Path], tests: Sequence[str | Path], match: str) -> list[PairSet]:
    """Open the sets and name them by their folders; by the whole path where two folders have one name."""
    given = [(Path(path), TRAIN) for path in train] + [(Path(path), TEST) for path in tests]
    twice = [str(path) for path, count in Counter(path.resolve() for path, _ in given).items() if count > 1]
    if twice:
        raise InputError(f'{some(twice)}: given twice; name each set once, with --train or with --test')
    names = Counter(path.resolve().name for path, _ in given)
    sets = []
    for path, role in given:
        opened = open_set(path, f'--{role}', match)
        sources = dict(zip(SIDES, (opened.inputs, opened.targets), strict=True))
        for source in sources.values():
            if source.is_store:
                lmdb_store.stored_keys(source.root)  # without its database it is wrong input, not thousands of findings
        partner = opened.loose_partner()
        name = path.resolve().name if names[path.resolve().name] == 1 else str(path)
        pair_set = PairSet(name, role, sources, Targets(name), partner)
        unwritable = [repr(key) for key in _keys(pair_set) if not _can_be_listed(key)]
        if unwritable:
            raise InputError(
                f'--{role} {path}: {len(unwritable)} names cannot stand in a list of keys: {some(unwritable)}; '
                f'rename the images (one line of UTF-8, no {COMMENT} in front, no space around it)'
            )
        sets.append(pair_set)
    return sets


def _can_be_listed(key: str) -> bool:
    is_text = key.encode('utf-8', 'ignore').decode('utf-8') == key
    return is_text and key.strip() == key and not key.startswith(COMMENT) and len(key.splitlines()) == 1


def _keys(pair_set: PairSet) -> list[str]:
    """Return the keys of all pairs in natural order, and of images of either side that are of no pair."""
    rainy, clean = (pair_set.sources[side].found for side in SIDES)
    used = set(pair_set.partner.values())
    keys = {*rainy, *(key for key in clean if key not in used)}
    return sorted(keys, key=lambda key: (natural_key(key), key))


# --- one reading of every image ----------------------------------------------------------------------------


def _look(pair_set: PairSet, bar: Callable[..., Iterable]) -> None:
    """Read every image once, on all cores."""
    keys = _keys(pair_set)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        looks = pool.map(partial(_look_at_pair, pair_set), keys)
        pair_set.looked = list(bar(looks, total=len(keys), unit='pair', desc=pair_set.name))
    thumbnails = []
    for looked in pair_set.looked:
        if looked.digest is None:
            continue
        if looked.digest not in pair_set.targets.groups and looked.thumbnail is not None:
            pair_set.targets.searched.append(looked.digest)
            thumbnails.append(looked.thumbnail)
        pair_set.targets.groups.setdefault(looked.digest, []).append(looked.key)
        pair_set.targets.files[looked.key] = pair_set.target_of(looked.key)
    if thumbnails:
        pair_set.thumbnails = np.stack(thumbnails)


def _look_at_pair(pair_set: PairSet, key: str) -> Looked:
    sources = pair_set.sources
    looked = Looked(key)
    images, grays = {}, {}
    for side, source in sources.items():
        own = pair_set.key_of(side, key)
        if own not in source.found:
            other = next(name for name in SIDES if name != side)
            looked.faults.append((audit_report.NO_PARTNER, f'in {sources[other].root}, not in {source.root}'))
            continue
        try:
            data, images[side] = _read(source, own)
        except InputError as error:
            looked.faults.append((audit_report.BROKEN, str(error)))
            continue
        grays[side] = pair_faults.gray(images[side])
        if side == 'target':
            looked.digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
            looked.thumbnail = thumbnail(grays[side])
            if is_flat(looked.thumbnail):
                looked.thumbnail = None
                looked.faults.append((audit_report.FLAT, 'compared by its bytes alone'))
    if len(images) == len(SIDES):
        fault = pair_faults.pair_fault(*(images[side] for side in SIDES), *(grays[side] for side in SIDES))
        looked.compared = fault is None or fault[0] != pair_faults.UNEQUAL_SIZES
        looked.faults += [fault] if fault else []
    return looked


def _read(source: ImageSource, key: str) -> tuple[bytes, np.ndarray]:
    if source.is_store:
        data = lmdb_store.read_value(source.root, key)
        return data, decode_image(data, f'{source.root}, {key}')
    file = source.found[key]
    try:
        data = source.content(key)
    except OSError as error:
        raise InputError(f'{file}: cannot be read ({error.strerror})') from error
    return data, decode_image(data, str(file))


# --- findings ----------------------------------------------------------------------------------------------


def _faults(pair_set: PairSet) -> list[Finding]:
    findings = [
        Finding(kind, pair_set.name, looked.key, detail=detail)
        for looked in pair_set.looked
        for kind, detail in looked.faults
    ]
    darker = sum(finding.kind == pair_faults.DARKER for finding in findings)
    question = pair_faults.swapped_sides(darker, sum(looked.compared for looked in pair_set.looked))
    return findings + ([Finding(audit_report.SWAPPED, pair_set.name, '', detail=question)] if question else [])


# --- files -------------------------------------------------------------------------------------------------


def _write(out: Path, sets: Sequence[PairSet], findings: list[Finding]) -> AuditSummary:
    counts = Counter((finding.set, finding.kind) for finding in findings)
    counts.update((finding.other_set, finding.kind) for finding in findings if finding.kind == audit_report.LEAK)
    rows = [(s.name, s.role, len(s.looked), *(counts[s.name, kind] for kind in KINDS)) for s in sets]
    by_name = {pair_set.name: pair_set for pair_set in sets}
    pictures = {
        kind: [_picture(by_name, finding) for finding in chosen]
        for kind, chosen in audit_report.choose_pictures(findings).items()
    }
    table, page = out / 'audit.csv', out / 'report.html'
    training = [pair_set.name for pair_set in sets if pair_set.role == TRAIN]
    excluded = {}
    try:
        audit_report.write_findings(table, findings)
        write_text(page, audit_report.report_page(HEADER, rows, findings, pictures))
        for i, name in enumerate(training, 1):
            path = out / ('exclude_keys.txt' if len(training) == 1 else f'exclude_keys_{i}.txt')
            excluded[path] = audit_report.write_excluded_keys(path, findings, name)
    except OSError as error:
        raise InputError(f'--out {out}: cannot be written ({error.strerror}); mend that or give another') from error
    return AuditSummary(rows, findings, table, page, excluded)


def _picture(sets: dict[str, PairSet], finding: Finding) -> Picture:
    """Return the two targets that are alike, or the two sides of the pair, as a picture."""
    if finding.other_key:
        places = [(finding.set, 'target', finding.key), (finding.other_set, 'target', finding.other_key)]
        title = f'{finding.detail}, similarity {finding.similarity:.2f}, {finding.orientation}'
    else:
        places = [(finding.set, side, finding.key) for side in SIDES]
        title = finding.detail
    images = []
    for name, side, key in places:
        source = sets[name].sources[side]
        own = sets[name].key_of(side, key)
        try:
            images.append((f'{name}, {side}, {own}', source.read(own)))
        except (InputError, KeyError):
            continue  # a flat target whose input is broken or missing, which is a finding of its own
    return Picture(title, images)
