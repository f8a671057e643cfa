"""``ddsa demo``: a page in the browser that removes the rain from a photo and shows it before and after."""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ddsa_arch.demo.page import ABOUT, build_demo
from ddsa_arch.demo.server import FIRST_PORT, HOST, free_port, serve, temporary_files
from ddsa_arch.errors import InputError
from ddsa_arch.files.images import write_image
from ddsa_arch.inference.derainer import Derainer
from ddsa_arch.inference.loading import AUTO, BUILT_IN, choose_device
from ddsa_arch.machine.process import keep_freed_memory
from ddsa_arch.ops.rain import add_rain, rain_style
from ddsa_arch.sets.sample_photos import TEST_PHOTOS, sample_photos

BUILT_IN_NAME = 'DDSANet, small'
EXAMPLE_SIDE = 480  # pixels of the longer side
EXAMPLE_RAIN = ('light', 'heavy')
SHARED_ABOUT = 'Drop a photo; the network takes the rain streaks out of it.'


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    files = weight_files(args.weights)
    device = choose_device(args.device)
    free_port(args.host, args.port)  # before anything slow
    keep_freed_memory(of_any_size=False)
    derainers = {name: functools.partial(Derainer, path, device=device) for name, path in files.items()}
    with temporary_files() as folder:  # gradio looks for its folder when it is imported
        page = build_demo(derainers, write_examples(folder / 'examples'), SHARED_ABOUT if args.share else ABOUT)
        with serve(page, args.host, args.port, args.share, not args.no_browser, args.allow_host) as addresses:
            print('Ctrl-C ends it')
            print('The page is at', ' and '.join(addresses), flush=True)
            while True:
                time.sleep(3600)


def weight_files(given: Sequence[str]) -> dict[str, Path]:
    """Return weight files by the names that the page gives them; without any, the small one of the package.

    Args:
        given: ``NAME=FILE``, or a file alone, whose stem is the name then.

    Raises:
        InputError: no such file, no name, or one name twice.
    """
    files: dict[str, Path] = {}
    for text in given:
        name, _, file = text.partition('=') if not Path(text).is_file() else (Path(text).stem, '', text)
        if not name.strip() or not file:
            raise InputError(f'--weights {text}: no such file; wanted NAME=FILE, such as large=net_g_latest.pth')
        if name in files:
            raise InputError(f'--weights {text}: the name {name!r} is given twice')
        files[name] = Path(file)
    files = files or {BUILT_IN_NAME: BUILT_IN}
    for name, path in files.items():
        if not path.is_file():
            raise InputError(f'weights: no file {path} (of {name!r})')
    return files


def write_examples(folder: str | Path) -> list[Path]:
    """Write small photos of scikit-image in rendered rain, which the quickstart does not train on; none without it."""
    try:
        photos = sample_photos(TEST_PHOTOS)
    except InputError:
        return []
    paths = []
    rng = np.random.default_rng(0)
    for rain in EXAMPLE_RAIN:
        for name, photo in photos.items():
            scale = min(1.0, EXAMPLE_SIDE / max(photo.shape[:2]))
            clean = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            paths.append(Path(folder) / f'{name}_{rain}_rain.png')
            write_image(paths[-1], add_rain(clean, rain_style(rain), rng))
    return paths


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='ddsa demo', description=__doc__)
    add = parser.add_argument
    add('--weights', nargs='+', action='extend', default=[], metavar='NAME=FILE',
        help='of ddsa train or ddsa export, several for a choice (the small network of the package)')  # fmt: skip
    add('--device', default=AUTO, help='auto, cpu, cuda, cuda:1, mps (auto)')
    add('--host', default=HOST, help=f'the address to listen on, 0.0.0.0 for all of this machine ({HOST})')
    add('--allow-host', nargs='+', action='extend', default=[], metavar='NAME',
        help='names under which the page is opened too, such as that of a server in front of it')  # fmt: skip
    add('--port', type=int, metavar='N', help=f'(the first free one from {FIRST_PORT} on)')
    add('--no-browser', action='store_true', help='do not open the page in the browser of this machine')
    add('--share', action='store_true', help='a public address for a week, through a server of the makers of gradio')
    return parser
