"""Find the weights of a network inside the checkpoints of many toolboxes, and name them as the network does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from ddsa_arch.files.images import some

# In the order of preference: what BasicSR writes, averages over the training, and then what other scripts call it
WRAPPERS = (
    'params_ema', 'params', 'state_dict_ema', 'model_ema', 'net_g_ema', 'netG_ema', 'generator_ema', 'ema',
    'state_dict', 'model_state_dict', 'model_state', 'net_state_dict', 'generator_state_dict', 'net_g', 'netG', 'net',
    'generator', 'model', 'network', 'weights', 'module', 'G', 'ema_state_dict',
)  # fmt: skip
DEEPEST = 3  # wrappers within each other
LEFT_BY_TOOLS = ('module.', '_orig_mod.')  # DataParallel and torch.compile put them before or among the names
AVERAGED = 'ema'
MARKER = 'ddsa_arch.network_g'  # a tensor with the bytes of JSON, for tools that hand over tensors alone
UNSEEN = 'unseen_arguments'  # likewise, of DDSANet: the arguments that its weights do not tell


def locate(checkpoint: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the keys that lead to the weights: empty for the root, None where there are none or several.

    A wrapper that is known goes before the root, and the root before a wrapper of another name.
    """
    return _locate(checkpoint, DEEPEST)


def _locate(checkpoint: Mapping[str, Any], depth: int) -> tuple[str, ...] | None:
    for key in WRAPPERS if depth else ():
        within = checkpoint.get(key)
        if isinstance(within, Mapping):
            found = _locate(within, depth - 1)
            if found is not None:
                return (key, *found)
    if has_tensors(checkpoint):
        return ()
    others = candidates(checkpoint)
    return (others[0],) if len(others) == 1 and depth else None


def candidates(checkpoint: Mapping[str, Any]) -> list[str]:
    """Return the keys under which there are tensors by name."""
    return [key for key, value in checkpoint.items() if isinstance(value, Mapping) and has_tensors(value)]


def has_tensors(state: Mapping[Any, Any]) -> bool:
    """Whether a mapping holds tensors itself."""
    return any(isinstance(value, Tensor) for value in state.values())


def numbered(state: Mapping[Any, Any]) -> bool:
    """Whether tensors of a mapping have numbers for names."""
    return any(isinstance(value, Tensor) and not isinstance(key, str) for key, value in state.items())


def named_as(state: Mapping[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """Return the tensors by the names of a network, which may stand behind those of what it was a part of.

    Args:
        state: the tensors of a file, such as ``module.net_g._orig_mod.embed.weight`` and those of a loss beside it.
        wanted: the names of the network's own tensors.

    Returns:
        What lies behind one common prefix, where more of the names are found there than without it; of several such
        prefixes that of an average, or the first. Where nothing is found, the tensors without what tools put before
        their names.
    """
    names = set(wanted)
    state = {_without_tools(name, names): value for name, value in state.items()}
    if not names or names <= state.keys():
        return state
    prefixes = dict.fromkeys(name[: -len(end)] for end in _ends(names) for name in state if name.endswith(f'.{end}'))
    best, found = '', len(names & state.keys())
    for prefix in sorted(prefixes, key=lambda text: AVERAGED not in text.lower()):
        count = sum(f'{prefix}{name}' in state for name in names)
        if count > found:
            best, found = prefix, count
    if not best:
        return state
    return {name.removeprefix(best): value for name, value in state.items() if name.startswith(best)}


def as_tensor(section: Mapping[str, Any]) -> Tensor:
    """Return the bytes of a section's JSON as a tensor, as ``MARKER`` holds them; it has them on every device.

    ``frombuffer`` is one of the few functions that also give values where a network is built of shapes alone.
    """
    return torch.frombuffer(bytearray(json.dumps(dict(section)).encode()), dtype=torch.uint8)


def of_tensor(value: Any) -> dict[str, Any] | None:
    """Return the section of such a tensor; None if there is none in it."""
    if not isinstance(value, Tensor) or value.dtype != torch.uint8 or value.ndim != 1 or _has_shape_alone(value):
        return None
    try:
        section = json.loads(bytes(value.tolist()))
    except (ValueError, RecursionError):
        return None
    return section if isinstance(section, dict) else None


def _has_shape_alone(value: Tensor) -> bool:
    return value.is_meta or isinstance(value, FakeTensor)


def _ends(names: set[str]) -> list[str]:
    """Return a few names by which prefixes are looked for: long ones, which stand for themselves."""
    return sorted(sorted(names), key=len, reverse=True)[:16]


def _without_tools(name: str, wanted: set[str]) -> str:
    """Remove what tools put before or among the parts of a name, unless the network has it itself."""
    while name not in wanted and name.startswith(LEFT_BY_TOOLS):
        name = name.partition('.')[2]
    return name if name in wanted else name.replace('._orig_mod.', '.')


def several(checkpoint: Mapping[str, Any]) -> str:
    """Say which sets of weights a file holds, none of which is known to be the network's; '' if there are none."""
    found = candidates(checkpoint)
    if len(found) < 2:
        return ''
    return (
        f'holds {len(found)} sets of weights ({some(sorted(found))}), and none by a known name; save the one that you '
        'want alone, by torch.save({"params": checkpoint[NAME]}, FILE.pth)'
    )
