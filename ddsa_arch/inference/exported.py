"""Networks in files of ``ddsa export``, which run without the code that they were built from: ONNX and torch.export."""

from __future__ import annotations

import importlib
import inspect
import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ddsa_arch.archs.weights import BLOCK
from ddsa_arch.errors import InputError

ONNX, PROGRAM = '.onnx', '.pt2'
EXPORTED_SUFFIXES = (ONNX, PROGRAM)
LARGEST = 8192  # side in pixels, or number of images, that a file may ask for
INPUT, OUTPUT = 'rain', 'derained'
CUDA_PROVIDER, CPU_PROVIDER = 'CUDAExecutionProvider', 'CPUExecutionProvider'
NO_MEMORY = ('bad_alloc', 'bad allocation', 'failed to allocate', 'out of memory')  # as onnxruntime has it


class ExportedNetwork(nn.Module, ABC):
    """A network from a file, (B, 3, H, W) in [0, 1] -> the same.

    Args:
        about: the metadata of the file.

    Attributes:
        about: likewise.
        size_multiple: of H and W.
        fixed_size: the only H and W that it takes; None for any.
    """

    def __init__(self, about: Mapping[str, Any]) -> None:
        super().__init__()
        self.about = dict(about)
        self.size_multiple: int = about['size_multiple']
        self.fixed_size: int | None = about.get('fixed_size')
        self._batch: int | None = about.get('batch')  # the only B that it takes
        self.training = False

    def train(self, mode: bool = True) -> ExportedNetwork:
        """Change nothing, as the network was exported for evaluation."""
        del mode
        return self

    def forward(self, rain: Tensor) -> Tensor:
        parts = [rain] if self._batch is None else rain.split(self._batch)
        return torch.cat([self.run(part.contiguous()) for part in parts])

    @abstractmethod
    def run(self, rain: Tensor) -> Tensor:
        """Run as many images as the file takes, contiguous in memory."""


class OnnxNetwork(ExportedNetwork):
    """A network that onnxruntime runs, with as many threads as torch has.

    Args:
        session: of onnxruntime.
        about: see ``ExportedNetwork``.
    """

    def __init__(self, session: Any, about: Mapping[str, Any]) -> None:
        super().__init__(about)
        self.session = session

    def run(self, rain: Tensor) -> Tensor:
        """
        Raises:
            MemoryError: onnxruntime got too little.
            RuntimeError: what else it has to say; its own errors are neither.
        """
        try:
            out = self.session.run([OUTPUT], {INPUT: rain.detach().float().cpu().numpy()})[0]
        except Exception as error:
            kind = MemoryError if any(words in str(error).lower() for words in NO_MEMORY) else RuntimeError
            raise kind(f'onnxruntime: {first_line(error)}') from error
        return torch.from_numpy(out).to(rain.device, rain.dtype)


class ProgramNetwork(ExportedNetwork):
    """A network that torch runs from a file of torch.export.

    Args:
        module: of the exported program.
        about: see ``ExportedNetwork``.
    """

    def __init__(self, module: nn.Module, about: Mapping[str, Any]) -> None:
        super().__init__(about)
        self.module = module.requires_grad_(False)

    def run(self, rain: Tensor) -> Tensor:
        return self.module(rain)


def is_exported(path: str | Path) -> bool:
    """Whether a file holds a network by its name, not weights alone."""
    return Path(path).suffix.lower() in EXPORTED_SUFFIXES


def is_onnx(path: str | Path) -> bool:
    """Whether a file is one of ONNX by its name."""
    return Path(path).suffix.lower() == ONNX


def load_exported(path: str | Path, device: str | torch.device = 'cpu') -> ExportedNetwork:
    """Load the network of a file of ``ddsa export``, ready for ``restore``.

    Args:
        path: ``.onnx``, which onnxruntime runs; or ``.pt2``, which torch does. Loading the latter can run what was put
            into it, so it must come from somebody you trust.
        device: where it runs; onnxruntime knows the CPU, and CUDA if it was built for it.

    Raises:
        InputError: no such file, one that ``ddsa export`` did not write, or a device that cannot be used.
    """
    path, device = Path(path), torch.device(device)
    if not path.is_file():
        raise InputError(f'weights: no file {path}')
    if is_onnx(path):
        return _load_onnx(path, device)
    return _load_program(path, device)


def device_for_onnx(device: torch.device, asked: bool) -> torch.device:
    """Return the device on which onnxruntime runs a network.

    Args:
        device: that torch would take.
        asked: whether the user named it; if not, the CPU does where onnxruntime does not know it.

    Raises:
        InputError: the user named one that onnxruntime does not know.
    """
    known = device.type == 'cpu' or (device.type == 'cuda' and CUDA_PROVIDER in _providers())
    if not known and asked:
        raise InputError(
            f'device {str(device)!r}: this onnxruntime runs on {", ".join(_providers())} alone; take the CPU, '
            'onnxruntime-gpu for CUDA, or the weights (.pth, .safetensors)'
        )
    return device if known else torch.device('cpu')


def import_for_export(name: str) -> ModuleType:
    """Import a package that the base installation leaves out.

    Raises:
        InputError: it is not there.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"the package {name} is missing ({error}); pip install 'ddsa_arch[export]'") from error


def first_line(error: BaseException) -> str:
    """Return the first line of the message of an error's first cause, or the cause's type if it has no message."""
    while error.__cause__:
        error = error.__cause__
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _providers() -> list[str]:
    return import_for_export('onnxruntime').get_available_providers()


def _load_onnx(path: Path, device: torch.device) -> OnnxNetwork:
    runtime = import_for_export('onnxruntime')
    device = device_for_onnx(device, asked=True)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # it would keep the memory of the largest image
    options.log_severity_level = 3  # errors
    on_cuda = [(CUDA_PROVIDER, {'device_id': device.index or 0})] if device.type == 'cuda' else []
    try:
        session = runtime.InferenceSession(str(path), options, providers=[*on_cuda, CPU_PROVIDER])
    except Exception as error:  # onnxruntime has its own kinds
        raise InputError(f'weights: {path} cannot be read as ONNX ({first_line(error)}); export it again') from error
    about = _checked_about(path, session.get_modelmeta().custom_metadata_map.get(BLOCK))
    found = [(part.name, part.type, len(part.shape)) for part in (*session.get_inputs(), *session.get_outputs())]
    wanted = [(name, 'tensor(float)', 4) for name in (INPUT, OUTPUT)]
    if found != wanted:
        shown = ', '.join(f'{name}: {kind} of {axes} axes' for name, kind, axes in found)
        raise InputError(
            f'weights: {path} has {shown}; wanted one input {INPUT!r} and one output {OUTPUT!r}, both tensor(float) of '
            '4 axes, as ddsa export writes them'
        )
    return OnnxNetwork(session, about)


def _load_program(path: Path, device: torch.device) -> ProgramNetwork:
    about = _checked_about(path, _block_of_program(path))
    try:
        program = torch.export.load(str(path))
        if device.type != 'cpu':
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        # the guards refuse H and W of a single multiple, which the program computes like any other
        known = inspect.signature(program.module).parameters
        module = program.module(**({'check_guards': False} if 'check_guards' in known else {}))
    except Exception as error:  # of any kind: a cut-off file, another release of torch
        raise InputError(
            f'weights: {path} cannot be read by torch.export of torch {torch.__version__} ({first_line(error)}); '
            'export it again with this torch'
        ) from error
    return ProgramNetwork(module, about)


def _block_of_program(path: Path) -> str | None:
    """Read the metadata of a file before anything that the file holds is run."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(f'extra/{BLOCK}'):
                    return archive.read(name).decode('utf-8')
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError) as error:
        raise InputError(
            f'weights: {path} is no file of torch.export ({first_line(error)}); export it again'
        ) from error
    return None


def _checked_about(path: Path, text: str | None) -> dict[str, Any]:
    """Check and return the metadata of a file that ``ddsa export`` wrote."""
    try:
        about = json.loads(text or '')
        sizes = [about['size_multiple'], *(about[key] for key in ('fixed_size', 'batch') if about.get(key) is not None)]
        if not all(type(size) is int and 1 <= size <= LARGEST for size in sizes):
            raise ValueError('its sizes are no whole numbers, or too large')
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f'weights: {path} does not say what it takes (no metadata {BLOCK!r} with a size_multiple); '
            'write it with ddsa export'
        ) from error
    return about
