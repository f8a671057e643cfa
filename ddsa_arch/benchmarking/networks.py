"""Which networks ``ddsa benchmark`` is asked to measure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY

from ddsa_arch.archs.building import build_network
from ddsa_arch.archs.cards import CARDS, Card
from ddsa_arch.errors import InputError, did_you_mean
from ddsa_arch.options.loading import check_network, import_modules
from ddsa_arch.options.parts import part_parameters
from ddsa_arch.options.reading import read_options

ALL = 'all'
OPTION_SUFFIXES = ('.yml', '.yaml')


@dataclass(frozen=True)
class Chosen:
    """A network to measure.

    Args:
        label: in tables.
        network_g: ``{type, ...}``, checked.
        size_multiple: of H and W, where the network does not say itself.
        imports: modules that register it.
        card: whose network it is; '' for none.
    """

    label: str
    network_g: dict[str, Any]
    size_multiple: int | None = None
    imports: Any = None
    card: str = ''


def choose_networks(names: Sequence[str]) -> list[Chosen]:
    """Find the networks that the arguments name, each once.

    Raises:
        InputError: an unknown name, a file without a network, arguments that do not fit, or one label for two.
    """
    chosen: dict[str, Chosen] = {}
    for name in names:
        for network in [_of_card(card) for card in CARDS] if name == ALL else [_choose(name)]:
            known = chosen.setdefault(network.label, network)
            if known != network:
                raise InputError(f'{name}: two different networks would be called {network.label!r}; rename the file')
    for network in chosen.values():
        try:
            build_network(network.network_g, 'meta')
        except InputError as error:
            raise InputError(f'{network.label}: {error}') from error
    return list(chosen.values())


def _of_card(card: Card) -> Chosen:
    section = check_network({'type': card.network, **card.arguments})
    return Chosen(card.name, section, card.size_multiple, card=card.name)


def _choose(name: str) -> Chosen:
    cards = {card.name: card for card in CARDS}
    if name in cards:
        return _of_card(cards[name])
    if Path(name).suffix in OPTION_SUFFIXES:
        return _of_file(Path(name))
    if name not in ARCH_REGISTRY:
        hint = did_you_mean(name, [*cards, *ARCH_REGISTRY.keys(), ALL])
        raise InputError(f'no network {name!r}{hint} (or give an option file, .yml)')
    try:
        section = check_network({'type': name})
    except InputError as error:
        raise InputError(f'{name} has no default for all its arguments; name it in an option file: {error}') from error
    card = _card_of(section)
    return Chosen(name, section, card.size_multiple if card else None, card=card.name if card else '')


def _of_file(path: Path) -> Chosen:
    """Return the network of an option file with its size multiple; the rest of ``val.restore`` is left out."""
    options = read_options(path)
    try:
        import_modules(options.get('imports'))
        section = check_network(options.get('network_g'))
    except InputError as error:
        raise InputError(f'{path}: {error}') from error
    recipe = (options.get('val') or {}).get('restore') or {}
    card = _card_of(section)
    multiple = recipe.get('size_multiple') or (card.size_multiple if card else None)
    return Chosen(path.stem, section, multiple, options.get('imports'), card.name if card else '')


def _card_of(section: dict[str, Any]) -> Card | None:
    """Return the card that describes exactly this network; None if there is none."""
    return next((card for card in CARDS if _complete(section) == _complete(_of_card(card).network_g)), None)


def _complete(section: dict[str, Any]) -> dict[str, Any]:
    """Fill a section with the defaults of what it leaves out, and turn all sequences into lists."""
    taken, _ = part_parameters('arch', section['type'])
    defaults = {name: p.default for name, p in taken.items() if p.default is not p.empty}
    return json.loads(json.dumps(defaults | section, default=str))
