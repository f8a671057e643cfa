"""``ddsa doctor``: versions, devices, what was repaired, and what is registered."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

import basicsr
import torch
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY

from ddsa_arch.compat import REPAIRS
from ddsa_arch.machine.process import can_keep_memory
from ddsa_arch.openmp import waiting

PACKAGES = (
    'ddsa_arch', 'basicsr', 'torch', 'torchvision', 'mmengine', 'numpy', 'opencv-python', 'pillow', 'lmdb', 'scipy',
    'safetensors', 'tifffile', 'brisque', 'onnxruntime', 'spandrel', 'gradio', 'pillow-heif', 'pillow-jxl-plugin',
)  # fmt: skip
REGISTRIES = (ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY)
TOOLBOX_FILES = ('train.py', 'test.py', 'models/sr_model.py', 'archs/swinir_arch.py', 'data/paired_image_dataset.py')


def diagnose() -> dict[str, list[str]]:
    """Return the lines of the diagnosis by heading."""
    return {
        'versions': [f'python {platform.python_version()} on {platform.platform()}', *map(_version, PACKAGES)],
        'basicsr': [_basicsr()],
        'devices': _devices(),
        'set up by the commands, for their own process': _settings(),
        'repaired': list(REPAIRS) or ['nothing needed it'],
        'registered here': [f'{r._name}: {", ".join(_ours(r))}' for r in REGISTRIES],
        'registered in all': [f'{r._name}: {len(r.keys())}' for r in REGISTRIES],
    }


def _version(package: str) -> str:
    try:
        return f'{package} {importlib.metadata.version(package)}'
    except importlib.metadata.PackageNotFoundError:
        return f'{package}: not installed as a package'


def _basicsr() -> str:
    """Tell whether the installed basicsr is the toolbox, as other projects ship folders of that name."""
    folder = Path(basicsr.__file__).parent
    missing = [name for name in TOOLBOX_FILES if not (folder / name).is_file()]
    if missing:
        return f'{folder} is NOT the toolbox: it lacks {", ".join(missing)}; remove it from the path'
    return f'{folder} is the toolbox'


def _devices() -> list[str]:
    found = [f'CPU: {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}']
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        found.append(f'GPU {index}: {gpu.name}, {gpu.total_memory / 2**30:.0f} GiB')
    if not torch.cuda.is_available():
        found.append('GPU: none that torch sees' + ('' if torch.version.cuda else ' (a CPU build of torch)'))
    return found


def _settings() -> list[str]:
    kept = 'stays with the process' if can_keep_memory() else 'goes back to the system: only glibc can keep it'
    return [
        f"memory that is freed on the CPU: {kept} (as it is: 'keep_memory: false', --no-keep-memory)",
        f"threads on the CPU: {torch.get_num_threads()}, torch's choice ('threads', --threads)",
        f'how they wait for each other: {waiting()} (GOMP_SPINCOUNT, OMP_WAIT_POLICY)',
        "fast execution of networks that have one: on ('fast: false')",
        "memory format of train and test: that of 'channels_last'; of derain: channels_last",
        "TF32 on GPUs: off ('tf32', --tf32)",
        "cuDNN chooses by measured time: on ('cudnn_benchmark: false', 'deterministic: true')",
    ]


def _ours(registry: Iterable[tuple[str, type]]) -> list[str]:
    return sorted(name for name, part in registry if part.__module__.startswith('ddsa_arch.'))


def main(argv: Sequence[str] | None = None) -> int:
    argparse.ArgumentParser(prog='ddsa doctor', description=__doc__).parse_args(argv)
    for heading, lines in diagnose().items():
        print(f'{heading}:')
        print('\n'.join(f'  {line}' for line in lines))
    return 0
