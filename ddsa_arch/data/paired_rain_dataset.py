"""Pairs of a rainy and a clean image, from LMDB stores or folders."""

from __future__ import annotations

import os
from typing import Any

from basicsr.utils.registry import DATASET_REGISTRY

from ddsa_arch.data.image_source import to_tensor
from ddsa_arch.data.pair_opening import PairedSources, open_options
from ddsa_arch.data.seeded_patches import SeededPatches
from ddsa_arch.errors import InputError
from ddsa_arch.files import images
from ddsa_arch.files.name_rules import AUTO, STEM
from ddsa_arch.registration import register

COMPARED = 32  # pairs whose two files are compared before a run


@register(DATASET_REGISTRY)
class PairedRainDataset(SeededPatches):
    """Rainy and clean images paired by their names; an item is ``{lq, gt, lq_path, gt_path}``.

    ``lq`` and ``gt`` are float32 ``(3, H, W)``, RGB, [0, 1]; ``lq_path`` and ``gt_path`` the files or LMDB keys.
    In training, a random window of ``gt_size`` (extended by reflection where the image is smaller) and random
    flips or turns, the same for both; elsewhere the whole image.

    What is drawn for a sample depends on the seed and on the sample's place in the run (see KeyedSampler), never on
    the worker that loads it. A plain index, as BasicSR's own sampler gives it, draws from Python's global generator,
    which BasicSR seeds for each worker.

    Options:
        dataroot_lq: rainy images: a folder (suffixes may differ between the sides), an ``X.lmdb``, or a pattern of
            paths with ``*``.
        dataroot_gt: clean images, likewise; the same folder where it holds both sides. May be absent outside training:
            items then hold no ``gt``.
        match: which clean image belongs to which rainy one, see ``files.name_rules``.
        pairs_file: a list of pairs, two paths a line, which begin at ``dataroot_lq``, else at the list.
        gt_size: side of a training patch in pixels.
        augment: how patches are flipped and turned in training, see ``ops.patches.augment``.
        use_hflip: random horizontal flips in training, with ``augment: flips``.
        use_vflip: random vertical flips in training, likewise.
        cache_images: keep decoded images in memory, for sets that fit; each loading process keeps its own.
        exclude_keys: a text file of images to leave out, one stem a line; what is wrong with them does not count.
        seed: of the augmentation; the option loader sets it to ``manual_seed``.
        phase: ``train``, ``val`` or ``test``; BasicSR sets it.

    Raises:
        InputError: missing folder or LMDB, an image without partner, unequal sizes, a list of other images; at access
            a broken image.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        self.sides: PairedSources | None = None
        if opt.get('dataroot_gt') or opt.get('pairs_file') or self.train:
            self.sides = sides = open_options(opt, self.role)
            self.inputs = sides.inputs
            sides.pair(lambda: self.leave_out([sides.inputs, sides.targets]))
            _check_sizes(sides)
            self.warnings += _check_unequal(sides)
            if sides.rule != STEM and (opt.get('match') or AUTO) == AUTO:
                self.warnings.append(f'{sides.inputs.root}: matched by: {sides.rule}, {sides.told}')
        else:
            self.inputs = self.source('dataroot_lq')
            self.leave_out([self.inputs])
        self.stems = list(self.inputs.found)

    def item(self, place: int, index: int) -> dict[str, Any]:
        stem = self.stems[index]
        sides = {'lq': (self.inputs, stem)}
        if self.sides:
            sides['gt'] = self.sides.targets, self.sides.target_of(stem)
        pictures = [side.read(key) for side, key in sides.values()]
        if len({picture.shape for picture in pictures}) > 1:
            raise InputError(f'{stem}: input and target have unequal sizes; replace or remove this pair')
        if self.train:
            pictures = self.patches(pictures, self.rng(place))
        item = {name: to_tensor(picture) for name, picture in zip(sides, pictures, strict=True)}
        return item | {f'{name}_path': side.path(key) for name, (side, key) in sides.items()}


def _check_sizes(sides: PairedSources) -> None:
    inputs, targets = sides.inputs, sides.targets
    clean = {key: targets.size(key) for key in targets.found}
    unequal = [
        f'{stem} ({size[1]} x {size[0]} and {other[1]} x {other[0]})'
        for stem in inputs.found
        if (size := inputs.size(stem)) != (other := clean[sides.target_of(stem)])
    ]
    if unequal:
        raise InputError(
            f'{len(unequal)} pairs of {inputs.root} and {targets.root} have unequal sizes: '
            f'{images.some(unequal)}; replace or remove these pairs'
        )


def _check_unequal(sides: PairedSources) -> list[str]:
    """Look for targets that are their inputs, in some pairs from the first to the last; return what looks wrong."""
    inputs, targets = sides.inputs, sides.targets
    if inputs.is_store and os.path.realpath(inputs.root) == os.path.realpath(targets.root):
        raise InputError(f'dataroot_lq and dataroot_gt are both {inputs.root}; name the clean images as dataroot_gt')
    stems = list(inputs.found)
    looked_at = stems[:: max(1, len(stems) // COMPARED)]
    equal = [stem for stem in looked_at if inputs.content(stem) == targets.content(sides.target_of(stem))]
    told = (
        f'{inputs.root} and {targets.root}: input and target are one file in {len(equal)} of {len(looked_at)} pairs '
        f'looked at: {images.some(equal)}'
    )
    if equal and len(equal) == len(looked_at):
        raise InputError(f'{told}; name the clean images as dataroot_gt')
    return [f'{told}; they teach a network to leave images alone'] if equal else []
