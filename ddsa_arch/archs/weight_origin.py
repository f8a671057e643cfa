"""Tell from a checkpoint how its network is built, by our own ``network_g`` or the config that mmengine keeps in it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

PARTS = ('network', 'generator', 'net', 'backbone')  # of a model of mmengine, in which its network stands
LONGEST = 1_000_000  # letters of a config


def network_of(checkpoint: Mapping[str, Any]) -> Any:
    """Return ``{type, arguments}`` as a checkpoint tells it, or the bare name of the network; None if it does not."""
    section = checkpoint.get('network_g')
    if section is not None:
        return section
    meta = checkpoint.get('meta')
    text = meta.get('cfg') if isinstance(meta, Mapping) else None
    return _network_of_config(text) if isinstance(text, str) and len(text) <= LONGEST else None


def _network_of_config(text: str) -> dict[str, Any] | None:
    """Read the network's section of a config of mmengine, which is Python; it is parsed, and nothing of it is run."""
    try:
        body = ast.parse(text).body
        model: Any = next(
            _value(line.value)
            for line in body
            if isinstance(line, ast.Assign) and [getattr(name, 'id', '') for name in line.targets] == ['model']
        )
    except (SyntaxError, ValueError, StopIteration, RecursionError, MemoryError):
        return None
    if not isinstance(model, dict):
        return None
    section = next((model[part] for part in PARTS if isinstance(model.get(part), dict)), model)
    kind = section.get('type')
    return {**section, 'type': kind.rpartition('.')[2]} if isinstance(kind, str) else None


def _value(node: ast.expr) -> Any:
    """Return the value of a literal in which dictionaries may be written as ``dict(a=1)``.

    Raises:
        ValueError: it is anything else.
    """
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args:
        return {word.arg: _value(word.value) for word in node.keywords if word.arg}
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(part) for part in node.elts]
    return ast.literal_eval(node)
