"""Published sets beside Rain13K and its kin, as their authors ship them: where they lie, and how their names pair.

Where a layout is known from, ``source`` says. Folder names are compared in lower case, with _ for a blank.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ddsa_arch.files.matching import Pairs
from ddsa_arch.files.name_rules import AUTO, COMMON, MANY_TO_ONE, STEM
from ddsa_arch.files.one_folder import pair_halves
from ddsa_arch.files.pair_sources import find_pairs
from ddsa_arch.sets.benchmarks import Benchmark

ONE_FOLDER, HALVES, LIST = 'one folder', 'halves', 'list'  # what the sides are, where they are no two folders


@dataclass(frozen=True)
class Published:
    """A published set in its own layout.

    Attributes:
        name: of the set, and of its folder under ``datasets/``.
        under: the last names of its folder's path.
        sides: the rainy and the clean side below the folder, as folders or patterns with a prefix of the keys; of
            several, all are the set. Or one of the words above.
        source: from where the layout is known.
        match: the rule for names.
        pairs: how many it has; 0 if that is not known to us.
        strays: stems that were shipped by mistake.
        list_name: the file, if the sides are a list.
    """

    name: str
    under: tuple[str, ...]
    sides: tuple[tuple[str, str, str], ...] | str
    source: str
    match: str = AUTO
    pairs: int = 0
    strays: tuple[str, ...] = ()
    list_name: str = ''

    @property
    def benchmark(self) -> Benchmark:
        """Return it as an entry of the table of sets."""
        return Benchmark(self.name, self.pairs, ())

    def lies_in(self, folder: Path) -> bool:
        """Return whether the set lies in a folder."""
        names = tuple(_plain(part) for part in folder.resolve().parts)
        if names[len(names) - len(self.under) :] != self.under:
            return False
        if self.sides == LIST:
            return (folder / self.list_name).is_file()
        if isinstance(self.sides, str):
            return True
        return all(
            _below(folder, side) is not None for sides in self.sides for side in sides[:2] if _fixed(side)
        )  # fmt: skip

    def find(self, folder: Path) -> Pairs:
        """Find its pairs in a folder.

        Raises:
            InputError: its files are not as they should be.
        """
        if self.sides == HALVES:
            return pair_halves(folder)
        if self.sides == LIST:
            return find_pairs(folder, None, pairs_file=folder / self.list_name)
        if isinstance(self.sides, str):
            return find_pairs(folder, None, self.match, strays=self.strays)
        found = Pairs()
        for rainy, clean, prefix in self.sides:
            places = (_place(folder, rainy), _place(folder, clean))
            part = find_pairs(*places, self.match, strays=self.strays)
            for key, file in part.inputs.items():
                target = part.target_of(key)
                found.add(f'{prefix}{key}', f'{prefix}{target}', file, part.targets[target])
            found.told, found.rule = part.told, part.rule
            found.problems += part.problems
            found.passed_over += part.passed_over
        return found


def _plain(name: str) -> str:
    return name.lower().replace(' ', '_')


def _fixed(side: str) -> str:
    """Return the folders of a side before its pattern."""
    parts = side.split('/')
    stars = [i for i, part in enumerate(parts) if '*' in part]
    return '/'.join(parts[: stars[0]] if stars else parts)


def _below(folder: Path, side: str) -> Path | None:
    """Return the folder of a side, whatever the case of its letters."""
    for wanted in _fixed(side).split('/'):
        there = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and _plain(entry.name) == wanted.lower()]
        if not there:
            return None
        folder = there[0]
    return folder


def _place(folder: Path, side: str) -> str:
    fixed = _fixed(side)
    rest = side[len(fixed) :].lstrip('/')
    start = (_below(folder, side) if fixed else None) or folder
    return os.path.join(start, rest) if rest else str(start)


def _rain_ds() -> Iterator[Published]:
    syn_source = 'data loaders for RainDS (CVPR 2021), by which files are norain-1, rain-1, rd-1, rd-rain-1, pie-...'
    marks = {'rainstreak': 'rain-', 'raindrop': 'rd-', 'rainstreak_raindrop': 'rd-rain-'}
    for part in ('train', 'test'):
        for kind, mark in marks.items():
            real = Published(
                f'RainDS_real_{part}_{kind}', ('rainds_real', f'{part}_set'), ((kind, 'gt', ''),), syn_source, STEM,
                strays=('IMG_7435',),
            )  # fmt: skip
            sides = ((f'{kind}/{mark}*', 'gt/norain-*', ''), (f'{kind}/pie-{mark}*', 'gt/pie-norain-*', 'pie-'))
            yield real
            for folder in (part, f'{part}_set'):
                yield Published(f'RainDS_syn_{part}_{kind}', ('rainds_syn', folder), sides, syn_source)


def _others() -> Iterator[Published]:
    for density in ('L', 'H'):
        for part in ('train', 'val', 'test'):
            yield Published(
                f'RealRain-1k-{density}_{part}', (f'realrain-1k-{density.lower()}', part), (('input', 'target', ''),),
                'data loaders for RealRain-1k (2206.05514)', STEM,
            )  # fmt: skip
    for part in ('train', 'val', 'test'):
        yield Published(
            f'GT-RAIN_{part}', (f'gt-rain_{part}',), (('**/*-R-*.png', '**/*-C-*.png', ''),),
            'UCLA-VMG/GT-RAIN, testing_deraining_code.ipynb', MANY_TO_ONE,
        )  # fmt: skip
    spa = 'stevewongv/SPANet, Train_Dataset_README.md, Test_Datset_README.md and dataset.py'
    yield Published('SPA-Data_train', (), LIST, spa, list_name='real_world.txt')
    yield Published('SPA-Data_test', (), LIST, spa, pairs=1000, list_name='real_test_1000.txt')
    ddn = 'csdwren/PReNet, DerainDataset.py, and users of rainy_image_dataset (CVPR 2017)'
    rain1400 = (('rainy_image', 'ground_truth', ''),)
    yield Published('Rain12600', ('rainy_image_dataset', 'training'), rain1400, ddn, MANY_TO_ONE, 12600)
    yield Published('Rain12600', ('rain12600', 'train'), rain1400, ddn, MANY_TO_ONE, 12600)
    yield Published('Rain1400', ('rainy_image_dataset', 'testing'), rain1400, ddn, MANY_TO_ONE, 1400)
    for density in ('Heavy', 'Medium', 'Light'):
        yield Published(
            f'Rain1200_train_{density}', (f'rain_{density.lower()}', 'train2018new'), HALVES,
            'hezhangsprinter/DID-MDN, README.md, and its training script', pairs=4000,
        )  # fmt: skip
    for part in ('train', 'test'):
        for density in ('Light', 'Heavy'):
            for rainy in ('rain/X2', 'rain'):
                yield Published(
                    f'rain_data_{part}_{density}', (f'rain_data_{part}_{density.lower()}',), ((rainy, 'norain', ''),),
                    'users of the archives rain_data_*.gz of the joint rain removal page (CVPR 2017)',
                )  # fmt: skip
    for name in ('Rain100H', 'Rain100L'):
        yield Published(
            name, (name.lower(),), (('rainy/rain-*', 'norain-*', ''),), 'csdwren/PReNet, test scripts, and its users',
            pairs=100,
        )  # fmt: skip
    for name in ('RainTrainH', 'RainTrainL'):
        yield Published(name, (name.lower(),), ONE_FOLDER, 'csdwren/PReNet, DerainDataset.py', COMMON)


PUBLISHED = (*_rain_ds(), *_others())


def published_in(folder: Path) -> list[Published]:
    """Return the sets that lie in a folder, each name once."""
    found: dict[str, Published] = {}
    for published in PUBLISHED:
        if published.name not in found and published.lies_in(folder):
            found[published.name] = published
    return list(found.values())


def names(published: Iterable[Published] = PUBLISHED) -> list[str]:
    """Return the names of published sets, each once."""
    return list(dict.fromkeys(each.name for each in published))
