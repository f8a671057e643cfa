import pytest
import torch
from helpers import names
from torch import nn

from ddsa_arch.errors import InputError
from ddsa_arch.models.checkpoints import prune, remove_parts, save_whole, states_by_iteration, usable_state


def network(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width))


def save(folder, iteration, net=None):
    """Weights and state of an iteration, as a run leaves them."""
    net = net or network()
    optimiser = torch.optim.AdamW(net.parameters())
    state = {'epoch': 0, 'iter': iteration, 'optimizers': [optimiser.state_dict()], 'schedulers': []}
    save_whole(state, folder / 'states' / f'{iteration}.state')
    save_whole({'params': net.state_dict()}, folder / 'models' / f'net_g_{iteration}.pth')


def usable(folder, iteration):
    return usable_state(folder / 'states' / f'{iteration}.state', folder / 'models', network().to('meta'))


def test_a_state_that_was_saved_is_usable(tmp_path):
    save(tmp_path, 7)
    assert usable(tmp_path, 7)['iter'] == 7


@pytest.mark.parametrize('part', ['states/7.state', 'models/net_g_7.pth'])
@pytest.mark.parametrize('share', [0, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_refused(part, share, tmp_path):
    save(tmp_path, 7)
    path = tmp_path / part
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match=path.name.replace('.', r'\.')):
        usable(tmp_path, 7)


def test_a_state_without_its_weights_is_refused(tmp_path):
    save(tmp_path, 7)
    (tmp_path / 'models' / 'net_g_7.pth').unlink()
    with pytest.raises(InputError, match=r'net_g_7\.pth'):
        usable(tmp_path, 7)


def test_states_of_others_are_refused(tmp_path):
    save(tmp_path, 7, network(5))
    with pytest.raises(InputError, match=r'7\.state is of another network'):
        usable(tmp_path, 7)
    save(tmp_path, 8, nn.Sequential(network(), nn.Conv2d(4, 4, 1)))
    with pytest.raises(InputError, match=r'8\.state is of another network'):
        usable(tmp_path, 8)
    save_whole({'epoch': 1}, tmp_path / 'states' / '9.state')
    with pytest.raises(InputError, match=r'9\.state is no training state, it has no iter, optimizers, schedulers'):
        usable(tmp_path, 9)


def test_states_come_newest_first_by_number(tmp_path):
    for iteration in (9, 100, 20):
        save(tmp_path, iteration)
    (tmp_path / 'states' / 'notes.state').touch()
    assert list(states_by_iteration(tmp_path / 'states')) == [100, 20, 9]


def test_old_states_go_and_the_best_weights_stay(tmp_path):
    for iteration in (10, 20, 30, 40, 50):
        save(tmp_path, iteration)
    (tmp_path / 'models' / 'net_g_latest.pth').touch()
    prune(tmp_path / 'models', tmp_path / 'states', keep=2, best=[20])
    assert names(tmp_path / 'states') == ['40.state', '50.state']
    kept = ['net_g_20.pth', 'net_g_40.pth', 'net_g_50.pth', 'net_g_latest.pth']
    assert names(tmp_path / 'models') == kept
    save(tmp_path, 60)
    prune(tmp_path / 'models', tmp_path / 'states', keep=2, best=[50])
    assert names(tmp_path / 'models') == ['net_g_50.pth', 'net_g_60.pth', 'net_g_latest.pth']


def test_fewer_states_than_are_kept_all_stay(tmp_path):
    save(tmp_path, 10)
    prune(tmp_path / 'models', tmp_path / 'states', keep=3)
    assert names(tmp_path / 'states') == ['10.state']


def test_unfinished_files_of_a_killed_run_go(tmp_path):
    save(tmp_path, 10)
    (tmp_path / 'models' / 'net_g_20.pth.123.part').touch()
    remove_parts(tmp_path / 'models', tmp_path / 'absent')
    assert names(tmp_path / 'models') == ['net_g_10.pth']
