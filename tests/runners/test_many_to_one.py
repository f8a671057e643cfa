"""A set in which many rainy images share a clean one: trained on, tested on, compared and audited, from one store."""

import csv
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from ddsa_arch.files.images import encode_image, read_image, write_image
from ddsa_arch.files.key_lists import read_keys
from ddsa_arch.ops.quality import psnr_y
from ddsa_arch.ops.rain import LIGHT, add_rain
from ddsa_arch.runners.compare import compare
from ddsa_arch.runners.data_lmdb import make_lmdb
from ddsa_arch.runners.data_verify import verify
from ddsa_arch.runners.test import test as run_test
from ddsa_arch.runners.train import train
from ddsa_arch.sets.audit import audit


def rows(path):
    with open(path, encoding='utf-8') as file:
        return list(csv.DictReader(file))


@pytest.fixture
def variants(workplace, photo):
    """Three photos with two rains each, and their LMDBs."""
    for i in range(3):
        clean = np.ascontiguousarray(photo[60 * i : 60 * i + 64, 100 * i : 100 * i + 72])
        write_image(workplace / 'set' / 'clean' / f'{i}.png', clean)
        for j in (1, 2):
            rainy = add_rain(clean, LIGHT, np.random.default_rng(10 * i + j))
            write_image(workplace / 'set' / 'rainy' / f'{i}_{j}.png', rainy)
    make_lmdb('set/rainy', 'set/clean', 'stores')
    return workplace


@pytest.mark.parametrize('roots', [('stores/input.lmdb', 'stores/target.lmdb'), ('set/rainy', 'set/clean')])
def test_train_test_and_compare_read_it_by_one_rule(roots, variants, write_options):
    sides = dict(zip(('dataroot_lq', 'dataroot_gt'), roots, strict=True))
    changes = {f'datasets:{name}:{key}': root for name in ('train', 'val') for key, root in sides.items()}
    train(write_options('train', **changes, **{'train:total_iter': 4}))
    assert list(variants.glob('experiments/run/models/net_g_*.pth'))
    tested = write_options('test', **{f'datasets:test_1:{k}': v for k, v in sides.items()}, **{'val:save_img': True})
    run_test(tested)
    assert [row['image'] for row in rows('results/run/first.csv')] == [f'{i}_{j}' for i in range(3) for j in (1, 2)]
    result = compare(['results/run'], 'out', gallery_images=1)
    assert result.warnings == []
    rainy = {row['image']: float(row['psnr']) for row in rows('out/images.csv') if row['network'] == 'Rainy'}
    for i in range(3):
        expected = psnr_y(read_image(f'set/rainy/{i}_2.png'), read_image(f'set/clean/{i}.png'))
        assert rainy[f'{i}_2'] == pytest.approx(expected)


def test_audit_takes_the_rains_of_one_photo_for_no_duplicates_and_finds_the_leak(variants):
    write_image('other/target/a.png', cv2.flip(read_image('set/clean/1.png'), 1))
    write_image('other/input/a.png', cv2.flip(read_image('set/rainy/1_1.png'), 1))
    summary = audit(['stores'], ['other'], 'audit')
    assert [(finding.kind, finding.key) for finding in summary.findings] == [('leak', '1_1'), ('leak', '1_2')]
    assert read_keys('audit/exclude_keys.txt', '') == ['1_1', '1_2']


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == 'win32', reason='no SIGKILL')
def test_killed_lmdb_of_halves_leaves_nothing_half_made(workplace):
    (workplace / 'halves').mkdir()
    for i in range(300):
        pixels = np.random.default_rng(i).integers(0, 256, (64, 128, 3), dtype=np.uint8)
        (workplace / 'halves' / f'{i}.png').write_bytes(encode_image(pixels, '.png'))
    command = [sys.executable, '-m', 'ddsa_arch.runners.cli', 'data', 'lmdb', '--halves', 'halves', '--clean', 'left']
    killed = 0
    for wait in (0.0, 0.1, 0.3, 0.6):
        process = subprocess.Popen([*command, '--out', 'out'], stdout=subprocess.DEVNULL)
        while process.poll() is None and not (workplace / 'out' / 'input.lmdb.part' / 'data.mdb').exists():
            time.sleep(0.005)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        if (workplace / 'out' / 'input.lmdb').exists() and (workplace / 'out' / 'target.lmdb').exists():
            break
        assert not (workplace / 'out' / 'target.lmdb').exists()
    assert killed
    if not (workplace / 'out' / 'target.lmdb').exists():
        subprocess.run([*command, '--out', 'out'], check=True, capture_output=True)
    counts, problems = verify(['out'])
    assert ([count for _, count in counts], problems) == ([300, 300], [])
    assert sorted(os.listdir('out')) == ['input.lmdb', 'target.lmdb']
