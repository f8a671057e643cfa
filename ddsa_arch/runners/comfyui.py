"""``ddsa comfyui``: put the nodes of this package into a ComfyUI, or take them away."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import ddsa_arch.integrations.comfyui as nodes
from ddsa_arch.errors import InputError
from ddsa_arch.files.atomic import atomic_path

FOLDER = 'ddsa_arch_nodes'  # in custom_nodes; not the name of the package, which some loaders would put in its place
INIT = '__init__.py'
MARK = '# Written by `ddsa comfyui`: ComfyUI finds the nodes of the installed package by it.\n'
TEXT = MARK + (
    'from ddsa_arch.integrations.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS\n\n'
    "__all__ = ['NODE_CLASS_MAPPINGS', 'NODE_DISPLAY_NAME_MAPPINGS']\n"
)


def place_nodes(comfyui: str | Path, remove: bool = False) -> Path:
    """Put a folder that leads to the nodes into ComfyUI's ``custom_nodes``, or remove it.

    It holds three lines that import the nodes from the installed package, so that they are always of its version, and
    nothing has to be linked, which some systems do not allow.

    Args:
        comfyui: the folder of a ComfyUI, or its ``custom_nodes``.
        remove: take the folder away.

    Raises:
        InputError: there is no ``custom_nodes``, or something of others has our name there.
    """
    path = Path(comfyui).expanduser()
    custom = path if path.name == 'custom_nodes' else path / 'custom_nodes'
    if not custom.is_dir():
        raise InputError(f'{comfyui}: no folder custom_nodes in it; give the folder of a ComfyUI')
    target = custom / FOLDER
    known = (target / INIT).is_file() and (target / INIT).read_text('utf-8', 'replace').startswith(MARK)
    if target.exists() and not known:
        raise InputError(f'{target} is there, and `ddsa comfyui` did not write it; move it away')
    if remove:
        if known:
            shutil.rmtree(target)
        return target
    target.mkdir(exist_ok=True)
    with atomic_path(target / INIT) as part:
        part.write_text(TEXT, encoding='utf-8')
    return target


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='ddsa comfyui', description=__doc__)
    parser.add_argument('path', metavar='PATH', help='the folder of a ComfyUI')
    parser.add_argument('--remove', action='store_true', help='take the nodes away again')
    args = parser.parse_args(argv)
    target = place_nodes(args.path, args.remove)
    if args.remove:
        print(f'{target} is gone')
        return 0
    print(f'{target}: {", ".join(nodes.NODE_DISPLAY_NAME_MAPPINGS.values())}')
    print("Start ComfyUI anew, with a Python that has this package; weight files go into ComfyUI's models/derainers")
    return 0
