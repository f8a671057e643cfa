import hashlib
import pickle

import pytest
import torch
from torch import nn

from ddsa_arch.archs.weights import (
    load_weights,
    read_weights,
    state_checksum,
    write_weights,
)
from ddsa_arch.errors import InputError


def net(value=None):
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1))
    if value is not None:
        for parameter in module.parameters():
            nn.init.constant_(parameter, value)
    return module


def state(value):
    return net(value).state_dict()


def test_a_file_is_digested_as_its_bytes(tmp_path):
    path = tmp_path / 'w.pth'
    torch.save({'params': {'weight': torch.zeros(3)}}, path)
    assert read_weights(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.core
@pytest.mark.parametrize(
    'checkpoint',
    [
        state(1.0),
        {'params': state(1.0)},
        {'params': state(2.0), 'params_ema': state(1.0)},
        {'state_dict': {f'module.{k}': v for k, v in state(1.0).items()}, 'epoch': 3},
    ],
)
def test_the_wrappers_in_the_wild_are_known(checkpoint, tmp_path):
    torch.save(checkpoint, tmp_path / 'w.pth')
    module = net()
    load_weights(module, tmp_path / 'w.pth', 'params_ema')
    assert all((p == 1).all() for p in module.parameters())


def test_a_wrapper_can_be_chosen(tmp_path):
    torch.save({'params': state(2.0), 'params_ema': state(1.0)}, tmp_path / 'w.pth')
    module = net()
    load_weights(module, tmp_path / 'w.pth', 'params')
    assert all((p == 2).all() for p in module.parameters())
    with pytest.raises(InputError, match="no 'params_g'; it holds params, params_ema"):
        load_weights(module, tmp_path / 'w.pth', 'params_g')


def test_what_does_not_fit_is_named_and_nothing_is_changed(tmp_path):
    weights = state(1.0)
    weights['2.weight'] = weights.pop('1.weight')
    weights['0.weight'] = torch.zeros(5, 3, 1, 1)
    torch.save(weights, tmp_path / 'w.pth')
    module = net(7.0)
    with pytest.raises(InputError) as error:
        load_weights(module, tmp_path / 'w.pth')
    for words in ('1 missing: 1.weight', 'not of this network: 2.weight', '(5, 3, 1, 1), wanted (4, 3, 1, 1)', 'w.pth'):
        assert words in str(error.value)
    assert all((p == 7).all() for p in module.parameters())
    load_weights(module, tmp_path / 'w.pth', strict=False)
    assert (module[0].bias == 1).all()
    assert (module[0].weight == 7).all()


def test_a_file_that_is_missing_cut_off_or_unsafe_is_refused(tmp_path):
    with pytest.raises(InputError, match='no file'):
        read_weights(tmp_path / 'none.pth')
    torch.save(state(1.0), tmp_path / 'w.pth')
    (tmp_path / 'cut.pth').write_bytes((tmp_path / 'w.pth').read_bytes()[:200])
    with pytest.raises(InputError, match=r'cut\.pth cannot be read'):
        read_weights(tmp_path / 'cut.pth')
    with open(tmp_path / 'code.pth', 'wb') as file:
        pickle.dump({'params': net()}, file)  # loading it would run code
    with pytest.raises(InputError, match=r'code\.pth is a plain pickle, which could run code'):
        read_weights(tmp_path / 'code.pth')


def test_batch_norms_of_old_files_have_no_counter(tmp_path):
    module = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    old = {k: v + 1 for k, v in module.state_dict().items() if not k.endswith('num_batches_tracked')}
    torch.save(old, tmp_path / 'old.pth')
    load_weights(module, tmp_path / 'old.pth')
    assert (module[1].running_mean == 1).all()
    del old['1.running_mean']
    torch.save(old, tmp_path / 'old.pth')
    with pytest.raises(InputError, match=r'1 missing: 1\.running_mean'):
        load_weights(module, tmp_path / 'old.pth')


def test_a_slope_that_is_shared_loads_from_all_its_names(tmp_path):
    """The published files of MPRNet, DGUNet and ELF name one PReLU many times; the last one wins, and all are equal."""
    slope = nn.PReLU()
    module = nn.Sequential(nn.Conv2d(3, 3, 1), slope, nn.Conv2d(3, 3, 1), slope)
    state = module.state_dict()
    assert {'1.weight', '3.weight'} <= set(state)
    torch.save({k: torch.full_like(v, 0.5) for k, v in state.items()}, tmp_path / 'w.pth')
    load_weights(module, tmp_path / 'w.pth')
    assert slope.weight.item() == 0.5


# --- files that tell what they hold ------------------------------------------------------------------------


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('half', [False, True])
def test_weights_are_written_with_what_there_is_to_tell(tmp_path, suffix, half):
    about = {'licence': 'Apache-2.0', 'data': {'name': 'Rain13K', 'pairs': 13711}, 'scores': [26.9, 0.8]}
    network = {'type': 'DDSANet', 'dim': 16, 'blocks': [1, 1, 2, 2, 2]}
    path = tmp_path / f'w{suffix}'
    write_weights(path, state(0.1), network, about, half)
    file = read_weights(path)
    checkpoint = file.checkpoint
    assert checkpoint['network_g'] == network
    told = file.about
    assert {k: told[k] for k in about} == about
    assert len(told['sha256']) == 64
    assert next(iter(checkpoint['params'].values())).dtype == (torch.float16 if half else torch.float32)
    module = net()
    load_weights(module, path)
    expected = torch.tensor(0.1).half().float() if half else torch.tensor(0.1)
    assert all((p == expected).all() and p.dtype == torch.float32 for p in module.parameters())


def test_the_checksum_is_that_of_the_weights_alone(tmp_path):
    for name in ('a.pth', 'b.safetensors'):
        write_weights(tmp_path / name, state(1.0), {'type': 'A'}, {'name': name})
    first, second = (read_weights(tmp_path / n).about['sha256'] for n in ('a.pth', 'b.safetensors'))
    assert first == second
    assert first != state_checksum(state(2.0))


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_damaged_weights_are_named(tmp_path, suffix):
    path = tmp_path / f'w{suffix}'
    write_weights(path, state(1.0), {'type': 'A'}, {})
    data = bytearray(path.read_bytes())
    at = data.rfind(torch.tensor(1.0).numpy().tobytes())
    data[at : at + 4] = torch.tensor(3.0).numpy().tobytes()
    path.write_bytes(data)
    with pytest.raises(InputError, match=r'w\.\w+ (is damaged|cannot be read)'):
        read_weights(path)
    path.write_bytes(data[:100])
    with pytest.raises(InputError, match=r'w\.\w+ cannot be read'):
        read_weights(path)


def test_what_cannot_be_stored_is_named(tmp_path):
    with pytest.raises(InputError, match=r"w.bin ends in '.bin', wanted .pth or .safetensors"):
        write_weights(tmp_path / 'w.bin', state(1.0), {}, {})
    with pytest.raises(InputError, match=r'0.bias is beyond the range of float16|0.weight is beyond'):
        write_weights(tmp_path / 'w.pth', state(1e6), {}, {}, half=True)
    assert list(tmp_path.iterdir()) == []


def test_what_a_file_did_not_hold_is_told(tmp_path):
    torch.save({'params': {'0.weight': state(1.0)['0.weight']}}, tmp_path / 'w.pth')
    loaded = load_weights(net(0.0), tmp_path / 'w.pth', 'params_ema', strict=False)
    assert (loaded.key, loaded.taken) == ('params', 1)
    assert loaded.random == ('0.bias', '1.bias', '1.weight')


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    broken = state(1.0)
    broken['1.bias'][2] = value
    torch.save(broken, tmp_path / 'w.pth')
    module = net(0.0)
    with pytest.raises(InputError, match=r'w\.pth holds numbers that are not finite in 1 of 4 tensors: 1\.bias'):
        load_weights(module, tmp_path / 'w.pth')
    assert all(not p.any() for p in module.parameters())
