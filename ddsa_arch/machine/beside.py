"""Work in threads beside the main one: items read ahead of their use, and calls done behind it, each in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar('T')
END = object()


@contextmanager
def reading_ahead(items: Iterable[T], count: int) -> Iterator[Iterator[T]]:
    """Give an iterator over items that are made in a thread, so many before they are asked for.

    An exception in the making is raised where the item is asked for. When the block ends, no more are made.
    """
    source = iter(items)
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[Any]] = deque(pool.submit(next, source, END) for _ in range(count))  # Any: items or END

        def taken() -> Iterator[T]:
            while (item := waiting.popleft().result()) is not END:
                waiting.append(pool.submit(next, source, END))
                yield item

        try:
            yield taken()
        finally:
            for future in waiting:
                future.cancel()


class Behind:
    """Takes calls that are done in a thread, one after the other; used by ``doing_behind``."""

    def __init__(self, pool: ThreadPoolExecutor, count: int) -> None:
        self._pool, self._count = pool, count
        self._waiting: deque[Future[None]] = deque()

    def __call__(self, function: Callable[..., None], *arguments: object) -> None:
        """Have a function called; wait if too many calls are waiting already, and raise what an earlier one raised."""
        while len(self._waiting) >= self._count:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(function, *arguments))

    def finish(self) -> None:
        """Wait for all calls, and raise what one of them raised."""
        while self._waiting:
            self._waiting.popleft().result()

    def cancel(self) -> None:
        """Drop the calls that have not begun."""
        for future in self._waiting:
            future.cancel()


@contextmanager
def doing_behind(count: int) -> Iterator[Behind]:
    """Give what takes calls to be done in a thread, of which so many wait at most; all are done when the block ends."""
    with ThreadPoolExecutor(1) as pool:
        behind = Behind(pool, count)
        try:
            yield behind
            behind.finish()
        except BaseException:
            behind.cancel()
            raise
