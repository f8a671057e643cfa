"""What is found wrong before a run makes its first folder."""

import shutil
from collections import namedtuple

import pytest

from ddsa_arch.archs.building import build_network
from ddsa_arch.errors import InputError
from ddsa_arch.options.loading import load_options
from ddsa_arch.runners.cli import main
from ddsa_arch.runners.train import train
from ddsa_arch.training.pipeline import complete
from ddsa_arch.training.preflight import check_run

MIB = 2**20
STAGES = {'iterations': [4, 4], 'patch_sizes': [16, 32], 'batch_sizes': [3, 1]}
CONVIR = {'type': 'ConvIR', 'num_res': 1, 'width': 8}
Usage = namedtuple('Usage', 'total used free')


def refusal(options, capsys, workplace):
    """The one message of a training that is refused; nothing is made."""
    before = sorted(workplace.rglob('*'))
    assert main(['train', '-opt', str(options)]) == 2
    assert sorted(workplace.rglob('*')) == before
    message = capsys.readouterr().err
    assert message.count('\n') == 1
    return message


@pytest.fixture
def disk(monkeypatch):
    """Set the free bytes of the disk."""
    return lambda free: monkeypatch.setattr(shutil, 'disk_usage', lambda path: Usage(10**15, 0, free))


def checkpoint_bytes(path):
    """A weight file with averaged weights, and the two moments of AdamW: four times the weights in float32."""
    net = build_network(load_options(path, True)['network_g'])
    return 4 * 4 * sum(p.numel() for p in net.parameters())


def check(path, auto_resume=False):
    options = load_options(path, True)
    complete(options, path.parent, True, auto_resume, False)
    options['dist'] = False
    return check_run(options, 1).sets


@pytest.mark.parametrize(('kept', 'checkpoints'), [(None, 9), (1, 3), (3, 5), (100, 9)])
def test_a_disk_too_small_for_the_checkpoints_is_found(kept, checkpoints, write_options, workplace, capsys, disk):
    """8 states in 8 steps and the latest weights; or those that stay and two more."""
    changes = {'logger:save_checkpoint_freq': 1, 'logger:keep_checkpoints': kept}
    path = write_options('train', **changes)
    one = checkpoint_bytes(path)
    disk(checkpoints * one - 1)
    message = refusal(path, capsys, workplace)
    assert f'{workplace}: ' in message
    assert f'{(checkpoints * one - 1) / MIB:,.0f} MiB free' in message
    assert f'{checkpoints} checkpoints of {one / MIB:,.0f} MiB need {checkpoints * one / MIB:,.0f} MiB' in message
    assert 'lower logger.keep_checkpoints, raise logger.save_checkpoint_freq, or make room' in message
    disk(checkpoints * one)
    assert list(check(path)) == ['some', 'held_out']


def test_the_estimate_is_near_what_a_run_writes(write_options, disk):
    """With a network large enough for the names and shapes in the files to be small beside the weights."""
    path = write_options('train', **{'network_g:dim': 16, 'train:total_iter': 1, 'logger:save_checkpoint_freq': 1})
    folder = train(path)
    written = sum(p.stat().st_size for p in (folder / 'models' / 'net_g_1.pth', folder / 'training_states' / '1.state'))
    assert 0.8 * written < checkpoint_bytes(path) < written


def test_what_an_interrupted_run_has_written_counts_when_it_goes_on(write_options, workplace, disk):
    path = write_options('train', **{'logger:save_checkpoint_freq': 1})
    one = checkpoint_bytes(path)
    models = workplace / 'experiments' / 'run' / 'models'
    models.mkdir(parents=True)
    (models / 'net_g_4.pth').write_bytes(bytes(7 * one))
    disk(2 * one)
    with pytest.raises(InputError, match='9 checkpoints'):
        check(path)
    assert list(check(path, auto_resume=True)) == ['some', 'held_out']
    disk(one - 1)
    with pytest.raises(InputError, match='9 checkpoints'):
        check(path, auto_resume=True)


def test_a_batch_counts_what_is_accumulated(write_options, workplace, capsys):
    """3 x 4 patches are one batch; the set has 10."""
    message = refusal(write_options('train', **{'train:accumulate': 4}), capsys, workplace)
    assert 'do not fill one batch of 12; lower batch_size_per_gpu or train.accumulate' in message
    assert 'dataset_enlarge_ratio: 2' in message


def test_blocks_can_be_computed_anew_only_where_the_network_names_them(write_options, workplace, capsys):
    path = write_options('train', network_g={'type': 'MSRResNet'}, **{'train:checkpoint_blocks': True})
    message = refusal(path, capsys, workplace)
    assert 'train.checkpoint_blocks: MSRResNet does not name its blocks' in message
    assert 'set checkpoint_blocks: false' in message
    check(write_options('train', **{'train:checkpoint_blocks': True}))  # DDSANet names DATB


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'train:optim_g:lr': -1}, 'train.optim_g.lr: -1 is not above 0, wanted 0 < x <= 1'),
        ({'train:optim_g:betas': [2, 3]}, 'train.optim_g.betas: [2, 3] is not below 1, wanted 0 <= x < 1'),
        ({'train:scheduler:end': 1}, 'train.scheduler: CosineAnnealingLR does not take these options'),
        ({'network_g:dim': 7}, 'network_g: DDSANet cannot be built: dim: 7 is odd'),
        ({'val:metrics:psnr:protocol': 'papre'}, 'val.metrics.psnr: derain_psnr cannot be used: metric'),
        ({'val:restore': {'tile_size': 36}}, 'val.restore.tile_size: 36 is not a multiple of 8, which the'),
        ({'val:restore': {'tile_size': 16}}, 'val.restore.tile_overlap: 20 is not below the side of a tile, 16; try 2'),
        ({'path:resume_state': 'none.state'}, 'path.resume_state: no file none.state'),
        (
            {'train:losses': {'edge': {'type': 'EdgeLoss', 'kind': 'sobel'}}},
            "train.losses.edge: EdgeLoss cannot be built: kind: 'sobel' is not known; choose one of 'pyramid'",
        ),
        (
            {'train:pixel_opt:output_weights': [0.5, 1]},
            'train.pixel_opt: output_weights has 2 entries, the network 1 output; give one for each, the final',
        ),
        (
            {'network_g': CONVIR, 'datasets:train:batch_size_per_gpu': 1},
            'datasets.train.batch_size_per_gpu: 1, and ConvIR has a batch norm that sees one number of each patch',
        ),
        (
            {'network_g': CONVIR, 'train:progressive': STAGES | {'patch_sizes': [32, 32]}},
            'train.progressive.batch_sizes: 1, and ConvIR has a batch norm that sees one number of each patch, which',
        ),
        ({'datasets:train:gt_size': 30}, 'datasets.train.gt_size: 30 is not a multiple of 8, which DDSANet needs; try'),
        (
            {'network_g': {'type': 'IDT'}, 'datasets:train:gt_size': 256},
            'datasets.train.gt_size: 256 is not 128, the only size that IDT takes; try 128',
        ),
        ({'train:progressive': STAGES | {'patch_sizes': [16, 20]}}, 'train.progressive.patch_sizes: 20 is not a multi'),
        ({'train:progressive': STAGES | {'iterations': [4, 5]}}, 'they sum up to 9, and train.total_iter is 8; make'),
        ({'train:progressive': STAGES | {'patch_sizes': [16, 40]}}, 'patch_sizes: 40 is more than datasets.train.gt_'),
        ({'train:progressive': STAGES | {'batch_sizes': [4, 1]}}, '4 is more than datasets.train.batch_size_per_gpu'),
        ({'train:progressive': STAGES | {'batch_sizes': [2]}}, '2 iterations, 2 patch_sizes and 1 batch_sizes; give'),
        ({'train:progressive': {'iterations': [8]}}, 'train.progressive.patch_sizes: None, wanted whole numbers above'),
        ({'train:progressive': STAGES | {'patch_sizes': [16, 0.5]}}, '[16, 0.5], wanted whole numbers above 0'),
    ],
)
def test_options_that_do_not_go_together_are_found_before_anything_is_made(
    changes, words, write_options, workplace, capsys
):
    assert words in refusal(write_options('train', **changes), capsys, workplace)


def test_metrics_of_other_packages_are_left_to_the_validation(write_options):
    check(write_options('train', **{'val:metrics': {'niqe': {'type': 'calculate_niqe', 'crop_border': 0}}}))


def test_a_network_that_looks_at_values_while_it_is_built_is_built_on_the_cpu():
    arguments = {'upscale': 1, 'img_size': 16, 'window_size': 8, 'depths': [2], 'embed_dim': 8, 'num_heads': [2]}
    net = build_network({'type': 'SwinIR', **arguments}, 'meta')
    assert {p.device.type for p in net.parameters()} == {'cpu'}
    assert {p.device.type for p in build_network({'type': 'MSRResNet'}, 'meta').parameters()} == {'meta'}


PAIRED = {'type': 'PairedImageDataset', 'name': 'stock', 'gt_size': 32, 'batch_size_per_gpu': 2}


def stock(pairs, **others):
    """A data set of BasicSR."""
    roots = {'dataroot_lq': str(pairs / 'input'), 'dataroot_gt': str(pairs / 'target')}
    return {**PAIRED, **roots, 'io_backend': {'type': 'disk'}, **others}


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (
            {'network_g:in_channels': 2},
            'network_g: DDSANet takes no images of 3 channels and 32 x 32 pixels (images are R',
        ),
        (
            {'network_g': {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1}},
            'network_g: RRDBNet turns images of 3 channels and 32 x 32 pixels into 3 channels and 128 x 128 pixels',
        ),
        (
            {'network_g': {'type': 'VGGStyleDiscriminator', 'num_in_ch': 3, 'num_feat': 4}},
            'network_g: VGGStyleDiscriminator takes no images of 3 channels and 32 x 32 pixels',
        ),
        (
            {'network_g:heads': [5, 1, 1, 1, 1]},
            'network_g: DDSANet cannot be built: dim 8 is not a multiple of heads 5',
        ),
        (
            {'network_g': {'type': 'MSRResNet', 'num_feat': -2}},
            'network_g: MSRResNet cannot be built: Trying to create t',
        ),
        (
            {'model_type': 'SRGANModel'},
            'model_type: SRGANModel is a class of BasicSR itself, which lacks the optimisers',
        ),
        (
            {'logger:wandb': {'project': 'rain'}},
            'logger.wandb: it takes its figures from TensorBoard; set logger.use_tb',
        ),
        ({'threads': 12345}, 'threads: 12345 is above'),
        ({'datasets:val:num_worker_per_gpu': 9999}, 'datasets.val.num_worker_per_gpu: 9999 is above'),
        (
            {'datasets:train:dataset_enlarge_ratio': 10**12},
            'dataset_enlarge_ratio: 1000000000000 makes 10,000,000,000,0',
        ),
        (
            {'train:optim_g': {'type': 'SparseAdam', 'lr': 0.1}},
            'train.optim_g: SparseAdam cannot take a step with these',
        ),
        ({'train:optim_g:fused': 'x'}, "train.optim_g.fused: 'x' is str"),
        (
            {'train:pixel_opt': {'type': 'MSELoss', 'reduction': 'none'}},
            'train.pixel_opt: MSELoss gives 6,144 numbers, wanted one; set its reduction: mean',
        ),
        (
            {'train:pixel_opt': {'type': 'DerainCharbonnierLoss', 'reduction': 'sum'}},
            "DerainCharbonnierLoss cannot be built: reduction: 'sum', wanted 'mean', which is the only one",
        ),
        (
            {'path:pretrain_network_g': 'train.yml'},
            'path.pretrain_network_g: weights: train.yml is text',
        ),
        ({'path:pretrain_network_g': '.'}, 'path.pretrain_network_g: . is a folder, wanted a file'),
        ({'path:resume_state': 'train.yml'}, 'path.resume_state: train.yml cannot be read'),
        (
            {'datasets:train:dataroot_gt': 'train.yml'},
            'datasets.train.dataroot_gt: no folder train.yml, which is a file',
        ),
    ],
)
def test_what_the_run_would_trip_over_is_found_before_anything_is_made(
    changes, words, write_options, workplace, capsys
):
    assert words in refusal(write_options('train', **changes), capsys, workplace)


def test_the_folder_above_the_images_is_mended_with_a_hint(pairs, write_options, workplace, capsys):
    message = refusal(write_options('train', **{'datasets:train:dataroot_gt': str(pairs)}), capsys, workplace)
    assert f'did you mean {pairs / "target.lmdb"}?' in message


def test_a_set_of_basicsr_is_tried_before_the_run(pairs, write_options, workplace, capsys):
    message = refusal(write_options('train', **{'datasets:train': stock(pairs, use_rot=True)}), capsys, workplace)
    assert (
        "datasets.train: PairedImageDataset cannot give its first image: the option 'use_hflip' is missing" in message
    )
    without = {k: v for k, v in stock(pairs).items() if k != 'io_backend'}
    message = refusal(write_options('train', **{'datasets:train': without}), capsys, workplace)
    assert "PairedImageDataset cannot be built: the option 'io_backend' is missing" in message
    check(write_options('train', **{'datasets:train': stock(pairs, use_rot=False, use_hflip=False)}))


def test_a_test_of_a_training_file_names_the_other_command(write_options, workplace, capsys):
    assert main(['test', '-opt', str(write_options('train'))]) == 2
    assert '`ddsa train -opt FILE` takes it' in capsys.readouterr().err
    assert [p.name for p in workplace.iterdir()] == ['train.yml']


@pytest.mark.parametrize('root', ['train.yml', 'loop/below'])
def test_a_root_that_cannot_be_a_folder_is_named(root, write_options, workplace, capsys):
    options = write_options('train')
    (workplace / 'loop').symlink_to('loop')
    assert main(['train', '-opt', str(options), '--root', root]) == 2
    assert f'--root {root}: ' in capsys.readouterr().err


def test_a_dry_run_prints_its_warnings(write_options, workplace, capsys):
    options = write_options('train', **{'logger:save_checkpoint_freq': 99, 'train:optim_g:maximize': True})
    assert main(['train', '--dry_run', '-opt', str(options), '--force-yml', 'val.val_freq=77']) == 0
    written = capsys.readouterr()
    assert [line.partition(' is ')[0] for line in written.out.splitlines() if line.startswith('warning: ')] == [
        'warning: val.val_freq: 77',
        'warning: logger.save_checkpoint_freq: 99',
        'warning: train.optim_g.maximize: the loss',
    ]  # fmt: skip
    assert 'warning' not in written.err.lower()
