"""Networks from files of ``ddsa export``; `Halve` makes the expected values plain."""

import json
import sys

import numpy as np
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from ddsa_arch import Derainer
from ddsa_arch.archs.weights import write_weights
from ddsa_arch.errors import InputError
from ddsa_arch.inference import exported as module
from ddsa_arch.inference.exported import device_for_onnx, load_exported
from ddsa_arch.inference.image_memory import ImageMemory
from ddsa_arch.models.restore import restore
from ddsa_arch.runners.export import export

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')


class Halve(nn.Module):
    """Half of the red, none of the blue, as the last of two images."""

    size_multiple = 4

    def __init__(self):
        super().__init__()
        self.factors = nn.Parameter(torch.tensor([0.5, 1.0, 0.0]))

    def forward(self, rain):
        if rain.shape[2] % self.size_multiple or rain.shape[3] % self.size_multiple:
            raise ValueError(f'{tuple(rain.shape)} has no sides of {self.size_multiple}')
        fine = rain.unflatten(2, (-1, 4)).unflatten(4, (-1, 4)).flatten(4).flatten(2, 3)
        return [rain, fine * self.factors[:, None, None]]


class HalveSquares(Halve):
    """The same, of one size alone."""

    size_multiple = fixed_size = 64


@pytest.fixture(scope='module', autouse=True)
def registered():
    with pytest.MonkeyPatch.context() as patch:
        for net in (Halve, HalveSquares):
            patch.setitem(ARCH_REGISTRY._obj_map, net.__name__, net)
        yield


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'halve.pth'
    write_weights(path, Halve().state_dict(), {'type': 'Halve'}, {'licence': 'CC0'})
    return path


@pytest.fixture(scope='module', params=['.onnx', '.pt2'])
def file(request, weights):
    return export(weights, weights.with_name(f'halve{request.param}'), sizes=[(8, 12)]).path


@pytest.fixture(scope='module')
def onnx_file(weights):
    return export(weights, weights.with_name('other.onnx'), sizes=[(8, 12)]).path


def is_halved(derained, image):
    """RGB; a half of an odd number may be rounded either way."""
    return np.abs(derained - image * np.array([0.5, 1, 0])).max() < 0.51


def test_metadata_tells_what_the_network_takes(file):
    net = load_exported(file)
    assert (net.size_multiple, net.fixed_size) == (4, None)
    assert net.about['network_g'] == {'type': 'Halve'}
    assert net.about['licence'] == 'CC0'
    assert len(net.about['sha256']) == 64
    assert not net.train().training


@pytest.mark.parametrize('size', [(1, 1), (4, 4), (5, 130), (64, 64)])
def test_any_size_and_any_number_of_images_are_restored(file, size):
    net, rain = load_exported(file), torch.rand(3, 3, *size)
    wanted = rain * torch.tensor([0.5, 1, 0])[:, None, None]
    for images in (rain, rain.contiguous(memory_format=torch.channels_last), rain[:1]):
        assert torch.allclose(restore(net, images), wanted[: len(images)], atol=1e-6)


def test_a_derainer_takes_the_file(file, rng):
    image = rng.integers(0, 256, (150, 201, 3)).astype(np.uint8)
    for how in ({}, {'tile': 64}, {'ensemble': 8}):
        derain = Derainer(file, device='cpu', **how)
        assert is_halved(derain(image), image)
        assert derain.notes == []


def test_tiles_come_from_the_free_memory(file, rng, monkeypatch):
    image = rng.integers(0, 256, (520, 520, 3)).astype(np.uint8)
    derain = Derainer(file, device='cpu')
    assert isinstance(ImageMemory.measure(derain.net, torch.device('cpu')), ImageMemory)
    monkeypatch.setattr(ImageMemory, 'measure', lambda net, device: ImageMemory(0, 1000))
    monkeypatch.setattr('ddsa_arch.inference.derainer.free_memory', lambda device: 200 * 200 * 1000)
    assert derain._tile_for(image) == 128
    assert is_halved(derain(image), image)


@pytest.mark.parametrize('suffix', ['.onnx', '.pt2'])
def test_a_network_of_one_size_runs_in_tiles(weights, tmp_path, suffix):
    out = tmp_path / f'squares{suffix}'
    done = export(weights, out, network='HalveSquares')
    assert [row[:2] for row in done.parity] == [(64, 64)]
    rain = torch.rand(1, 3, 70, 100)
    net = load_exported(out)
    assert net.fixed_size == 64
    assert torch.allclose(restore(net, rain), rain * torch.tensor([0.5, 1, 0])[:, None, None], atol=1e-6)


def test_onnx_runs_with_the_threads_of_torch(onnx_file):
    net = load_exported(onnx_file)
    assert net.session.get_session_options().intra_op_num_threads == torch.get_num_threads()
    assert list(net.parameters()) == []


@pytest.mark.parametrize(('message', 'kind'), [('std::bad_alloc', MemoryError), ('no such shape', RuntimeError)])
def test_errors_of_onnxruntime_become_those_of_python(onnx_file, message, kind):
    net = load_exported(onnx_file)

    class Failing:
        def run(self, *a):
            raise Exception(message)  # onnxruntime's are no RuntimeError

    net.session = Failing()
    with pytest.raises(kind, match=message):
        net(torch.rand(1, 3, 8, 8))


# --- what cannot be used -----------------------------------------------------------------------------------


def changed(onnx_file, tmp_path, change):
    model = onnx.load(onnx_file)
    change(model)
    onnx.save(model, tmp_path / 'changed.onnx')
    return tmp_path / 'changed.onnx'


def test_onnx_of_others_is_refused(onnx_file, tmp_path):
    def nameless(model):
        del model.metadata_props[:]

    def no_json(model):
        model.metadata_props[0].value = 'no JSON'

    def no_size(model):
        model.metadata_props[0].value = json.dumps({'size_multiple': 'eight'})

    def huge(model):
        model.metadata_props[0].value = json.dumps({'size_multiple': 10**9})

    for change in (nameless, no_json, no_size, huge):
        with pytest.raises(InputError, match=r"changed.onnx does not say what it takes \(no metadata 'ddsa_arch'"):
            load_exported(changed(onnx_file, tmp_path, change))

    def renamed(model):
        model.graph.input[0].name = 'image'
        for node in model.graph.node:
            node.input[:] = ['image' if name == 'rain' else name for name in node.input]

    with pytest.raises(InputError, match=r"has image: tensor\(float\) of 4 axes.*wanted one input 'rain'"):
        load_exported(changed(onnx_file, tmp_path, renamed))


def test_broken_files_are_named(file, tmp_path):
    data = file.read_bytes()
    broken = tmp_path / file.name
    for content in (b'', b'no network', data[: len(data) // 2]):
        broken.write_bytes(content)
        with pytest.raises(InputError, match=rf'weights: \S*{file.name} .*export it again'):
            load_exported(broken)
    with pytest.raises(InputError, match='no file'):
        load_exported(tmp_path / f'none{file.suffix}')


def test_an_archive_of_others_is_not_loaded(tmp_path, monkeypatch):
    class Add(nn.Module):
        def forward(self, x):
            return x + 1

    torch.export.save(torch.export.export(Add(), (torch.rand(2),)), tmp_path / 'a.pt2')
    monkeypatch.setattr(torch.export, 'load', lambda *a, **k: pytest.fail('it was loaded'))
    with pytest.raises(InputError, match=r'a\.pt2 does not say what it takes'):
        load_exported(tmp_path / 'a.pt2')


def test_onnx_has_no_half_and_no_other_network(onnx_file):
    with pytest.raises(InputError, match='computes in float32'):
        Derainer(onnx_file, device='cpu', half=True)
    with pytest.raises(InputError, match='holds its network already'):
        Derainer(onnx_file, 'DDSANet', device='cpu')


def test_devices_that_onnxruntime_does_not_know(onnx_file, monkeypatch):
    monkeypatch.setattr(module, '_providers', lambda: ['CPUExecutionProvider'])
    cuda = torch.device('cuda', 0)
    assert device_for_onnx(cuda, asked=False) == torch.device('cpu')
    with pytest.raises(InputError, match="device 'cuda:0': this onnxruntime runs on CPUExecutionProvider alone"):
        device_for_onnx(cuda, asked=True)
    with pytest.raises(InputError, match='onnxruntime-gpu for CUDA'):
        load_exported(onnx_file, cuda)
    monkeypatch.setattr(module, '_providers', lambda: ['CUDAExecutionProvider', 'CPUExecutionProvider'])
    assert device_for_onnx(cuda, asked=True) == cuda


def test_a_missing_package_is_named(onnx_file, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(InputError, match=r"onnxruntime is missing .*pip install 'ddsa_arch\[export\]'"):
        load_exported(onnx_file)
