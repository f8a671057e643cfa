"""Find the state from which a run goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from basicsr.utils.misc import check_resume
from torch import nn

from ddsa_arch.errors import InputError
from ddsa_arch.models.checkpoints import remove_parts, states_by_iteration, usable_state
from ddsa_arch.models.optimisation import changes, check_plan


def resume_state(options: dict[str, Any], net: nn.Module, report: Callable[[str], None]) -> dict[str, Any] | None:
    """The state to continue from, None to begin anew. ``options['path']`` is set to it.

    Stands in for BasicSR's load_resume_state, which asks CUDA for its device even on a CPU, looks for states in
    ./experiments alone, and takes the newest one even if it is cut off.

    Args:
        options: of the run, complete.
        net: its network; shapes are looked at alone.
        report: gets a sentence for each state that cannot be used and is passed over, and for what has changed since.

    Raises:
        InputError: ``path.resume_state`` names a state that cannot be used, or the options ask for another optimiser
            or schedule than the state has.
    """
    paths = options['path']
    models, states = paths['models'], paths['training_states']
    if options['rank'] == 0:
        remove_parts(models, states)
    for path in states_by_iteration(states).values() if options['auto_resume'] else ():
        try:
            state = usable_state(path, models, net)
        except InputError as error:
            report(f'passed over a training state: {error}')
            continue
        return _take(path, state, options, report)
    path = paths.get('resume_state')
    if not path:
        return None
    foreign = Path(path).resolve().parent != Path(states).resolve()
    told = f'{path} is no state of this experiment, whose states lie in {states}; its weights are those in {models}'
    try:
        state = usable_state(Path(path), models, net)
    except InputError as error:
        hint = f' ({told})' if foreign and 'no file' in str(error) else ''
        raise InputError(f'path.resume_state: {error}{hint}; name another, or drop it to begin anew') from error
    if foreign:
        report(f'path.resume_state: {told}')
    return _take(Path(path), state, options, report)


def _take(path: Path, state: dict[str, Any], options: dict[str, Any], report: Callable[[str], None]) -> dict[str, Any]:
    try:
        check_plan(state, options)
    except InputError as error:
        raise InputError(f'{path}: {error}') from error
    for change in changes(state, options):
        report(f'the run began with other options: {change}')
    options['path']['resume_state'] = str(path)
    check_resume(options, state['iter'])
    return state
