"""Weight files: one safe reader for the wrappers in the wild, and one writer of files that tell what they hold."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.archs.weight_names import (
    MARKER,
    UNSEEN,
    WRAPPERS,
    as_tensor,
    locate,
    named_as,
    numbered,
    of_tensor,
    several,
)
from ddsa_arch.errors import InputError
from ddsa_arch.files.atomic import atomic_path
from ddsa_arch.files.images import some
from ddsa_arch.files.torch_files import read_torch_legacy, read_torch_zip
from ddsa_arch.files.weight_kinds import SAFETENSORS as KIND_SAFETENSORS
from ddsa_arch.files.weight_kinds import TORCH_ZIP, kind_of

SAFETENSORS = '.safetensors'
WEIGHT_SUFFIXES = ('.pth', SAFETENSORS)
BLOCK = 'ddsa_arch'  # key of the block that tells what a file holds
CHECKSUM = 'sha256'  # in the block
OURS = 'ddsa_arch.'  # how the modules of this package begin
TELLS_BY_BUFFER = 'DDSANet'  # see its ``unseen_arguments``


@dataclass(frozen=True)
class WeightFile:
    """A weight file, read and hashed once.

    Attributes:
        path: where it lies.
        checkpoint: what it holds, on the CPU.
        sha256: the digest of the file, in hexadecimal.
    """

    path: Path
    checkpoint: dict[str, Any]
    sha256: str

    @property
    def about(self) -> dict[str, Any]:
        """The block that tells what the file holds: options, data, scores, licence; empty where it has none."""
        return _about(self.checkpoint)

    def key(self, wanted: str | None = None) -> str | None:
        """Return the wrapper of the weights inside the file, with dots between several, or None for its root.

        Args:
            wanted: the wrapper to take. None, or a usual one such as ``params_ema`` that is not there, takes the first
                usual one that is, or else the root.

        Raises:
            InputError: another wrapper was asked for, and is not there; or there are several without a usual name.
        """
        return '.'.join(self._keys(wanted)) or None

    def _keys(self, wanted: str | None) -> tuple[str, ...]:
        if wanted is not None and wanted in self.checkpoint:
            return (wanted,)
        if wanted is not None and wanted not in WRAPPERS:
            raise InputError(
                f'weights: {self.path} has no {wanted!r}; it holds {some(sorted(map(str, self.checkpoint)))}'
            )
        found = locate(self.checkpoint)
        if found is None and (told := several(self.checkpoint)):
            raise InputError(f'weights: {self.path} {told}')
        return found or ()

    def state_dict(self, key: str | None = None) -> dict[str, Tensor]:
        """Return the weights by the names that the file has for them.

        Args:
            key: see ``key``.

        Raises:
            InputError: the wrapper is not there, or holds no tensors, or only numbered ones.
        """
        keys = self._keys(key)
        state: Any = self.checkpoint
        for one in keys:
            state = state[one]
        place = '.'.join(keys) or 'its root'
        if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
            held = some(sorted(map(str, self.checkpoint))) or 'nothing'
            raise InputError(f'weights: {self.path} holds no tensors under {place}; at its root are: {held}')
        if numbered(state):
            raise InputError(
                f'weights: {self.path} has numbers in place of names for its tensors under {place}; '
                'save net.state_dict() instead'
            )
        return {name: value for name, value in state.items() if isinstance(value, Tensor)}


@dataclass(frozen=True)
class Loaded:
    """What ``load_weights`` took from a file.

    Attributes:
        key: the wrapper inside the file, None for its root.
        taken: number of tensors of the network that got their values from the file.
        random: names of those that kept the values they had, as the file does not hold them in this shape.
    """

    key: str | None
    taken: int
    random: tuple[str, ...]


def read_weights(path: str | Path) -> WeightFile:
    """Read a weight file onto the CPU, of whatever name. Nothing in it is executed.

    Raises:
        InputError: no such file, not a weight file, or a damaged one; the message says what it is.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f'weights: {path} is a folder; name the file in it' if path.is_dir() else _no_file(path))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f'weights: {path} cannot be read ({error.strerror or error})') from error
    kind, told = kind_of(data)
    if not kind:
        raise InputError(f'weights: {path} {told}')
    try:
        if kind == KIND_SAFETENSORS:
            checkpoint = _read_safetensors(data)
        else:
            checkpoint = read_torch_zip(data) if kind == TORCH_ZIP else read_torch_legacy(data)
    except Exception as error:  # whatever comes of bytes that are not what they should be
        raise InputError(
            f'weights: {path} cannot be read ({_reason(error)}), it may be cut off or damaged; '
            'download it or save it again'
        ) from error
    if not isinstance(checkpoint, Mapping):
        raise InputError(
            f'weights: {path} holds a {type(checkpoint).__name__}, wanted a dictionary of tensors; '
            'save net.state_dict()'
        )
    file = WeightFile(path, dict(checkpoint), hashlib.sha256(data).hexdigest())
    checksum = file.about.get(CHECKSUM)
    if checksum and checksum != state_checksum(file.state_dict()):
        raise InputError(f'weights: {path} is damaged, its tensors do not have the SHA-256 that it names; get it again')
    return file


def _no_file(path: Path) -> str:
    return f'weights: no file {path}'


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines and not isinstance(error, KeyError) else type(error).__name__


def _read_safetensors(data: bytes) -> dict[str, Any]:
    tensors = safetensors.torch.load(data)  # checks the header, which is JSON behind its length in 8 bytes
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], 'little')])
    block = json.loads(header.get('__metadata__', {}).get(BLOCK, '{}'))
    if not isinstance(block, dict):
        raise ValueError(f'its metadata {BLOCK} is no JSON object')
    tensors.pop(MARKER, None)  # it repeats the metadata, for tools that do not see them
    checkpoint: dict[str, Any] = {'params': tensors}
    if 'network_g' in block:
        checkpoint['network_g'] = block.pop('network_g')
    return checkpoint | ({BLOCK: block} if block else {})


def _about(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
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
        path: ``.safetensors``, or ``.pth`` with the weights under ``params``, and ``state_dict`` for other toolboxes.
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
            if not _tells_itself(network_g):
                tensors[MARKER] = as_tensor(network_g)
            metadata = {'format': 'pt', BLOCK: told, **_modelspec(network_g, about)}
            data = safetensors.torch.save(tensors, metadata)
            numbers = hashlib.sha256(data[8 + int.from_bytes(data[:8], 'little') :]).hexdigest()
            metadata['modelspec.hash_sha256'] = f'0x{numbers}'
            part.write_bytes(safetensors.torch.save(tensors, metadata))  # save_file: for one user
        else:
            # `state_dict` is where mmengine and others look; it is the same, and takes no room
            content = {'params': stored, 'state_dict': stored, 'network_g': dict(network_g), BLOCK: block}
            with part.open('wb') as file:  # which tells why it cannot be written
                torch.save(content, file)


def _modelspec(network_g: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, str]:
    """Return what tools that follow the model metadata standard of Stability AI show of a file."""
    name = str(network_g.get('type'))
    spec = {'sai_model_spec': '1.0.0', 'architecture': name, 'implementation': BLOCK, 'title': about.get('title', name)}
    spec['tags'] = 'deraining, image restoration'
    names = {'licence': 'license', 'description': 'description', 'author': 'author', 'date': 'date'}
    spec |= {theirs: about[ours] for ours, theirs in names.items() if isinstance(about.get(ours), str)}
    return {f'modelspec.{key}': str(value) for key, value in spec.items()}


def _tells_itself(network_g: Mapping[str, Any]) -> bool:
    """Whether tools that get the tensors of a file alone know how the network is built, if they know the network."""
    name = str(network_g.get('type'))
    if name not in ARCH_REGISTRY or not ARCH_REGISTRY.get(name).__module__.startswith(OURS) or name == TELLS_BY_BUFFER:
        return True
    known = inspect.signature(ARCH_REGISTRY.get(name)).parameters
    return all(
        key == 'type'
        or (key in known and json.dumps(known[key].default, default=str) == json.dumps(value, default=str))
        for key, value in network_g.items()
    )


def untrained_tensors(net: nn.Module, path: str | Path, loaded: Loaded) -> str:
    """Say which tensors of a network do not come from its weight file."""
    return (
        f'{len(loaded.random)} of {len(loaded.random) + loaded.taken} tensors of {type(net).__name__} are not '
        f'in {path} and keep the values that they were built with: {some(loaded.random)}'
    )


def state_checksum(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values in the order of the names, whatever the kind of file."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}\n'.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_weights(
    net: nn.Module, weights: WeightFile | str | Path, key: str | None = None, strict: bool = True
) -> Loaded:
    """Load weights into a network.

    Args:
        net: any network; not changed when the file does not fit and ``strict`` is set.
        weights: the file, or its path.
        key: see ``WeightFile.key``.
        strict: False loads what fits by name and shape, as long as there is anything.

    Returns:
        What was taken from the file.

    Raises:
        InputError: naming what is missing, left over or of another shape.
    """
    fitting, loaded = fit_weights(net, weights, key, strict)
    net.load_state_dict(fitting, strict=False)
    return loaded


def fit_weights(
    net: nn.Module, weights: WeightFile | str | Path, key: str | None = None, strict: bool = True
) -> tuple[dict[str, Tensor], Loaded]:
    """Return the tensors that ``load_weights`` would load, and what it would return; the network is not changed.

    Arguments and errors are those of ``load_weights``; a network whose tensors have shapes alone will do.
    """
    file = weights if isinstance(weights, WeightFile) else read_weights(weights)
    wanted = net.state_dict()
    loaded = named_as(file.state_dict(key), wanted)
    # batch norms that were saved before PyTorch 0.4.1 have no such counter, and nothing here reads it
    loaded |= {k: v for k, v in wanted.items() if k.endswith('.num_batches_tracked') and k not in loaded}
    told = {name: of_tensor(state.get(UNSEEN)) for name, state in (('file', loaded), ('network', wanted))}
    is_known = UNSEEN not in wanted or told['network'] is not None  # not where the network has shapes alone
    if strict and told['file'] and is_known and told['file'] != told['network']:
        raise InputError(
            f'weights: {file.path} was trained with {json.dumps(told["file"])}, which {type(net).__name__} as it is '
            'built here has not; put these arguments into network_g'
        )
    loaded.pop(UNSEEN, None)
    if UNSEEN in wanted:
        loaded[UNSEEN] = wanted[UNSEEN]
    missing = sorted(wanted.keys() - loaded.keys())
    surplus = sorted(loaded.keys() - wanted.keys())
    unequal = [k for k in sorted(wanted.keys() & loaded.keys()) if loaded[k].shape != wanted[k].shape]
    fitting = {k: v for k, v in loaded.items() if k in wanted and v.shape == wanted[k].shape}
    if (strict and (missing or surplus or unequal)) or not fitting:
        shapes = [f'{k} ({tuple(loaded[k].shape)}, wanted {tuple(wanted[k].shape)})' for k in unequal]
        parts = [
            f'{len(names)} {kind}: {some(names)}'
            for kind, names in (('missing', missing), ('not of this network', surplus), ('of another shape', shapes))
            if names
        ]
        raise InputError(
            f'weights: {file.path} does not fit {type(net).__name__}: {"; ".join(parts)}. '
            'Check the type and the arguments of network_g'
        )
    broken = [k for k, v in fitting.items() if v.is_floating_point() and not bool(v.isfinite().all())]
    if broken:
        raise InputError(
            f'weights: {file.path} holds numbers that are not finite in {len(broken)} of {len(fitting)} tensors: '
            f'{some(broken)}; take weights of an earlier iteration'
        )
    return fitting, Loaded(file.key(key), len(fitting), tuple(sorted({*missing, *unequal})))
