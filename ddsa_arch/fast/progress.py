"""The progress of fast inference: each strip tells its listener how many numbers it gave."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Listener = Callable[[int], None]

_listener: ContextVar[Listener | None] = ContextVar('listener', default=None)  # of this thread alone


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let ``listener`` hear of the numbers that fast inference gives in this thread within the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(elements: int) -> None:
    """Tell the listener of this thread, if there is one, that so many numbers were computed."""
    listener = _listener.get()
    if listener is not None:
        listener(elements)
