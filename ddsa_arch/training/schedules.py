"""How the schedules of the learning rate fit each other and the run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ddsa_arch.errors import InputError

WITHOUT_END = 10**9  # the end that mmengine takes where none is given
IN_STEPS = ('MultiStepLR', 'MultiStepRestartLR', 'StepLR')  # which leave the rate alone between two steps
TOWARDS_AN_END = ('CosineAnnealingLR', 'LinearLR', 'PolyLR', 'QuadraticWarmupLR', 'OneCycleLR')
Entry = Mapping[str, Any]


class Span(NamedTuple):
    """The iterations in which a schedule changes the learning rate: from ``begin`` to before ``end``."""

    place: str
    kind: str
    begin: int
    end: int


def entries_of(train: Mapping[str, Any]) -> list[tuple[str, Entry]]:
    """Return the schedules of a section ``train`` by their names in messages."""
    given = train.get('scheduler')
    if not given:
        return []
    if isinstance(given, Mapping):
        return [('train.scheduler', given)]
    return [(f'train.scheduler[{number}]', entry) for number, entry in enumerate(given)]


def check_schedules(train: Mapping[str, Any]) -> None:
    """Refuse schedules that cannot work for the whole of a run.

    Raises:
        InputError: a lowest rate above the rate itself, or a schedule that says nothing of the end of the run.
    """
    lr = train['optim_g']['lr']
    for place, entry in entries_of(train):
        eta_min = entry.get('eta_min')
        if eta_min is not None and eta_min > lr:
            raise InputError(
                f'{place}.eta_min: {eta_min} is above train.optim_g.lr: {lr}; a schedule ends below its start'
            )
        begin = entry.get('begin', 0)
        last = min(entry.get('end', WITHOUT_END), train['total_iter']) - begin
        if entry.get('total_steps') and entry['total_steps'] < last:
            raise InputError(
                f'{place}.total_steps: {entry["total_steps"]}, and the run goes on for {last} steps; make them equal, '
                'or end the schedule earlier'
            )
        if 'periods' in entry and sum(entry['periods']) < last:
            raise InputError(
                f'{place}.periods: {list(entry["periods"])} sum up to {sum(entry["periods"])}, and the run goes on '
                f'for {last} steps; make them equal, or end the schedule earlier'
            )


def schedule_doubts(train: Mapping[str, Any]) -> list[str]:
    """What schedules may ask for, although hardly anybody wants it, one sentence each."""
    total, warmup = train['total_iter'], train.get('warmup_iter', -1)
    doubts = []
    if warmup > total:
        doubts.append(
            f'train.warmup_iter: {warmup} is longer than the run, train.total_iter: {total}; the learning rate never '
            'rises to train.optim_g.lr'
        )
    spans = []
    for place, entry in entries_of(train):
        span = _span(place, entry)
        if span.begin >= total:
            doubts.append(
                f'{place}: it begins at {span.begin}, behind the end of the run (train.total_iter: {total}), '
                'and changes nothing'
            )
            continue
        doubts += _doubts_of(span, entry, total)
        spans.append(span)
    return doubts + _between(spans, total)


def _span(place: str, entry: Entry) -> Span:
    kind, begin = entry['type'], entry.get('begin', 0)
    end = entry.get('end', WITHOUT_END)
    if kind in ('MultiStepLR', 'MultiStepRestartLR') and entry.get('milestones'):
        return Span(place, kind, begin + min(entry['milestones']), min(end, begin + max(entry['milestones']) + 1))
    if kind == 'StepLR':
        return Span(place, kind, begin + entry['step_size'], end)
    return Span(place, kind, begin, end)


def _doubts_of(span: Span, entry: Entry, total: int) -> list[str]:
    if span.kind not in TOWARDS_AN_END:
        return []
    length = entry.get('T_max') or entry.get('total_steps')
    reached = span.begin + length if length else span.end
    shown = 'without an end' if reached >= WITHOUT_END else f'until {reached}'
    if reached > total:
        return [
            f'{span.place}: {span.kind} goes on {shown}, and the run ends at {total} (train.total_iter); the learning '
            'rate does not come to its end'
        ]
    if span.end < reached:
        return [
            f'{span.place}: {span.kind} goes on {shown}, and its end is {span.end}; the learning rate does not come '
            'to its end'
        ]
    if span.kind == 'CosineAnnealingLR' and reached < min(span.end, total):
        return [
            f'{span.place}: behind step {reached} (begin + T_max) the learning rate rises again until '
            f'{min(span.end, total)}; set end: {reached}'
        ]
    return []


def _between(spans: Sequence[Span], total: int) -> list[str]:
    """Steps that two schedules change, and steps between two that none does."""
    doubts = []
    for first, second in itertools.pairwise(sorted(spans, key=lambda span: span.begin)):
        end = min(first.end, total)
        if second.begin < end:
            doubts.append(
                f'{first.place} and {second.place}: both change the learning rate from step {second.begin} to '
                f'{min(end, second.end)}; let the one begin where the other ends'
            )
        elif second.begin > end and first.kind not in IN_STEPS and second.kind not in IN_STEPS:
            doubts.append(
                f'{first.place} and {second.place}: from step {end} to {second.begin} neither changes the learning '
                'rate; let the one begin where the other ends'
            )
    return doubts
