"""Shared by all tests: few threads, photos that need no download, rendered pairs, and options that train on them."""

import copy
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import LONGEST, TINY, write_noise

import ddsa_arch  # noqa: F401  (fills the registries)
from ddsa_arch.files.images import images_by_stem
from ddsa_arch.ops.rain import LIGHT
from ddsa_arch.runners.data_lmdb import make_lmdb
from ddsa_arch.runners.train import train
from ddsa_arch.sets.sample_photos import sample_photos, write_tiles
from ddsa_arch.sets.synthesis import render_pairs

REPOSITORY = Path(__file__).resolve().parents[1]
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
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
def sides(tmp_path):
    """The images of two folders by stem, four on each side, whose sides have other suffixes."""
    for i, name in enumerate(['norain-2.png', 'norain-10.jpg', '雨 im Süden.webp', 'two words.bmp']):
        write_noise(tmp_path / 'rain' / name, i)
        write_noise((tmp_path / 'clean' / name).with_suffix('.png'), 100 + i)
    (tmp_path / 'rain' / 'Thumbs.db').write_bytes(b'x')
    return images_by_stem(tmp_path / 'rain'), images_by_stem(tmp_path / 'clean')


@pytest.fixture
def many(tmp_path):
    """Two dozen pairs of a few bytes each: the files of each side by stem."""
    return [
        {f'{i}': write_noise(tmp_path / side / f'{i}.bmp', seed + i, height=3, width=2) for i in range(24)}
        for side, seed in (('rain', 0), ('clean', 100))
    ]


@pytest.fixture(scope='module')
def chromium():
    """A running browser; without one the test is skipped."""
    sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    with sync_api.sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, BROWSERS)), None)
        if found is None and not Path(playwright.chromium.executable_path).is_file():
            pytest.skip(f'no browser: looked for {", ".join(BROWSERS)} and for what `playwright install` brings')
        browser = playwright.chromium.launch(executable_path=found, args=['--no-sandbox'], timeout=1000 * LONGEST)
        yield browser
        browser.close()


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_option_file(folder, pairs, kind, **changes):
    """Write an option file, with changes given as {'section:key': value}, and return its path."""
    dataset = {'dataroot_lq': str(pairs / 'input.lmdb'), 'dataroot_gt': str(pairs / 'target.lmdb')}
    options = {'name': 'run', 'num_gpu': 0, 'manual_seed': 3, 'network_g': copy.deepcopy(TINY), 'path': {}}
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
    path = folder / f'{kind}.yml'
    path.write_text(yaml.safe_dump(options, sort_keys=False), encoding='utf-8')
    return path


@pytest.fixture
def write_options(pairs, workplace):
    """Write an option file of a kind, with changes, into the current directory."""
    return partial(write_option_file, workplace, pairs)


@pytest.fixture(scope='session')
def trained_once(pairs, tmp_path_factory):
    """What a training with the plain options leaves, to be copied."""
    folder = tmp_path_factory.mktemp('trained')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder / train(write_option_file(folder, pairs, 'train'))


@pytest.fixture
def trained(trained_once, workplace):
    """The folder of a run with the plain options that has ended, experiments/run, as if it had run here."""
    return Path(shutil.copytree(trained_once, workplace / 'experiments' / 'run'))
