"""Choose a device, and build the network of a weight file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ddsa_arch.archs.build_limits import build_for_file
from ddsa_arch.archs.weight_origin import network_of
from ddsa_arch.archs.weights import WeightFile, load_weights, read_weights
from ddsa_arch.errors import InputError, did_you_mean
from ddsa_arch.inference.exported import is_exported, load_exported

BUILT_IN = Path(__file__).resolve().parents[1] / 'weights' / 'ddsanet_mixture.safetensors'
AUTO = 'auto'


def load_derainer_network(
    weights: str | Path | None, network: str | Mapping[str, Any] | None = None, device: str | torch.device = 'cpu'
) -> nn.Module:
    """Build the network of a weight file, with its weights, on the CPU.

    Args:
        weights: see ``Derainer``.
        network: see ``Derainer``.
        device: where an exported network runs, which cannot be moved.

    Raises:
        InputError: no such file, one that does not say how its network is built, or one of another network.
    """
    path = BUILT_IN if weights is None else Path(weights)
    if is_exported(path):
        if network is not None:
            raise InputError(f'network: {path} holds its network already; leave the name out')
        return load_exported(path, device)
    return load_network(read_weights(path), network)


def load_network(file: WeightFile, network: str | Mapping[str, Any] | None = None) -> nn.Module:
    """Build the network of a weight file and load its weights, see ``load_derainer_network``."""
    net = build_for_file(network_section(file, network), file.state_dict(), file.path)
    load_weights(net, file)
    return net


def network_section(file: WeightFile, network: str | Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """How the network of a weight file is built, ``{type, arguments}``.

    Args:
        file: from ``read_weights``.
        network: see ``Derainer``; takes the place of what the file says.

    Raises:
        InputError: nobody says it.
    """
    section = network_of(file.checkpoint) if network is None else network
    if isinstance(section, str):
        section = {'type': section}
    if not isinstance(section, Mapping):
        raise InputError(
            f'{file.path} does not say how its network is built (no network_g); '
            'name it: --network NAME, or network=NAME'
        )
    return section


def choose_device(name: str | torch.device = AUTO) -> torch.device:
    """``auto`` is CUDA if there is one, else MPS, else the CPU.

    Raises:
        InputError: torch does not know it, or has none here.
    """
    if name == AUTO:
        name = 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        hint = did_you_mean(str(name), (AUTO, 'cpu', 'cuda', 'mps'))
        reason = str(error).splitlines()[0]
        raise InputError(f'device {str(name)!r} cannot be used here: {reason}{hint}') from error
    return device
