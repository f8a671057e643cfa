"""Lists of pairs: a text file with a rainy and a clean image a line, as SPA-Data has one."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from ddsa_arch.errors import InputError
from ddsa_arch.files.matching import Pairs, is_key
from ddsa_arch.files.name_rules import key_of, numbered_keys

COMMENT = '#'
TOLD_AT_MOST = 20  # missing files that are named


def pair_list(path: str | Path, root: str | Path | None = None) -> Pairs:
    """Read a list of two columns of paths, parted by a comma, a tab or blanks: the rainy and the clean image.

    Paths begin at the root, else at the folder of the list; ``/a`` and ``./a`` are looked for there too. Blank lines
    and lines that begin with ``#`` count for nothing. A clean image may stand in several lines: it is one image, with
    the key of its path, and its rainy images have that key and a number.

    Args:
        path: UTF-8 text.
        root: the folder at which the paths begin.

    Raises:
        InputError: the list is missing or no such list; an image is missing, named with its line.
    """
    path = Path(os.path.expanduser(path))
    try:
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror}); wanted a list of pairs') from error
    except UnicodeDecodeError as error:
        raise InputError(f'{path}: not UTF-8 (byte {error.start}); wanted a list of pairs') from error
    base = Path(root) if root else path.parent
    rows: dict[tuple[str, str], int] = {}
    missing: list[str] = []
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith(COMMENT):
            continue
        parted = _columns(line)
        if len(parted) != 2:
            raise InputError(
                f'{path}, line {number}: {line.strip()[:80]!r} is not two paths; part them by a comma, a tab or a blank'
            )
        places = _relative(parted[0]), _relative(parted[1])
        absent = [given for given, place in zip(parted, places, strict=True) if _find(base, given, place) is None]
        missing += [f'line {number}: {given}' for given in absent]
        if not absent:
            rows.setdefault(places, number)
    if missing:
        more = f'\n  and {len(missing) - TOLD_AT_MOST} more' if len(missing) > TOLD_AT_MOST else ''
        raise InputError(
            f'{path}: {len(missing)} images are not below {base}:\n  ' + '\n  '.join(missing[:TOLD_AT_MOST]) + more
            + '\nGive the folder at which the paths begin with --root, or mend these lines'
        )  # fmt: skip
    if not rows:
        raise InputError(f'{path}: no pair in it; wanted a rainy and a clean image a line')
    return _pairs(path, base, rows, problems)


def _pairs(path: Path, base: Path, rows: dict[tuple[str, str], int], problems: list[str]) -> Pairs:
    pairs = Pairs(told=f'the lines of {path}', rule='list', problems=problems)
    partner: dict[str, str] = {}
    for rainy, clean in rows:
        if rainy in partner:
            problems.append(f'{path}, line {rows[rainy, clean]}: {rainy} stands in two lines; keep one of them')
        partner.setdefault(rainy, clean)
    uses = Counter(partner.values())
    many = max(uses.values()) > 1
    names: dict[str, str] = {}
    for side in zip(*rows, strict=True):
        shared = os.path.commonpath([os.path.dirname(place) for place in side]) or '.'
        names |= {place: key_of(os.path.splitext(os.path.relpath(place, shared))[0]) for place in side}
    keys = numbered_keys(partner, names) if many else names
    for rainy, clean in partner.items():
        key, target_key = keys[rainy], names[clean] if many else names[rainy]
        if not is_key(key) or not is_key(target_key) or key in pairs.inputs:
            problems.append(f'{path}, line {rows[rainy, clean]}: {key!r} cannot be a key; rename the images')
            continue
        found = _find(base, rainy, rainy), _find(base, clean, clean)
        if found[0] and found[1]:
            pairs.add(key, target_key, found[0], found[1])
    return pairs


def _columns(line: str) -> list[str]:
    """Part a line by its comma, else its tab, else its blanks."""
    for mark in (',', '\t', None):
        if mark is None or mark in line:
            return [part.strip() for part in line.split(mark)]
    return []


def _relative(given: str) -> str:
    return re.sub(r'^(\./|/)+', '', given.replace('\\', '/'))


def _find(base: Path, given: str, place: str) -> Path | None:
    """Return the file of a path that begins at the base, or that is absolute."""
    for candidate in (base / place, Path(given)):
        if candidate.is_file() and (candidate.is_absolute() or candidate.is_relative_to(base)):
            return candidate
    return None
