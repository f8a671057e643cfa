"""Weight files and training states: written whole, checked before a resume, pruned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ddsa_arch.archs.weight_names import UNSEEN
from ddsa_arch.archs.weights import read_weights
from ddsa_arch.errors import InputError
from ddsa_arch.files.atomic import atomic_path

STATE_SUFFIX = '.state'
STATE_KEYS = ('epoch', 'iter', 'optimizers', 'schedulers')
PART_PATTERN = '*.part'


def save_whole(content: Mapping[str, Any], path: str | Path) -> None:
    """Save by torch.save, whole or not at all."""
    with atomic_path(path) as part, part.open('wb') as file:  # which tells why it cannot be written
        torch.save(dict(content), file)


def weight_file(models: str | Path, iteration: int, label: str = 'net_g') -> Path:
    """Return the path of the weights of an iteration."""
    return Path(models) / f'{label}_{iteration}.pth'


def states_by_iteration(folder: str | Path) -> dict[int, Path]:
    """List the training states of an experiment, the newest first."""
    states = {int(p.stem): p for p in Path(folder).glob(f'*{STATE_SUFFIX}') if p.stem.isdecimal()}
    return dict(sorted(states.items(), reverse=True))


def usable_state(path: str | Path, models: str | Path, net: nn.Module) -> dict[str, Any]:
    """Read a training state and check that a run can continue from it.

    Args:
        path: the state.
        models: folder of the weights that belong to it.
        net: the network of the run; ``meta`` tensors will do.

    Raises:
        InputError: it is cut off or no training state, its weights are missing or cut off, or it is of another network.
    """
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a broken file
        raise InputError(f'{path} cannot be read, it may be cut off') from error
    missing = [key for key in STATE_KEYS if not isinstance(state, dict) or key not in state]
    if missing:
        raise InputError(f'{path} is no training state, it has no {", ".join(missing)}')
    parameters = sum(p.requires_grad for p in net.parameters())
    trained = [len(group['params']) for o in state['optimizers'] for group in o['param_groups']]
    weights = weight_file(models, state['iter'])
    checkpoint = read_weights(weights).checkpoint
    shapes = {name: tuple(value.shape) for name, value in checkpoint.get('params', {}).items()}
    wanted = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    wanted.pop(UNSEEN, None)
    shapes.pop(UNSEEN, None)
    if sum(trained) != parameters or shapes != wanted:
        raise InputError(f'{path} is of another network')
    return state


def prune(models: str | Path, states: str | Path, keep: int, best: Iterable[int] = ()) -> None:
    """Remove all but the newest states and the weights that belong to them.

    Args:
        models: folder of the weights; those without an iteration in their name stay.
        states: folder of the states.
        keep: how many stay, >= 1.
        best: iterations whose weights stay as well.
    """
    iterations = list(states_by_iteration(states))
    for iteration in iterations[keep:]:
        (Path(states) / f'{iteration}{STATE_SUFFIX}').unlink(missing_ok=True)
        if iteration not in set(best):
            weight_file(models, iteration).unlink(missing_ok=True)
    # weights that were the best until lately
    kept = {*iterations[:keep], *best}
    oldest = min(iterations[:keep], default=0)
    for path in Path(models).glob('net_g_*.pth'):
        label = path.stem.removeprefix('net_g_')
        if label.isdecimal() and int(label) < oldest and int(label) not in kept:
            path.unlink(missing_ok=True)


def remove_parts(*folders: str | Path) -> None:
    """Remove the unfinished files that a killed run left."""
    for folder in folders:
        for path in Path(folder).glob(PART_PATTERN):
            path.unlink(missing_ok=True)
