"""``ddsa test``: several sets in one run, with and without targets, some of them missing."""

import hashlib
import json

import pytest
import torch
import yaml
from helpers import rows

from ddsa_arch.archs.building import build_network
from ddsa_arch.archs.weights import read_weights, state_checksum
from ddsa_arch.errors import InputError
from ddsa_arch.files.images import write_image
from ddsa_arch.models.checkpoints import save_whole
from ddsa_arch.options.loading import check_network
from ddsa_arch.runners.cli import main
from ddsa_arch.runners.test import test as run_test

NO_TARGET_METRICS = {'niqe': {'type': 'derain_niqe', 'better': 'lower'}}


@pytest.fixture
def three_sets(write_options, pairs, photo, workplace):
    """Two sets of pairs and one of photos without targets, large enough for NIQE."""
    for i in range(2):
        write_image(workplace / 'photos' / f'p{i}.png', photo[i : i + 192, : 200 + i])
    path = write_options('test', **{'val:metrics_without_target': NO_TARGET_METRICS})
    options = yaml.safe_load(path.read_text(encoding='utf-8'))
    first = options['datasets']['test_1']
    options['datasets']['test_2'] = {**first, 'name': 'second'}
    options['datasets']['test_3'] = {'name': 'photos', 'dataroot_lq': 'photos'}
    path.write_text(yaml.safe_dump(options), encoding='utf-8')
    return path


def test_sets_with_and_without_targets_are_scored_in_one_run(three_sets):
    folder = run_test(three_sets)
    summary = {r['set']: r for r in rows(folder / 'summary.csv')}
    assert list(summary) == ['first', 'second', 'photos', 'Average']
    assert summary['photos']['psnr'] == ''
    assert summary['photos']['niqe_counted'] == '2'
    assert summary['first']['niqe'] == ''
    assert float(summary['Average']['niqe']) == float(summary['photos']['niqe'])
    assert float(summary['Average']['psnr']) == pytest.approx(float(summary['first']['psnr']))
    assert list(rows(folder / 'photos.csv')[0]) == ['image', 'niqe', 'note']
    assert len(rows(folder / 'first.csv')) == 10


def test_the_protocol_is_stored_with_the_results(three_sets):
    protocol = json.loads((run_test(three_sets) / 'results.json').read_text(encoding='utf-8'))['protocol']
    assert protocol['metrics']['psnr']['protocol'] == 'paper'
    assert protocol['metrics_without_target']['niqe']['type'] == 'derain_niqe'
    assert protocol['network']['type'] == 'DDSANet'
    assert protocol['weights'] is None  # none were given
    assert protocol['restore']['size_multiple'] == 8
    assert protocol['missing_sets'] == []


def test_missing_sets_stop_a_test_that_must_not_go_on_without_them(three_sets, workplace, capsys):
    changes = ['--force_yml', 'datasets:test_2:dataroot_lq=nowhere/input', 'datasets:test_3:dataroot_lq=no_photos']
    assert main(['test', '-opt', str(three_sets), *changes]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: not on the disk: second (nowhere/input), photos (no_photos); make them with')
    assert '--allow-missing' in error
    assert error.count('\n') == 1
    assert not (workplace / 'results').exists()


def test_missing_sets_are_named_and_left_out_where_that_is_allowed(three_sets, capsys):
    changes = ['--force_yml', 'datasets:test_2:dataroot_lq=nowhere/input']
    assert main(['test', '-opt', str(three_sets), '--allow-missing', *changes]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'without second: not on the disk' in lines
    assert lines[-2].startswith('scores: ')
    folder = three_sets.parent / 'results' / 'run'
    summary = rows(folder / 'summary.csv')
    assert [r['set'] for r in summary] == ['first', 'photos', 'Average']
    assert summary[-1]['note'] == 'without second'
    assert json.loads((folder / 'results.json').read_text(encoding='utf-8'))['protocol']['missing_sets'] == ['second']
    assert 'missing_sets' not in yaml.safe_load((folder / 'options.yml').read_text(encoding='utf-8'))


def test_a_test_of_no_set_at_all_is_refused(write_options):
    options = write_options('test', **{'datasets:test_1:dataroot_lq': 'nowhere'})
    with pytest.raises(InputError, match=r'not on the disk: first \(nowhere\); make them') as error:
        run_test(options, allow_missing=True)
    assert '--allow-missing' not in str(error.value)


def test_the_scores_are_shown_as_a_table_with_the_protocol(three_sets, capsys):
    assert main(['test', '-opt', str(three_sets)]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line.startswith('|')]
    assert [cell.strip() for cell in table[0].strip('|').split('|')] == ['set', 'images', 'PSNR', 'SSIM', 'NIQE']
    assert table[-1].startswith('| Average')
    assert 'protocol: Y paper, outputs rounded to 8 bits, whole images padded to multiples of 8' in lines[-3]


def test_a_metric_that_compares_is_refused_for_sets_without_targets(three_sets):
    with pytest.raises(InputError, match=r'val.metrics_without_target.psnr: derain_psnr compares with a target'):
        run_test(three_sets, force_yml=['val:metrics_without_target:psnr:type=derain_psnr'])


def write_weights_of(options, path, change):
    """Save the weights of the network of an option file, each changed by a function of its name and value."""
    net = build_network(check_network(yaml.safe_load(options.read_text(encoding='utf-8'))['network_g']))
    state = {name: change(name, value) for name, value in net.state_dict().items()}
    save_whole({'params': {name: value for name, value in state.items() if value is not None}}, path)


def test_output_that_is_not_finite_is_an_error_and_no_picture(write_options, workplace, capsys):
    options = write_options('test', **{'path:pretrain_network_g': 'huge.pth', 'val:save_img': True})
    write_weights_of(options, workplace / 'huge.pth', lambda _, value: torch.full_like(value, 3e38))
    assert main(['test', '-opt', str(options)]) == 1
    assert 'error: the output of the network is not finite for tile0' in capsys.readouterr().err
    folder = workplace / 'results' / 'run'
    images = rows(folder / 'first.csv')
    assert {r['note'] for r in images} == {"the network's output is not finite"}
    assert {r['psnr'] for r in images} == {'nan'}
    summary = rows(folder / 'summary.csv')
    assert (summary[0]['psnr'], summary[0]['psnr_counted']) == ('nan', '0')
    assert list(folder.rglob('*.png')) == []


def test_weights_that_are_not_finite_or_not_all_there_are_refused(write_options, workplace):
    changes = {'path:pretrain_network_g': 'w.pth', 'path:strict_load_g': False}
    options = write_options('test', **changes)
    write_weights_of(options, workplace / 'w.pth', lambda name, value: value if 'embed' in name else None)
    with pytest.raises(InputError, match=r'tensors of DDSANet are not in w\.pth and keep the values .* strict_load_g'):
        run_test(options)
    write_weights_of(options, workplace / 'w.pth', lambda _, value: torch.full_like(value, torch.nan))
    with pytest.raises(InputError, match=r'w\.pth holds numbers that are not finite'):
        run_test(options)
    assert not (workplace / 'results').exists()


def test_the_key_that_was_loaded_and_the_digests_are_stored(write_options, workplace):
    options = write_options('test', **{'path:pretrain_network_g': 'w.pth', 'path:param_key_g': 'params_ema'})
    write_weights_of(options, workplace / 'w.pth', lambda _, value: value)
    folder = run_test(options)
    weights = json.loads((folder / 'results.json').read_text(encoding='utf-8'))['protocol']['weights']
    assert weights['key'] == 'params'  # the file holds no averaged ones
    assert weights['sha256'] == hashlib.sha256((workplace / 'w.pth').read_bytes()).hexdigest()
    assert weights['tensors_sha256'] == state_checksum(read_weights(workplace / 'w.pth').state_dict())


@pytest.mark.parametrize(
    'arguments',
    [
        {'attention': 'dense'},
        {'attention': 'sparse', 'spatial_attention': False},
        {'scale': 'sqrt_d'},
        {'mask_fill': 'zero', 'keep_ratio': 0.5},
    ],
)
def test_weights_that_do_not_tell_all_arguments_are_taken_by_their_own_network_alone(
    write_options, workplace, arguments
):
    """Those of an attention without parameters of its own, for one: shapes do not tell it from the paper's."""
    changes = {f'network_g:{key}': value for key, value in arguments.items()}
    options = write_options('test', **changes, **{'path:pretrain_network_g': 'w.pth'})
    write_weights_of(options, workplace / 'w.pth', lambda _, value: value)
    assert (run_test(options) / 'summary.csv').is_file()
    others = write_options('test', name='other', **{'path:pretrain_network_g': 'w.pth'})
    with pytest.raises(InputError, match=r'path.pretrain_network_g: .*w.pth was trained with .*put these arguments'):
        run_test(others)
    assert not (workplace / 'results' / 'other').exists()
