"""Repairs of what today's packages break in BasicSR 1.4.2, each with its reason and the day it can go.

``repair()`` is the first thing that ``import ddsa_arch`` does: even ``basicsr.utils.registry`` imports all of
BasicSR. Every repair looks at the installed package, never at a version number, does nothing where nothing is
broken, and leaves a line in ``REPAIRS`` that ``ddsa doctor`` prints.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

REPAIRS: list[str] = []

# Signatures of the operators that torchvision describes to torch while it is imported.
_TORCHVISION_OPERATORS = (
    'nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
    'qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
)
_kept_alive: list[torch.library.Library] = []  # such a library takes its operators with it when it is collected


def repair() -> None:
    """Make ``import basicsr`` work with the packages that are installed.

    Raises:
        ImportError: basicsr or torchvision is missing, or the ``basicsr`` on the path is not the toolbox.
    """
    if REPAIRS or 'basicsr.archs' in sys.modules:
        return
    _repair_torchvision_operators()
    _repair_functional_tensor()
    _repair_scipy_filters()
    _repair_distutils()
    _check_basicsr()


def _repair_torchvision_operators() -> None:
    """Let torchvision be imported where a CUDA build of it stands beside a CPU build of torch.

    BasicSR needs none of them, so an empty declaration serves. Goes when torchvision imports without operators.
    """
    try:
        importlib.import_module('torchvision')
        return
    except ModuleNotFoundError as error:
        raise ImportError('torchvision is not installed: pip install torchvision') from error
    except RuntimeError as error:
        if 'torchvision::' not in str(error):
            raise
    import torch

    library = torch.library.Library('torchvision', 'FRAGMENT')
    for signature in _TORCHVISION_OPERATORS:
        library.define(signature)
    _kept_alive.append(library)
    for name in [n for n in sys.modules if n == 'torchvision' or n.startswith('torchvision.')]:
        del sys.modules[name]
    try:
        importlib.import_module('torchvision')
    except RuntimeError as error:
        raise ImportError(
            f'torchvision does not load beside torch {torch.__version__} ({error}); '
            'install the torchvision release that belongs to this torch'
        ) from error
    REPAIRS.append('torchvision: its compiled operators do not load beside this torch; declared without a kernel')


def _repair_functional_tensor() -> None:
    """torchvision 0.17 renamed ``transforms.functional_tensor``; BasicSR takes rgb_to_grayscale from it.

    Goes when BasicSR imports it from ``torchvision.transforms.functional``.
    """
    old = 'torchvision.transforms.functional_tensor'
    if importlib.util.find_spec(old) is not None:
        return
    if importlib.util.find_spec('torchvision.transforms._functional_tensor') is not None:
        module = importlib.import_module('torchvision.transforms._functional_tensor')
    else:
        functional = importlib.import_module('torchvision.transforms.functional')
        module = ModuleType(old)
        vars(module)['rgb_to_grayscale'] = functional.rgb_to_grayscale
    sys.modules[old] = module
    REPAIRS.append('torchvision.transforms.functional_tensor: gone; its successor stands in')


def _repair_scipy_filters() -> None:
    """``scipy.ndimage.filters`` is deprecated and announced to go in scipy 2; BasicSR's NIQE imports it."""
    old = 'scipy.ndimage.filters'
    if importlib.util.find_spec(old) is None:
        sys.modules[old] = importlib.import_module('scipy.ndimage')
        REPAIRS.append('scipy.ndimage.filters: gone; scipy.ndimage stands in')


def _repair_distutils() -> None:
    """Python 3.12 dropped distutils; BasicSR compares versions with it. setuptools carries a copy."""
    if importlib.util.find_spec('distutils') is not None:
        return
    try:
        importlib.import_module('setuptools')
        importlib.import_module('distutils.version')
    except ModuleNotFoundError as error:
        raise ImportError('BasicSR needs distutils, which setuptools carries: pip install setuptools') from error
    REPAIRS.append('distutils: gone from Python; the copy in setuptools stands in')


def _check_basicsr() -> None:
    """Several restoration projects carry a folder ``basicsr`` of their own, which hides the toolbox."""
    spec = importlib.util.find_spec('basicsr')
    if spec is None:
        raise ImportError(
            'basicsr is not installed. On Python 3.11 and 3.12: pip install basicsr. '
            'On 3.10, and on 3.13 and later, its own build fails; on all: ddsa doctor --repair'
        )
    if importlib.util.find_spec('basicsr.utils') is None or importlib.util.find_spec('basicsr.archs') is None:
        place = spec.origin or list(spec.submodule_search_locations or [])
        raise ImportError(
            f'the basicsr imported from {place} is not the BasicSR toolbox but a folder of the same name; '
            'start from another directory, or remove it from PYTHONPATH'
        )
