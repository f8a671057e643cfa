"""Training on a list of sets: shares in the log, and a resumed run that ends with the same bits."""

import re

import pytest
import torch
import yaml
from helpers import MIXTURE_SHARES, write_mixture

from ddsa_arch.errors import InputError
from ddsa_arch.options.loading import load_options
from ddsa_arch.runners.train import train


def log_of(folder):
    return '\n'.join(path.read_text(encoding='utf-8') for path in sorted(folder.glob('train_*.log')))


def test_a_list_is_a_mixture_that_can_be_written_out(write_options):
    options = load_options(write_mixture(write_options, 'listed'), True)['datasets']['train']
    assert (options['type'], options['batch_size_per_gpu'], options['gt_size']) == ('MixtureDataset', 3, 32)
    assert {name: part['weight'] for name, part in options['sets'].items()} == MIXTURE_SHARES


@pytest.mark.parametrize(
    ('sets', 'message'),
    [
        ([{'dataroot_gt': 'x'}], 'set 1 of the list has no name'),
        ([{'name': 'a'}, {'name': 'a'}], "two sets have the name 'a'"),
        ([{'name': 'a', 'wieght': 1}], r'unknown key datasets\.train\.sets\.a\.wieght; did you mean .weight'),
        ([{'name': 'a', 'weight': 'much'}], r'datasets\.train\.sets\.a\.weight'),
        ([], 'takes its images from sets'),
    ],
)
def test_a_wrong_list_is_named(write_options, sets, message):
    path = write_options('train')
    options = yaml.safe_load(path.read_text(encoding='utf-8'))
    options['datasets']['train'] = sets
    path.write_text(yaml.safe_dump(options), encoding='utf-8')
    with pytest.raises(InputError, match=message):
        train(path)


@pytest.mark.parametrize('workers', [0, 2])
def test_shares_are_told_and_a_resumed_run_ends_with_the_same_bits(write_options, workers):
    changes = {'train:total_iter': 20, 'logger:save_checkpoint_freq': 5, 'train:scheduler:end': 20}
    whole = train(write_mixture(write_options, 'whole', **changes))
    told = re.findall(r'Samples of each set so far: heavy (.*)%, light (.*)%, rendered (.*)%', log_of(whole))
    assert len(told) == 5
    assert [float(share) / 100 for share in told[-1]] == pytest.approx(list(MIXTURE_SHARES.values()), abs=0.01)

    changes |= {'datasets:train:num_worker_per_gpu': workers}
    resumed = train(write_mixture(write_options, 'resumed', **(changes | {'train:total_iter': 10})))
    for path in resumed.glob('models/net_g_latest.pth'):
        path.unlink()
    resumed = train(write_mixture(write_options, 'resumed', **changes), auto_resume=True)
    ours, expected = (torch.load(f / 'models' / 'net_g_latest.pth', weights_only=True) for f in (resumed, whole))
    for key in ('params', 'params_ema'):
        assert all(torch.equal(ours[key][name], value) for name, value in expected[key].items())
    states = [torch.load(f / 'training_states' / '20.state', weights_only=True) for f in (resumed, whole)]
    assert states[0]['seen'] == states[1]['seen'] == {'heavy': 30, 'light': 18, 'rendered': 12}
