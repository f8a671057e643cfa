"""Weight files as people have them: whatever the toolbox wrapped the weights in, and whatever else bears their name."""

import gzip
import io
import os
import pickle
import tarfile
import time
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from ddsa_arch import Derainer
from ddsa_arch.archs.weight_origin import network_of
from ddsa_arch.archs.weights import load_weights, read_weights, write_weights
from ddsa_arch.errors import InputError
from ddsa_arch.files.weight_kinds import kind_of


def net(value=1.0):
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))
    for parameter in module.parameters():
        nn.init.constant_(parameter, value)
    return module


def state(value=1.0, prefix=''):
    return {f'{prefix}{name}': tensor for name, tensor in net(value).state_dict().items()}


def loads_as_ones(path):
    module = net(0.0)
    load_weights(module, path)
    return all((p == 1).all() for p in module.parameters())


def saved(path, content, **how):
    torch.save(content, path, **how)
    return path


class Unknown:
    """What another toolbox puts beside its weights; its module is gone when the file is read."""

    def __init__(self):
        self.history = [np.arange(3)]


OTHER = {'optimizer': {'state': {0: {'step': 3, 'exp_avg': torch.zeros(2)}}, 'param_groups': [{'params': [0]}]}}
WRAPPED = {
    'bare': state(),
    'params': {'params': state()},
    'average first': {'params': state(2.0), 'params_ema': state()},
    'state_dict': {'state_dict': state(), 'epoch': 3, **OTHER},
    'model_state_dict': {'model_state_dict': state(), 'loss': torch.zeros(())},
    'net of RESCAN': {'net': state(), 'clock': {'minibatch': 3, 'epoch': 1}, 'opt': OTHER['optimizer']},
    'model and its average': {'model': state(2.0), 'ema': {'module': state(), 'decay': 0.9}},
    'generator': {'generator': state(), 'discriminator': {'0.weight': torch.zeros(3)}},
    'netG': {'netG': state(), 'netD': {'0.weight': torch.zeros(3)}},
    'two levels': {'state_dict': {'net_g': state()}},
    'one unknown name': {'derain': state(), 'iteration': 7},
    'DataParallel': {'state_dict': state(prefix='module.')},
    'compiled': state(prefix='_orig_mod.'),
    'compiled and parallel': {'params': state(prefix='module._orig_mod.module.')},
    'Lightning': {'state_dict': state(prefix='model.') | {'loss.vgg.weight': torch.zeros(9)}, 'callbacks': {}},
    'Lightning, compiled': {'state_dict': state(prefix='net._orig_mod.'), 'pytorch-lightning_version': '2'},
    'MMagic': {'meta': {}, 'state_dict': state(prefix='generator.') | {'step_counter': torch.zeros(1)}},
    'MMagic, average': {'state_dict': state(2.0, 'generator.') | state(1.0, 'generator_ema.')},
    'any prefix': state(prefix='deep.inside.'),
    'GAN': {'state_dict': state(prefix='netG.module.') | state(2.0, 'netD.')},
    'objects beside it': {'state_dict': state(), 'hub': Unknown(), 'more': {'log': [Unknown()], 3: np.float64(2)}},
    'a whole network': net(),
    'a network in a wrapper': {'model': nn.DataParallel(net()), 'epoch': 1},
    'parameters': {
        name: nn.Parameter(value) if value.is_floating_point() else value for name, value in state().items()
    },
    'arrays of numpy': {name: np.array(value.numpy(), order='F') for name, value in state().items()},
    'half': {name: value.half() if value.is_floating_point() else value for name, value in state().items()},
    'float64': {name: value.double() if value.is_floating_point() else value for name, value in state().items()},
}


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'before 1.6'])
@pytest.mark.parametrize('case', WRAPPED)
def test_weights_are_found(tmp_path, case, legacy):
    path = saved(tmp_path / 'w.dat', WRAPPED[case], _use_new_zipfile_serialization=not legacy)
    assert loads_as_ones(path)


@pytest.mark.parametrize('suffix', ['.pth', '.pt', '.ckpt', '.bin', '.safetensors', ''])
def test_the_name_does_not_matter(tmp_path, suffix):
    safetensors.torch.save_file(state(), tmp_path / f's{suffix}')
    assert loads_as_ones(tmp_path / f's{suffix}')
    assert loads_as_ones(saved(tmp_path / f'p{suffix}', state()))


@pytest.mark.parametrize('legacy', [False, True])
def test_every_kind_of_number_is_read_as_torch_reads_it(tmp_path, legacy):
    generator = torch.Generator().manual_seed(0)
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
             torch.uint8, torch.bool, torch.complex64)  # fmt: skip
    content = {str(kind): (100 * torch.randn(3, 5, generator=generator)).to(kind) for kind in kinds}
    whole = torch.randn(4, 6, generator=generator)
    content |= {'view': whole[1:3, ::2], 'turned': whole.t(), 'last': whole.flatten()[7:], 'none': torch.zeros(0, 3)}
    content |= {'scalar': torch.tensor(3.5), 'strided': whole.contiguous().as_strided((2, 2), (1, 3), 2)}
    if not legacy:
        content |= {'float8': whole.to(torch.float8_e4m3fn), 'uint16': torch.arange(3).to(torch.uint16)}
    path = saved(tmp_path / 'w.pth', content, _use_new_zipfile_serialization=not legacy)
    wanted = torch.load(path, weights_only=True)
    found = read_weights(path).checkpoint
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        one, other = (tensor.contiguous().flatten().view(torch.uint8) for tensor in (found[name], value))
        assert torch.equal(one, other)


@pytest.mark.parametrize('protocol', [2, 4])
def test_arrays_of_numpy_are_read_by_their_numbers(tmp_path, protocol):
    rng = np.random.default_rng(0)
    arrays = {kind: (100 * rng.standard_normal((3, 5))).astype(kind) for kind in ('f8', 'f4', 'f2', 'i8', 'i4', 'i2')}
    arrays |= {'by columns': np.asfortranarray(arrays['f4']), 'scalar': np.array(3.5), 'turned': arrays['f4'].T}
    others = {'text': np.array(['x']), 'objects': np.array([None]), 'other order': arrays['f4'].astype('>f4')}
    path = saved(tmp_path / 'w.pth', arrays | others | {'t': torch.ones(2)}, pickle_protocol=protocol)
    found = read_weights(path).checkpoint
    for name, value in arrays.items():
        assert found[name].dtype == torch.from_numpy(value).dtype
        np.testing.assert_array_equal(found[name].numpy(), value)
    assert not any(isinstance(found[name], torch.Tensor) for name in others)


# --- nothing runs ------------------------------------------------------------------------------------------


class Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('legacy', [False, True])
def test_no_code_runs(tmp_path, legacy):
    target = tmp_path / 'ran'
    evil = [
        Runs(os.system, f'touch {target}'), Runs(eval, f'open({str(target)!r}, "w")'), Runs(os.mkdir, str(target)),
        Runs(__import__, 'os'), Runs(pickle.loads, pickle.dumps(Runs(os.mkdir, str(target)))),
    ]  # fmt: skip
    for content in ({'params': state(), 'more': evil}, {'more': evil[:1], **state()}):
        path = saved(tmp_path / 'w.pth', content, _use_new_zipfile_serialization=not legacy)
        assert loads_as_ones(path)
    for content in (evil, evil[0], {'params': evil[2]}):
        path = saved(tmp_path / 'w.pth', content, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(InputError):
            load_weights(net(), path)
    assert not target.exists()


def test_a_file_cannot_ask_for_more_than_it_holds(tmp_path):
    """A tensor of a terabyte whose storage has four numbers, and containers that hold themselves."""
    small = torch.zeros(4)
    saved(tmp_path / 'w.pth', {'weight': torch.zeros(4)})
    with zipfile.ZipFile(tmp_path / 'w.pth') as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in parts if name.endswith('data.pkl'))
    assert parts[name].count(b'K\x04\x85') == 1  # the size, (4,)
    parts[name] = parts[name].replace(b'K\x04\x85', b'\x8a\x06\x00\x00\x00\x00\x00\x01\x85', 1)
    with zipfile.ZipFile(tmp_path / 'huge.pth', 'w') as archive:
        for part, data in parts.items():
            archive.writestr(part, data)
    with pytest.raises(InputError, match=r'huge\.pth cannot be read'):
        read_weights(tmp_path / 'huge.pth')
    loop = []
    loop += [loop, loop, {'a': loop}]
    assert loads_as_ones(saved(tmp_path / 'loop.pth', {'params': state(), 'loop': loop, 'one': small}))
    with zipfile.ZipFile(tmp_path / 'bomb.pth', 'w', zipfile.ZIP_DEFLATED) as archive:
        for part, data in parts.items():
            archive.writestr(part, data if 'data/0' not in part else bytes(50_000_000))
    with pytest.raises(InputError, match=r'bomb\.pth says that it unpacks to 50,0'):
        read_weights(tmp_path / 'bomb.pth')


# --- what is no weight file --------------------------------------------------------------------------------


def bytes_of(write):
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def zipped(**files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        for name, data in files.items():
            archive.writestr(name.replace('__', '.'), data)
    return file.getvalue()


def tarred(name, data):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode='w') as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def script():
    return bytes_of(lambda file: torch.jit.save(torch.jit.trace(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 2, 2)), file))


def program():
    exported = torch.export.export(nn.Conv2d(1, 1, 1), (torch.zeros(1, 1, 2, 2),))
    return bytes_of(lambda file: torch.export.save(exported, file))


TORCH = bytes_of(lambda file: torch.save(state(), file))
LEGACY = bytes_of(lambda file: torch.save(state(), file, _use_new_zipfile_serialization=False))
SAFE = safetensors.torch.save(state())
NOT_WEIGHTS = {
    'empty': (b'', 'is empty'),
    'web page': (b'<!DOCTYPE html>\n<html><head><title>Virus scan</title>', 'is a web page, not weights'),
    'web page with a blank': (b'\n  <HTML lang="en"><body>sign in</body></HTML>', 'is a web page, not weights'),
    'git LFS': (b'version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n', 'is a pointer of git LFS'),
    'JSON': (b'{"error": "Entry not found"}', r'is text \(JSON\)'),
    'shards': (b'{"weight_map": {"a": "model-00001.safetensors"}}',
               r'is text \(JSON\), not weights; it lists the files model-00001'),
    'XML': (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', r'is an answer of a server \(XML\)'),
    'text': (b'404: Not Found', "is text .'404: Not Found'"),
    'zip of weights': (zipped(net_g__pth=TORCH), r'is a zip of net_g\.pth; unpack it'),
    'zip of safetensors': (zipped(w__safetensors=SAFE), r'is a zip of w\.safetensors; unpack it'),
    'other zip': (zipped(readme__txt=b'hello'), 'is a zip without weights'),
    'gzip': (gzip.compress(TORCH), 'is compressed by gzip; unpack it'),
    'tar': (tarred('w.pth', TORCH), 'is a tar archive; unpack it'),
    'npz': (bytes_of(lambda file: np.savez(file, weight=np.zeros(3))), r'is a file of arrays of numpy \(\.npz\)'),
    'npy': (bytes_of(lambda file: np.save(file, np.zeros(3))), r'is an array of numpy \(\.npy\)'),
    'plain pickle': (pickle.dumps({'weight': np.zeros(3)}), 'is a plain pickle, which could run code'),
    'TorchScript': (script(), 'is a program of TorchScript, which could run code and is not opened'),
    'torch.export': (program(), r'holds a program of torch\.export, not its weights alone'),
    'ONNX': (b'\x08\x0a\x12\x07pytorch\x1a\x052.1.0:\x80\x01', 'holds a network of ONNX'),
    'HDF5': (b'\x89HDF\r\n\x1a\n' + bytes(40), 'is a file of HDF5'),
    'picture': (b'\x89PNG\r\n\x1a\n' + bytes(40), 'is a picture'),
    'noise': (bytes(range(200, 256)), 'is no weight file'),
    'zeros': (bytes(1000), 'is no weight file'),
    'cut zip': (TORCH[:-30], 'cannot be read: it is cut off or damaged'),
    'cut safetensors': (SAFE[:100], 'cannot be read: it is cut off'),
    'cut values': (SAFE[:-3], r'cannot be read \(.*it may be cut off'),
    'cut legacy': (LEGACY[:-3], r'cannot be read \(.*it may be cut off'),
    'cut head': (LEGACY[:150], r'cannot be read \(.*it may be cut off'),
    'one tensor': (bytes_of(lambda file: torch.save(torch.zeros(3), file)), 'holds a Tensor, wanted a dictionary'),
    'a list': (bytes_of(lambda file: torch.save([state()], file)), 'holds a list, wanted a dictionary'),
}  # fmt: skip


@pytest.mark.parametrize('case', NOT_WEIGHTS)
@pytest.mark.parametrize('name', ['w.pth', 'w.safetensors'])
def test_each_is_called_by_its_name(tmp_path, case, name):
    data, told = NOT_WEIGHTS[case]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=rf'^weights: \S*{name} {told}') as caught:
        read_weights(tmp_path / name)
    message = str(caught.value)
    assert 'weights_only' not in message
    assert '\n' not in message
    assert len(message) < 400


def test_every_cut_is_refused(tmp_path):
    """A download may end anywhere."""
    for data in (TORCH, LEGACY, SAFE):
        for end in range(0, len(data), max(1, len(data) // 60)):
            (tmp_path / 'w.pth').write_bytes(data[:end])
            with pytest.raises(InputError):
                read_weights(tmp_path / 'w.pth')
        assert kind_of(data)[0]


@pytest.mark.parametrize(('content', 'told'), [
    ({}, 'holds no tensors under its root'),
    ({'epoch': 3, 'opt': OTHER['optimizer']}, 'holds no tensors under its root; at its root are: epoch, opt'),
    ({0: torch.zeros(3), 1: torch.zeros(3)}, 'has numbers in place of names'),
    ({'params': {0: torch.zeros(3)}}, 'has numbers in place of names for its tensors under params'),
    ({'A': state(), 'B': state()}, r'holds 2 sets of weights \(A, B\)'),
    ({'params': [torch.zeros(3)]}, 'holds no tensors'),
])  # fmt: skip
def test_what_holds_no_weights_is_told(tmp_path, content, told):
    with pytest.raises(InputError, match=told):
        load_weights(net(), saved(tmp_path / 'w.pth', content))


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match='is a folder; name the file in it'):
        read_weights(tmp_path)


# --- what a file says of its network -----------------------------------------------------------------------


@pytest.mark.parametrize(('arguments', 'told'), [
    ({'blocks': [10**6, 1, 1, 1, 1]}, r'network_g\.blocks 1000000, and holds 3 numbers in all'),
    ({'dim': 10**6}, r'network_g\.dim 1000000'),
    ({'blocks': [60000, 1, 1, 1, 1], 'dim': 8}, r'a DDSANet of more than [\d,]+ tensors'),
    ({'dim': 4096}, r'a DDSANet of more than'),
    ({'blocks': [1, 1, 10**30, 1, 1]}, r'network_g\.blocks 1000000000'),
    ({'expansion': 1e9}, r'a DDSANet of more than'),
    ({'expansion': float('inf')}, r'DDSANet cannot be built'),
    ({'heads': 8}, r'DDSANet cannot be built'),
])  # fmt: skip
def test_a_file_cannot_ask_for_a_network_beyond_it(tmp_path, arguments, told):
    path = tmp_path / 'w.safetensors'
    write_weights(path, {'weight': torch.zeros(3)}, {'type': 'DDSANet', **arguments}, {})
    assert path.stat().st_size < 1000
    began = time.perf_counter()
    with pytest.raises(InputError, match=told):
        Derainer(path, device='cpu')
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(('text', 'wanted'), [
    ("model = dict(network=dict(dim=8, blocks=[1, 2], type='DDSANet'), type='DerainRestorer')",
     {'dim': 8, 'blocks': [1, 2], 'type': 'DDSANet'}),
    ("a = 1\nmodel = dict(\n    generator=dict(type='ddsa_arch.archs.prenet_arch.PReNet', stages=2),\n    type='M')\n",
     {'type': 'PReNet', 'stages': 2}),
    ("model = {'type': 'DDSANet', 'heads': (1, 1)}", {'type': 'DDSANet', 'heads': [1, 1]}),
    ("model = dict(type=__import__('os').getcwd())", None),
    ('model = dict(dim=8)', None), ('optimizer = dict(lr=1)', None), ('model = (', None), ('(' * 5000, None),
])  # fmt: skip
def test_the_config_of_mmengine_tells_the_network(text, wanted):
    assert network_of({'meta': {'cfg': text}, 'state_dict': {}}) == wanted
    assert network_of({'meta': {'cfg': text}, 'network_g': 'PReNet'}) == 'PReNet'
