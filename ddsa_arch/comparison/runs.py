"""The runs that are compared: folders that tests have written, folders of images, and the targets of both."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ddsa_arch.data.image_source import ImageSource
from ddsa_arch.data.pair_opening import PairedSources
from ddsa_arch.errors import InputError, did_you_mean
from ddsa_arch.files.images import IMAGE_SUFFIXES, natural_key, some
from ddsa_arch.files.lmdb_store import is_store
from ddsa_arch.files.name_rules import AUTO, match_names
from ddsa_arch.files.pair_sources import is_pattern
from ddsa_arch.options.reading import read_options

RAINY = 'Rainy'  # the inputs, as a method of their own
ONLY_SET = 'images'  # of image folders without a name of a set


@dataclass
class Method:
    """One column of a comparison.

    Args:
        name: for people.
        path: the folder that was named.
        images: for each set, each stem's picture.
        suffix: what file names have after the stem.
        stored: the scores that the test wrote, by set, image and metric.
        protocol: of these scores; None for folders of images.
        options: of the run.
        repeats: more runs of the method, such as trainings with other seeds.
    """

    name: str
    path: Path
    images: dict[str, ImageSource] = field(default_factory=dict)
    suffix: str = ''
    stored: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    protocol: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    repeats: list[Method] = field(default_factory=list)

    @property
    def runs(self) -> list[Method]:
        """Return this run and its repeats."""
        return [self, *self.repeats]

    @property
    def sets(self) -> list[str]:
        """Return the sets of which one of the runs has images or scores."""
        return list(dict.fromkeys(name for run in self.runs for name in (*run.stored, *run.images)))

    @property
    def scores(self) -> set[str]:
        """Return the scores of the test's rows, which have other columns too."""
        return {column for of_set in self.stored.values() for row in of_set.values() for column in row}

    def stems(self, set_name: str) -> set[str]:
        """Return the names of the images of a set that all runs have, without the suffix."""
        return set.intersection(*(run._own_stems(set_name) for run in self.runs))

    def _own_stems(self, set_name: str) -> set[str]:
        if set_name in self.images:
            return {stem.removesuffix(self.suffix) for stem in self.images[set_name].found}
        return set(self.stored.get(set_name, ()))

    def read(self, set_name: str, stem: str) -> np.ndarray:
        """Read an image as ``(H, W, 3)`` uint8 BGR."""
        return self.images[set_name].read(stem + self.suffix)

    def where(self, set_name: str, stem: str) -> str:
        """Return the file of an image, for messages."""
        return self.images[set_name].path(stem + self.suffix)


@dataclass(frozen=True)
class ComparedSet:
    """A set of images that methods are compared on.

    Args:
        name: of the set.
        methods: that have it, by name.
        targets: the clean images; None where there are none.
        stems: the images, in natural order.
        left_out: images that not all methods have.
    """

    name: str
    methods: Mapping[str, Method]
    targets: ImageSource | None
    stems: Sequence[str]
    left_out: Sequence[str] = ()


def read_methods(runs: Iterable[str]) -> list[Method]:
    """Read the methods from ``[NAME=]FOLDER`` arguments; those of one NAME are runs of one method.

    Raises:
        InputError: a folder that is missing or holds neither results nor images; one that is named twice; two of one
            name that nobody gave them; runs of one name with different networks.
    """
    methods: dict[str, Method] = {}
    folders = set()
    for run in runs:
        method, is_named = _read_method(run)
        if method.path.resolve() in folders:
            raise InputError('the same folder is named twice')
        folders.add(method.path.resolve())
        first = methods.setdefault(method.name, method)
        if first is method:
            continue
        if not is_named:
            raise InputError(f'two runs are called {method.name!r}; name them: A=FOLDER B=FOLDER')
        if _network(first) != _network(method):
            raise InputError(
                f'{first.path} and {method.path} are both called {method.name!r}, and their networks differ; '
                'one name is for runs of one method, such as several seeds'
            )
        first.repeats.append(method)
    return list(methods.values())


def _network(method: Method) -> Any:
    return (method.protocol or {}).get('network')


def _read_method(run: str) -> tuple[Method, bool]:
    """Read a run, and tell whether a name was given to it."""
    name, sign, folder = run.partition('=')
    if not sign or Path(run).is_dir():
        name, folder = '', run
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise InputError(f'{folder}: no such folder; name a folder that `ddsa test` wrote, or one of images')
    method = Method(name or path.resolve().name, path)
    if (path / 'results.json').is_file():
        return _read_results(method), bool(name)
    if is_store(path) or _has_images(path):
        method.images[ONLY_SET] = ImageSource(str(path), method.name)
    else:
        for entry in sorted(path.iterdir(), key=lambda entry: natural_key(entry.name)):
            if entry.is_dir() and (is_store(entry) or _has_images(entry)):
                method.images[entry.name] = ImageSource(str(entry), method.name)
    if not method.images:
        raise InputError(f'{path}: neither results.json nor images there, nor in its folders; name results/NAME')
    return method, bool(name)


def _read_results(method: Method) -> Method:
    try:
        results = json.loads((method.path / 'results.json').read_text(encoding='utf-8'))
        method.protocol = results.get('protocol')
        method.stored = {
            name: {row['image']: row for row in record['images']} for name, record in results['sets'].items()
        }
        options = method.path / 'options.yml'
        method.options = read_options(options) if options.is_file() else {}
    except (ValueError, KeyError, TypeError, AttributeError, InputError) as error:
        raise InputError(f'{method.path}: results.json or options.yml is damaged ({error}); test again') from error
    suffix = (method.options.get('val') or {}).get('suffix')
    method.suffix = f'_{suffix}' if suffix else ''
    for name in method.stored:
        pictures = method.path / 'visualization' / name
        if pictures.is_dir() and _has_images(pictures):
            method.images[name] = ImageSource(str(pictures), method.name)
    return method


def _has_images(folder: Path) -> bool:
    return any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in folder.iterdir() if entry.is_file())


def find_sources(
    given: Sequence[str], methods: Sequence[Method], key: str, flag: str, sets: Sequence[str]
) -> dict[str, ImageSource]:
    """Find the targets or inputs of each set: those given, else those that the methods were tested with.

    Args:
        given: ``[SET=]FOLDER`` arguments.
        methods: to be compared.
        key: ``dataroot_gt`` or ``dataroot_lq``.
        flag: whose arguments ``given`` are, for messages.
        sets: that are compared.

    Raises:
        InputError: a set or folder that is not there.
    """
    found: dict[str, ImageSource] = {}
    for text in given:
        name, sign, folder = text.partition('=')
        if not sign or Path(text).exists():
            name, folder = '', text
        if not name and len(sets) > 1:
            raise InputError(f'{flag} {text}: of which set? Write {flag} SET={folder}; sets: {", ".join(sets)}')
        if name and name not in sets:
            raise InputError(f'{flag} {text}: no run has a set {name!r}{did_you_mean(name, sets)}')
        found[name or sets[0]] = ImageSource(str(Path(folder).expanduser()), flag)
    for name in sets:
        if name not in found:
            source = _tested_source(methods, name, key, flag)
            if source is not None:
                found[name] = source
    return found


def name_as_images(source: ImageSource, methods: Iterable[Method], set_name: str) -> str:
    """Name targets or inputs, in place, as the images of the methods that belong to them, where none has its name.

    Where no rule of ``files.name_rules`` tells which belong to which, they stay as they are.

    Returns:
        The rule, in a sentence; '' if none was needed.
    """
    names: set[str] = set().union(*(method.stems(set_name) for method in methods if set_name in method.sets))
    if not names or names & source.found.keys():
        return ''
    ordered = sorted(names, key=natural_key)
    try:
        matched = match_names(ordered, source.found, AUTO, set_name, source.root)
    except InputError:
        return ''
    partner = matched.partner
    used = set(partner.values())
    alone = {key: found for key, found in source.found.items() if key not in used}
    source.found = {name: source.found[target] for name, target in partner.items()} | alone
    return f'{set_name}: images and {source.root} matched by: {matched.rule}, {matched.told}'


def _tested_source(methods: Sequence[Method], set_name: str, key: str, flag: str) -> ImageSource | None:
    """Return the images of one side that a tested run took; paths are relative to where it ran."""
    for method in methods:
        for dataset in (method.options.get('datasets') or {}).values():
            root = dataset.get(key)
            if dataset.get('name') != set_name or not root:
                continue
            starts = (Path(), method.path.resolve().parent.parent)  # here, and where results/NAME was made
            if any((start / root).exists() or is_pattern(start / root) for start in starts):
                return _side_of_set(dataset, starts, key, flag)
    return None


def _side_of_set(dataset: Mapping[str, Any], starts: Sequence[Path], key: str, flag: str) -> ImageSource:
    """Open one side of a set as its test has opened it; where the other side is gone, alone."""
    found: dict[str, str] = {}
    for name in ('dataroot_lq', 'dataroot_gt', 'pairs_file'):
        if dataset.get(name):
            places = [start / dataset[name] for start in starts]
            there = [place for place in places if place.exists() or (is_pattern(place) and place.parent.exists())]
            if there:
                found[name] = str(there[0])
    if not found.keys() >= {'dataroot_lq', 'dataroot_gt'}:
        return ImageSource(found[key], flag)
    sides = PairedSources(
        found['dataroot_lq'], found['dataroot_gt'], (flag, flag), dataset.get('match') or AUTO, found.get('pairs_file')
    )
    return sides.inputs if key == 'dataroot_lq' else sides.named_as_inputs()


def common_sets(methods: Sequence[Method]) -> list[str]:
    """Return all sets of all methods; a folder of images without a set's name takes that of the others.

    Raises:
        InputError: a folder of images that might belong to any of several sets.
    """
    runs = [run for method in methods for run in method.runs]
    named = list(dict.fromkeys(name for method in methods for name in method.sets if name != ONLY_SET))
    if len(named) > 1:
        loose = [run for run in runs if ONLY_SET in run.images]
        if loose:
            raise InputError(
                f'{loose[0].path}: images of which set? The other runs have {", ".join(named)}; '
                'put them into a folder of that name, and name its parent'
            )
    if len(named) == 1:
        for run in runs:
            if ONLY_SET in run.images:
                run.images[named[0]] = run.images.pop(ONLY_SET)
    return named or [ONLY_SET]


def compared_set(name: str, methods: Sequence[Method], targets: ImageSource | None, allow_missing: bool) -> ComparedSet:
    """Return the images of a set that all its methods and the targets have.

    Args:
        name: of the set.
        methods: of the comparison; those without the set are left out.
        targets: of the set, if it has any.
        allow_missing: compare on the images that all have, where some lack some.

    Raises:
        InputError: a method lacks images of the set, or has none that has a target.
    """
    having = {method.name: method for method in methods if name in method.sets}
    stems = {method: m.stems(name) for method, m in having.items()}
    wanted = set(targets.found) if targets else set.union(*stems.values())
    kept = wanted.intersection(*stems.values())
    left_out = sorted(wanted - kept, key=natural_key)
    if not kept:
        raise InputError(
            f'{name}: no image that all runs and the targets have; images match by name without suffix, such as '
            f'{some(sorted(wanted)[:3])} and {some(sorted(next(iter(stems.values())))[:3])}'
        )
    if left_out and not allow_missing:
        lacking = {method: len(wanted - of) for method, of in stems.items() if wanted - of}
        counts = ', '.join(f'{method} lacks {count}' for method, count in lacking.items())
        raise InputError(
            f'{name}: of {len(wanted)} images {counts}: {some(left_out)}; make them, '
            'or compare on the images that all have with --allow-missing'
        )
    return ComparedSet(name, having, targets, sorted(kept, key=natural_key), left_out)
