import csv
from pathlib import Path

import pytest

from ddsa_arch.files.images import read_image
from ddsa_arch.runners import quickstart


def test_the_quickstart_beats_the_rain_on_photos_it_was_not_trained_on(tmp_path, capsys):
    """The shortest training there is: 50 steps."""
    argv = ['--minutes', '0.01', '--out', str(tmp_path / 'out'), '--device', 'cpu']
    assert quickstart.main(argv) == 0
    with open(tmp_path / 'out' / 'scores.csv', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert [r['photo'] for r in rows] == ['chelsea_0', 'rocket_0']
    assert all(float(r['derained_psnr']) > float(r['rainy_psnr']) + 1 for r in rows)
    last = capsys.readouterr().out.strip().splitlines()[-5:]
    assert [line.split(':')[0] for line in last] == ['picture', 'gallery', 'scores', 'weights', 'curves']
    for line in last:
        path = line.split(maxsplit=1)[1]
        assert Path(path).is_relative_to(tmp_path / 'out')
        assert Path(path).exists()
    assert read_image(tmp_path / 'out' / 'before_after.png').shape[1] > 3 * 451
    assert (tmp_path / 'out' / 'experiments' / 'quickstart' / 'models' / 'net_g_latest.pth').is_file()
    for part in ('train', 'test'):
        left = sorted(path.name for path in (tmp_path / 'out' / 'data' / part).iterdir())
        assert left == ['input', 'input.lmdb', 'target', 'target.lmdb']


@pytest.mark.parametrize('argv', [['--minutes', '0'], ['--minutes', '-1']])
def test_a_wrong_time_is_refused_before_anything_is_made(argv, tmp_path, capsys):
    assert quickstart.main([*argv, '--out', str(tmp_path / 'out')]) == 2
    assert '--minutes' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / 'thesis.txt').write_text('years of work', encoding='utf-8')
    assert quickstart.main(['--out', str(tmp_path)]) == 2
    assert 'give another folder' in capsys.readouterr().err
    assert (tmp_path / 'thesis.txt').read_text(encoding='utf-8') == 'years of work'
