import json
import math

from helpers import rows

from ddsa_arch.models.results import ResultFiles


def row(image, psnr, note=''):
    return {'image': image, 'psnr': psnr, 'note': note, 'seconds': 0.5}


def test_files_hold_images_sets_and_the_mean_of_set_means(tmp_path):
    files = ResultFiles(tmp_path)
    assert files.add('A', None, ['psnr'], [row('1', 20.0), row('2', 30.0)]) == {'psnr': 25.0}
    files.add('B', None, ['psnr'], [row('1', 40.0)])
    assert [r['psnr'] for r in rows(tmp_path / 'A.csv')] == ['20.0', '30.0']
    summary = rows(tmp_path / 'summary.csv')
    assert [(r['set'], r['psnr']) for r in summary] == [('A', '25.0'), ('B', '40.0'), ('Average', '32.5')]
    stored = json.loads((tmp_path / 'results.json').read_text(encoding='utf-8'))
    assert stored['sets']['B']['images'][0]['psnr'] == 40.0


def test_values_that_say_nothing_do_not_spoil_the_mean(tmp_path):
    files = ResultFiles(tmp_path)
    images = [row('1', 20.0), row('2', math.inf, 'equal to its target'), row('3', math.nan, 'too small')]
    assert files.add('A', None, ['psnr'], images) == {'psnr': 20.0}
    assert rows(tmp_path / 'summary.csv')[0]['psnr_counted'] == '1'
    assert rows(tmp_path / 'A.csv')[2]['note'] == 'too small'


def test_validations_of_a_resumed_run_replace_those_that_they_repeat(tmp_path):
    first = ResultFiles(tmp_path)
    for iteration, value in ((10, 20.0), (20, 21.0), (30, 22.0)):
        first.add('A', iteration, ['psnr'], [row('1', value)])
    resumed = ResultFiles(tmp_path)
    resumed.add('A', 20, ['psnr'], [row('1', 21.5)])
    assert [(r['iteration'], r['psnr']) for r in rows(tmp_path / 'summary.csv')] == [('10', '20.0'), ('20', '21.5')]
