"""Folders and repositories of weights; the Hub is a stand-in, as tests have no network."""

import hashlib
import json
import struct
import sys

import numpy as np
import pytest
import torch
from helpers import TINY, names

from ddsa_arch import Derainer
from ddsa_arch.archs.building import build_network
from ddsa_arch.archs.weights import write_weights
from ddsa_arch.errors import InputError
from ddsa_arch.runners.cli import main as ddsa


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    write_weights(tmp_path / 'w.pth', build_network(TINY).state_dict(), TINY, {'licence': 'CC0-1.0', 'data': 'Rain13K'})
    return tmp_path / 'w.pth'


def same_results(one, other, rng):
    photo = rng.integers(0, 256, (30, 41, 3)).astype(np.uint8)
    return np.array_equal(one(photo), other(photo))


def test_a_folder_is_written_and_taken(weights, tmp_path, rng):
    derainer = Derainer(weights, device='cpu')
    folder = derainer.save_pretrained(tmp_path / 'shared', {'title': 'Tiny'})
    assert names(folder) == ['README.md', 'config.json', 'model.safetensors']
    assert same_results(Derainer.from_pretrained(folder, device='cpu'), derainer, rng)
    config = json.loads((folder / 'config.json').read_text())
    assert config['network_g'] == TINY
    assert (config['ddsa_arch']['data'], config['ddsa_arch']['title']) == ('Rain13K', 'Tiny')
    assert 'license: "cc0-1.0"' in (folder / 'README.md').read_text()
    (folder / 'README.md').write_text('by hand')
    derainer.save_pretrained(folder)
    assert (folder / 'README.md').read_text() == 'by hand'


def test_the_metadata_follow_the_modelspec(weights, tmp_path):
    folder = Derainer(weights, device='cpu').save_pretrained(tmp_path / 'a', {'title': 'Tiny'})
    data = (folder / 'model.safetensors').read_bytes()
    (length,) = struct.unpack('<Q', data[:8])
    metadata = json.loads(data[8 : 8 + length])['__metadata__']
    assert all(isinstance(value, str) for value in metadata.values())
    assert metadata['modelspec.sai_model_spec'] == '1.0.0'
    assert metadata['modelspec.architecture'] == 'DDSANet'
    assert (metadata['modelspec.title'], metadata['modelspec.license']) == ('Tiny', 'CC0-1.0')
    assert metadata['modelspec.hash_sha256'] == '0x' + hashlib.sha256(data[8 + length :]).hexdigest()
    assert json.loads(metadata['ddsa_arch'])['network_g'] == TINY


def test_a_file_or_the_only_file_of_a_folder_will_do(weights, tmp_path, rng):
    for source in (weights, tmp_path):
        assert same_results(Derainer.from_pretrained(source, device='cpu'), Derainer(weights, device='cpu'), rng)
    (tmp_path / 'other.pth').write_bytes(b'')
    with pytest.raises(InputError, match=r'no model\.safetensors in it \(weight files there: other\.pth, w\.pth\)'):
        Derainer.from_pretrained(tmp_path)


class Hub:
    """What is used of huggingface_hub, with a folder in place of the network."""

    def __init__(self, folder):
        self.folder = folder
        self.asked = []

    def hf_hub_download(self, repository, name, revision=None, cache_dir=None):
        self.asked.append((repository, name, revision))
        if not (self.folder / repository / name).is_file():
            raise OSError('404 Client Error.\nRepository Not Found')
        return str(self.folder / repository / name)

    def HfApi(self):
        return self

    def create_repo(self, repository, private, exist_ok):
        assert exist_ok
        (self.folder / repository).mkdir(parents=True, exist_ok=True)

    def upload_folder(self, repo_id, folder_path, allow_patterns, commit_message):
        from pathlib import Path

        for name in allow_patterns:
            (self.folder / repo_id / name).write_bytes((Path(folder_path) / name).read_bytes())
        return f'https://huggingface.co/{repo_id}/commit/1'


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub(tmp_path / 'hub')
    monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
    return hub


def test_what_is_pushed_is_taken(weights, hub, rng, capsys):
    assert ddsa(['export', str(weights), '--push', 'me/tiny']) == 0
    assert capsys.readouterr().out == 'https://huggingface.co/me/tiny/commit/1\n'
    derainer = Derainer.from_pretrained('me/tiny', revision='v1', device='cpu')
    assert hub.asked == [('me/tiny', 'model.safetensors', 'v1')]
    assert same_results(derainer, Derainer(weights, device='cpu'), rng)


def test_the_command_writes_a_folder(weights, tmp_path, capsys):
    assert ddsa(['export', str(weights), '-o', f'{tmp_path}/shared/']) == 0
    assert names(tmp_path / 'shared') == ['README.md', 'config.json', 'model.safetensors']
    capsys.readouterr()
    for more, told in (([], 'is there already; --overwrite'), (['--half'], 'are for one FILE')):
        assert ddsa(['export', str(weights), '-o', f'{tmp_path}/shared/', *more]) == 2
        assert told in capsys.readouterr().err
    assert ddsa(['export', str(weights)]) == 2
    assert '-o FILE or --push USER/NAME is missing' in capsys.readouterr().err


def test_what_cannot_be_had_is_named(hub, tmp_path, monkeypatch, weights):
    with pytest.raises(InputError, match=r'me/none: no such folder here, and the Hub .* \(404 Client Error\.\)'):
        Derainer.from_pretrained('me/none')
    with pytest.raises(InputError, match='no name of a repository, which is USER/NAME'):
        Derainer.from_pretrained('none')
    with pytest.raises(InputError, match='--push nobody: wanted USER/NAME'):
        Derainer(weights, device='cpu').push_to_hub('nobody')
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(InputError, match=r"pip install 'ddsa_arch\[hub\]'"):
        Derainer.from_pretrained('me/tiny')
