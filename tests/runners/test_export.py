"""``ddsa export``: what is written gives the network's numbers, or nothing is written."""

import contextlib
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from basicsr.utils.registry import ARCH_REGISTRY
from PIL import Image
from torch import nn

from ddsa_arch.archs.cards import CARDS
from ddsa_arch.archs.weights import read_weights, write_weights
from ddsa_arch.errors import InputError
from ddsa_arch.inference.exported import load_exported
from ddsa_arch.inference.loading import load_derainer_network
from ddsa_arch.models.restore import restore
from ddsa_arch.runners import cli
from ddsa_arch.runners import derain as derain_module
from ddsa_arch.runners import export as module
from ddsa_arch.runners.export import SIZES, SUFFIXES, export

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxscript')
onnxruntime = pytest.importorskip('onnxruntime')

TINY = {'type': 'DDSANet', 'dim': 8, 'blocks': [1, 1, 1, 1, 1]}
SMALLEST = {**TINY, 'blocks': [1, 0, 0, 0, 0]}  # a block costs seconds
# why a network of the comparison cannot be exported, with torch 2.13
NO_CHOLESKY = 'No ONNX function found for .*linalg_cholesky'
NO_COMPLEX = 'No decompositions registered for the complex-valued input'
OTHER_STRIDES = 'Cannot view a tensor'  # torch traces one form of attention and writes another
REFUSED = {
    ('DGUNet', '.onnx'): NO_CHOLESKY, ('DGUNetPlus', '.onnx'): NO_CHOLESKY,
    ('IDT', '.onnx'): OTHER_STRIDES, ('Uformer', '.onnx'): OTHER_STRIDES,
    ('SFHformer', '.onnx'): NO_COMPLEX,
    ('DerainNet', '.onnx'): "not 'SymbolicTensor'",  # a remainder by the size of the image
}  # fmt: skip


class Dim(nn.Module):
    """Half of everything."""

    size_multiple = 8

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def forward(self, rain):
        return rain * self.factor


class Chosen(Dim):
    """What no tracer can follow: it looks at values."""

    def forward(self, rain):
        return rain if rain.mean() > 0.5 else rain * self.factor


@pytest.fixture(scope='module', autouse=True)
def registered():
    with pytest.MonkeyPatch.context() as patch:
        for name, net in (('DimExport', Dim), ('ChosenExport', Chosen)):
            patch.setitem(ARCH_REGISTRY._obj_map, name, net)
        yield


@pytest.fixture(scope='module')
def dim(tmp_path_factory):
    path = tmp_path_factory.mktemp('dim') / 'dim.pth'
    write_weights(path, Dim().state_dict(), {'type': 'DimExport'}, {'licence': 'CC0', 'data': 'Rain13K'})
    return path


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('tiny') / 'tiny.pth'
    net = ARCH_REGISTRY.get('DDSANet')(dim=8, blocks=SMALLEST['blocks'])
    write_weights(path, net.state_dict(), SMALLEST, {'licence': 'CC0'})
    return path


@pytest.fixture(scope='module')
def tiny_onnx(tiny):
    return export(tiny, tiny.with_name('tiny.onnx'))


def run(*arguments):
    return cli.main(['export', *map(str, arguments)])


def same(one, two, size):
    rain = torch.rand(1, 3, *size)
    return torch.allclose(restore(one, rain).clamp(0, 1), restore(two, rain).clamp(0, 1), atol=1e-5)


# --- what is written ---------------------------------------------------------------------------------------


@pytest.mark.slow  # a block takes seconds to export
def test_ddsanet_as_onnx(tiny, tiny_onnx):
    """The plain operations of ONNX alone, any size, and its numbers."""
    assert [row[:2] for row in tiny_onnx.parity] == list(SIZES)
    assert max(row[2] for row in tiny_onnx.parity) < 1e-5
    assert sorted(p.name for p in tiny_onnx.path.parent.iterdir()) == ['tiny.onnx', 'tiny.pth']
    model = onnx.load(tiny_onnx.path)
    onnx.checker.check_model(model)
    assert {node.domain for node in model.graph.node} == {''}
    (put,), (out,) = model.graph.input, model.graph.output
    assert (put.name, out.name) == ('rain', 'derained')
    assert [bool(d.dim_param) for d in put.type.tensor_type.shape.dim] == [True, False, True, True]
    data = tiny_onnx.path.read_bytes()
    assert b'.py' not in data.replace(b'.python', b'')  # nor paths of the machine that wrote it
    assert tiny_onnx.size == len(data)
    assert tiny_onnx.sha256 == hashlib.sha256(data).hexdigest()
    net, exported = load_derainer_network(tiny), load_exported(tiny_onnx.path)
    assert exported.about['network_g'] == SMALLEST
    assert exported.about['licence'] == 'CC0'
    for size in ((9, 50), (40, 136)):
        assert same(exported, net, size)


@pytest.mark.slow
@pytest.mark.parametrize('suffix', ['.onnx', '.pt2'])
@pytest.mark.parametrize('section', [
    TINY, {'type': 'Restormer', 'dim': 8, 'num_blocks': [1, 1, 1, 1], 'num_refinement_blocks': 1},
    {'type': 'PReNet', 'stages': 2, 'width': 8, 'blocks': 2},
], ids=lambda section: section['type'])  # fmt: skip
def test_networks_give_their_numbers_at_any_size(tmp_path, section, suffix):
    torch.manual_seed(0)
    net = ARCH_REGISTRY.get(section['type'])(**{k: v for k, v in section.items() if k != 'type'})
    write_weights(tmp_path / 'w.pth', net.state_dict(), section, {})
    exported = load_exported(export(tmp_path / 'w.pth', tmp_path / f'out{suffix}').path)
    for size in ((9, 50), (40, 136), (200, 24)):
        assert same(exported, net, size)


def test_prenet_keeps_its_last_image_and_takes_single_pixels(tmp_path):
    net = ARCH_REGISTRY.get('PReNet')(stages=1, width=4, blocks=1)
    section = {'type': 'PReNet', 'stages': 1, 'width': 4, 'blocks': 1}
    write_weights(tmp_path / 'w.pth', net.state_dict(), section, {})
    exported = load_exported(export(tmp_path / 'w.pth', tmp_path / 'out.pt2', sizes=[(5, 8)]).path)
    for size in ((1, 1), (7, 13)):
        assert same(exported, net, size)


class Neighbours(nn.Module):
    """Sees the pixels around each, and needs sides of 8; its values leave [0, 1]."""

    size_multiple = 8

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 9, padding=4)

    def forward(self, rain):
        assert rain.shape[2] % 8 == rain.shape[3] % 8 == 0
        return [rain, 3 * self.layer(rain)]


@pytest.mark.parametrize('half', [False, True])
def test_onnx_alone_takes_any_size_and_number_of_images(tmp_path, monkeypatch, half):
    """Padding, cropping and clamping are in the graph, which onnxruntime runs without this package."""
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, 'NeighboursExport', Neighbours)
    torch.manual_seed(0)
    net = Neighbours()
    write_weights(tmp_path / 'w.pth', net.state_dict(), {'type': 'NeighboursExport'}, {})
    path = export(tmp_path / 'w.pth', tmp_path / 'out.onnx', half=half, opset=19, sizes=[(64, 64)]).path
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 9  # the newest of onnxruntime 1.17.1
    assert [entry.version for entry in model.opset_import if not entry.domain] == [19]
    (put,), (out,) = model.graph.input, model.graph.output
    for value in (put, out):
        sides = value.type.tensor_type.shape.dim
        assert [side.dim_param or side.dim_value for side in sides] == ['batch', 3, 'height', 'width']
    stored = {weight.data_type for weight in model.graph.initializer if len(weight.dims) > 1}
    assert stored == {onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT}
    if half:
        net.half().float()
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    for size in ((1, 67, 93), (3, 1, 1), (2, 5, 130), (1, 64, 64), (4, 2, 9), (1, 3, 1)):
        rain = torch.rand(size[0], 3, *size[1:])
        (found,) = session.run(None, {'rain': rain.numpy()})
        wanted = restore(net, rain).clamp(0, 1).numpy()
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() < 1e-5
        assert 0 <= found.min() <= found.max() <= 1


@pytest.mark.parametrize('half', [False, True])
@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_weights_keep_what_they_tell(tiny, tmp_path, suffix, half):
    out = tmp_path / f'out{suffix}'
    done = export(tiny, out, half=half, about={'data': 'own'})
    file = read_weights(out)
    checkpoint = file.checkpoint
    assert checkpoint['network_g'] == SMALLEST
    told = file.about
    assert (told['licence'], told['data']) == ('CC0', 'own')
    kept = read_weights(tiny).checkpoint['params']
    assert checkpoint['params'].keys() == kept.keys()
    assert {v.dtype for v in checkpoint['params'].values()} == {torch.float16 if half else torch.float32}
    assert all(torch.equal(v.float(), kept[k].half().float() if half else kept[k])
               for k, v in checkpoint['params'].items())  # fmt: skip
    assert [row[2] > 0 for row in done.parity] == [half] * 3


def test_the_command_tells_parity_size_and_checksum(dim, tmp_path, capsys):
    about = tmp_path / 'about.yml'
    about.write_text('data: mine\ndate: 2024-05-01\nscores: {Rain100L: [38.1, 0.98]}\n')
    out = tmp_path / 'sub' / 'out.pt2'
    assert run(dim, '-o', out, '--about', about, '--format', 'torch_export') == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:4] for line in lines[2:5]] == [['64', 'x', '64'], ['96', 'x', '128'], ['136', 'x', '72']]
    assert lines[-2] == f'{out}: {out.stat().st_size / 1e6:.2f} MB'
    assert lines[-1] == f'SHA-256 {hashlib.sha256(out.read_bytes()).hexdigest()}'
    told = load_exported(out).about
    assert (told['data'], told['date'], told['licence']) == ('mine', '2024-05-01', 'CC0')
    assert told['scores'] == {'Rain100L': [38.1, 0.98]}


def test_without_weights_those_of_the_package_are_taken(dim, tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'BUILT_IN', dim)
    assert run('-o', tmp_path / 'out.safetensors') == 0
    assert read_weights(tmp_path / 'out.safetensors').checkpoint['network_g'] == {'type': 'DimExport'}


def test_weights_that_tell_no_network_need_a_name(dim, tmp_path, capsys):
    torch.save(Dim().state_dict(), tmp_path / 'plain.pth')
    assert run(tmp_path / 'plain.pth', '-o', tmp_path / 'out.pth') == 2
    assert 'name it: --network NAME' in capsys.readouterr().err
    assert run(tmp_path / 'plain.pth', '-o', tmp_path / 'out.pth', '--network', 'DimExport') == 0


# --- what is not -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('suffix', SUFFIXES.values())
def test_a_file_that_is_there_stays(dim, tmp_path, suffix):
    out = tmp_path / f'out{suffix}'
    out.write_text('mine')
    with pytest.raises(InputError, match='is there already; --overwrite replaces it'):
        export(dim, out)
    assert out.read_text() == 'mine'
    if suffix != '.onnx':
        export(dim, out, overwrite=True)
        assert out.stat().st_size > 4


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='no /dev/full')
@pytest.mark.parametrize('suffix', ['.pt2', '.onnx', '.safetensors', '.pth'])
def test_a_full_disk_is_one_message(dim, tmp_path, monkeypatch, capsys, suffix):
    """What is written is a link to a device that is always full."""
    made = Path.mkdir

    def mkdir(folder, *arguments, **more):
        made(folder, *arguments, **more)
        if folder.name.endswith('.made.part'):
            (folder / f'net{suffix}').symlink_to('/dev/full')

    monkeypatch.setattr(Path, 'mkdir', mkdir)
    monkeypatch.setattr('ddsa_arch.archs.weights.atomic_path', contextlib.nullcontext)
    (tmp_path / 'out').mkdir()
    assert cli.main(['export', str(dim), '-o', str(tmp_path / 'out' / f'net{suffix}')]) == 2
    told = capsys.readouterr().err
    assert (told.count('\n'), told.startswith(f'error: the disk of {tmp_path / "out"} is full')) == (1, True), told
    assert list((tmp_path / 'out').iterdir()) == []


@pytest.mark.parametrize('suffix', ['.pt2', '.safetensors'])
def test_other_numbers_are_an_error_and_leave_nothing(dim, tmp_path, monkeypatch, capsys, suffix):
    def dimmer(path):
        net = Dim()
        net.factor.data += 0.01
        return net

    monkeypatch.setattr(module, 'load_exported' if suffix == '.pt2' else 'load_derainer_network', dimmer)
    assert run(dim, '-o', tmp_path / f'out{suffix}') == 2
    assert 'what was written differs from Dim by 0.01 at 64 x 64, wanted 0.0001 at most' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_cannot_be_traced_is_one_message(dim, tmp_path):
    for suffix in ('.onnx', '.pt2'):
        with pytest.raises(InputError, match=rf'Chosen cannot be exported as {suffix}: Could not guard') as caught:
            export(dim, tmp_path / f'out{suffix}', network='ChosenExport')
        assert '\n' not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('package', ['onnx', 'onnxscript', 'onnxruntime'])
def test_a_missing_package_is_named(dim, tmp_path, monkeypatch, capsys, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert run(dim, '-o', tmp_path / 'out.onnx') == 2
    told = capsys.readouterr().err
    assert f'package {package} is missing' in told
    assert "pip install 'ddsa_arch[export]'" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['-o', 'out.onx'], 'its name tells no format; wanted one of onnx (.onnx), torch_export (.pt2)'),
        (['-o', 'out.onnx', '--format', 'pth'], 'a file of --format pth ends in .pth; try out.pth'),
        (['-o', 'out.onnx', '--format', 'tflite'], "--format 'tflite' is not known; choose one of onnx"),
        (['-o', 'out.onnx', '--opset', '9'], '--opset 9: wanted a version from 18 to 23'),
        (['-o', 'out.pth', '--opset', '18'], '--opset 18: wanted a version from 18 to 23, and a FILE.onnx'),
        (['-o', 'out.pt2', '--half'], '--half: torch_export is written in float32'),
        (['-o', 'out.pth', '--about', 'none.yml'], '--about none.yml cannot be read'),
        (['-o', 'out.pth', '--about', 'list.yml'], 'holds a list, wanted a mapping'),
        (['-o', 'out.pth', '--network', 'DDSANett'], "no network 'DDSANett'"),
        (['-o', 'out.pth', '--imports', 'no_such_module'], 'no_such_module cannot be imported'),
    ],
)
def test_what_cannot_be_used_is_named(dim, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'list.yml').write_text('- 1\n')
    assert run(dim, *arguments) == 2
    assert message in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ['list.yml']


def test_what_is_exported_is_not_exported_again(dim, tmp_path):
    with pytest.raises(InputError, match='is exported already; give the weights'):
        export(tmp_path / 'a.onnx', tmp_path / 'b.pt2')
    with pytest.raises(InputError, match='no file'):
        export(tmp_path / 'none.pth', tmp_path / 'b.pt2')


# --- ddsa derain --backend ---------------------------------------------------------------------------------


def derain(*arguments):
    return cli.main(['derain', *map(str, arguments), '--device', 'cpu'])


@pytest.mark.slow
def test_derain_gives_the_same_picture_by_onnx(tiny, tiny_onnx, tmp_path, photo):
    Image.fromarray(photo[:120, :151, ::-1]).save(tmp_path / 'a.png')
    for name, weights, more in (('torch', tiny, ()), ('onnx', tiny_onnx.path, ()), ('said', tiny_onnx.path, ('onnx',))):
        backend = ('--backend', *more) if more else ()
        assert derain(tmp_path / 'a.png', '-o', tmp_path / name, '--weights', weights, *backend) == 0
    one, *others = (np.asarray(Image.open(tmp_path / name / 'a.png')).astype(int) for name in ('torch', 'onnx', 'said'))
    assert all(np.abs(one - other).max() <= 1 for other in others)


def test_derain_exports_weights_for_onnx(dim, tmp_path, capsys):
    Image.fromarray(np.full((20, 30, 3), 100, np.uint8)).save(tmp_path / 'a.png')
    assert derain(tmp_path / 'a.png', '-o', tmp_path / 'out', '--weights', dim, '--backend', 'onnx') == 0
    assert f'note: {dim} was exported for this run' in capsys.readouterr().err
    assert (np.asarray(Image.open(tmp_path / 'out' / 'a.png')) == 50).all()
    assert [p.name for p in dim.parent.iterdir()] == ['dim.pth']


@pytest.mark.parametrize(
    ('weights', 'arguments', 'message'),
    [
        ('a.onnx', ['--backend', 'torch'], 'a.onnx is one of ONNX; give the weights'),
        ('a.pt2', ['--backend', 'onnx'], 'a.pt2 is one of torch.export; give a .onnx'),
        ('a.pth', ['--backend', 'onnx', '--half'], 'computes in float32; leave out --half'),
        ('a.onnx', ['--half'], 'a.onnx computes in float32'),
        ('a.onnx', [], 'no file'),
    ],
)
def test_backends_that_do_not_fit_are_named(tmp_path, monkeypatch, capsys, weights, arguments, message):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / 'a.png')
    monkeypatch.setattr(derain_module, 'export', lambda *a, **k: pytest.fail('it was exported'))
    command = (tmp_path / 'a.png', '-o', tmp_path / 'out', '--weights', tmp_path / weights, *arguments)
    assert derain(*command) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


# --- every network -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize('suffix', ['.onnx', '.pt2'])
@pytest.mark.parametrize('name', sorted({card.network for card in CARDS}))
def test_every_network_of_the_comparison_can_be_exported(name, suffix, tmp_path, repository):
    small = yaml.safe_load((repository / 'tests' / 'small_networks.yml').read_text(encoding='utf-8'))
    section = json.loads(json.dumps({'type': name, **small.get(name, {})}))
    torch.manual_seed(0)
    net = ARCH_REGISTRY.get(name)(**small.get(name, {}))
    write_weights(tmp_path / 'w.pth', net.state_dict(), section, {})
    if (name, suffix) in REFUSED:
        with pytest.raises(InputError, match=REFUSED[name, suffix]):
            export(tmp_path / 'w.pth', tmp_path / f'out{suffix}', sizes=[(48, 80)])
        return
    assert export(tmp_path / 'w.pth', tmp_path / f'out{suffix}', sizes=[(48, 80), (64, 64), (16, 16)]).path.is_file()
