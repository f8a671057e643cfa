"""``ddsa derain``: remove the rain from your own photos and videos."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ddsa_arch.benchmarking.networks import choose_networks
from ddsa_arch.errors import InputError
from ddsa_arch.files.atomic import sweep, with_tail
from ddsa_arch.files.images import write_image
from ddsa_arch.files.locks import only_writer
from ddsa_arch.files.photos import Photo, read_photo, write_photo
from ddsa_arch.inference.call import ENSEMBLES, checked_strength
from ddsa_arch.inference.derainer import Derainer
from ddsa_arch.inference.exported import is_exported, is_onnx
from ddsa_arch.inference.loading import AUTO, BUILT_IN
from ddsa_arch.inference.plan import COMPARED, FORMATS, Job, plan, told_left_alone
from ddsa_arch.inference.videos import derain_video
from ddsa_arch.machine.beside import reading_ahead
from ddsa_arch.machine.process import detect_launcher, keep_freed_memory, process_group, torch_settings
from ddsa_arch.models.gathering import gather, interleave
from ddsa_arch.ops.figures import side_by_side
from ddsa_arch.ops.pixels import to_rgb
from ddsa_arch.options.loading import import_modules
from ddsa_arch.runners.export import SIZES, export

EXIT_FAILED = 1  # some files were not derained, or are not whole
READ_AHEAD = 1  # images, while another one is derained
LONGEST_WAIT = 7 * 24 * 60.0  # minutes for which a process that is done waits for the others
BAR = '{l_bar}{bar}| {n:.3g}/{total_fmt} files [{elapsed}<{remaining}, {rate_fmt}]'  # n has parts of a large image
ENSEMBLE_HELP = (
    'mean over 4 flips: a little better, 4 times as long; 8 takes quarter turns too, for networks that were trained on '
    'turned images (1)'
)
BACKENDS = (AUTO, 'torch', 'onnx')
CONTROL = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029]')  # letters that would break a line


@dataclass
class Report:
    """The outcome of a run: results, failures and notes.

    Args:
        done: results, in order.
        failed: (file, reason) of those that were not derained.
        notes: (file, sentence) of what could not be kept; without a file, what holds for all.
        cut_off: (file, how far it goes) of videos that are cut off; they are among the results too.
        there: results that were there already.
        left_alone: how many other files of a suffix there are in the folders.
    """

    done: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[tuple[Path | None, str]] = field(default_factory=list)
    cut_off: list[tuple[Path, str]] = field(default_factory=list)
    there: list[Path] = field(default_factory=list)
    left_alone: Counter[str] = field(default_factory=Counter)


def derain_files(
    inputs: Sequence[str | Path],
    out: str | Path,
    derainer: Derainer | Callable[[], Derainer],
    image_format: str = AUTO,
    overwrite: bool = False,
    compare: bool = False,
    shard: tuple[int, int] = (0, 1),
    steady: bool = False,
) -> Report:
    """Derain files into a folder. A file that cannot be derained does not stop the others.

    Args:
        inputs: image and video files, folders of them and patterns.
        out: made if it is missing.
        derainer: or what makes it, once the files are found to be there.
        image_format: of the results, ``auto`` for that of each image.
        overwrite: do files again whose results are there.
        compare: write a picture of before and after for each file too.
        shard: (r, n): every n-th file from the r-th on.
        steady: take out what flickers in videos, see ``ops.steady``.

    Raises:
        InputError: nothing to derain; nothing was written then.
    """
    alone = (
        only_writer(out, 'give another folder with -o', inside=True) if shard == (0, 1) else contextlib.nullcontext()
    )
    with alone:
        sweep(out, deep=True)
        planned = plan(inputs, out, image_format, overwrite, shard)
        there = [job.target for job in planned.there]
        report = Report(failed=list(planned.refused), there=there, left_alone=planned.left_alone)
        if not planned.jobs:
            return report
        return _derain_jobs(planned.jobs, report, derainer, Path(out) / COMPARED if compare else None, shard, steady)


def _derain_jobs(
    jobs: Sequence[Job],
    report: Report,
    derainer: Derainer | Callable[[], Derainer],
    pictures: Path | None,
    shard: tuple[int, int],
    steady: bool,
) -> Report:
    derainer = derainer if isinstance(derainer, Derainer) else derainer()
    quiet = True if shard[0] else None  # None: where there is no terminal
    # smoothed more than by default, as parts of an image come in bursts
    with (
        tqdm(total=len(jobs), disable=quiet, unit='file', bar_format=BAR, smoothing=0.02) as bar,
        reading_ahead(map(_read, jobs), READ_AHEAD) as photos,
    ):
        for count, (job, photo) in enumerate(zip(jobs, photos, strict=False)):
            try:
                if photo is None:
                    notes = _derain_video(derainer, job, report, pictures, quiet, steady)
                elif isinstance(photo, Exception):
                    raise photo
                else:
                    progress = functools.partial(_advance, bar, count)
                    notes = _derain_photo(derainer, job, photo, pictures, progress)
            except (InputError, OSError) as error:
                report.failed.append((job.source, _reason(error, job)))
            else:
                report.done.append(job.target)
                report.notes += [(job.source, note) for note in notes]
            _advance(bar, count + 1)
    report.notes += [(None, note) for note in derainer.notes]
    return report


def _advance(bar: tqdm, files: int, part: float = 0.0) -> None:
    """Show that so many files are done, and a part of the next one."""
    bar.update(files + part - bar.n)


def _read(job: Job) -> Photo | InputError | OSError | None:
    """Return the photo of a job, or why it cannot be read; None for a video."""
    try:
        return None if job.is_video else read_photo(job.source)
    except (InputError, OSError) as error:
        return error


def _derain_photo(
    derainer: Derainer, job: Job, photo: Photo, pictures: Path | None, progress: Callable[[float], None]
) -> Sequence[str]:
    derained = photo.with_pixels(derainer(photo.pixels, progress=progress))
    notes = [*photo.notes, *write_photo(job.target, derained)]
    if pictures:
        _write_picture(_picture_path(pictures, job), _bgr(photo.pixels), _bgr(derained.pixels))
    return notes


def _derain_video(
    derainer: Derainer, job: Job, report: Report, pictures: Path | None, quiet: bool | None, steady: bool
) -> Sequence[str]:
    def show(rainy: np.ndarray, derained: np.ndarray) -> None:
        if pictures:
            _write_picture(_picture_path(pictures, job), _bgr(rainy), _bgr(derained))

    with tqdm(unit='frame', desc=job.source.name, leave=False, disable=quiet) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = max(done, total) if total else None
            bar.update(done - bar.n)

        result = derain_video(derainer, job.source, job.target, progress, show, steady)
    if result.cut_off:
        report.cut_off.append((job.source, result.cut_off))
    return result.notes


def _bgr(pixels: np.ndarray) -> np.ndarray:
    return np.rint(to_rgb(pixels)[0][..., ::-1] * 255).astype(np.uint8)


def _picture_path(pictures: Path, job: Job) -> Path:
    name = Path(job.name)
    return pictures / name.parent / with_tail(name.name, '.jpg')


def _write_picture(path: Path, rainy: np.ndarray, derained: np.ndarray) -> None:
    write_image(path, side_by_side([rainy, derained], ['rainy', 'derained']))


def _reason(error: InputError | OSError, job: Job) -> str:
    if isinstance(error, InputError):
        return str(error).removeprefix(f'{job.source}: ')
    return f'{error.filename or job.target}: {error.strerror or error}'


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if args.threads is not None and args.threads < 1:
        raise InputError(f'--threads {args.threads}: wanted a whole number from 1 up')
    checked_strength(args.strength)
    if not args.no_keep_memory:
        keep_freed_memory(of_any_size=False)
    import_modules(args.imports)
    network = choose_networks([args.network])[0].network_g if args.network else None

    def derainer() -> Derainer:
        how = {'device': _device(args.device), 'half': args.half, 'tile': _tile(args.tile)}
        how |= {'ensemble': args.ensemble, 'strength': args.strength}
        return _derainer(args.weights, network, args.backend, how)

    shard = int(os.environ.get('RANK', '0')), int(os.environ.get('WORLD_SIZE', '1'))
    with (
        process_group(detect_launcher('none'), use_gpu=False, timeout=LONGEST_WAIT),
        torch_settings(args.tf32, False, args.threads),
    ):
        report = derain_files(
            args.inputs, args.out, derainer, args.format, args.overwrite, args.compare, shard, args.steady
        )
        report = _of_all_processes(report)  # torchrun stops all once one has failed, so each waits for the others
    return 0 if shard[0] else _tell(report, args)


def _of_all_processes(report: Report) -> Report:
    parts = gather(report)
    notes = dict.fromkeys(chain.from_iterable(part.notes for part in parts))  # what holds for all is told once
    failed = list(chain.from_iterable(part.failed for part in parts))
    cut_off = list(chain.from_iterable(part.cut_off for part in parts))
    done, there = (interleave([getattr(part, name) for part in parts]) for name in ('done', 'there'))
    return Report(done, failed, list(notes), cut_off, there, parts[0].left_alone)


def _tell(report: Report, args: argparse.Namespace) -> int:
    for file, note in report.notes:
        print(f'note: {_shown(file)}: {_shown(note)}' if file else f'note: {_shown(note)}', file=sys.stderr)
    if report.failed:
        print(f'{len(report.failed)} not derained:', file=sys.stderr)
        for file, reason in report.failed:
            print(f'  {_shown(file)}: {_shown(reason)}', file=sys.stderr)
    if report.left_alone:
        print(told_left_alone(report.left_alone))
    if report.there:
        print(f'{len(report.there)} there already in {args.out} (--overwrite does them again)')
    if report.cut_off:
        print(f'{len(report.cut_off)} derained as far as they go:', file=sys.stderr)
        for file, how_far in report.cut_off:
            print(f'  {_shown(file)}: {how_far}', file=sys.stderr)
    print(f'{len(report.done)} derained in {args.out}')
    if args.compare and report.done:
        print(f'before and after in {Path(args.out) / COMPARED}')
    return EXIT_FAILED if report.failed or report.cut_off else 0


def _derainer(weights: str | None, network: Mapping[str, Any] | None, backend: str, how: Mapping[str, Any]) -> Derainer:
    """Make the derainer on the backend that was asked for, for which the weights may have to be exported."""
    path = BUILT_IN if weights is None else Path(weights)
    if backend == 'torch' and is_onnx(path):
        raise InputError(f'--backend torch: {path} is one of ONNX; give the weights (.pth, .safetensors) or a .pt2')
    if backend != 'onnx' or is_onnx(path):
        return Derainer(weights, network, **how)
    if is_exported(path):
        raise InputError(f'--backend onnx: {path} is one of torch.export; give a .onnx or the weights')
    if how['half']:
        raise InputError('--backend onnx computes in float32; leave out --half, or take --backend torch')
    with tempfile.TemporaryDirectory() as folder:  # read into memory, so that it need not stay
        derainer = Derainer(export(path, Path(folder) / 'network.onnx', network=network, sizes=SIZES[:1]).path, **how)
    derainer.notes.append(f'{path} was exported for this run; `ddsa export {path} -o FILE.onnx` does it once for all')
    return derainer


def _shown(text: Path | str) -> str:
    """Return a name or sentence that any terminal can print on one line, even a name that is not of UTF-8."""
    printable = str(text).encode('utf-8', 'backslashreplace').decode()
    return CONTROL.sub(lambda found: found[0].encode('unicode_escape').decode(), printable)


def _device(name: str) -> str:
    """Return the device; each process of a machine takes a GPU of its own."""
    local = os.environ.get('LOCAL_RANK')
    if name != AUTO or local is None:
        return name
    import torch

    return f'cuda:{int(local) % torch.cuda.device_count()}' if torch.cuda.is_available() else name


def _tile(text: str) -> int | str | None:
    return None if text == 'none' else text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='ddsa derain', description=__doc__)
    add = parser.add_argument
    add('inputs', nargs='+', metavar='INPUT', help='images, videos, folders of them, or patterns in quotes')
    add('-o', '--out', required=True, metavar='DIR', help='folder of the results, with the folders of the input')
    add('-w', '--weights', metavar='FILE', help='of ddsa train or ddsa export (the small network of the package)')
    add('--backend', default=AUTO, choices=BACKENDS, help='what computes: torch, or onnxruntime (auto: by the weights)')
    add('--network', metavar='NAME', help='a name of ddsa networks or an option file, for weights that say none')
    add('--imports', nargs='+', metavar='MODULE', help='modules of your own in which the network is registered')
    add('--format', default=AUTO, metavar='FORMAT', help=f'of the images: {", ".join(FORMATS)} (auto: as each is)')
    add('--tile', default=AUTO, metavar='N', help='side of tiles in pixels, auto (where memory is short), none (auto)')
    add('--half', action='store_true', help='compute in 16 bits where that works')
    add('--ensemble', type=int, default=1, choices=ENSEMBLES, help=ENSEMBLE_HELP)
    add('--strength', type=float, default=1.0, metavar='S', help='0 leaves an image as it was, 1 is all derained (1)')
    add('--compare', action='store_true', help=f'write pictures of before and after too, into DIR/{COMPARED}')
    add('--steady', action='store_true', help='less flicker in videos: what one frame has alone goes')
    add('--device', default=AUTO, help='auto, cpu, cuda, cuda:1, mps (auto)')
    add('--overwrite', action='store_true', help='do files again whose results are there')
    add('--threads', type=int, metavar='N', help="on the CPU (torch's choice, one for each core)")
    add('--tf32', action='store_true', help='on NVIDIA GPUs: faster, 10 bits of mantissa')
    add('--no-keep-memory', action='store_true', help="leave the C library's allocator as it is")
    return parser
