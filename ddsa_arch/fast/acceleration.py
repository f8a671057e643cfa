"""Give a network its fast execution, and take it away again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn

from ddsa_arch.fast import attention, blocks, experts, feedforward, gates, networks
from ddsa_arch.fast.strips import PLAN, StripPlan

Net = TypeVar('Net', bound=nn.Module)


def _nothing(module: nn.Module) -> None:
    """Return None: nothing stands against such a module, as its parts are looked at one by one."""
    del module


Obstacle = Callable[[Any], str | None]  # Any: each looks at modules of one class, which stands beside it

FAST: dict[type[nn.Module], Obstacle] = {
    attention.DDSA: attention.self_attention_obstacle,
    attention.MDTA: attention.self_attention_obstacle,
    attention.TKSA: attention.self_attention_obstacle,
    attention.AssociationAttention: attention.association_obstacle,
    **{kind: form.obstacle for kind, form in feedforward.FORMS.items()},
    gates.GRU: gates.unit_obstacle,
    gates.LSTM: gates.unit_obstacle,
    gates.ConvLSTM: gates.conv_lstm_obstacle,
    experts.DilatedConv: experts.dilated_obstacle,
    experts.ExpertStep: experts.step_obstacle,
    experts.ExpertSteps: _nothing,
    blocks.DATB: _nothing,
    blocks.TransformerBlock: _nothing,
    networks.DDSANet: _nothing,
    networks.Restormer: _nothing,
    networks.DRSformer: _nothing,
}
# by the paper's class: the fast one, and what tells why a module cannot have it
KINDS = {fast.__bases__[0]: (fast, obstacle) for fast, obstacle in FAST.items()}
PAPERS = {fast: paper for paper, (fast, _) in KINDS.items()}


@dataclass
class Acceleration:
    """The report of ``accelerate``: which parts of a network are fast now, and why others are not.

    Attributes:
        fast: names of the modules that have a fast forward now, and their kinds.
        kept: names of modules of a kind that has one, which keep their own, and why.
    """

    fast: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.fast)

    def __str__(self) -> str:
        counts = ', '.join(f'{count} {kind}' for kind, count in Counter(self.fast.values()).items())
        reasons = '; '.join(f'{name or "the network"}: {why}' for name, why in self.kept.items())
        return (counts or 'no part of this network has a fast form') + (f'; as built: {reasons}' if reasons else '')


def accelerate(net: nn.Module, plan: StripPlan | None = None) -> Acceleration:
    """Let the parts of a network that have a fast forward run it from now on.

    Their class changes, in place: parameters, names, buffers, hooks, and what optimisers and processes hold of them
    stay as they are. A part that has hooks, is of a subclass, or holds other layers than those it was built with, keeps
    its forward; and one that is changed later gets its own back for as long as it is so.

    Args:
        net: any network; a second call looks at all parts anew.
        plan: how large strips are.

    Returns:
        What is fast now and what is not.
    """
    done = Acceleration()
    for name, module in net.named_modules():
        paper = PAPERS.get(type(module), type(module))
        if paper in KINDS:
            fast, obstacle = KINDS[paper]
            why = obstacle(module)
            if why:
                done.kept[name] = why
                module.__class__ = paper
            else:
                done.fast[name] = paper.__name__
                module.__class__ = fast
                if plan is not None:
                    setattr(module, PLAN, plan)
        elif isinstance(module, tuple(KINDS)):
            done.kept[name] = f'{paper.__name__} is a subclass of {_known_base(paper).__name__}'
    return done


def plain(net: Net) -> Net:
    """Give all parts of a network the forward of their paper back, in place; the network itself."""
    for module in net.modules():
        if type(module) in PAPERS:
            module.__class__ = PAPERS[type(module)]
            module.__dict__.pop(PLAN, None)
    return net


def is_accelerated(net: nn.Module) -> bool:
    """Whether any part of a network has a fast forward."""
    return any(type(module) in PAPERS for module in net.modules())


def _known_base(kind: type) -> type:
    return next(base for base in kind.__mro__ if base in KINDS)
