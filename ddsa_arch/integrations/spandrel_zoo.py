"""Which registered network a state dict belongs to, and with which arguments.

Networks of other papers keep the published names and shapes of their weights, from which some arguments cannot be told,
such as the stages of a recurrent network. Such weights are taken for those of a published network if they are exactly
its own. Files of ``ddsa export`` with any other carry a tensor (``weight_names.MARKER``) that tells all arguments.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor, nn

from ddsa_arch.archs.build_limits import build_for_file
from ddsa_arch.archs.building import build_network
from ddsa_arch.archs.cards import CARDS
from ddsa_arch.archs.weight_names import MARKER, UNSEEN, of_tensor
from ddsa_arch.errors import InputError

# A tensor that each network has, by which most files of others are told at a glance
KEYS = {
    'DerainNet': 'cnn.0.bias', 'SEMI': 'kernels.1.weight', 'DIDMDN': 'conv1020.bias', 'UMRL': 'conf_res.conv1.bias',
    'RESCAN': 'dec.0.bias', 'PReNet': 'conv0.0.bias', 'PReNet_r': 'conv0.0.bias', 'PRN': 'conv0.0.bias',
    'PRN_r': 'conv0.0.bias', 'MSPFN': 'stem1.1.weight', 'MPRNet': 'concat12.weight', 'DGUNet': 'basic.r1',
    'DGUNetPlus': 'r5', 'IDT': 'input_proj.proj.0.bias', 'Restormer': 'latent.0.ffn.dwconv.weight',
    'DRSformer': 'latent.0.attn.attn1', 'ELF': 'dsnet.former.0.ffn.act1.weight', 'ELFLW': 'ssnet.tail.weight',
    'ConvIR': 'SCM1.main.4.weight', 'SFHformer': 'layer9.blocks.0.mixer.mixer_gloal.FFC.fpe.weight',
    'NeRDRain': 'INR2.imnet.layers.0.weight',
}  # fmt: skip


@dataclass(frozen=True)
class Known:
    """A network with arguments under which its published weights load."""

    name: str
    arguments: tuple[tuple[str, Any], ...]

    @property
    def section(self) -> dict[str, Any]:
        """Return ``{type, arguments}``."""
        return {'type': self.name, **dict(self.arguments)}


def networks() -> dict[str, list[Known]]:
    """Return the networks that are registered with spandrel here, each with its published sizes."""
    found: dict[str, list[Known]] = {}
    for card in CARDS:
        if card.network in KEYS:  # spandrel has Uformer, NAFNet, SwinIR and RCAN itself
            found.setdefault(card.network, []).append(Known(card.network, tuple(card.arguments.items())))
    return found


def published_shapes(known: Known) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights of a published network by their names."""
    return _shapes(json.dumps(known.section))  # as text, since arguments may be lists, which no cache takes


@cache
def _shapes(section: str) -> dict[str, tuple[int, ...]]:
    return shapes_of(build_network(json.loads(section), 'meta').state_dict())


def shapes_of(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors by their names, without what tells the arguments."""
    return {name: tuple(value.shape) for name, value in state.items() if name not in (MARKER, UNSEEN)}


def told_section(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a state dict itself says of its network: ``{type, arguments}``."""
    section = of_tensor(state.get(MARKER))
    return section if section and isinstance(section.get('type'), str) else None


def section_of(state: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Return ``{type, arguments}`` if a state dict is of the network of this name, as it says or as its shapes are."""
    if not all(isinstance(value, Tensor) for value in state.values()):
        return None
    told = told_section(state)
    if told is not None:
        return told if told['type'] == name else None
    if KEYS[name] not in state:
        return None
    shapes = shapes_of(state)
    for known in networks().get(name, ()):
        wanted = published_shapes(known)
        if len(wanted) == len(shapes) and wanted == shapes:
            return known.section
    return None


def build(section: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """Build the network of a state dict.

    Raises:
        InputError: it cannot be built so, or has other tensors than these.
    """
    net = build_for_file(section, state, 'the file')
    if shapes_of(net.state_dict()) != shapes_of(state):
        raise InputError(
            f'the weights are not those of the {section["type"]} that they say they are; export them again'
        )
    return net
