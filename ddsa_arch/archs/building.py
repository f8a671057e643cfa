"""Build a registered network from a section of an option file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from ddsa_arch.errors import InputError, did_you_mean


class TooLarge(Exception):
    """A network became larger than it may, see ``build_limits``."""


Net = TypeVar('Net', bound=nn.Module)


def build_network(network_g: Mapping[str, Any], device: str = 'cpu') -> nn.Module:
    """Build a registered network from its options.

    Args:
        network_g: ``{type, ...}``.
        device: where it is built; ``meta`` takes no memory for weights, and tells whether the arguments go together.

    Raises:
        InputError: there is no such network, or it cannot be built from its arguments; the network's own message.
    """
    arguments = {k: v for k, v in network_g.items() if k != 'type'}
    name = str(network_g.get('type'))
    if name not in ARCH_REGISTRY:
        raise InputError(f'network_g.type: no network {name!r}{did_you_mean(name, ARCH_REGISTRY.keys())}')
    try:
        with torch.device(device):
            return ARCH_REGISTRY.get(name)(**arguments)
    except TooLarge:
        raise
    except Exception as error:  # whatever a network does wrong with its arguments
        if device == 'meta' and isinstance(error, RuntimeError | TypeError):  # such as BasicSR's SwinIR: it looks at
            return build_network(network_g)  # values while it is built; what is wrong in earnest fails again
        raise InputError(f'network_g: {name} cannot be built: {_reason(error)}') from error


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    told = lines[0] if lines else ''
    if isinstance(error, ValueError | TypeError | RuntimeError | AssertionError) and told:
        return told
    return f'{type(error).__name__}: {told}' if told else type(error).__name__


def sharing_tensors(net: Net) -> Net:
    """Copy a network without copying its parameters and buffers, which both then share.

    What is done to the copy, such as hooks or another mode, is not seen by whoever runs the network. Forwards that were
    compiled by themselves are left out of it.
    """
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())}
    return copy.deepcopy(net, shared)
