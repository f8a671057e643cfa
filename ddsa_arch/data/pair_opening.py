"""Open the two sides of a data set for reading, paired by the set's rule."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ddsa_arch.data.image_source import ImageSource
from ddsa_arch.errors import InputError
from ddsa_arch.files import images
from ddsa_arch.files.lmdb_store import is_store
from ddsa_arch.files.matching import SIDES, Pairs, find_sides, is_nested
from ddsa_arch.files.name_rules import AUTO, HALVES, STEM, Matched, match_names
from ddsa_arch.files.pair_sources import find_pairs, holds_images, is_pattern, side_folders


class PairedSources:
    """Two sides of a set, and which clean image belongs to which rainy one.

    Args:
        inputs: where the rainy images lie, as ``dataroot_lq`` names it.
        targets: the clean ones, as ``dataroot_gt``; the same folder where it holds both.
        roles: what the two are to the user, for messages.
        match: a rule of ``files.name_rules``.
        pairs_file: list of pairs; paths in it begin at ``inputs``, else at its own folder.
        cached: keep decoded images in memory.

    Attributes:
        inputs: rainy images by key.
        targets: clean images by key.
        rule: by which they match.
        told: the rule in words.

    Raises:
        InputError: missing images, or a set that cannot be paired.
    """

    def __init__(
        self,
        inputs: str | None,
        targets: str | None,
        roles: tuple[str, str],
        match: str = AUTO,
        pairs_file: str | None = None,
        cached: bool = False,
    ) -> None:
        self.match, self.rule, self.told = match, STEM, 'stem'
        self.partner: dict[str, str] | None = None
        pairs = _listed_pairs(inputs, targets, roles, match, pairs_file)
        if pairs is None:
            self.inputs, self.targets = ImageSource(inputs, roles[0], cached), ImageSource(targets, roles[1], cached)
            return
        place = inputs or os.path.dirname(str(pairs_file)) or '.'
        self.inputs = ImageSource(place, roles[0], cached, pairs.inputs)
        self.targets = ImageSource(targets or place, roles[1], cached, pairs.targets)
        self.partner = {key: pairs.target_of(key) for key in pairs.inputs}
        self.rule, self.told = pairs.rule, pairs.told

    def pair(self, leave_out: Callable[[], None] = lambda: None) -> None:
        """Give each rainy image its clean one, and check that none is left over.

        Args:
            leave_out: takes images out of the two sources; the clean images of those alone count for nothing.

        Raises:
            InputError: an image has no partner, or it is in doubt which it is.
        """
        everything = self._matched_or_none()
        before = set(self.inputs.found)
        leave_out()
        taken_out = before - self.inputs.found.keys()
        matched = everything or self._matched()
        partner = {
            key: target
            for key, target in matched.partner.items()
            if key in self.inputs.found and target in self.targets.found
        }
        of_those = {matched.partner.get(key) for key in taken_out}
        used = set(partner.values())
        images.check_partners(
            [key for key in self.inputs.found if key not in partner],
            [key for key in self.targets.found if key not in used and key not in of_those],
            self.inputs.root,
            self.targets.root,
            f'{matched.rule}{matched.hint}',
        )
        self.targets.found = {key: found for key, found in self.targets.found.items() if key in used}
        self.partner = partner
        if self.rule == STEM:
            self.rule, self.told = matched.rule, matched.told

    def named_as_inputs(self) -> ImageSource:
        """Return the clean images by the keys of their rainy ones, where the rule is not the one of equal keys."""
        partner = self.loose_partner()
        if any(key != target for key, target in partner.items()):
            used = set(partner.values())
            alone = {key: found for key, found in self.targets.found.items() if key not in used}
            self.targets.found = {key: self.targets.found[target] for key, target in partner.items()} | alone
        return self.targets

    def target_of(self, key: str) -> str:
        """Return the key of the clean image of a rainy one; its own where there is none."""
        return (self.partner or {}).get(key, key)

    def loose_partner(self) -> dict[str, str]:
        """Return the key of the clean image of each rainy one that has one, whatever else is left over."""
        matched = self._matched_or_none()
        return dict(matched.partner) if matched else {}

    def _matched_or_none(self) -> Matched | None:
        """Match all images, those included that are left out; None if that cannot be done."""
        with contextlib.suppress(InputError):
            return self._matched()
        return None

    def _matched(self) -> Matched:
        if self.partner is not None:
            return Matched(self.rule, self.told, self.partner)
        return match_names(self.inputs.found, self.targets.found, self.match, self.inputs.root, self.targets.root)


def _listed_pairs(
    inputs: str | None, targets: str | None, roles: tuple[str, str], match: str, pairs_file: str | None
) -> Pairs | None:
    """Find the pairs of a set that its files tell, None where each side is a flat folder or a store."""
    if pairs_file:
        pairs = find_pairs(inputs or os.path.dirname(os.path.expanduser(pairs_file)) or '.', None, match, pairs_file)
    elif not inputs or not targets or is_store(inputs) or is_store(targets):
        if match in HALVES:
            raise InputError(f'match: {match} takes a folder of files that hold both halves, given as both data roots')
        return None
    else:
        one = os.path.realpath(inputs) == os.path.realpath(targets)
        nested = [Path(place).is_dir() and is_nested(place) for place in (inputs, targets)]
        if not (one or any(nested) or is_pattern(inputs) or is_pattern(targets) or match in HALVES):
            return None
        pairs = find_pairs(inputs, targets, match, roles=roles)
    if pairs.problems:
        raise InputError(f'{len(pairs.problems)} problems:\n  ' + '\n  '.join(pairs.problems))
    return pairs


def open_set(place: str | Path, role: str, match: str = AUTO) -> PairedSources:
    """Open a set: by its folder with two stores, two folders of known names, or both sides; or by a list of pairs.

    Raises:
        InputError: no set, or doubt which image belongs to which.
    """
    stores = [Path(place) / f'{side}.lmdb' for side in SIDES]
    if all(store.is_dir() for store in stores):
        return PairedSources(str(stores[0]), str(stores[1]), (role, role), match)
    if Path(place).is_file():
        return PairedSources(None, None, (role, role), match, str(place))
    sides = side_folders(place) if Path(place).is_dir() and match not in HALVES else None
    if sides is None and not (Path(place).is_dir() and holds_images(place)):
        sides = find_sides(place, role)  # for its message
    rainy, clean = sides or (Path(place), Path(place))
    return PairedSources(str(rainy), str(clean), (role, role), match)


def open_options(options: Mapping[str, Any], role: Callable[[str], str]) -> PairedSources:
    """Open the two sides that the options of a data set name."""
    return PairedSources(
        options.get('dataroot_lq'),
        options.get('dataroot_gt'),
        (role('dataroot_lq'), role('dataroot_gt')),
        options.get('match') or AUTO,
        options.get('pairs_file'),
        options.get('cache_images', False),
    )
