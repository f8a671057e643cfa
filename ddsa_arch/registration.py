"""How parts are registered with BasicSR, and the one scan that imports the modules which do so."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

from basicsr.utils.registry import Registry

Part = TypeVar('Part', bound=Callable[..., object])  # a class or a function


def register(registry: Registry) -> Callable[[Part], Part]:
    """Return BasicSR's decorator that registers a class or a function under its name, and leaves it as it is.

    BasicSR has no types, so that a checker would take whatever its own decorator returns for ``Any``.
    """
    return registry.register()


def import_registering_modules(package: ModuleType | str, suffix: str) -> list[str]:
    """Import every module of ``package`` whose name ends in ``suffix``, so that its decorators run.

    Nothing is swallowed: a module that fails to import fails the import of the package, with the module's name.

    Args:
        package: an imported package, or its dotted name.
        suffix: such as ``'_arch'``.

    Returns:
        The dotted names that were imported, sorted.
    """
    if isinstance(package, str):
        package = importlib.import_module(package)
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name.endswith(suffix))
    imported = []
    for name in names:
        dotted = f'{package.__name__}.{name}'
        try:
            importlib.import_module(dotted)
        except Exception as error:
            raise ImportError(f'{dotted} could not be imported, so it registers nothing: {error}') from error
        imported.append(dotted)
    return imported
