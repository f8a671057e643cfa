"""The protocol of results: what must be known before two figures are compared."""

from __future__ import annotations

import inspect
import platform
import sys
from collections.abc import Collection
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from basicsr.utils.registry import METRIC_REGISTRY
from torch import nn

from ddsa_arch.models.restore import Recipe

PACKAGES = ('torch', 'basicsr', 'numpy', 'opencv-python', 'scipy')
IMAGES = ('img', 'img2')  # what a metric is called with; all else are its options


def protocol_block(
    opt: dict[str, Any], net: nn.Module, recipe: Recipe, device: torch.device, weights: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Collect the protocol of a run, for ``results.json``.

    Args:
        opt: options of the run, completed.
        net: that is tested or trained.
        recipe: how images go through it.
        device: where.
        weights: what a test has loaded: ``file``, ``sha256``, ``key``; None where the network kept those
            that it was built with.

    Returns:
        ``metrics`` and ``metrics_without_target`` with every option, ``restore`` with the padding and tiling that the
        network takes, ``rounding``, ``weights`` with their SHA-256 in a test, ``network``, ``options`` (a file beside
        the results), ``missing_sets``, ``versions``, ``device``, ``dtype``.
    """
    val = opt['val']
    return {
        'metrics': metrics_block(val.get('metrics') or {}),
        'metrics_without_target': metrics_block(val.get('metrics_without_target') or {}),
        'rounding': recipe.rounding,
        'restore': {
            **asdict(recipe),
            'size_multiple': recipe.multiple(net),
            'tile_size': getattr(net, 'fixed_size', None) or recipe.tile_size,
        },
        'weights': weights,
        'network': opt['network_g'],
        'parameters': sum(p.numel() for p in net.parameters()),
        'options': 'options.yml',
        'missing_sets': opt.get('missing_sets', []),
        'versions': versions(),
        'device': device_name(device),
        'processes': opt['world_size'],
        'threads': torch.get_num_threads(),
        'dtype': str(next(net.parameters()).dtype).removeprefix('torch.'),
        'tf32': opt.get('tf32', False),
        'channels_last': opt.get('channels_last', False),
    }


def describe_protocol(protocol: dict[str, Any], scores: Collection[str]) -> str:
    """Describe a protocol in one line, for people.

    Args:
        protocol: from ``protocol_block``.
        scores: names of those that there are.
    """
    metrics = {**protocol['metrics_without_target'], **protocol['metrics']}
    kinds = sorted({m['protocol'] for name, m in metrics.items() if name in scores and 'protocol' in m})
    restore, weights = protocol['restore'], protocol['weights']
    tiles = f'tiles of {restore["tile_size"]}' if restore['tile_size'] else 'whole images'
    parts = [
        *(f'Y {kind}' for kind in kinds),
        f'outputs {"rounded" if protocol["rounding"] == "round" else "truncated"} to 8 bits',
        f'{tiles} padded to multiples of {restore["size_multiple"]}' if restore['size_multiple'] > 1 else tiles,
        f'weights {weights["sha256"][:12]}' if weights else 'no weights loaded',
    ]
    return ', '.join(parts)


def metrics_block(metrics: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return each metric with all of its options, also those that were left at their defaults."""
    block = {}
    for name, options in metrics.items():
        parameters = inspect.signature(METRIC_REGISTRY.get(options['type'])).parameters
        defaults = {k: p.default for k, p in parameters.items() if k not in IMAGES and p.default is not p.empty}
        block[name] = {**defaults, **options}
    return block


def versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of the packages that its results depend on."""
    found = {'python': platform.python_version(), 'ddsa_arch': sys.modules['ddsa_arch'].__version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # such as opencv-python-headless in its place
            found[package] = 'not known'
    return found


def device_name(device: torch.device) -> str:
    """Return the name of a device, such as ``cuda: NVIDIA H200`` or ``cpu: x86_64``."""
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else platform.machine()
    return f'{device.type}: {name}'
