import numpy as np
import pytest

from ddsa_arch.files.images import encode_image
from ddsa_arch.runners import cli
from ddsa_arch.runners.data_lmdb import make_lmdb
from ddsa_arch.runners.data_speed import reading_speeds


@pytest.fixture
def places(tmp_path):
    """The same four pairs as folders and as LMDBs."""
    for side, shade in (('input', 100), ('target', 0)):
        (tmp_path / 'files' / side).mkdir(parents=True)
        for i in range(4):
            image = np.full((20, 20, 3), shade + i, np.uint8)
            (tmp_path / 'files' / side / f'{i}.png').write_bytes(encode_image(image))
    make_lmdb(tmp_path / 'files' / 'input', tmp_path / 'files' / 'target', tmp_path / 'stores')
    return str(tmp_path / 'files'), str(tmp_path / 'stores')


def test_speed_is_told_for_every_set_and_number_of_processes(places):
    speeds = reading_speeds(places, [0, 1], crop=8, pairs=20)
    assert set(speeds) == {(place, n) for place in places for n in (0, 1)}
    assert min(speeds.values()) > 0


def test_table_has_ratios_to_the_first_set(places, capsys):
    assert cli.main(['data', 'speed', *places, '--workers', '0', '--crop', '8', '--pairs', '20']) == 0
    *_, first, second = capsys.readouterr().out.splitlines()
    assert first.split('|')[1].strip() == places[0]
    assert '(1.00)' in first
    speed, ratio = second.split('|')[2].replace('(', '').replace(')', '').split()
    assert float(ratio) == pytest.approx(float(speed) / float(first.split('|')[2].split()[0]), abs=0.02)


def test_reading_is_compared_with_what_a_network_takes(places, tmp_path, capsys):
    path = tmp_path / 'tiny.yml'
    path.write_text('name: tiny\nnetwork_g: {type: DDSANet, dim: 8, blocks: [1, 1, 1, 1, 1]}\n', encoding='utf-8')
    arguments = ['data', 'speed', *places, '--workers', '0', '--crop', '16', '--pairs', '20']
    assert cli.main([*arguments, '--network', str(path), '--batch', '2']) == 0
    lines = capsys.readouterr().out.splitlines()
    (told,) = [number for number, line in enumerate(lines) if line.startswith(f'{path} trains on ')]
    taken = float(lines[told].split(' trains on ')[1].split()[0])
    read = [float(line.split('|')[2].split()[0]) for line in lines[told - 2 : told]]
    ratios = [float(line.split('|')[2]) for line in lines[-2:]]
    assert ratios == pytest.approx([speed / taken for speed in read], rel=0.05, abs=0.06)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['absent'], 'SET: no set in absent; wanted input.lmdb and target.lmdb there, or folders input and target'),
        (['absent', '--batch', '0'], '--batch 0: wanted a whole number from 1 up'),
        (
            ['absent', '--network', 'DDSANe'],
            "no network 'DDSANe'; did you mean 'DDSANet'? (or give an option file, .yml)",
        ),
        (['absent', '--workers', '-1'], '--workers -1 --crop 128 --pairs 400: wanted at least 0, 1 and 1'),
    ],
)
def test_wrong_input_is_one_message(arguments, message, capsys):
    assert cli.main(['data', 'speed', *arguments]) == 2
    assert capsys.readouterr().err == f'error: {message}\n'
