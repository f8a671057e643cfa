import hashlib
import zlib

import cv2
import numpy as np
import pytest
from helpers import noise

from ddsa_arch.files.images import images_by_stem, read_image, write_image
from ddsa_arch.ops.rain import HEAVY, LIGHT, add_rain
from ddsa_arch.ops.rain_scenes import SceneRanges
from ddsa_arch.ops.seeds import sample_rng
from ddsa_arch.runners.cli import main
from ddsa_arch.sets import synthesis
from ddsa_arch.sets.sample_photos import write_tiles
from ddsa_arch.sets.synthesis import contact_sheet, render_pairs


@pytest.fixture
def clean(tmp_path, photo):
    for i, suffix in enumerate(('.png', '.jpg')):
        write_image(tmp_path / 'clean' / f'p{i}{suffix}', photo[i * 40 : i * 40 + 40, :50])
    return tmp_path / 'clean'


@pytest.fixture(params=['in this process', 'in several processes'])
def anywhere(request, monkeypatch):
    """A test that uses it runs twice: the few renderings of a test would never see another process."""
    if request.param == 'in several processes':
        monkeypatch.setattr(synthesis, 'FEW_JOBS', 0)
        monkeypatch.setattr(synthesis.os, 'cpu_count', lambda: 2)


def digests(folder):
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).digest() for p in folder.rglob('*.*')
    }  # fmt: skip


def test_pairs_hold_rendered_rain_and_the_clean_file_as_it_is(anywhere, clean, tmp_path, capsys):
    argv = ['data', 'synth', '--clean', str(clean), '--out', str(tmp_path / 'out'), '--style', 'heavy', '--copies', '2']
    assert main([*argv, '--seed', '7']) == 0
    assert '4 pairs in' in capsys.readouterr().out
    inputs, targets = images_by_stem(tmp_path / 'out' / 'input'), images_by_stem(tmp_path / 'out' / 'target')
    assert list(inputs) == list(targets) == ['p0_0', 'p0_1', 'p1_0', 'p1_1']
    for stem, path in targets.items():
        source = clean / f'{stem[:2]}{path.suffix}'
        assert path.read_bytes() == source.read_bytes()
        rng = sample_rng(7, zlib.crc32(stem[:2].encode()), int(stem[-1]))
        assert np.array_equal(read_image(inputs[stem]), add_rain(read_image(source), HEAVY, rng))


def test_pairs_of_tiles_are_written_without_loss(tmp_path):
    photos = {'small': noise(40, 30), 'large': noise(50, 70)}
    tiles = write_tiles(photos, tmp_path / 'clean', tile_size=40)
    out = tmp_path / 'out'
    assert render_pairs(tiles, out, HEAVY, seed=1, copies=2) == (1 + 4) * 2
    names = {f'{stem}_{i}.png' for stem in ('small', 'large_r0c0', 'large_r0c1', 'large_r1c0', 'large_r1c1')
             for i in range(2)}  # fmt: skip
    assert set(digests(out)) == {f'{side}/{name}' for side in ('input', 'target') for name in names}
    for copy in range(2):
        clean = cv2.imread(str(out / f'target/large_r1c1_{copy}.png'))
        assert np.array_equal(clean, photos['large'][25:, 35:])
        rainy = cv2.imread(str(out / f'input/large_r1c1_{copy}.png'))
        assert rainy.shape == clean.shape
        assert rainy.mean() > clean.mean()


def test_pairs_depend_on_seed_name_and_copy_alone(tmp_path):
    tiles = write_tiles({'b': noise(48, 48), 'a': noise(48, 48)}, tmp_path / 'clean')
    render_pairs({'a': tiles['a']}, tmp_path / 'one', HEAVY, seed=1, copies=1)
    render_pairs(tiles, tmp_path / 'more', HEAVY, seed=1, copies=2)
    render_pairs({'a': tiles['a']}, tmp_path / 'other', HEAVY, seed=2, copies=1)
    one, more, other = (digests(tmp_path / name) for name in ('one', 'more', 'other'))
    assert one.items() <= more.items()
    assert len({digest for name, digest in more.items() if name.startswith('input')}) == 4
    assert one['target/a_0.png'] == other['target/a_0.png']
    assert one['input/a_0.png'] != other['input/a_0.png']


@pytest.mark.parametrize(
    ('jobs', 'cores', 'pooled'),
    [
        (synthesis.FEW_JOBS, 2, False),
        (synthesis.FEW_JOBS + 1, 2, True),
        (synthesis.FEW_JOBS + 1, 1, False),
        (synthesis.FEW_JOBS + 1, None, True),  # a machine that does not tell
    ],
)
def test_processes_are_started_for_many_renderings_on_several_cores(jobs, cores, pooled, tmp_path, monkeypatch):
    started = []

    class Pool(synthesis.ProcessPoolExecutor):
        def __init__(self, **options):
            started.append(1)
            super().__init__(2, **options)

    monkeypatch.setattr(synthesis, 'ProcessPoolExecutor', Pool)
    monkeypatch.setattr(synthesis.os, 'cpu_count', lambda: cores)
    tiles = write_tiles({'a': noise(9, 9)}, tmp_path / 'clean')
    assert render_pairs(tiles, tmp_path / 'out', LIGHT, copies=jobs) == jobs
    assert bool(started) == pooled
    assert len(digests(tmp_path / 'out')) == 2 * jobs


def test_layers_from_files_are_used(clean, tmp_path):
    write_image(tmp_path / 'streaks' / 'white.png', np.full((60, 60, 3), 255, np.uint8))
    argv = ['--clean', str(clean), '--out', str(tmp_path / 'out'), '--streaks', str(tmp_path / 'streaks')]
    assert main(['data', 'synth', *argv]) == 0
    assert (read_image(tmp_path / 'out' / 'input' / 'p0_0.png') == 255).all()


def test_a_broken_photo_is_named_and_nothing_is_left(anywhere, clean, tmp_path, capsys):
    path = clean / 'p0.png'
    path.write_bytes(path.read_bytes()[:-30])
    assert main(['data', 'synth', '--clean', str(clean), '--out', str(tmp_path / 'out')]) == 2
    assert 'p0.png: truncated' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_pairs_that_are_there_are_left_alone(clean, tmp_path, capsys):
    write_image(tmp_path / 'out' / 'input' / 'mine.png', np.zeros((4, 4, 3), np.uint8))
    assert main(['data', 'synth', '--clean', str(clean), '--out', str(tmp_path / 'out')]) == 2
    assert 'is there already' in capsys.readouterr().err
    assert (tmp_path / 'out' / 'input' / 'mine.png').is_file()


@pytest.mark.parametrize(
    ('argv', 'words'),
    [(['--copies', '0'], 'copies 0'), (['--seed', '-1'], 'seed -1'), (['--streaks', 'x'], '--streaks: no folder x')],
)
def test_wrong_arguments_are_named(argv, words, clean, tmp_path, capsys):
    assert main(['data', 'synth', '--clean', str(clean), '--out', str(tmp_path / 'out'), *argv]) == 2
    assert words in capsys.readouterr().err


def test_varied_pairs_keep_photos_that_are_their_own_target(clean, tmp_path):
    photos = images_by_stem(clean)
    ranges = SceneRanges(structures_share=0.5, rainless_share=0.5)
    render_pairs(photos, tmp_path / 'out', LIGHT, copies=8, ranges=ranges)
    targets = sorted((tmp_path / 'out' / 'target').glob('p1_*'))
    assert {path.suffix for path in targets} == {'.png', '.jpg'}
    inputs = [read_image(tmp_path / 'out' / 'input' / f'{path.stem}.png') for path in targets]
    dry = sum(np.array_equal(read_image(path), rainy) for path, rainy in zip(targets, inputs, strict=True))
    assert 0 < dry < len(targets)
    assert all(path.suffix == '.png' or path.read_bytes() == photos['p1'].read_bytes() for path in targets)


def test_a_sheet_shows_24_samples(clean):
    tiles = images_by_stem(clean)
    sheet = contact_sheet(tiles, LIGHT)
    assert sheet.shape == (4 * 320, 6 * 320, 3)
    assert np.array_equal(sheet, contact_sheet(tiles, LIGHT))


def test_the_command_writes_a_sheet_of_varied_rain(clean, tmp_path, capsys):
    words = ['data', 'synth', '--clean', str(clean), '--sheet', str(tmp_path / 'sheet.png')]
    assert main([*words, '--vary', 'streak_scale=1,4', 'rainless_share=0.2']) == 0
    assert read_image(tmp_path / 'sheet.png').shape == (1280, 1920, 3)
    assert f'samples: {tmp_path / "sheet.png"}' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ([], 'give --out for pairs, or --sheet'),
        (['--sheet', 's.png', '--vary', 'viel=0,1'], "--vary viel=0,1: nothing is called 'viel'; did you mean 'veil'"),
        (['--sheet', 's.png', '--vary', 'veil=0.3'], '--vary veil=0.3: wanted veil=LOW,HIGH'),
        (['--sheet', 's.png', '--vary', 'veil=a,b'], '--vary veil=a,b: wanted veil=LOW,HIGH'),
        (['--sheet', 's.png', '--vary', 'gain=2,1'], '--vary gain: (2.0, 1.0), wanted [LOW, HIGH]'),
    ],
)
def test_what_cannot_vary_is_named(clean, workplace, words, message, capsys):
    assert main(['data', 'synth', '--clean', str(clean), *words]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in workplace.iterdir()] == ['clean']
