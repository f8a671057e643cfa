"""The one error class for what a user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave cannot be used: an option, a path, an image.

    The message names the file or key, the value found, the value wanted and the remedy. Commands print it as their
    only output and exit with code 2; everything else is a defect and keeps its traceback.
    """


LONGEST_SHOWN = 100  # letters of a value in a message


def shown(value: object) -> str:
    """Return a value as a message shows it: on one line, and shortened where it is long."""
    return repr(shortened(value)) if isinstance(value, str) else shortened(repr(value))


def shortened(text: str) -> str:
    """Return a text without its middle, where it is long."""
    return text if len(text) <= LONGEST_SHOWN else f'{text[:60]} ... {text[-30:]}'


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return a hint such as ``; did you mean 'DDSANet'?``, or the choices where nothing is near."""
    candidates = sorted(set(map(str, candidates)))
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    if not near:  # the same letters in another case, as difflib counts them as different
        near = [c for c in candidates if c.lower() == name.lower()]
    if near:
        return f'; did you mean {near[0]!r}?'
    return f'; known: {", ".join(candidates)}' if candidates else ''


def clear_message(error: BaseException) -> str:
    """Return the part of an error that is for the user; a worker process of a data loader may have wrapped it."""
    text = str(error)
    marker = f'{InputError.__name__}: '
    return text.rsplit(marker, 1)[-1].strip() if marker in text else text
