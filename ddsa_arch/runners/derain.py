"""``ddsa derain``: remove the rain from your own photos."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ddsa_arch.archs.weights import load_weights, read_checkpoint
from ddsa_arch.data.image_source import to_tensor
from ddsa_arch.models.restore import restore, to_uint8
from ddsa_arch.ops.errors import InputError
from ddsa_arch.ops.images import IMAGE_SUFFIXES, images_by_stem, read_image, write_image
from ddsa_arch.runners.option_files import check_network
from ddsa_arch.runners.preflight import build_network
from ddsa_arch.runners.process import keep_freed_memory, torch_settings


def load_network(weights: str | Path, device: str = 'auto') -> nn.Module:
    """The network of a weight file that ``ddsa train`` wrote, ready to derain.

    Args:
        weights: holds ``network_g``, how the network is built, beside its weights.
        device: ``auto`` takes a GPU if there is one; else a name that torch knows.

    Raises:
        InputError: no such file, or one that does not say how its network is built.
    """
    checkpoint = read_checkpoint(weights)
    if not isinstance(checkpoint.get('network_g'), dict):
        raise InputError(
            f'{weights} does not say how its network is built (no network_g); name it in an option file: ddsa test'
        )
    net = build_network(check_network(checkpoint['network_g']))
    load_weights(net, weights)
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return net.to(device, memory_format=torch.channels_last).eval()


def derain_image(net: nn.Module, image: np.ndarray) -> np.ndarray:
    """Remove the rain from one image.

    Args:
        net: from ``load_network``.
        image: ``(H, W, 3)`` uint8 BGR, any size.

    Returns:
        The same shape and type, rounded.
    """
    device = next(net.parameters()).device
    rain = to_tensor(image)[None].to(device, memory_format=torch.channels_last)
    return to_uint8(restore(net, rain))


def derain_files(
    inputs: Sequence[str | Path], out: str | Path, weights: str | Path, device: str = 'auto', overwrite: bool = False
) -> list[Path]:
    """Derain image files into a folder, under their names, as PNG.

    Args:
        inputs: image files and folders of them.
        out: made if it is missing.
        weights: see ``load_network``.
        device: see ``load_network``.
        overwrite: replace files that are there.

    Raises:
        InputError: an input or output that cannot be used; checked before the first image is derained.
    """
    files = [file for entry in inputs for file in _files_of(Path(entry))]
    targets = [Path(out) / f'{file.stem}.png' for file in files]
    clashes = sorted({t.name for t in targets if targets.count(t) > 1})
    if clashes:
        raise InputError(f'two inputs would both become {clashes[0]}; derain them into folders of their own')
    present = [t for t in targets if t.exists()]
    if present and not overwrite:
        raise InputError(f'{present[0]} is there already; give --overwrite or another folder')
    net = load_network(weights, device)
    for file, target in tqdm(list(zip(files, targets, strict=True)), unit='image', disable=None):
        write_image(target, derain_image(net, read_image(file)))
    return targets


def _files_of(entry: Path) -> list[Path]:
    if entry.is_dir():
        return list(images_by_stem(entry, 'INPUT').values())
    if not entry.is_file() or entry.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f'{entry}: no image file or folder (known: {", ".join(IMAGE_SUFFIXES)})')
    return [entry]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='ddsa derain', description=__doc__)
    parser.add_argument('inputs', nargs='+', metavar='INPUT', help='image files or folders')
    parser.add_argument('-o', '--out', required=True, metavar='DIR', help='where the derained PNG files go')
    parser.add_argument('--weights', required=True, metavar='FILE', help='weight file written by ddsa train')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda, mps (default: auto)')
    parser.add_argument('--overwrite', action='store_true', help='replace files that are there')
    parser.add_argument('--threads', type=int, metavar='N', help="on the CPU (torch's choice, one for each core)")
    parser.add_argument('--tf32', action='store_true', help='on NVIDIA GPUs: faster, 10 bits of mantissa')
    parser.add_argument('--no-keep-memory', action='store_true', help="leave the C library's allocator as it is")
    args = parser.parse_args(argv)
    if args.threads is not None and args.threads < 1:
        raise InputError(f'--threads {args.threads}: wanted a whole number from 1 up')
    if not args.no_keep_memory:
        keep_freed_memory(of_any_size=False)
    with torch_settings(args.tf32, False, args.threads):
        written = derain_files(args.inputs, args.out, args.weights, args.device, args.overwrite)
    print(f'{len(written)} derained in {args.out}')
    return 0
