"""Every option file is read, checked and built; every wrong one is refused with the key and the remedy."""

import math
from pathlib import Path

import pytest
import torch
import yaml
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY

from ddsa_arch.archs.building import build_network
from ddsa_arch.archs.cards import CARDS
from ddsa_arch.errors import InputError
from ddsa_arch.losses import vgg_loss
from ddsa_arch.models.optimisation import build_schedulers
from ddsa_arch.models.restore import PLAIN, Recipe
from ddsa_arch.options.loading import coerce_numbers, force, load_options, to_yaml
from ddsa_arch.options.reading import read_options
from ddsa_arch.options.reference import reference
from ddsa_arch.runners.cli import main
from ddsa_arch.training.network_checks import StandIn, check_shapes, check_training

OPTIONS = Path(__file__).resolve().parents[2] / 'options'
FILES = sorted(OPTIONS.rglob('*.yml'))
SMALL = yaml.safe_load((OPTIONS.parent / 'tests' / 'small_networks.yml').read_text(encoding='utf-8'))
FLAGSHIP = OPTIONS / 'train' / 'DDSANet_Rain13K.yml'
VGG16 = {
    f'features.{i}.{kind}': torch.zeros(shape if kind == 'weight' else shape[:1])
    for i, shape in ((0, (64, 3, 3, 3)), (2, (64, 64, 3, 3)), (5, (128, 64, 3, 3)), (7, (128, 128, 3, 3)))
    for kind in ('weight', 'bias')
}
PARAMETERS = {'DDSANet_Rain13K': 21_001_236, 'DDSANet_small_Rain13K': 5_314_572, 'DDSANet_tiny_Rain13K': 980_372}


def is_for_training(path):
    return 'train' in path.relative_to(OPTIONS).parts


@pytest.mark.parametrize('path', FILES, ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_every_option_file_is_valid_and_its_network_can_be_built(path):
    options = load_options(path, is_for_training(path))
    net = build_network(options['network_g'], 'meta')
    if path.parent.name == 'cpu_study' or path.stem == 'cpu_study':
        assert options['name'] == f'cpu_study_{"DDSANet" if path.stem == "cpu_study" else path.stem}'
    else:
        assert options['name'] == path.stem + ('_equal_budget' if path.parent.name == 'equal_budget' else '')
    if path.stem in PARAMETERS:
        assert sum(p.numel() for p in net.parameters()) == PARAMETERS[path.stem]


@pytest.mark.parametrize('path', FILES, ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_option_files_inherit_and_name_no_disk(path):
    text = path.read_text(encoding='utf-8')
    if path.name not in ('DDSANet_Rain13K.yml', 'DDSANet_benchmarks.yml'):
        assert '_base_:' in text
    for line in text.splitlines():
        assert 'dataroot' not in line or '{{$DDSA_DATA:datasets}}' in line or 'data/' in line


@pytest.mark.core
def test_the_flagship_has_the_papers_recipe():
    options = load_options(FLAGSHIP, True)
    train, data = options['train'], options['datasets']['train']
    assert train['total_iter'] == 300_000
    assert train['optim_g'] == {
        'type': 'AdamW', 'lr': 1e-4, 'weight_decay': 1e-4, 'betas': [0.9, 0.999], 'fused': False
    }  # fmt: skip
    assert train['scheduler'] == {
        'type': 'CosineAnnealingLR', 'begin': 92_000, 'end': 300_000, 'T_max': 208_000, 'eta_min': 1e-6
    }  # fmt: skip
    assert (data['gt_size'], data['batch_size_per_gpu'] * 4) == (128, 16)
    assert data['use_hflip']
    assert data['use_vflip']
    assert options['network_g']['blocks'] == [2, 4, 6, 6, 8]
    assert options['network_g']['heads'] == [1, 1, 2, 4, 8]


RECIPES = [p for p in FILES if p.parent.name == 'train' and not p.name.startswith('DDSANet_')]


@pytest.mark.parametrize('path', RECIPES, ids=lambda p: p.stem)
def test_losses_and_patches_of_a_recipe_fit_its_network(path, monkeypatch):
    monkeypatch.setattr(vgg_loss, '_vgg16_state', lambda _: VGG16)  # 528 MB to download
    options = load_options(path, True)
    small = SMALL.get(options['network_g']['type'], {})
    options['network_g'] |= {key: value for key, value in small.items() if key not in ('img_size', 'stages')}
    stand_in = StandIn.of(options['network_g'])
    check_training(options, stand_in.net)
    check_shapes(options, DATASET_REGISTRY.get(options['datasets']['train']['type']), stand_in)


def test_every_network_of_the_comparison_has_its_recipes():
    """The published one, DDSANet's, and a test file with the published way of testing."""
    ours = {name for name, part in ARCH_REGISTRY if part.__module__.startswith('ddsa_arch.')}
    networks = {card.network for card in CARDS}
    equal = {load_options(p, True)['network_g']['type'] for p in OPTIONS.glob('train/equal_budget/*.yml')}
    assert equal == networks - {'DDSANet', 'PRN_r'}
    published = {load_options(p, True)['network_g']['type'] for p in OPTIONS.glob('train/*_Rain13K.yml')}
    tested = {load_options(p, False)['network_g']['type'] for p in OPTIONS.glob('test/*_benchmarks.yml')}
    assert published == tested == (networks & ours) - {'PRN_r'}


@pytest.mark.parametrize('path', sorted(OPTIONS.glob('test/*_benchmarks.yml')), ids=lambda p: p.stem)
def test_a_test_file_takes_the_weights_that_its_recipe_makes(path):
    options = load_options(path, False)
    recipe = options['path']['pretrain_network_g'].split('/')[1]
    trained = build_network(load_options(OPTIONS / 'train' / f'{recipe}.yml', True)['network_g'], 'meta')
    assert trained.state_dict().keys() == build_network(options['network_g'], 'meta').state_dict().keys()


@pytest.mark.parametrize('path', sorted(OPTIONS.glob('train/equal_budget/*.yml')), ids=lambda p: p.stem)
def test_an_equal_budget_changes_the_network_alone(path):
    base, options = load_options(FLAGSHIP, True), load_options(path, True)
    free = ('name', 'network_g', 'find_unused_parameters')
    options['val']['restore'].pop('size_multiple', None)  # what a network of BasicSR does not say of itself
    options['train']['pixel_opt'].pop('output_weights', None)  # outputs that are no estimates are left out
    assert {k: v for k, v in options.items() if k not in free} == {k: v for k, v in base.items() if k not in free}


@pytest.mark.parametrize('plain', sorted(OPTIONS.glob('test/*_plain_benchmarks.yml')), ids=lambda p: p.stem)
def test_a_plain_test_file_differs_by_the_recipe_alone(plain):
    published = load_options(plain.with_name(plain.name.replace('_plain', '')), False)
    options = load_options(plain, False)
    restore = options['val'].pop('restore')
    assert Recipe(**restore) == PLAIN
    assert Recipe(**published['val'].pop('restore')) != PLAIN
    assert options | {'name': ''} == published | {'name': ''}


@pytest.mark.parametrize(
    ('recipe', 'rates'),
    [
        # up within three epochs of 857 steps; then the release's own, which exceed its formula by 4e-5
        ('MPRNet', {1: 2e-7, 858: 6.667e-5, 1715: 1.3333e-4, 2572: 2e-4, 7714: 1.9971844e-4}),
        pytest.param(
            'MPRNet', {41994: 1.8345767e-4, 84844: 1.3460247e-4, 127694: 7.2415e-5, 213394: 1.0080e-6},
            marks=pytest.mark.slow,
        ),
        pytest.param('Restormer', {92000: 3e-4, 100000: 2.9891e-4, 196000: 1.50502e-4}, marks=pytest.mark.slow),
        ('MSPFN', {1: 5e-4, 20001: 4e-4, 40001: 3.2e-4}),
        # measured on the published schedules, at the beginnings of the first epochs
        ('ConvIR', {1: 3.3333e-5, 3429: 6.6667e-5, 6857: 1e-4}),
        ('NeRDRain', {1801: 3.3333e-5, 3601: 6.6667e-5, 5401: 1e-4}),
    ],
)  # fmt: skip
def test_learning_rates_are_the_published_ones(recipe, rates):
    train = load_options(OPTIONS / 'train' / f'{recipe}_Rain13K.yml', True)['train']
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=train['optim_g']['lr'])
    schedulers = build_schedulers(optimiser, train['scheduler'])
    for step in range(1, max(rates) + 1):
        if step in rates:
            assert optimiser.param_groups[0]['lr'] == pytest.approx(rates[step], rel=3e-3), step
        optimiser.step()
        for scheduler in schedulers:
            scheduler.step()


@pytest.mark.parametrize(
    ('recipe', 'steps', 'rates'),
    [
        ('ConvIR', 3428, {4: 1e-4, 5: 1e-4, 151: 5.129e-5, 300: 1.0028e-6}),
        ('NeRDRain', 1800, {4: 1e-4, 6: 1e-4, 1500: 5.068e-5, 3000: 1.0001e-6}),
        # torch.optim.lr_scheduler.CosineAnnealingLR with T_max 1000
        ('SFHformer', 225, {1: 1e-3, 251: 8.5370029e-4, 501: 5.005e-4, 1000: 1.0024649e-6}),
    ],
)
def test_long_cosines_are_the_published_ones(recipe, steps, rates):
    """Measured on the published schedules, in epochs of ``steps``; half a million steps would be slow to take."""
    train = load_options(OPTIONS / 'train' / f'{recipe}_Rain13K.yml', True)['train']
    schedules = train['scheduler']
    cosine = schedules[-1] if isinstance(schedules, list) else schedules
    assert cosine['end'] == cosine['begin'] + cosine['T_max'] == train['total_iter']
    for epoch, rate in rates.items():
        step = (epoch - 1) * steps - cosine['begin']
        height = (train['optim_g']['lr'] - cosine['eta_min']) / 2
        found = cosine['eta_min'] + height * (1 + math.cos(math.pi * step / cosine['T_max']))
        assert found == pytest.approx(rate, rel=2e-3), epoch


def test_the_presets_keep_the_papers_batch_and_change_no_more_than_memory_and_speed():
    base = load_options(FLAGSHIP, True)
    presets = sorted(OPTIONS.glob('train/DDSANet_Rain13K_*.yml'))
    assert [p.stem.removeprefix('DDSANet_Rain13K_') for p in presets] == ['12GB', '24GB', '80GB', '8GB', 'cpu']
    for path in presets:
        options = load_options(path, True)
        data, train = options['datasets']['train'], options['train']
        assert data['batch_size_per_gpu'] * train['accumulate'] == 16, path  # in one process
        for key in ('batch_size_per_gpu', 'num_worker_per_gpu', 'pin_memory'):
            data[key] = base['datasets']['train'][key]
        for key in ('amp', 'accumulate', 'checkpoint_blocks'):
            train[key] = base['train'][key]
        assert options == base | {'name': path.stem, 'num_gpu': options['num_gpu']}
        assert len(path.read_text(encoding='utf-8').splitlines()) <= 15


def test_the_preset_for_cpus_needs_no_gpu():
    options = load_options(OPTIONS / 'train' / 'DDSANet_Rain13K_cpu.yml', True)
    assert options['num_gpu'] == 0
    assert options['train']['amp'] == 'off'
    assert not options['datasets']['train']['pin_memory']


def test_the_flagship_explains_every_key():
    """A key that stands for the first time has a sentence above it, or above the group that it belongs to."""
    unexplained, seen, since = [], set(), None
    for line in FLAGSHIP.read_text(encoding='utf-8').splitlines():
        key = line.strip().split(':')[0]
        if line.strip().startswith('#'):
            since = 0
        elif not line.strip():
            since = None
        elif key not in seen:
            seen.add(key)
            is_section = line.rstrip().endswith(':')
            if not is_section and (since is None or since > 3):
                unexplained.append(line)
            since = since + 1 if since is not None else None
    assert unexplained == []


def test_the_benchmarks_name_the_five_sets_of_the_paper():
    options = load_options(OPTIONS / 'test' / 'DDSANet_benchmarks.yml', False)
    names = [d['name'] for d in options['datasets'].values()]
    assert names == ['Test100', 'Rain100H', 'Rain100L', 'Test2800', 'Test1200']


@pytest.mark.parametrize(
    ('row', 'changed'),
    [
        ('a', {'attention': 'dense'}),
        ('b', {'attention': 'sparse'}),
        ('c', {}),
        ('d', {'spatial_attention': False}),
        ('e', {'ffn': 'gdfn'}),
    ],
)
def test_the_ablations_change_what_table_3_says_and_nothing_else(row, changed):
    base = load_options(FLAGSHIP, True)
    ablation = load_options(OPTIONS / 'train' / f'DDSANet_ablation_{row}.yml', True)
    assert ablation['network_g'] == base['network_g'] | changed
    assert {k: v for k, v in ablation.items() if k not in ('name', 'network_g')} == {
        k: v for k, v in base.items() if k not in ('name', 'network_g')
    }


def test_the_reference_of_all_keys_is_current():
    assert (OPTIONS / 'README.md').read_text(encoding='utf-8') == reference()


@pytest.mark.core
def test_a_resolved_file_is_plain_yaml_that_resolves_to_itself(tmp_path):
    options = load_options(OPTIONS / 'train' / 'DDSANet_tiny_Rain200H_cpu.yml', True)
    (tmp_path / 'again.yml').write_text(to_yaml(options), encoding='utf-8')
    assert load_options(tmp_path / 'again.yml', True) == options


def test_environment_variables_give_data_roots(monkeypatch):
    monkeypatch.setenv('DDSA_DATA', 'elsewhere')
    options = load_options(FLAGSHIP, True)
    assert options['datasets']['train']['dataroot_lq'] == 'elsewhere/Rain13K/input.lmdb'


def test_numbers_in_exponent_form_are_numbers():
    assert coerce_numbers({'a': '1e-4', 'b': ['2E3', 'x1e4', 'e'], 'c': '12'}) == {
        'a': 1e-4, 'b': [2000.0, 'x1e4', 'e'], 'c': '12'
    }  # fmt: skip


def test_an_inherited_set_or_metric_can_be_dropped():
    options = load_options(FLAGSHIP, True, ['datasets:val=~', 'val:metrics:ssim=~'])
    assert list(options['datasets']) == ['train']
    assert list(options['val']['metrics']) == ['psnr']


def test_a_bare_off_is_the_word(tmp_path):
    """YAML 1.1 reads off and no as False, on and yes as True."""
    path = tmp_path / 'bare.yml'
    path.write_text(f'_base_: {FLAGSHIP}\ntrain:\n  amp: off\n', encoding='utf-8')
    assert load_options(path, True)['train']['amp'] == 'off'
    assert load_options(path, True, ['train:amp=bf16'])['train']['amp'] == 'bf16'
    assert load_options(path, True, ['train:amp=off'])['train']['amp'] == 'off'
    with pytest.raises(InputError, match=r'train\.amp: True is bool, wanted str'):
        load_options(path, True, ['train:amp=on'])


def test_a_whole_number_in_exponent_form_serves_as_an_integer():
    options = load_options(FLAGSHIP, True, ['train:scheduler:T_max=1e4', 'train:total_iter=2e4'])
    assert (options['train']['scheduler']['T_max'], options['train']['total_iter']) == (10_000, 20_000)
    assert isinstance(options['train']['scheduler']['T_max'], int)


def test_force_yml_reads_values_as_yaml():
    options = {'train': {'total_iter': 1}}
    force(options, ['train:total_iter=5', 'train:optim_g:lr=!!float 1e-3', 'num_gpu=0', 'val:metrics=~'])
    assert coerce_numbers(options) == {
        'train': {'total_iter': 5, 'optim_g': {'lr': 1e-3}}, 'num_gpu': 0, 'val': {'metrics': None}
    }  # fmt: skip


WRONG = [
    ('trian:\n  total_iter: 5', "unknown key trian; did you mean 'train'?"),
    ('train:\n  total_iters: 5', "unknown key train.total_iters; did you mean 'total_iter'?"),
    ('train:\n  total_iter: many', "train.total_iter: 'many' is str, wanted int"),
    ('train:\n  total_iter: 0', 'train.total_iter: 0 is below 1'),
    ('train:\n  optim_g:\n    type: AdanW', "no optimiser 'AdanW' is registered; did you mean 'AdamW'?"),
    ('train:\n  pixel_opt:\n    type: DerainL1', "no loss 'DerainL1' is registered; did you mean 'DerainL1Loss'?"),
    ('train:\n  pixel_opt:\n    loss_wieght: 1', 'pixel_opt.loss_wieght: DerainL1Loss does not take it; did you mean'),
    ('train:\n  scheduler:\n    type: Cosine', "train.scheduler.type: no scheduler 'Cosine' is registered"),
    ('network_g:\n  type: DDSANett', "network_g.type: no arch 'DDSANett' is registered; did you mean 'DDSANet'?"),
    ('network_g:\n  dims: 48', "unknown key network_g.dims: DDSANet does not take it; did you mean 'dim'?"),
    ('model_type: DerainModle', "model_type: no model 'DerainModle' is registered; did you mean 'DerainModel'?"),
    ('datasets:\n  train:\n    gt_size: -4', 'datasets.train.gt_size: -4 is below 1'),
    ('datasets:\n  train:\n    gt_sise: 4', "unknown key datasets.train.gt_sise; did you mean 'gt_size'?"),
    ('datasets:\n  train:\n    type: PairedRain', "no data set 'PairedRain' is registered; did you mean"),
    ('datasets:\n  validation:\n    name: x', 'unknown key datasets.validation'),
    ('datasets:\n  val_2:\n    name: Rain100L\n    dataroot_lq: x', "two sets have the name 'Rain100L'"),
    ('datasets:\n  test:\n    name: x\n    dataroot_lq: x', 'test sets go to ddsa test'),
    ('val:\n  metrics:\n    psnr:\n      type: derain_pnsr', "no metric 'derain_pnsr' is registered"),
    ('val:\n  metrics:\n    psnr:\n      crop: 4', 'unknown key val.metrics.psnr.crop: derain_psnr does not take it'),
    ('val:\n  save_img: 3', 'val.save_img: 3 is int, wanted bool'),
    ('scale: 2', 'scale: 2, wanted 1'),
    ('num_gpu: -1', 'num_gpu: -1 is below 0'),
    ('name: ~', 'name is missing: Name of the experiment'),
    ('network_g: DDSANet', 'network_g.type is missing'),
    ('x: !!python/object/apply:os.system ["true"]', 'not plain YAML'),
    ('name: a\nname: b', "'name' twice"),
    ('name: [', 'not plain YAML'),
    ('train:\n  amp: fp8', "train.amp: 'fp8', wanted 'off' or 'bf16' or 'fp16'"),
    ('train:\n  losses:\n    edge:\n      type: EdgeLos', "no loss 'EdgeLos' is registered; did you mean 'EdgeLoss'?"),
    ('train:\n  losses:\n    my-edge:\n      type: EdgeLoss', 'unknown key train.losses.my-edge'),
    ('train:\n  progressive:\n    patches: [1]', "unknown key train.progressive.patches; did you mean 'patch_sizes'?"),
    ('datasets:\n  train:\n    augment: rot90', "datasets.train.augment: 'rot90', wanted 'flips' or 'dihedral' or"),
    ('val:\n  restore:\n    rounding: floor', "val.restore.rounding: 'floor', wanted 'round' or 'truncate'"),
    ('val:\n  restore:\n    tile: 5', 'unknown key val.restore.tile; did you mean'),
    ('train:\n  accumulate: 0', 'train.accumulate: 0 is below 1'),
    ('train:\n  compile: maybe', "train.compile: 'maybe' is str, wanted bool"),
    ('train:\n  checkpoint_blocks: 1', 'train.checkpoint_blocks: 1 is int, wanted bool'),
    ('train:\n  max_skipped: 0', 'train.max_skipped: 0 is below 1'),
    ('train:\n  grad_clip: .nan', 'train.grad_clip: nan is no finite number'),
    ('train:\n  total_iter: 1.5', 'train.total_iter: 1.5 is float, wanted int'),
    ('train:\n  total_iter: true', 'train.total_iter: True is bool, wanted int'),
    ('train:\n  pixel_opt: ~', 'train.pixel_opt is missing: Loss between output and target'),
    ('train: ~', 'train.total_iter is missing: Steps of the optimiser'),
    (
        'train:\n  optim_g: {_delete_: true, type: RMSprop, lr: 1e-3, fused: true}',
        'unknown key train.optim_g.fused: RMSprop does not take it',
    ),
    ('train:\n  optim_g: {type: SGD}', 'train.optim_g.betas: SGD does not take it; `_delete_: true` in train.optim_g'),
    ('train:\n  optim_g: {_delete_: true, type: AdamW}', 'train.optim_g.lr is missing: AdamW needs it'),
    ('train:\n  optim_g: {lr: fast}', "train.optim_g.lr: 'fast' is str, AdamW takes float"),
    ('train:\n  optim_g: {betas: 0.9}', 'train.optim_g.betas: 0.9 is float, AdamW takes list'),
    ('train:\n  scheduler: {T_maks: 5}', "T_maks: CosineAnnealingLR does not take it; did you mean 'T_max'"),
    ('train:\n  scheduler: {T_max: soon}', "train.scheduler.T_max: 'soon' is str, CosineAnnealingLR takes int"),
    ('train:\n  scheduler: {_delete_: true, type: StepLR}', 'train.scheduler.step_size is missing: StepLR needs it'),
    ('train:\n  scheduler: [5]', 'train.scheduler[0].type is missing'),
    ('logger:\n  keep_checkpoints: 0', 'logger.keep_checkpoints: 0 is below 1'),
    ('logger:\n  progress: fancy', "logger.progress: 'fancy', wanted 'auto' or 'bar' or 'lines'"),
    ('logger:\n  strips: -1', 'logger.strips: -1 is below 0'),
    ('dist_params:\n  timeout: -1', 'dist_params.timeout: -1.0 is below 0.01'),
    ('tf32: 3', 'tf32: 3 is int, wanted bool'),
    ('deterministic: often', "deterministic: 'often' is str, wanted bool"),
    ('num_gpu: many', "num_gpu: 'many', wanted 'auto'"),
    ('network_g: ~', 'network_g is missing: The network and its arguments'),
    ('network_g:\n  heads: 1', 'network_g.heads: 1 is int, DDSANet takes list'),
    ('network_g:\n  keep_ratio: high', "network_g.keep_ratio: 'high' is str, DDSANet takes float"),
    ('datasets: ~', 'datasets.train is missing: the images to train on'),
    ('datasets:\n  train:\n    type: [a]', "datasets.train.type: ['a'] is list, wanted str"),
    ('datasets:\n  val: 5', 'datasets.val: 5 is no section'),
    ('datasets:\n  train:\n    name: a/b', "datasets.train.name: 'a/b' cannot name a folder"),
    ('name: ..', "name: '..' cannot name a folder"),
    ('name: ""', "name: '' cannot name a folder"),
    ('imports: [no_such_module]', 'imports: no_such_module cannot be imported: ModuleNotFoundError'),
    ('name: {{$A:b}}', "write '{{$NAME:default}}' in quotes"),
    ('1: 2', 'unknown key 1'),
    ('x: !!python/name:os.system x', 'not plain YAML'),
    ('<<: 5', 'not plain YAML'),
    ('train: &more {steps: 5}\nval:\n  <<: *more', 'unknown key train.steps'),
    ('train:\n\tamp: bf16', 'not plain YAML'),
]


@pytest.mark.parametrize(('text', 'words'), WRONG, ids=[t.replace('\n', ' ')[:40] for t, _ in WRONG])
def test_a_wrong_option_file_is_refused_with_file_key_and_remedy(text, words, tmp_path, monkeypatch, capsys):
    path = tmp_path / 'wrong.yml'
    path.write_text(f'_base_: {FLAGSHIP}\n{text}\n', encoding='utf-8')
    monkeypatch.chdir(tmp_path)
    assert main(['train', '-opt', str(path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith('error: ')
    assert words in message
    assert 'wrong.yml' in message
    assert message.count('\n') == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ['wrong.yml']


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('', 'holds NoneType, wanted "key: value" lines'),
        ('- name\n', 'holds list, wanted "key: value" lines'),
        ('name: x\nnetwork_g: {type: DDSANet}\n', 'train.total_iter is missing'),
        ('_base_: ./wrong.yml\n', '_base_ leads back to itself'),
        ('_base_: ./none.yml\n', 'none.yml, named by _base_ in'),
        ('_base_: 5\n', '_base_: 5, wanted a file or a list of files'),
        ('name: \xff\n', 'not plain YAML'),
    ],
)
def test_a_file_that_is_no_whole_option_file_is_refused(text, words, tmp_path, monkeypatch, capsys):
    path = tmp_path / 'wrong.yml'
    path.write_bytes(text.encode('latin-1'))
    monkeypatch.chdir(tmp_path)
    assert main(['train', '-opt', str(path)]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert 'wrong.yml' in message
    assert [p.name for p in tmp_path.iterdir()] == ['wrong.yml']


def test_a_base_file_runs_no_code_either(tmp_path):
    (tmp_path / 'base.yml').write_text(f'x: !!python/object/apply:pathlib.Path.touch [{tmp_path}/made]\n', 'utf-8')
    (tmp_path / 'child.yml').write_text('_base_: ./base.yml\n', 'utf-8')
    with pytest.raises(InputError, match=r'base\.yml: not plain YAML'):
        read_options(tmp_path / 'child.yml')
    assert not (tmp_path / 'made').exists()


@pytest.mark.parametrize(
    ('entry', 'words'),
    [
        ('train:total_iters=5', "unknown key train.total_iters; did you mean 'total_iter'?"),
        ('train', 'wanted SECTION:KEY=VALUE'),
        ('name:x=5', 'name is no section'),
    ],
)
def test_a_wrong_force_yml_is_refused(entry, words):
    with pytest.raises(InputError) as error:
        load_options(FLAGSHIP, True, [entry])
    assert words in str(error.value)


def test_options_show_prints_what_the_file_resolves_to(capsys):
    assert main(['options', 'show', str(OPTIONS / 'train' / 'DDSANet_tiny_Rain13K.yml')]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown['network_g']['dim'] == 16
    assert shown['train']['total_iter'] == 300_000


def test_an_unknown_verb_is_refused_with_the_nearest(capsys):
    assert main(['trian']) == 2
    assert "no verb 'trian'; did you mean 'train'?" in capsys.readouterr().err


def test_doctor_names_the_toolbox_and_what_is_registered(capsys):
    assert main(['doctor']) == 0
    text = capsys.readouterr().out
    assert 'is the toolbox' in text
    ours = next(line for line in text.splitlines() if line.strip().startswith('arch: '))  # ours come first
    assert {'DDSA', 'DDSANet', 'SEFN'} <= set(ours.split(':')[1].replace(',', '').split())
