"""Lists of images: a text file with one key, the file name without suffix, a line."""

from __future__ import annotations

from pathlib import Path

from ddsa_arch.errors import InputError

COMMENT = '#'


def read_keys(path: str | Path, role: str) -> list[str]:
    """Read the keys of a list, each once, in the order of the file.

    White space around a key, blank lines and lines that begin with ``#`` count for nothing, so a key that begins with
    ``#`` cannot be listed.

    Args:
        path: UTF-8 text; a byte order mark is passed over.
        role: what the file is to the user (an option's key), for the message.

    Raises:
        InputError: the file is missing, cannot be read, or is not UTF-8.
    """
    remedy = 'wanted UTF-8 text with one image name without suffix a line; to leave no image out, drop the option'
    try:
        text = Path(path).read_text(encoding='utf-8-sig')
    except FileNotFoundError as error:
        raise InputError(f'{role}: no file {path}; {remedy}') from error
    except OSError as error:
        raise InputError(f'{role}: {path} cannot be read ({error.strerror}); {remedy}') from error
    except UnicodeDecodeError as error:
        raise InputError(f'{role}: {path} is not UTF-8 (byte {error.start}); {remedy}') from error
    lines = map(str.strip, text.split('\n'))
    return list(dict.fromkeys(line for line in lines if line and not line.startswith(COMMENT)))
