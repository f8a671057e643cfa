"""The plain form of a network: the papers' order of operations, step by step.

By default the blocks run a fast form that gives the same numbers. The plain one is what is counted, as papers count,
and what the fast one is checked against.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class _Form:
    plain = False


def is_plain() -> bool:
    """Whether the plain form runs now."""
    return _Form.plain


@contextlib.contextmanager
def plain_form() -> Iterator[None]:
    """Run the plain form within the block, in all networks of this process."""
    before, _Form.plain = _Form.plain, True
    try:
        yield
    finally:
        _Form.plain = before
