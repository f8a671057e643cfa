"""Build the network that a weight file asks for, unless it would be far larger than what the file holds."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from ddsa_arch.archs.building import TooLarge, build_network
from ddsa_arch.errors import InputError, shown

TIMES = 4  # as many numbers, tensors and layers as the file explains
FREE_NUMBERS, FREE_TENSORS, LAYERS_PER_TENSOR = 2**22, 2000, 50
FREE_SIZE = 2**16  # of a number among the arguments, which may be a size of images


@dataclass
class _Count:
    numbers: int = 0
    tensors: int = 0
    layers: int = 0


def build_for_file(network_g: Mapping[str, Any], state: Mapping[str, Tensor], path: object) -> nn.Module:
    """Build the network of a weight file.

    Args:
        network_g: ``{type, ...}``, by the file or by its user.
        state: the tensors of the file.
        path: of the file, for messages.

    Raises:
        InputError: there is no such network, it cannot be built, or it is far larger than the file, which is found
            before any memory is taken for it.
    """
    numbers = sum(value.numel() for value in state.values())
    largest = max(FREE_SIZE, numbers)
    for name, value in _integers(network_g):
        if abs(value) > largest:
            raise InputError(
                f'weights: {path} asks for a network with {name} {shown(value)}, and holds {numbers:,} numbers in all; '
                'its network_g is wrong'
            )
    try:
        for device in ('meta', 'cpu'):
            with _limited(TIMES * numbers + FREE_NUMBERS, TIMES * len(state) + FREE_TENSORS):
                net = build_network(network_g, device)
    except TooLarge as error:
        raise InputError(
            f'weights: {path} asks for a {network_g.get("type")} {error}, and holds {len(state):,} tensors of '
            f'{numbers:,} numbers; its network_g is wrong'
        ) from error
    return net


def _integers(arguments: Any, name: str = 'network_g') -> Iterator[tuple[str, int]]:
    """Yield the whole numbers among arguments, with their names."""
    if isinstance(arguments, int) and not isinstance(arguments, bool):
        yield name, arguments
    elif isinstance(arguments, Mapping):
        for key, value in arguments.items():
            yield from _integers(value, f'{name}.{key}')
    elif isinstance(arguments, Sequence) and not isinstance(arguments, str | bytes):
        for value in arguments:
            yield from _integers(value, name)


@contextlib.contextmanager
def _limited(numbers: int, tensors: int) -> Iterator[None]:
    """Let this thread build no network of more parameters, for the time of the block.

    Raises:
        TooLarge: it did.
    """
    builder, count = threading.get_ident(), _Count()

    def parameter(module: nn.Module, name: str, value: Any) -> None:
        if threading.get_ident() == builder and isinstance(value, Tensor):
            count.numbers += value.numel()
            count.tensors += 1
            if count.numbers > numbers or count.tensors > tensors:
                raise TooLarge(f'of more than {count.tensors:,} tensors of {count.numbers:,} numbers')

    def layer(module: nn.Module, name: str, value: Any) -> None:
        if threading.get_ident() == builder:
            count.layers += 1
            if count.layers > LAYERS_PER_TENSOR * tensors:
                raise TooLarge(f'of more than {count.layers:,} layers')

    hooks = [
        register_module_parameter_registration_hook(parameter), register_module_module_registration_hook(layer),
    ]  # fmt: skip
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
