"""``ddsa export``: a network as ONNX or torch.export, to run without this package; or its weights in another file."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from ddsa_arch.archs.weights import CHECKSUM, read_weights, state_checksum, write_weights
from ddsa_arch.benchmarking.networks import choose_networks
from ddsa_arch.errors import InputError
from ddsa_arch.files.atomic import atomic_path, sweep
from ddsa_arch.files.tables import markdown_table
from ddsa_arch.inference.derainer import Derainer
from ddsa_arch.inference.exported import (
    ONNX,
    PROGRAM,
    OnnxNetwork,
    first_line,
    import_for_export,
    is_exported,
    load_exported,
)
from ddsa_arch.inference.hub import WEIGHTS
from ddsa_arch.inference.loading import BUILT_IN, load_derainer_network, load_network, network_section
from ddsa_arch.inference.onnx_graph import OPSETS
from ddsa_arch.inference.program import size_multiple_of, write_program
from ddsa_arch.models.restore import final_output
from ddsa_arch.options.loading import import_modules

SUFFIXES = {'onnx': ONNX, 'torch_export': PROGRAM, 'safetensors': '.safetensors', 'pth': '.pth'}
PROGRAMS = ('onnx', 'torch_export')  # formats that hold the network and not its weights alone
SIZES = ((64, 64), (96, 128), (136, 72))  # at which what was written is compared with the network
TOLERANCE = 1e-4  # between their outputs in float32; of the largest value, where that is above 1


@dataclass(frozen=True)
class Exported:
    """The file that was written, and its parity.

    Args:
        path: the file.
        size: in bytes.
        sha256: of the file.
        parity: (height, width, largest difference from the network), one for each size.
    """

    path: Path
    size: int
    sha256: str
    parity: list[tuple[int, int, float]]


def export(
    weights: str | Path | None,
    out: str | Path,
    export_format: str | None = None,
    half: bool = False,
    about: Mapping[str, Any] | None = None,
    network: str | Mapping[str, Any] | None = None,
    overwrite: bool = False,
    opset: int | None = None,
    sizes: Sequence[tuple[int, int]] = SIZES,
) -> Exported:
    """Write a network or its weights into a file, and compare what was written with the network.

    Args:
        weights: a file of ``ddsa train``; None takes those that come with the package.
        out: the file; ``.onnx``, ``.pt2``, ``.safetensors`` or ``.pth``.
        export_format: ``onnx``, ``torch_export``, ``safetensors`` or ``pth``; None takes that of the name of ``out``.
        half: store float16; not in ``.pt2``. ONNX computes in float32 all the same.
        about: joins what the weights tell of themselves, and takes its place where both tell.
        network: a registered name, or ``{type, arguments}``, for weights that do not say it.
        overwrite: replace ``out`` if it is there.
        opset: version of the operations of ONNX; None takes the lowest, which most runtimes know.
        sizes: H and W of the images for the comparison, brought to what the network takes.

    Raises:
        InputError: what was given cannot be used, a package is missing, the network cannot be exported, or what was
            written gives other numbers; nothing is left behind then.
    """
    out, path = Path(out), BUILT_IN if weights is None else Path(weights)
    export_format = _checked_format(out, export_format)
    if half and export_format == 'torch_export':
        raise InputError('--half: torch_export is written in float32; float16 is for onnx, safetensors and pth')
    if opset is not None and (export_format != 'onnx' or not OPSETS[0] <= opset <= OPSETS[1]):
        raise InputError(f'--opset {opset}: wanted a version from {OPSETS[0]} to {OPSETS[1]}, and a FILE.onnx')
    if is_exported(path):
        raise InputError(f'weights: {path} is exported already; give the weights (.pth, .safetensors)')
    if out.exists() and not overwrite:
        raise InputError(f'{out} is there already; --overwrite replaces it')
    for package in ('onnx', 'onnxscript', 'onnxruntime') if export_format == 'onnx' else ():
        import_for_export(package)
    file = read_weights(path)
    section = dict(network_section(file, network))
    net = load_network(file, network).eval()
    told = {**file.about, **json.loads(json.dumps(dict(about or {}), default=str))}
    sweep(out.parent, out.name)
    with atomic_path(out) as part, _folder_beside(part) as folder:
        made = folder / out.with_suffix(SUFFIXES[export_format]).name
        if export_format in PROGRAMS:
            block = {**told, 'network_g': section, CHECKSUM: state_checksum(net.state_dict())}
            write_program(made, net, block, opset, half)
            written: nn.Module = load_exported(made)
            if half:
                _round_to_half(net)
        else:
            write_weights(made, net.state_dict(), section, told, half)
            written = load_derainer_network(made).eval()
        exact = export_format in PROGRAMS or not half
        parity = _parity(written, net, sizes, TOLERANCE if exact else None)
        del written  # on some systems its file could not be moved
        left = sorted(p.name for p in folder.iterdir() if p != made)
        if left:
            raise InputError(f'{out}: the network does not fit into one file, {", ".join(left)} would lie beside it')
        os.replace(made, part)
    return Exported(out, out.stat().st_size, _file_checksum(out), parity)


@contextlib.contextmanager
def _folder_beside(part: Path) -> Iterator[Path]:
    """A folder for files that a program is written in; its name is one that ``sweep`` knows."""
    folder = part.with_suffix('.made.part')
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _checked_format(out: Path, export_format: str | None) -> str:
    known = ', '.join(f'{name} ({suffix})' for name, suffix in SUFFIXES.items())
    if export_format is None:
        for name, suffix in SUFFIXES.items():
            if out.suffix.lower() == suffix:
                return name
        raise InputError(f'-o {out}: its name tells no format; wanted one of {known}')
    if export_format not in SUFFIXES:
        raise InputError(f'--format {export_format!r} is not known; choose one of {known}')
    if out.suffix.lower() != SUFFIXES[export_format]:
        raise InputError(
            f'-o {out}: a file of --format {export_format} ends in {SUFFIXES[export_format]}; '
            f'try {out.with_suffix(SUFFIXES[export_format])}'
        )
    return export_format


@torch.inference_mode()
def _parity(
    written: nn.Module, net: nn.Module, sizes: Sequence[tuple[int, int]], tolerance: float | None
) -> list[tuple[int, int, float]]:
    multiple, fixed = size_multiple_of(net), getattr(net, 'fixed_size', None)
    taken = [(fixed, fixed)] if fixed else [tuple(side + -side % multiple for side in size) for size in sizes]
    found = []
    for height, width in dict.fromkeys(taken):
        rain = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height * width))
        wanted = final_output(net(rain))
        if isinstance(written, OnnxNetwork):
            wanted = wanted.clamp(0, 1)  # as its graph does
        difference = float((final_output(written(rain)) - wanted).abs().max())
        limit = float('inf') if tolerance is None else tolerance * max(1.0, float(wanted.abs().max()))
        if not difference <= limit:  # NaN too
            raise InputError(
                f'what was written differs from {type(net).__name__} by {difference:.2g} at {height} x {width}, '
                f'wanted {limit:.2g} at most; nothing was kept'
            )
        found.append((height, width, difference))
    return found


def _round_to_half(net: nn.Module) -> None:
    """Round the weights as a file of float16 has them."""
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.dtype == torch.float32:
                value.copy_(value.half())


def _file_checksum(path: Path) -> str:
    with path.open('rb') as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _read_about(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        about = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f'--about {path} cannot be read: {first_line(error)}') from error
    if not isinstance(about, dict):
        raise InputError(f'--about {path}: holds a {type(about).__name__}, wanted a mapping such as `licence: CC0`')
    return about


def _share(args: argparse.Namespace, network: Mapping[str, Any] | None, about: Mapping[str, Any]) -> int:
    """Write the weights into a folder for ``Derainer.from_pretrained``, or into a repository of the Hub."""
    if args.half or args.format or args.opset is not None:
        raise InputError('--half, --format and --opset are for one FILE; a folder has float32 weights in safetensors')
    derainer = Derainer(args.weights, network, device='cpu')
    if args.out:
        if (Path(args.out) / WEIGHTS).exists() and not args.overwrite:
            raise InputError(f'{Path(args.out) / WEIGHTS} is there already; --overwrite replaces it')
        print(f'{derainer.save_pretrained(args.out, about)}: for Derainer.from_pretrained({args.out!r})')
    if args.push:
        print(derainer.push_to_hub(args.push, args.private, about))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='ddsa export', description=__doc__)
    add = parser.add_argument
    add('weights', nargs='?', metavar='WEIGHTS', help='of ddsa train (the small network of the package)')
    add(
        '-o',
        '--out',
        metavar='FILE',
        help=f'of a name in {", ".join(SUFFIXES.values())}; or a folder, with a / at its end',
    )
    add('--push', metavar='USER/NAME', help='share the weights on the Hugging Face Hub, in a repository of this name')
    add('--private', action='store_true', help='let only you see the repository, if it is a new one')
    add('--format', metavar='FORMAT', help=f'{", ".join(SUFFIXES)} (by the name of FILE)')
    add('--half', action='store_true', help='store float16, in onnx, safetensors and pth')
    add('--opset', type=int, metavar='N', help=f'of ONNX, {OPSETS[0]} to {OPSETS[1]} ({OPSETS[0]})')
    add('--network', metavar='NAME', help='a name of ddsa networks or an option file, for weights that say none')
    add('--imports', nargs='+', metavar='MODULE', help='modules of your own in which the network is registered')
    add('--about', metavar='FILE.yml', help='what the file shall tell of itself: training, data, scores, licence')
    add('--overwrite', action='store_true', help='replace FILE if it is there')
    args = parser.parse_args(argv)
    import_modules(args.imports)
    network = choose_networks([args.network])[0].network_g if args.network else None
    about = _read_about(args.about)
    if args.push or (args.out and (args.out.endswith(('/', os.sep)) or Path(args.out).is_dir())):
        return _share(args, network, about)
    if not args.out:
        raise InputError('-o FILE or --push USER/NAME is missing')
    done = export(args.weights, args.out, args.format, args.half, about, network, args.overwrite, args.opset)
    rows = [(f'{height} x {width}', f'{difference:.2g}') for height, width, difference in done.parity]
    print(markdown_table(rows, ('H x W', 'largest difference')))
    print(f'{done.path}: {done.size / 1e6:.2f} MB')
    print(f'SHA-256 {done.sha256}')
    return 0
