"""Zip archives from the net: whether one is whole, safe to unpack, and undamaged."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import DAMAGED_ENTRY, some

ENCRYPTED = 0x1  # bit of an entry's flags
BLOCK = 1 << 20  # bytes read at once
HEAD = 4096  # bytes in which a web page shows itself
FIRST_ENTRY = b'PK\x03\x04'
WEB_PAGE = re.compile(rb'\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head)', re.IGNORECASE)
TITLE = re.compile(rb'<title[^>]*>(.*?)</title>', re.IGNORECASE | re.DOTALL)
DRIVE_LETTER = re.compile(r'[A-Za-z]:')


def open_archive(path: str | Path) -> zipfile.ZipFile:
    """Open a zip archive whose list of entries can be read and names no place outside the folder it is unpacked in.

    The entries themselves are not read; see :func:`broken_entries`.

    Raises:
        InputError: the file is missing; is no zip archive, or one that is cut off; has an entry with an absolute path,
            a drive letter or a ``..`` part, with slashes or backslashes; has an encrypted entry.
    """
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror or error})') from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:  # ValueError: names that are no text
        raise InputError(f'{path}: {_what_it_is(path)}; download it again') from error
    entries = archive.infolist()
    unsafe = [repr(info.orig_filename) for info in entries if not _is_safe(info.orig_filename)]
    encrypted = [info.filename for info in entries if info.flag_bits & ENCRYPTED]
    if not unsafe and not encrypted:
        return archive
    archive.close()
    if unsafe:
        raise InputError(
            f'{path}: {len(unsafe)} entries name a place outside the folder they are unpacked in: {some(unsafe)}; '
            'do not unpack it, and get the archive from another source'
        )
    raise InputError(
        f'{path}: {len(encrypted)} entries are encrypted: {some(encrypted)}; '
        'unpack it with its password and use the folder'
    )


def broken_entries(archive: zipfile.ZipFile, progress: Callable[[Iterable], Iterable] = iter) -> list[str]:
    """The names of the entries that cannot be read or do not match the CRC that the archive holds for them.

    Args:
        archive: from :func:`open_archive`.
        progress: wraps the iterable of entries, such as tqdm.
    """
    broken = []
    for info in progress(archive.infolist()):
        try:
            with archive.open(info) as entry:
                while entry.read(BLOCK):  # the CRC is compared at the end
                    pass
        except DAMAGED_ENTRY:
            broken.append(info.filename)
    return broken


def _is_safe(name: str) -> bool:
    """Whether a name stays below the folder it is unpacked in, on every system."""
    path = name.replace('\\', '/')
    return not (path.startswith('/') or DRIVE_LETTER.match(path) or '\0' in path or '..' in path.split('/'))


def _what_it_is(path: str | Path) -> str:
    """Tell what a file is that cannot be opened as a zip archive."""
    with open(path, 'rb') as file:
        head = file.read(HEAD)
    if not head:
        return 'empty'
    if WEB_PAGE.match(head):
        title = TITLE.search(head)
        named = f' ({" ".join(title[1].decode("utf-8", "replace").split())})' if title else ''
        return f'a web page{named}, not the archive'
    return 'the archive is cut off or damaged' if head.startswith(FIRST_ENTRY) else 'no zip archive'
