"""The gallery: pictures of several methods side by side, as one page that needs neither network nor another file.

The page is ``page/page.html`` with the style, the scripts and the data put in. What it lists stands in its
head; the pictures follow as text that no browser decodes before it is shown, so that a hundred images by ten methods
open at once.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import BinaryIO

import numpy as np

from ddsa_arch.comparison.gallery.means import Values, means_legend, means_table
from ddsa_arch.comparison.gallery.pictures import (
    ERROR_FACTOR,
    LARGEST_WEBP,
    colour_scale,
    encode_webp,
    encoded_errors,
    encoded_thumbnail,
    fit,
)
from ddsa_arch.comparison.scores import Score
from ddsa_arch.errors import InputError, did_you_mean
from ddsa_arch.files.atomic import atomic_path

PAGE = Path(__file__).with_name('page')
SCRIPTS = ('state.js', 'pictures.js', 'viewer.js', 'list.js', 'script.js')  # in this order: later ones use earlier ones


@dataclass(frozen=True)
class GalleryImage:
    """One image of a test set, as each method shows it.

    Args:
        set: such as ``'Rain100L'``.
        name: the stem.
        pictures: by method, ``(H, W, 3)`` uint8 BGR, all of one size; a method may be missing.
        scores: by method, then by score; NaN, infinite and missing ones are shown as such, and are in no mean. Those
            that the page does not list are left out.
        notes: by method, shown beside its scores, such as ``'identical to the target'``.
    """

    set: str
    name: str
    pictures: Mapping[str, np.ndarray]
    scores: Mapping[str, Mapping[str, float]]
    notes: Mapping[str, str] = field(default_factory=dict)


def write_gallery(
    path: str | Path,
    title: str,
    methods: Sequence[str],
    scores: Sequence[Score],
    images: Iterable[GalleryImage],
    *,
    target: str | None = None,
    remarks: Iterable[str] = (),
    quality: int = 90,
    max_side: int = 1280,
    scored: Mapping[str, Sequence[Values]] | None = None,
) -> int:
    """Write the page, whole or not at all; parent folders are made.

    Args:
        path: of the page, ``.html``.
        title: its heading.
        methods: names in the order shown, the rainy input first as a rule; with ``target`` among them.
        scores: in the order shown; the list sorts by any of them.
        images: consumed once, one in memory at a time.
        target: the method that is the ground truth: errors are those against it, and no mean of it is ranked.
        remarks: lines under the title, such as the protocol of the scores.
        quality: of the pictures as WebP, 1 to 100; above 100 they are lossless. Errors are taken before.
        max_side: pixels; larger pictures are shrunk, and the page says so.
        scored: the values of all images by set, each by method and score, where the page shows some of them alone;
            the means are then over these.

    Returns:
        The number of images.

    Raises:
        InputError: an unknown or doubled name, pictures of unequal size or another kind, a quality or side out of
            range, no image at all.
    """
    page = _Page(tuple(methods), tuple(scores), target, quality, max_side)
    with (
        atomic_path(path) as part,
        tempfile.TemporaryFile(dir=part.parent) as pictures,
        open(part, 'wb') as file,
        ThreadPoolExecutor() as pool,  # OpenCV encodes without Python's lock
    ):
        # the means in the page's head are known last, so the pictures wait on the disk
        for image in images:
            page.add(image, pictures, pool)
            del image  # before the next one is made
        if not page.records:
            raise InputError(f'{path}: there is no image to show; give at least one')
        head, tail = page.frame(title, tuple(remarks), scored or page.sets)
        file.write(head.encode(errors='replace'))  # a file's name may hold bytes that are no text
        pictures.seek(0)
        shutil.copyfileobj(pictures, file)
        file.write(tail.encode())
    return len(page.records)


class _Page:
    """What the page needs of each image after its pictures are written: numbers, names and thumbnails."""

    def __init__(
        self, methods: tuple[str, ...], scores: tuple[Score, ...], target: str | None, quality: int, max_side: int
    ) -> None:
        for kind, names in (('method', methods), ('score', [score.name for score in scores])):
            doubled = [name for name in names if names.count(name) > 1]
            if doubled:
                raise InputError(f'the {kind} {doubled[0]!r} is given twice; give each name once')
        if not methods:
            raise InputError('there is no method to show; give at least one')
        if target is not None and target not in methods:
            raise InputError(f'the target {target!r} is none of the methods{did_you_mean(target, methods)}')
        if quality < 1:
            raise InputError(f'the quality is {quality}; want 1 to 100, or 101 for lossless')
        if not 1 <= max_side <= LARGEST_WEBP:
            raise InputError(f'the largest side is {max_side}; want 1 to {LARGEST_WEBP} pixels')
        self.methods, self.scores, self.target = methods, scores, target
        self.quality, self.max_side = quality, max_side
        self.sets: dict[str, list[Values]] = {}
        self.records: list[dict[str, object]] = []
        self.places: set[tuple[str, str]] = set()

    def add(self, image: GalleryImage, file: BinaryIO, pool: Executor) -> None:
        """Write the pictures of an image, encoded side by side; keep what its row of the list needs."""
        self._check(image)
        number = len(self.records)
        self.places.add((image.set, image.name))
        small = {name: fit(picture, self.max_side, self.max_side) for name, picture in image.pictures.items()}
        truth = None if self.target is None else image.pictures.get(self.target)
        blocks = {}
        for method, name in enumerate(self.methods):
            if name in small:
                blocks[f'p{number}-{method}'] = pool.submit(encode_webp, small[name], self.quality)
            if name in small and truth is not None and name != self.target:
                blocks[f'e{number}-{method}'] = pool.submit(
                    encoded_errors, image.pictures[name], truth, self.quality, self.max_side
                )
        for name, text in blocks.items():
            _write_block(file, name, text.result())
        first = next(name for name in self.methods if name in small)
        (height, width), full = small[first].shape[:2], image.pictures[first].shape[:2]
        thumbnail, thumbnail_size = encoded_thumbnail(small[first])
        values = [
            [float(image.scores.get(name, {}).get(score.name, math.nan)) for score in self.scores]
            for name in self.methods
        ]
        self.sets.setdefault(image.set, []).append(values)
        self.records.append(
            {
                'set': list(self.sets).index(image.set),
                'name': image.name,
                'width': width,
                'height': height,
                'from': [full[1], full[0]] if full != (height, width) else None,
                'pictures': [int(name in small) for name in self.methods],
                'values': [[_json_number(value) for value in row] for row in values],
                'notes': {self.methods.index(name): note for name, note in image.notes.items() if note},
                'thumbnail': thumbnail,
                'thumbSize': thumbnail_size,
            }
        )

    def _check(self, image: GalleryImage) -> None:
        place = f'{image.set}/{image.name}'
        if (image.set, image.name) in self.places:
            raise InputError(f'the image {place} comes twice; names must differ within a set')
        for name in [*image.pictures, *image.scores, *image.notes]:
            if name not in self.methods:
                raise InputError(f'{place}: {name!r} is none of the methods{did_you_mean(name, self.methods)}')
        if not image.pictures:
            raise InputError(f'{place} has no picture at all; give one of a method, or leave the image out')
        for name, picture in image.pictures.items():
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
                raise InputError(f'{place}: the picture of {name} is {picture.dtype} {picture.shape}; '
                                 'want uint8 (H, W, 3)')  # fmt: skip
        sizes = {name: f'{picture.shape[1]} x {picture.shape[0]}' for name, picture in image.pictures.items()}
        if len(set(sizes.values())) > 1:
            found = ', '.join(f'{name} {size}' for name, size in sizes.items())
            raise InputError(f'{place}: the pictures have unequal sizes ({found}); all methods must show one size')

    def frame(self, title: str, remarks: tuple[str, ...], scored: Mapping[str, Sequence[Values]]) -> tuple[str, str]:
        """Return the page's text before the pictures, and after them."""
        before, after = (PAGE / 'page.html').read_text('utf-8').split('$pictures')
        style = (PAGE / 'style.css').read_text('utf-8')
        script = '\n'.join((PAGE / name).read_text('utf-8') for name in SCRIPTS)
        policy = (
            f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; img-src blob: data:; "
            "base-uri 'none'; form-action 'none'"
        )
        lines = [*remarks, *self._shrunk()]
        values = [of_image for of_set in scored.values() for of_image in of_set]
        head = Template(before).substitute(
            policy=html.escape(policy, quote=False),
            title=html.escape(title),
            style=style,
            means=means_table(self.methods, self.scores, scored, self.target),
            legend=html.escape(means_legend(self.scores, values)),
            remarks='\n'.join(f'<p>{html.escape(line)}</p>' for line in lines),
            data=self._data(),
            script=script,
        )
        return head, after

    def _shrunk(self) -> list[str]:
        count = sum(record['from'] is not None for record in self.records)
        return [
            f'Larger than {self.max_side} pixels and shown shrunk: {count} of {len(self.records)} images; '
            'scores and errors are those of the full pictures.'
        ] if count else []  # fmt: skip

    def _data(self) -> str:
        data = {
            'methods': self.methods,
            'target': -1 if self.target is None else self.methods.index(self.target),
            'scores': [{'name': s.name, 'label': s.label, 'unit': s.unit, 'digits': s.digits} for s in self.scores],
            'sets': list(self.sets),
            'errorFactor': ERROR_FACTOR,
            'colours': colour_scale(),
            'images': self.records,
        }
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(',', ':'))
        return text.replace('<', '\\u003c')  # a name must not end the block


def _json_number(value: float) -> float | str | None:
    """Round a number to six figures for JSON, which has neither NaN nor infinity."""
    if math.isnan(value):
        return None
    return ('Infinity' if value > 0 else '-Infinity') if math.isinf(value) else float(f'{value:.6g}')


def _write_block(file: BinaryIO, name: str, text: str) -> None:
    """Write text that a browser does not render; the line break tells the script that the block is complete."""
    file.write(f'<script type="text/plain" id="{name}">{text}</script>\n'.encode('ascii'))


def _digest(text: str) -> str:
    """Return the hash by which a content security policy allows an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
