"""Weight files: one safe reader for the wrappers in the wild."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddsa_arch.ops.errors import InputError
from ddsa_arch.ops.images import some

WRAPPERS = ('params_ema', 'params', 'state_dict')  # BasicSR's averaged and plain weights, the field's own scripts
PARALLEL_PREFIX = 'module.'  # left by DataParallel


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A weight file as it is, on the CPU. Nothing in it is executed.

    Raises:
        InputError: no such file, cut off, or not made of plain tensors.
    """
    if not Path(path).is_file():
        raise InputError(f'weights: no file {path}')
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, KeyError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f'weights: {path} cannot be read ({reason}); download it or save it again') from error
    if not isinstance(checkpoint, Mapping):
        raise InputError(f'weights: {path} holds a {type(checkpoint).__name__}, wanted a dictionary of tensors')
    return dict(checkpoint)


def state_dict_of(checkpoint: Mapping[str, Any], path: str | Path, key: str | None = None) -> dict[str, Tensor]:
    """The state dict inside a checkpoint, without a ``module.`` prefix.

    Args:
        checkpoint: from ``read_checkpoint``.
        path: its file, for the message.
        key: the wrapper to take. None, or one of ``params_ema``, ``params``, ``state_dict`` that is not there, takes
            the first of these that is, or else the checkpoint itself.

    Raises:
        InputError: the wrapper is not there, or holds no tensors.
    """
    wrappers = [k for k in WRAPPERS if isinstance(checkpoint.get(k), Mapping)]
    if key not in checkpoint:
        if key is not None and key not in WRAPPERS:
            raise InputError(f'weights: {path} has no {key!r}; it holds {some(sorted(map(str, checkpoint)))}')
        key = wrappers[0] if wrappers else None
    state = checkpoint if key is None else checkpoint[key]
    tensors = {k.removeprefix(PARALLEL_PREFIX): v for k, v in state.items() if isinstance(v, Tensor)}
    if not tensors:
        raise InputError(f'weights: {path} holds no tensors under {key or "its root"}')
    return tensors


def load_weights(net: nn.Module, path: str | Path, key: str | None = None, strict: bool = True) -> None:
    """Load a weight file into a network.

    Args:
        net: any network; not changed when the file does not fit and ``strict`` is set.
        path: the file.
        key: see ``state_dict_of``.
        strict: False loads what fits by name and shape, as long as there is anything.

    Raises:
        InputError: naming what is missing, left over or of another shape.
    """
    loaded = state_dict_of(read_checkpoint(path), path, key)
    wanted = net.state_dict()
    # batch norms that were saved before PyTorch 0.4.1 have no such counter, and nothing here reads it
    loaded |= {k: v for k, v in wanted.items() if k.endswith('.num_batches_tracked') and k not in loaded}
    missing = sorted(wanted.keys() - loaded.keys())
    surplus = sorted(loaded.keys() - wanted.keys())
    unequal = [
        f'{k} ({tuple(loaded[k].shape)}, wanted {tuple(wanted[k].shape)})'
        for k in sorted(wanted.keys() & loaded.keys())
        if loaded[k].shape != wanted[k].shape
    ]
    fitting = {k: v for k, v in loaded.items() if k in wanted and v.shape == wanted[k].shape}
    if (strict and (missing or surplus or unequal)) or not fitting:
        parts = [
            f'{len(names)} {kind}: {some(names)}'
            for kind, names in (('missing', missing), ('not of this network', surplus), ('of another shape', unequal))
            if names
        ]
        raise InputError(
            f'weights: {path} does not fit {type(net).__name__}: {"; ".join(parts)}. '
            'Check the type and the arguments of network_g'
        )
    net.load_state_dict(fitting, strict=False)
