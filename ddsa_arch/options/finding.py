"""The option files that come with the package, found by name: ``DDSANet_Rain13K``, ``train/quickstart``."""

from __future__ import annotations

import re
from pathlib import Path

from ddsa_arch.errors import InputError, did_you_mean
from ddsa_arch.files.atomic import write_text

KINDS = ('train', 'test')
SUFFIXES = ('.yml', '.yaml')
PACKAGE = Path(__file__).resolve().parents[1]
FOLDERS = (PACKAGE / 'option_files', PACKAGE.parent / 'options')  # of an installed wheel, of a checkout
BASE_LINE = re.compile(r'(?m)^_base_:[ ]*(\S+\.ya?ml)[ ]*$')


def shipped_folder() -> Path:
    """The folder with ``train`` and ``test``.

    Raises:
        InputError: the installation lacks it.
    """
    for folder in FOLDERS:
        if all((folder / kind).is_dir() for kind in KINDS):
            return folder
    raise InputError(f'the option files of the package are missing from {FOLDERS[0]}; install the package again')


def shipped_names() -> dict[str, Path]:
    """All option files by their full names such as ``train/equal_budget/Restormer``, sorted."""
    folder = shipped_folder()
    paths = sorted(path for kind in KINDS for path in (folder / kind).rglob('*.yml'))
    return {path.relative_to(folder).with_suffix('').as_posix(): path for path in paths}


def is_name(text: str) -> bool:
    """Whether this names a shipped file, rather than a path."""
    return not text.endswith(SUFFIXES) and re.fullmatch(r'[\w.+-]+(/[\w.+-]+)*', text) is not None


def find_shipped(name: str, kind: str | None = None) -> Path:
    """A shipped option file by its name.

    Args:
        name: with its folder below ``train`` or ``test``, and with this folder too if both have such a file.
        kind: ``train`` or ``test``, where a name that both have is looked up.

    Raises:
        InputError: there is none of this name, or both folders have one and nobody says which.
    """
    names = shipped_names()
    if name in names:
        return names[name]
    found = [full for full in (f'{folder}/{name}' for folder in KINDS) if full in names]
    if kind and f'{kind}/{name}' in found:
        return names[f'{kind}/{name}']
    if len(found) == 1:
        return names[found[0]]
    if found:
        raise InputError(f'{name!r} names two option files: {" and ".join(found)}; name one of these')
    short = [full.partition('/')[2] for full in names if kind is None or full.startswith(kind)]
    raise InputError(f'no option file {name!r}{did_you_mean(name, short)}; `ddsa options list` names them all')


def described(path: Path) -> str:
    """The first sentence of the comment that an option file begins with."""
    lines = path.read_text(encoding='utf-8').splitlines()
    comment = next((line[1:].strip() for line in lines if line.startswith('# ')), '')
    return comment.partition('. ')[0].removesuffix('.')


def copy_shipped(name: str, folder: str | Path = '.') -> Path:
    """Copy a shipped option file to change it; what it inherits is named so that it is found from anywhere.

    Args:
        name: see ``find_shipped``.
        folder: where the copy goes.

    Returns:
        The copy.

    Raises:
        InputError: no such name, or a file of this name is there.
    """
    path = find_shipped(name)
    target = Path(folder) / path.name
    if target.exists():
        raise InputError(f'{target} is there already; move it, or copy to another folder: -o FOLDER')

    def named(found: re.Match[str]) -> str:
        base = (path.parent / found[1]).resolve().relative_to(shipped_folder()).with_suffix('').as_posix()
        return f'_base_: {base}'

    write_text(target, BASE_LINE.sub(named, path.read_text(encoding='utf-8')))
    return target
