"""Networks as folders that can be shared: on the disk, or as repositories of the Hugging Face Hub.

A folder has ``model.safetensors``, whose metadata tell how the network is built, the same as ``config.json``, and a
``README.md`` for its readers.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from ddsa_arch.archs.weights import BLOCK, read_weights, write_weights
from ddsa_arch.errors import InputError
from ddsa_arch.files.atomic import atomic_path

WEIGHTS, CONFIG, CARD = 'model.safetensors', 'config.json', 'README.md'
REPOSITORY = re.compile(r'[\w.-]+/[\w.-]+', re.ASCII)  # user/name
INSTALL = "pip install 'ddsa_arch[hub]'"


def pretrained_file(source: str | Path, revision: str | None = None, cache: str | Path | None = None) -> Path:
    """Return the weight file of a folder, or that of a repository of the Hub, which is downloaded once.

    Args:
        source: a folder with ``model.safetensors``, a weight file, or ``user/name`` on the Hub. What is on the disk
            goes first.
        revision: branch, tag or commit of the repository; None takes the newest.
        cache: where downloads are kept; None for where huggingface_hub keeps them.

    Raises:
        InputError: there is no such folder or repository, it holds no weights, or the Hub cannot be reached.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return _only_weights(path)
    if not REPOSITORY.fullmatch(str(source)):
        raise InputError(f'{source}: no such folder or file, and no name of a repository, which is USER/NAME')
    hub = import_hub()
    try:
        return Path(hub.hf_hub_download(str(source), WEIGHTS, revision=revision, cache_dir=cache))
    except Exception as error:  # of many kinds: no such repository, no network, not allowed
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f'{source}: no such folder here, and the Hub does not give its {WEIGHTS} ({first}); check the name and the '
            'network, or give a folder'
        ) from error


def _only_weights(folder: Path) -> Path:
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    others = sorted(path for path in folder.iterdir() if path.suffix in ('.safetensors', '.pth'))
    if len(others) == 1:
        return others[0]
    found = ', '.join(path.name for path in others) or 'none'
    raise InputError(f'{folder}: no {WEIGHTS} in it (weight files there: {found}); name the file')


def save_pretrained(
    folder: str | Path, state: Mapping[str, Tensor], network_g: Mapping[str, Any], about: Mapping[str, Any]
) -> Path:
    """Write a folder that ``Derainer.from_pretrained`` takes.

    Args:
        folder: made if it is missing; files of these names in it are replaced.
        state: the weights.
        network_g: ``{type, ...}``, how the network is built.
        about: what the file shall tell, see ``write_weights``.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / WEIGHTS, state, network_g, about)
    told = read_weights(folder / WEIGHTS).about
    config = {'library_name': BLOCK, 'architectures': [network_g['type']], 'network_g': dict(network_g), BLOCK: told}
    for name, text in ((CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + '\n'), (CARD, _card(config))):
        if name == CARD and (folder / CARD).exists():
            continue  # somebody may have written it by hand
        with atomic_path(folder / name) as part:
            part.write_text(text, encoding='utf-8')
    return folder


def push_folder(folder: str | Path, repository: str, private: bool = False, message: str = 'Upload weights') -> str:
    """Upload a folder of ``save_pretrained`` to the Hub, with the account that huggingface_hub is logged in with.

    Returns:
        The address of the commit.

    Raises:
        InputError: the name is none of a repository, or the Hub refuses it.
    """
    if not REPOSITORY.fullmatch(repository):
        raise InputError(f'--push {repository}: wanted USER/NAME')
    hub = import_hub()
    try:
        api = hub.HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository, folder_path=str(folder), allow_patterns=[WEIGHTS, CONFIG, CARD], commit_message=message
        )
    except Exception as error:  # of many kinds: not logged in, not allowed, no network
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f'--push {repository}: the Hub refuses it ({first}); log in by `hf auth login`') from error
    return str(done)


def import_hub() -> ModuleType:
    """Import huggingface_hub.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module('huggingface_hub')
    except ImportError as error:
        raise InputError(f'the Hub needs huggingface_hub, which cannot be imported ({error}): {INSTALL}') from error


def _card(config: Mapping[str, Any]) -> str:
    """Return a page about the network, with what the Hub reads of it above."""
    network, told = config['network_g'], config[BLOCK]
    head = [
        f'library_name: {BLOCK}',
        'tags: [image-restoration, deraining]',
        'pipeline_tag: image-to-image',
    ]
    if isinstance(told.get('licence'), str):
        head.append(f'license: {json.dumps(told["licence"].lower())}')
    rows = [f'* {name}: {json.dumps(value, ensure_ascii=False)}' for name, value in told.items()]
    return '\n'.join([
        '---', *head, '---', '', f'# {network["type"]}', '', 'A network that removes rain from photographs.', '',
        '```python', 'from ddsa_arch import Derainer', '', "derain = Derainer.from_pretrained('USER/NAME')",
        'clean = derain(rainy)', '```', '', f'Built by `{json.dumps(dict(network))}`.', '', *rows, '',
    ])  # fmt: skip
