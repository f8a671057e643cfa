"""The nodes for ComfyUI, by its documented contract, with a stand-in for its modules."""

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import TINY

from ddsa_arch import Derainer
from ddsa_arch.archs.building import build_network
from ddsa_arch.archs.weights import write_weights
from ddsa_arch.errors import InputError
from ddsa_arch.integrations.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, nodes
from ddsa_arch.runners.cli import main as ddsa


@pytest.fixture
def comfyui(tmp_path, monkeypatch):
    """A folder like that of a ComfyUI, whose module folder_paths is there."""
    (tmp_path / 'custom_nodes').mkdir()
    (tmp_path / 'models' / 'derainers').mkdir(parents=True)
    names = {}
    module = SimpleNamespace(
        models_dir=str(tmp_path / 'models'), folder_names_and_paths=names,
        add_model_folder_path=lambda name, path: names.setdefault(name, ([], set()))[0].append(path),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, 'folder_paths', module)
    torch.manual_seed(0)
    write_weights(tmp_path / 'models/derainers/tiny.safetensors', build_network(TINY).state_dict(), TINY, {})
    return tmp_path


def node(name):
    return NODE_CLASS_MAPPINGS[name]


def test_the_nodes_say_what_comfyui_asks_for(comfyui):
    assert NODE_CLASS_MAPPINGS.keys() == NODE_DISPLAY_NAME_MAPPINGS.keys()
    for one in NODE_CLASS_MAPPINGS.values():
        assert callable(getattr(one, one.FUNCTION))
        assert isinstance(one.RETURN_TYPES, tuple)
        assert one.CATEGORY == 'image/restoration'
        for kind, *more in one.INPUT_TYPES()['required'].values():
            assert isinstance(kind, str | list)
            assert all(isinstance(options, dict) for options in more)
    names = node('DDSALoadDerainer').INPUT_TYPES()['required']['weights'][0]
    assert names == [nodes.BUILT_IN_NAME, 'tiny.safetensors']


def test_images_are_those_of_the_derainer_in_levels(comfyui, rng):
    (derainer,) = node('DDSALoadDerainer')().load('tiny.safetensors')
    levels = rng.integers(0, 256, (2, 67, 93, 3)).astype(np.uint8)
    image = torch.from_numpy(levels).float() / 255
    (out,) = node('DDSADerainImage')().derain(derainer, image)
    assert (out.shape, out.dtype) == (image.shape, torch.float32)
    assert 0 <= out.min() <= out.max() <= 1
    wanted = np.stack([Derainer(comfyui / 'models/derainers/tiny.safetensors')(one) for one in levels])
    assert np.abs((out * 255).round().numpy() - wanted).max() == 0


def test_strength_tile_alpha_and_grey(comfyui, rng):
    derain = node('DDSADerainImage')().derain
    (derainer,) = node('DDSALoadDerainer')().load('tiny.safetensors')
    image = torch.from_numpy(rng.random((1, 66, 70, 4), np.float32))
    none, half, full = (derain(derainer, image, strength)[0] for strength in (0.0, 0.5, 1.0))
    assert torch.equal(none, image)
    assert torch.allclose(half, (image + full) / 2, atol=1e-6)
    assert torch.equal(full[..., 3], image[..., 3])
    assert not torch.equal(full[..., :3], image[..., :3])
    before = derainer.tile
    (tiled,) = derain(derainer, image, tile=64)
    assert derainer.tile == before
    assert torch.equal(tiled, derain(Derainer(comfyui / 'models/derainers/tiny.safetensors', tile=64), image)[0])
    assert derain(derainer, image[..., :1])[0].shape == (1, 66, 70, 1)
    assert derain(derainer, image[:0])[0].shape == (0, 66, 70, 4)
    with pytest.raises(InputError, match='tile: 32; wanted 0, or a multiple of 64'):
        derain(derainer, image, tile=32)
    with pytest.raises(InputError, match=r'wanted \(B, H, W, C\)'):
        derain(derainer, image[0])


def test_files_that_are_gone_or_broken_are_named(comfyui):
    with pytest.raises(InputError, match=r"'none\.pth' is not there any more"):
        node('DDSALoadDerainer')().load('none.pth')
    (comfyui / 'models/derainers/page.pth').write_bytes(b'<html></html>')
    with pytest.raises(InputError, match=r'page\.pth is a web page'):
        node('DDSALoadDerainer')().load('page.pth')


def test_work_that_is_cancelled_ends(comfyui, monkeypatch):
    def stop():
        raise KeyboardInterrupt

    management = SimpleNamespace(throw_exception_if_processing_interrupted=stop)
    monkeypatch.setitem(sys.modules, 'comfy', SimpleNamespace(model_management=management))
    monkeypatch.setitem(sys.modules, 'comfy.model_management', management)
    (derainer,) = node('DDSALoadDerainer')().load('tiny.safetensors')
    with pytest.raises(KeyboardInterrupt):
        node('DDSADerainImage')().derain(derainer, torch.zeros(1, 64, 64, 3))


def test_the_command_puts_the_nodes_where_comfyui_finds_them(comfyui, capsys):
    for place in (comfyui, comfyui / 'custom_nodes'):
        assert ddsa(['comfyui', str(place)]) == 0
    target = comfyui / 'custom_nodes' / 'ddsa_arch_nodes'
    assert 'Load Derainer, Derain Image' in capsys.readouterr().out
    # as ComfyUI does: by the path, under another name
    spec = importlib.util.spec_from_file_location('custom_nodes_ddsa', target / '__init__.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.NODE_CLASS_MAPPINGS is NODE_CLASS_MAPPINGS
    assert ddsa(['comfyui', str(comfyui), '--remove']) == 0
    assert not target.exists()


def test_nothing_of_others_is_touched(comfyui, capsys):
    target = comfyui / 'custom_nodes' / 'ddsa_arch_nodes'
    target.mkdir()
    (target / '__init__.py').write_text('mine')
    for more in ([], ['--remove']):
        assert ddsa(['comfyui', str(comfyui), *more]) == 2
        assert 'did not write it; move it away' in capsys.readouterr().err
    assert (target / '__init__.py').read_text() == 'mine'
    assert ddsa(['comfyui', str(comfyui / 'models')]) == 2
    assert 'no folder custom_nodes in it; give the folder of a ComfyUI' in capsys.readouterr().err
