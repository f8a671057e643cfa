"""Every network of the comparison, made small, through `ddsa train` for 50 steps on a CPU."""

import csv
import logging
import math
from pathlib import Path

import pytest
import torch
import yaml
from basicsr.utils.registry import ARCH_REGISTRY

from ddsa_arch.archs.cards import CARDS
from ddsa_arch.options.loading import load_options
from ddsa_arch.runners.train import train

SMALL = yaml.safe_load((Path(__file__).parents[1] / 'small_networks.yml').read_text(encoding='utf-8'))
NETWORKS = sorted({card.network for card in CARDS})
STEPS = 50
OPTIONS = Path(__file__).resolve().parents[2] / 'options'
RECIPES = sorted(p for p in OPTIONS.glob('train/*_Rain13K.yml') if not p.name.startswith('DDSANet'))


@pytest.mark.slow
@pytest.mark.parametrize('name', NETWORKS)
def test_fifty_steps_lower_the_loss(name, write_options):
    network = ARCH_REGISTRY.get(name)
    arguments = SMALL.get(name) or next(dict(card.arguments) for card in CARDS if card.network == name)
    restore = {} if hasattr(network, 'size_multiple') else {'size_multiple': 8}  # BasicSR's own do not say
    options = write_options('train', **{
        'network_g': {'type': name, **arguments},
        'datasets:train:gt_size': getattr(network(**arguments), 'fixed_size', 64),
        'datasets:train:batch_size_per_gpu': 4, 'datasets:train:dataset_enlarge_ratio': 4,
        'train:total_iter': STEPS, 'train:scheduler': None, 'train:ema_decay': 0, 'train:grad_clip': 1.0,
        'logger:print_freq': 1, 'logger:save_checkpoint_freq': STEPS, 'val:val_freq': STEPS,
        'val:restore': restore,
    })  # fmt: skip
    folder = train(options)
    with (folder / 'training.csv').open(encoding='utf-8') as file:
        losses = [float(row['l_pix']) for row in csv.DictReader(file)]
    assert len(losses) == STEPS
    first, last = sum(losses[:10]) / 10, sum(losses[-10:]) / 10
    logging.getLogger(__name__).info('%s: %.4f -> %.4f', name, first, last)
    assert last < first


@pytest.mark.slow
@pytest.mark.parametrize('recipe', RECIPES, ids=lambda p: p.stem)
def test_every_published_recipe_takes_steps(recipe, pairs, workplace):
    """Its losses, optimiser, augmentation and mixed precision, with a small network and small patches."""
    base = load_options(recipe, True)
    train_, network = base['train'], base['network_g']
    small = {k: v for k, v in SMALL.get(network['type'], {}).items() if k not in ('img_size', 'stages')}
    roots = {'dataroot_lq': str(pairs / 'input.lmdb'), 'dataroot_gt': str(pairs / 'target.lmdb')}
    changed = {
        '_base_': str(recipe), 'name': 'run', 'num_gpu': 0,
        'datasets': {
            'train': roots | {
                'gt_size': 128 if network['type'] in ('Uformer', 'IDT') else 64, 'batch_size_per_gpu': 2,
                'num_worker_per_gpu': 0, 'persistent_workers': False, 'dataroot_real': str(pairs / 'input')},
            'val': roots,
        },
        'network_g': network | small | {'_delete_': True},
        'train': {'total_iter': 3},
        'logger': {'print_freq': 1, 'use_tb_logger': False},
        'val': {'val_freq': 3},
    }  # fmt: skip
    if train_.get('progressive'):
        stages = {'iterations': [1, 1, 1], 'patch_sizes': [16, 32, 64], 'batch_sizes': [2, 1, 1]}
        changed['train']['progressive'] = stages
    if 'vgg' in train_.get('losses', {}):
        sizes = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128)}
        state = {f'features.{i}.weight': torch.randn(*s, 3, 3) * 0.05 for i, s in sizes.items()}
        torch.save(state | {f'features.{i}.bias': torch.zeros(s[0]) for i, s in sizes.items()}, workplace / 'vgg16.pth')
        changed['train']['losses'] = {'vgg': {'weights': str(workplace / 'vgg16.pth')}}
    path = workplace / 'run.yml'
    path.write_text(yaml.safe_dump(changed), encoding='utf-8')
    folder = train(path)
    with (folder / 'training.csv').open(encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert [row['iteration'] for row in rows] == ['1', '2', '3']
    names = {'l_pix'} | {f'l_{name}' for name in train_.get('losses', {})}
    assert all(math.isfinite(float(row[name])) for row in rows for name in names)
    assert (folder / 'models' / 'net_g_3.pth').is_file() or (folder / 'models' / 'net_g_latest.pth').is_file()
