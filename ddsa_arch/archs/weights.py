"""Weight files: one safe reader for the wrappers in the wild, and one writer of files that tell what they hold."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ddsa_arch.errors import InputError
from ddsa_arch.files.atomic import atomic_path
from ddsa_arch.files.images import some

SAFETENSORS = '.safetensors'
WEIGHT_SUFFIXES = ('.pth', SAFETENSORS)
BLOCK = 'ddsa_arch'  # key of the block that tells what a file holds
CHECKSUM = 'sha256'  # in the block
UNREADABLE = (
    RuntimeError, EOFError, OSError, pickle.UnpicklingError, KeyError, ValueError, safetensors.SafetensorError
)  # fmt: skip
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
        checkpoint = _read_safetensors(path) if Path(path).suffix == SAFETENSORS else _read_pickle(path)
    except UNREADABLE as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f'weights: {path} cannot be read ({reason}); download it or save it again') from error
    if not isinstance(checkpoint, Mapping):
        raise InputError(f'weights: {path} holds a {type(checkpoint).__name__}, wanted a dictionary of tensors')
    checksum = about_weights(checkpoint).get(CHECKSUM)
    if checksum and checksum != state_checksum(state_dict_of(checkpoint, path)):
        raise InputError(f'weights: {path} is damaged, its tensors do not have the SHA-256 that it names; get it again')
    return dict(checkpoint)


def _read_pickle(path: str | Path) -> Any:
    return torch.load(path, map_location='cpu', weights_only=True)


def _read_safetensors(path: str | Path) -> dict[str, Any]:
    with safetensors.safe_open(path, 'pt') as file:
        block = json.loads((file.metadata() or {}).get(BLOCK, '{}'))
        checkpoint = {'params': {key: file.get_tensor(key) for key in file.keys()}}  # noqa: SIM118
    if not isinstance(block, dict):
        raise ValueError(f'its metadata {BLOCK} is no JSON object')
    if 'network_g' in block:
        checkpoint['network_g'] = block.pop('network_g')
    return checkpoint | ({BLOCK: block} if block else {})


def about_weights(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The block of a checkpoint that tells what it holds: options, data, scores, licence; empty where it has none."""
    block = checkpoint.get(BLOCK)
    return dict(block) if isinstance(block, Mapping) else {}


def write_weights(
    path: str | Path,
    state: Mapping[str, Tensor],
    network_g: Mapping[str, Any],
    about: Mapping[str, Any],
    half: bool = False,
) -> None:
    """Write a weight file that tells what it holds, whole or not at all.

    Args:
        path: ``.safetensors``, or ``.pth`` with the weights under ``params``.
        state: the weights.
        network_g: ``{type, ...}``, how the network is built.
        about: of JSON's types: ``training``, ``data``, ``scores``, ``licence`` or what else there is to tell. The
            SHA-256 of the weights joins them.
        half: store float16, half the size.

    Raises:
        InputError: another suffix, or weights that float16 cannot hold.
    """
    suffix = Path(path).suffix
    if suffix not in WEIGHT_SUFFIXES:
        raise InputError(f'weights: {path} ends in {suffix!r}, wanted {" or ".join(WEIGHT_SUFFIXES)}')
    stored = {}
    for name, value in state.items():
        value = value.detach().cpu()
        if half and value.is_floating_point():
            value, exact = value.to(torch.float16), value
            if bool((value.isinf() & exact.isfinite()).any()):
                raise InputError(f'weights: {name} is beyond the range of float16; store float32')
        stored[name] = value.contiguous()
    block = {**about, CHECKSUM: state_checksum(stored)}
    with atomic_path(path) as part:
        if suffix == SAFETENSORS:
            told = json.dumps({'network_g': dict(network_g), **block}, ensure_ascii=False)
            tensors = {k: v.clone() for k, v in stored.items()}  # none may share memory
            part.write_bytes(safetensors.torch.save(tensors, {'format': 'pt', BLOCK: told}))  # save_file: for one user
        else:
            torch.save({'params': stored, 'network_g': dict(network_g), BLOCK: block}, part)


def state_checksum(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, in the order of the names; the kind of file does not matter."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}\n'.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


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
