import hashlib
import zlib

import numpy as np
import pytest

from ddsa_arch.ops.images import images_by_stem, read_image, write_image
from ddsa_arch.ops.rain import HEAVY, add_rain
from ddsa_arch.ops.seeds import sample_rng
from ddsa_arch.runners.cli import main


@pytest.fixture
def clean(tmp_path, photo):
    for i, suffix in enumerate(('.png', '.jpg')):
        write_image(tmp_path / 'clean' / f'p{i}{suffix}', photo[i * 40 : i * 40 + 40, :50])
    return tmp_path / 'clean'


def digests(folder):
    return {p.relative_to(folder): hashlib.sha256(p.read_bytes()).digest() for p in folder.rglob('*.*')}


def test_pairs_hold_rendered_rain_and_the_clean_file_as_it_is(clean, tmp_path, capsys):
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


def test_the_same_seed_gives_the_same_files_and_another_photo_changes_none(clean, tmp_path, photo):
    for name, seed in (('a', 1), ('b', 1), ('c', 2)):
        main(['data', 'synth', '--clean', str(clean), '--out', str(tmp_path / name), '--seed', str(seed)])
    assert digests(tmp_path / 'a') == digests(tmp_path / 'b')
    assert digests(tmp_path / 'a') != digests(tmp_path / 'c')
    write_image(clean / 'a_new_one.png', photo[:30, :30])
    main(['data', 'synth', '--clean', str(clean), '--out', str(tmp_path / 'd'), '--seed', '1'])
    assert digests(tmp_path / 'a').items() < digests(tmp_path / 'd').items()


def test_layers_from_files_are_used(clean, tmp_path):
    write_image(tmp_path / 'streaks' / 'white.png', np.full((60, 60, 3), 255, np.uint8))
    argv = ['--clean', str(clean), '--out', str(tmp_path / 'out'), '--streaks', str(tmp_path / 'streaks')]
    assert main(['data', 'synth', *argv]) == 0
    assert (read_image(tmp_path / 'out' / 'input' / 'p0_0.png') == 255).all()


def test_a_broken_photo_is_named_and_nothing_is_left(clean, tmp_path, capsys):
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
