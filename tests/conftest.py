"""Shared by all tests: few threads, photos that need no download, rendered pairs, and options that train on them."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import ddsa_arch  # noqa: F401  (fills the registries)
from ddsa_arch.ops.rain import LIGHT
from ddsa_arch.runners.data import make_lmdb
from ddsa_arch.sets.sample_photos import sample_photos, write_tiles
from ddsa_arch.sets.synthesis import render_pairs

REPOSITORY = Path(__file__).resolve().parents[1]
TINY_NETWORK = {'type': 'DDSANet', 'dim': 8, 'blocks': [1, 1, 1, 1, 1]}
METRICS = {'psnr': {'type': 'derain_psnr', 'better': 'higher'}, 'ssim': {'type': 'derain_ssim', 'better': 'higher'}}


def pytest_configure(config):
    torch.set_num_threads(1)  # the networks of the tests are too small for more


@pytest.fixture(scope='session')
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope='session')
def photo() -> np.ndarray:
    """A real photo, (300, 451, 3) uint8 BGR."""
    return sample_photos(['chelsea'])['chelsea']


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope='session')
def pairs(tmp_path_factory, photo):
    """Folders ``input`` and ``target`` of 10 pairs of 60 x 51 pixels, and their LMDBs."""
    folder = tmp_path_factory.mktemp('pairs')
    tiles = {f'tile{i}': photo[i * 20 : i * 20 + 60, i * 40 : i * 40 + 51] for i in range(10)}
    render_pairs(write_tiles(tiles, tmp_path_factory.mktemp('clean')), folder, LIGHT, 0, 1)
    make_lmdb(folder / 'input', folder / 'target', folder)
    return folder


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write_options(pairs, workplace):
    """Write an option file, with changes given as {'section:key': value}, and return its path."""

    def write(kind, **changes):
        dataset = {'dataroot_lq': str(pairs / 'input.lmdb'), 'dataroot_gt': str(pairs / 'target.lmdb')}
        options = {'name': 'run', 'num_gpu': 0, 'manual_seed': 3, 'network_g': dict(TINY_NETWORK), 'path': {}}
        options['val'] = {'val_freq': 4, 'save_img': False, 'metrics': copy.deepcopy(METRICS)}
        if kind == 'train':
            train = {'name': 'some', 'gt_size': 32, 'batch_size_per_gpu': 3, **dataset}
            options['datasets'] = {'train': train, 'val': {'name': 'held_out', **dataset}}
            options['train'] = {
                'total_iter': 8,
                'optim_g': {'type': 'AdamW', 'lr': 1e-3},
                'scheduler': {'type': 'CosineAnnealingLR', 'begin': 2, 'end': 8, 'T_max': 6, 'eta_min': 1e-6},
                'pixel_opt': {'type': 'DerainL1Loss'},
                'ema_decay': 0.9,
                'grad_clip': 0.1,
            }
            options['logger'] = {'print_freq': 2, 'save_checkpoint_freq': 4, 'use_tb_logger': False}
        else:
            options['datasets'] = {'test_1': {'name': 'first', **dataset}}
        for keys, value in changes.items():
            *parents, last = keys.split(':')
            section = options
            for key in parents:
                section = section.setdefault(key, {})
            section[last] = value
        path = workplace / f'{kind}.yml'
        path.write_text(yaml.safe_dump(options, sort_keys=False), encoding='utf-8')
        return path

    return write
