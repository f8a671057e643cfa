"""The floors of the package: who may import whom. Read from the sources, so that no import is needed to check it."""

import ast
from pathlib import Path

import pytest

PACKAGE = 'ddsa_arch'
FLOORS = {
    'ops': 0, 'files': 0, 'machine': 0, 'archs.blocks': 1, 'archs': 2, 'data': 2, 'losses': 2, 'metrics': 2,
    'fast': 3, 'sets': 3, 'models': 4, 'options': 5, 'inference': 6, 'training': 6, 'benchmarking': 6,
    'comparison': 6, 'integrations': 7, 'demo': 7, 'runners': 8,
}  # fmt: skip
STAIR_RAIL = ('compat', 'errors', 'openmp', 'registration')  # all may hold it; it imports nothing of ours
NOT_ON_THE_GROUND = ('basicsr', 'mmengine')


def imported_names(source, module, is_package=False):
    """Dotted names that a module imports, wherever in it the statement stands; the package's for what it lends.

    Args:
        source: Python.
        module: dotted name, to resolve relative imports.
        is_package: whether it is an ``__init__.py``.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                parts = module.split('.')
                above = parts[: len(parts) - node.level + is_package]
                base = '.'.join([*above, *filter(None, [node.module])])
            yield from (base if base == PACKAGE else f'{base}.{alias.name}' for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
            if name in ('import_module', '__import__') and isinstance(node.args[0].value, str):
                yield node.args[0].value


def room(name):
    """The subpackage of a dotted name of ours, such as ``archs.blocks``; the top-level module; '' for the package."""
    parts = name.split('.')[1:]
    if parts[:2] == ['archs', 'blocks']:
        return 'archs.blocks'
    return parts[0] if parts else ''


def violations(source, module, is_package=False):
    """What in a module breaks the rule, one sentence for each import."""
    here = room(module)
    if not here:
        return []  # the package itself, which joins the parts
    if here not in FLOORS and here not in STAIR_RAIL:
        return [f'{module} stands on no floor: put it into one of {", ".join(FLOORS)}']
    found = []
    for name in imported_names(source, module, is_package):
        top = name.split('.')[0]
        if FLOORS.get(here) == 0 and top in NOT_ON_THE_GROUND:
            found.append(f'{module} imports {name}: the lowest floor does without {top}')
        if top != PACKAGE:
            continue
        there = room(name)
        if here in STAIR_RAIL:
            found.append(f'{module} imports {name}: the stair rail imports nothing of ours')
        elif not there:
            found.append(f'{module} imports {name}: name the module, not the package')
        elif there in STAIR_RAIL or there == here:
            continue
        elif there not in FLOORS:
            found.append(f'{module} imports {name}, which stands on no floor')
        elif FLOORS[there] == FLOORS[here]:
            found.append(f'{module} imports {name}: sideways')
        elif FLOORS[there] > FLOORS[here]:
            found.append(f'{module} imports {name}: up')
    return found


def sources():
    """(dotted name, path) of every module of the package."""
    root = Path(__file__).resolve().parents[1]
    for path in sorted((root / PACKAGE).rglob('*.py')):
        parts = path.relative_to(root).with_suffix('').parts
        yield '.'.join(parts[:-1] if parts[-1] == '__init__' else parts), path


@pytest.mark.core
def test_package_keeps_to_its_floors():
    found = []
    for module, path in sources():
        found += violations(path.read_text(encoding='utf-8'), module, path.name == '__init__.py')
    assert found == []


def test_every_floor_is_looked_at():
    rooms = {room(module) for module, _ in sources()}
    assert rooms == {'', *FLOORS, *STAIR_RAIL}


@pytest.mark.parametrize(
    ('module', 'source'),
    [
        ('ddsa_arch.ops.a', 'import numpy\nfrom ddsa_arch.ops.b import c\nfrom ddsa_arch.ops import b'),
        ('ddsa_arch.archs.blocks.a', 'from ddsa_arch.archs.blocks.norm import LayerNorm\nimport ddsa_arch.ops.b'),
        ('ddsa_arch.archs.a_arch', 'from ddsa_arch.archs.blocks.norm import Norm\nfrom ddsa_arch.archs.b import c'),
        ('ddsa_arch.archs.a_arch', 'from ddsa_arch.archs import blocks'),
        ('ddsa_arch.data.a', 'from ddsa_arch.ops.b import c\nimport basicsr'),
        ('ddsa_arch.models.a', 'from ddsa_arch.archs.weights import load\nfrom ddsa_arch.losses.b import c'),
        ('ddsa_arch.runners.a', 'from ddsa_arch.models.b import c\nfrom ddsa_arch.runners import cli\nfrom . import d'),
        (
            'ddsa_arch.integrations.mmengine',
            'from mmengine.registry import MODELS\nfrom ddsa_arch.models.restore import restore',
        ),
        ('ddsa_arch.integrations.spandrel', 'def f():\n    import spandrel\nfrom ddsa_arch.archs.b_arch import Net'),
        ('ddsa_arch.metrics.a', 'from ddsa_arch.compat import repair\nfrom ddsa_arch.registration import d'),
        ('ddsa_arch.data.a', 'import ddsa_arch.compat\nimport ddsa_arch.ops'),
        ('ddsa_arch.compat', 'import basicsr\nimport importlib'),
        ('ddsa_arch', 'from ddsa_arch import archs, data\nfrom . import runners'),
        ('ddsa_arch.data.a', 'from ddsa_archive import b\nimport_module("ddsa_arch_tools")'),
    ],
)
def test_lawful_imports_pass(module, source):
    assert violations(source, module) == []


@pytest.mark.parametrize(
    ('module', 'source', 'complaint'),
    [
        ('ddsa_arch.ops.a', 'from ddsa_arch.data.b import c', 'up'),
        ('ddsa_arch.ops.a', 'import ddsa_arch.runners.cli', 'up'),
        ('ddsa_arch.ops.a', 'import basicsr', 'the lowest floor does without basicsr'),
        ('ddsa_arch.ops.a', 'from basicsr.utils import imfrombytes', 'the lowest floor does without basicsr'),
        ('ddsa_arch.ops.a', 'from mmengine.config import Config', 'the lowest floor does without mmengine'),
        ('ddsa_arch.archs.blocks.a', 'from ddsa_arch.archs.b_arch import Net', 'up'),
        ('ddsa_arch.archs.blocks.a', 'from ddsa_arch.data.b import c', 'up'),
        ('ddsa_arch.archs.a_arch', 'from ddsa_arch.losses.b import c', 'sideways'),
        ('ddsa_arch.data.a', 'from ddsa_arch.metrics.b import c', 'sideways'),
        ('ddsa_arch.data.a', 'from ddsa_arch.archs.blocks.b import c', None),  # blocks lie lower
        ('ddsa_arch.metrics.a', 'from ddsa_arch.models.b import c', 'up'),
        ('ddsa_arch.models.a', 'from ddsa_arch.runners.b import c', 'up'),
        ('ddsa_arch.models.a', 'import ddsa_arch.integrations.mmengine', 'up'),
        ('ddsa_arch.training.a', 'from ddsa_arch.inference.b import c', 'sideways'),
        ('ddsa_arch.files.a', 'from ddsa_arch.ops.b import c', 'sideways'),
        ('ddsa_arch.integrations.spandrel', 'from ddsa_arch.runners.b import c', 'up'),
        ('ddsa_arch.ops.a', 'from ddsa_arch.integrations.mmengine import install', 'up'),
        ('ddsa_arch.models.a', 'from ddsa_arch import archs', 'name the module, not the package'),
        ('ddsa_arch.runners.a', 'from ddsa_arch import compat', 'name the module, not the package'),
        ('ddsa_arch.runners.a', 'import ddsa_arch', 'name the module, not the package'),
        ('ddsa_arch.runners.a', 'from ddsa_arch import *', 'name the module, not the package'),
        ('ddsa_arch.runners.a', 'from ddsa_arch.tools.b import c', 'stands on no floor'),
        ('ddsa_arch.tools.a', '', 'stands on no floor'),
        ('ddsa_arch.helpers', '', 'stands on no floor'),
        ('ddsa_arch.compat', 'from ddsa_arch.errors import InputError', 'the stair rail imports nothing of ours'),
        ('ddsa_arch.registration', 'import ddsa_arch.compat', 'the stair rail imports nothing of ours'),
        ('ddsa_arch.ops.a', 'def f():\n    from ddsa_arch.models.b import c', 'up'),
        ('ddsa_arch.ops.a', 'if TYPE_CHECKING:\n    from ddsa_arch.models.b import c', 'up'),
        ('ddsa_arch.ops.a', 'importlib.import_module("ddsa_arch.models.b")', 'up'),
        ('ddsa_arch.ops.a', '__import__("ddsa_arch.models.b")', 'up'),
        ('ddsa_arch.ops.a', 'from ..models import b', 'up'),
        ('ddsa_arch.ops.a', 'from .. import models', 'name the module, not the package'),
        ('ddsa_arch.archs.blocks.a', 'from ..b_arch import Net', 'up'),
    ],
)
def test_unlawful_import_is_found(module, source, complaint):
    found = violations(source, module)
    if complaint is None:
        assert found == []
        return
    assert len(found) == 1
    assert found[0].startswith(module)
    assert complaint in found[0]


def test_relative_import_of_an_init_file_is_resolved():
    assert violations('from .b import c', 'ddsa_arch.data', is_package=True) == []
    assert violations('from ..metrics.b import c', 'ddsa_arch.data', is_package=True) == [
        'ddsa_arch.data imports ddsa_arch.metrics.b.c: sideways'
    ]
