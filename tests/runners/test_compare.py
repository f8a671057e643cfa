"""``ddsa compare``: results and folders of images against one ground truth."""

import json
import math
import re
import shutil
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
import yaml
from helpers import rows

from ddsa_arch.comparison import scoring
from ddsa_arch.comparison.significance import paired_difference
from ddsa_arch.errors import InputError
from ddsa_arch.files.images import write_image
from ddsa_arch.ops.quality import psnr_y, ssim_y
from ddsa_arch.runners.cli import main
from ddsa_arch.runners.compare import compare
from ddsa_arch.runners.test import test as run_test

STEMS = [f'p{i}' for i in range(8)]


@pytest.fixture
def folders(tmp_path, monkeypatch, photo):
    """Targets, and three methods: one a little better than the next, and one that copies the targets."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i, stem in enumerate(STEMS):
        target = photo[20 * i : 20 * i + 60, 30 * i : 30 * i + 72]
        write_image(tmp_path / 'target' / f'{stem}.png', target)
        for name, spread in (('good', 4), ('fair', 6), ('rain', 20)):
            noisy = np.clip(target + rng.normal(0, spread, target.shape), 0, 255).astype(np.uint8)
            write_image(tmp_path / name / f'{stem}.png', noisy)
    return tmp_path


def scores(folder, stem):
    image, target = (cv2.imread(str(f / f'{stem}.png')) for f in (folder, folder.parent / 'target'))
    return psnr_y(image, target), ssim_y(image, target)


@pytest.mark.core
def test_means_images_and_differences_of_folders(folders):
    result = compare(['good', 'fair'], 'out', targets=['target'], gallery_images=0, threads=2)
    own = {name: np.array([scores(folders / name, stem) for stem in STEMS]) for name in ('good', 'fair')}
    means = {r['network']: r for r in rows('out/comparison.csv')}
    for name, expected in own.items():
        assert float(means[name]['psnr']) == pytest.approx(expected[:, 0].mean())
        assert float(means[name]['images_ssim']) == pytest.approx(expected[:, 1].mean())
        assert means[name]['source'] == 'measured'
    images = rows('out/images.csv')
    assert [r['image'] for r in images if r['network'] == 'fair'] == STEMS
    assert float(images[0]['psnr']) == own['good'][0, 0]
    (psnr, ssim) = rows('out/differences.csv')
    assert (psnr['network'], psnr['reference'], psnr['verdict']) == ('fair', 'good', 'good is better')
    expected = paired_difference(own['fair'][:, 1], own['good'][:, 1])
    assert float(ssim['low']) == pytest.approx(expected.low)
    assert '**' in result.table
    assert sorted(p.name for p in (folders / 'out').iterdir()) == [
        'comparison.csv', 'comparison.md', 'comparison.tex', 'differences.csv', 'images.csv', 'protocol.json',
    ]  # fmt: skip


def test_the_rainy_images_are_a_row_of_their_own_or_stand_alone(folders):
    result = compare(['Rainy=rain'], 'alone', targets=['target'], gallery_images=0)
    assert [m.name for m in result.methods] == ['Rainy']
    result = compare(['B=fair'], 'out', targets=['target'], inputs=['rain'], gallery_images=0)
    assert [m.name for m in result.methods] == ['Rainy', 'B']
    assert float(rows('out/comparison.csv')[0]['psnr']) == pytest.approx(
        np.mean([scores(folders / 'rain', s)[0] for s in STEMS])
    )
    assert rows('out/differences.csv') == []


def test_identical_images_are_noted_and_leave_the_mean_alone(folders):
    shutil.copy('target/p3.png', 'good/p3.png')
    compare(['good', 'fair'], 'out', targets=['target'], gallery_images=0)
    means = {r['network']: float(r['psnr']) for r in rows('out/comparison.csv')}
    assert means['good'] == pytest.approx(np.mean([scores(folders / 'good', s)[0] for s in STEMS if s != 'p3']))
    (noted,) = [r for r in rows('out/images.csv') if r['note']]
    assert (noted['image'], noted['network'], noted['psnr'], noted['note']) == (
        'p3', 'good', 'inf', 'identical to its target',
    )  # fmt: skip
    assert '* images, p3, good: identical to its target' in (folders / 'out' / 'comparison.md').read_text('utf-8')


def test_the_protocol_is_that_asked_for(folders):
    compare(['good'], 'out', targets=['target'], protocol='basicsr', gallery_images=0)
    image, target = (cv2.imread(f'{name}/p0.png') for name in ('good', 'target'))
    assert float(rows('out/images.csv')[0]['psnr']) == psnr_y(image, target, protocol='basicsr')
    assert 'not rounded (protocol basicsr)' in (folders / 'out' / 'comparison.md').read_text('utf-8')


def test_the_page_shows_all_methods_and_the_target(folders):
    compare(['good', 'fair'], 'out', targets=['target'], inputs=['rain'], gallery_images=2)
    page = (folders / 'out' / 'gallery.html').read_text('utf-8')
    for name in ('Rainy', 'good', 'fair', 'Target'):
        assert name in page
    assert 'images: 2 of 8 images, evenly spread' in page
    names = re.findall(r'"name":"(p\d)"', page)
    assert names == ['p0', 'p4']
    assert 'Means over 8 images' in page
    (cell,) = re.findall(r'<bdi>fair</bdi></th><td[^>]*>([\d.]+)</td>', page)
    assert cell == f'{np.mean([scores(folders / "fair", s)[0] for s in STEMS]):.2f}'


def test_without_the_model_of_brisque_photos_get_niqe_and_a_note(folders, photo, monkeypatch, capsys):
    def absent():
        raise InputError('BRISQUE takes its model from a package: pip install --no-deps brisque')

    monkeypatch.setattr(scoring, 'regression', absent)
    write_image(folders / 'photos' / 'x.png', photo[:200, :220])
    assert main(['compare', 'photos', '-o', 'out']) == 0
    assert {'niqe', 'brisque'} & set(rows(folders / 'out' / 'images.csv')[0]) == {'niqe'}
    assert 'note: images: without BRISQUE: BRISQUE takes its model from a package' in capsys.readouterr().out
    assert main(['compare', 'photos', '-o', 'other', '--metrics', 'brisque']) == 2


@pytest.mark.skipif(find_spec('brisque') is None, reason='the package brisque is not installed')
def test_photos_without_targets_are_scored_without(folders, photo):
    for name, blur in (('before', 0), ('after', 1.5)):
        for i in range(2):
            picture = photo[10 * i : 200 + 10 * i, :220]
            write_image(folders / name / f'x{i}.png', cv2.GaussianBlur(picture, (0, 0), blur) if blur else picture)
    compare(['after', 'before'], 'out', layout='table2', gallery_images=1)
    lines = (folders / 'out' / 'comparison.md').read_text('utf-8').splitlines()
    header = next(line for line in lines if line.startswith('| Method'))
    assert 'rainy (reported)' in header
    assert 'DDSANet (reported)' in header
    reported = next(line for line in lines if line.startswith('| NIQE / BRISQUE, real'))
    assert '5.961 / 34.147' in reported
    assert '**4.006** / **24.773**' in reported
    assert '*4.227* / *26.237*' in reported
    compare(['after'], 'with_input', inputs=['before'], gallery_images=0)
    found = rows('with_input/differences.csv')
    assert [(r['network'], r['reference'], r['score']) for r in found] == [
        ('Rainy', 'after', 'niqe'), ('Rainy', 'after', 'brisque'),
    ]  # fmt: skip


def test_table_1_has_the_five_sets_and_the_reported_rows(folders):
    for name in ('good', 'target'):
        (folders / f'all_{name}').mkdir()
        (folders / name).rename(folders / f'all_{name}' / 'Rain100L')
    compare(['all_good'], 'out', targets=['Rain100L=all_target/Rain100L'], layout='table1', gallery_images=0)
    lines = (folders / 'out' / 'comparison.md').read_text('utf-8').splitlines()
    header = [c.strip() for c in next(line for line in lines if line.startswith('| Method')).split('|')][2:-1]
    assert header[::2] == [
        'Test100 PSNR', 'Rain100H PSNR', 'Rain100L PSNR', 'Test2800 PSNR', 'Test1200 PSNR', 'Average PSNR'
    ]  # fmt: skip
    own = next(line for line in lines if line.startswith('| all_good '))
    assert [c.strip() for c in own.split('|')][2:4] == ['-', '-']  # no Test100
    assert [c.strip() for c in own.split('|')][-3:-1] == ['-', '-']  # so no average of five
    ddsa = next(line for line in lines if line.startswith('| DDSANet (reported)'))
    assert [c.strip() for c in ddsa.split('|')][-3:-1] == ['**33.33**', '**0.930**']
    assert 'Table 1 of the DDSA paper, not measured here.' in (folders / 'out' / 'comparison.tex').read_text('utf-8')
    reported = {r['network']: r for r in rows('out/comparison.csv') if r['source'] == 'reported'}
    assert (reported['DDSANet']['psnr'], reported['DDSANet']['Rain100H_ssim']) == ('33.33', '0.899')
    assert [reported[name]['provenance'] for name in ('DDSANet', 'IDT', 'MPRNet')] == ['own', 'retrained', 'quoted']
    assert any('own for DDSANet, retrained for Uformer-B, IDT. They were not measured here.' in line for line in lines)


# --- what `ddsa test` has written


@pytest.fixture
def tested(write_options):
    """results/run of an untrained network, with images."""

    def test(name='run', **changes):
        run_test(write_options('test', name=name, **{'val:save_img': True, **changes}))
        return f'results/{name}'

    return test


def test_a_tested_run_brings_its_targets_inputs_and_protocol(tested, workplace):
    result = compare([tested()], 'out', gallery_images=1)
    assert [m.name for m in result.methods] == ['Rainy', 'run']
    stored = {r['image']: r for r in rows('results/run/first.csv')}
    for row in rows('out/images.csv'):
        if row['network'] == 'run':
            assert float(row['psnr']) == pytest.approx(float(stored[row['image']]['psnr']), abs=1e-9)
    assert result.warnings == []
    record = json.loads((workplace / 'out' / 'protocol.json').read_text('utf-8'))
    assert record['runs']['run']['protocol']['network']['type'] == 'DDSANet'
    assert 'DDSANet: Y paper, outputs rounded' in (workplace / 'out' / 'comparison.md').read_text('utf-8')


def test_table_3_ticks_the_parts_of_a_tested_network(tested, workplace):
    ablated = {'network_g:attention': 'sparse', 'network_g:spatial_attention': False}
    compare([tested(**ablated, **{'datasets:test_1:name': 'Rain100H'})], 'out', layout='table3', gallery_images=0)
    lines = (workplace / 'out' / 'comparison.md').read_text('utf-8').splitlines()
    ticks = {line.split('|')[1].strip(): [c.strip() for c in line.split('|')[2:-1]] for line in lines if '|' in line}
    assert ticks['Model'] == ['Rainy', 'run', *(f'({x}) (reported)' for x in 'abcde')]
    assert ticks['DSA'] == ['', '', '✓', '', '✓', '✓', '✓']
    assert ticks['SSA'] == ['', '✓', '', '✓', '✓', '✓', '✓']
    assert ticks['GDFN'] == ['', '', '', '', '', '', '✓']
    assert ticks['MSFN'] == ['', '✓', '✓', '✓', '✓', '✓', '']
    assert ticks['SA'] == ['', '', '✓', '✓', '✓', '', '✓']
    assert ticks['PSNR, Rain100H'][2:] == ['28.68', '*29.38*', '**30.90**', '28.96', '29.09']


def test_names_with_a_suffix_find_their_targets(tested):
    run = tested(**{'val:suffix': 'out'})
    assert len(compare([run], 'out', gallery_images=0).sets[0].compared.stems) == 10


def test_images_that_changed_since_their_test_are_reported(tested, workplace):
    run = tested()
    first = sorted((workplace / run / 'visualization' / 'first').iterdir())[0]
    write_image(first, 255 - cv2.imread(str(first)))
    (warning,) = compare([run], 'out', gallery_images=0).warnings
    assert f'1 images of first score otherwise than {run}/results.json says ({first.stem})' in warning


def test_a_run_without_images_keeps_its_stored_scores_where_they_are_of_the_same_kind(tested):
    with_images, without = tested(), tested('bare', **{'val:save_img': False})
    result = compare([with_images, without], 'out', gallery_images=1)
    means = {r['network']: r['psnr'] for r in rows('out/comparison.csv')}
    assert float(means['bare']) == pytest.approx(float(means['run']), abs=1e-9)
    assert result.warnings == ['bare: scores of first as its test stored them, no images']
    assert 'bare' not in json.dumps([m.name for m in result.methods if m.images])


def test_stored_scores_of_another_protocol_are_not_mixed_in(tested):
    run = tested('bare', **{'val:save_img': False})
    with pytest.raises(InputError, match=r'bare has no images of first, and its scores are not those wanted'):
        compare([run], 'out', protocol='basicsr')


def test_runs_that_rounded_differently_are_told_apart(tested):
    runs = [tested('a'), tested('b', **{'val:restore:rounding': 'truncate'})]
    (warning,) = compare(runs, 'out', gallery_images=0).warnings
    assert warning.startswith('outputs of b were truncated to 8 bits, those of a rounded')


def test_figures_that_differ_from_those_of_the_test_are_explained(tested):
    run = tested(**{'val:metrics:psnr:protocol': 'basicsr'})
    (warning,) = compare([run], 'out', gallery_images=0).warnings
    assert warning.startswith('scored here with protocol paper; the tests of run had another one')


# --- several runs of one method


def test_runs_of_one_name_are_one_method_with_a_spread(folders):
    rng = np.random.default_rng(1)
    for seed in (1, 2, 3):
        for stem in STEMS:
            target = cv2.imread(str(folders / 'target' / f'{stem}.png'))
            noisy = np.clip(target + rng.normal(0, 4 + seed / 4, target.shape), 0, 255).astype(np.uint8)
            write_image(folders / f'seed{seed}' / f'{stem}.png', noisy)
    compare(['ours=seed1', 'ours=seed2', 'ours=seed3', 'fair'], 'out', targets=['target'], gallery_images=2)
    own = {run: np.array([scores(folders / run, s)[0] for s in STEMS]) for run in ('seed1', 'seed2', 'seed3', 'fair')}
    ours = np.mean([own[f'seed{seed}'] for seed in (1, 2, 3)], axis=0)
    images = [r for r in rows('out/images.csv') if r['network'] == 'ours']
    np.testing.assert_allclose([float(r['psnr']) for r in images], ours)
    runs = [r for r in rows('out/runs.csv') if r['network'] == 'ours']
    means = [own[f'seed{seed}'].mean() for seed in (1, 2, 3)]
    assert [r['run'] for r in runs] == ['seed1', 'seed2', 'seed3']
    np.testing.assert_allclose([float(r['psnr']) for r in runs], means)
    psnr = rows('out/differences.csv')[0]
    expected = paired_difference(own['fair'], ours, runs=([own['fair'].mean()], means))
    assert (float(psnr['mean']), float(psnr['low'])) == pytest.approx((expected.mean, expected.low))
    page = (folders / 'out' / 'comparison.md').read_text('utf-8')
    line = next(line for line in page.splitlines() if line.startswith('| ours') and '| 3 ' in line and 'PSNR' in line)
    shown = [float(cell) for cell in line.split('|')[5:-1]]
    assert shown == pytest.approx([np.mean(means), np.std(means, ddof=1), min(means), max(means)], abs=6e-4)
    assert 'ours: pictures and their scores are those of seed1.' in (folders / 'out' / 'gallery.html').read_text(
        'utf-8'
    )
    record = json.loads((folders / 'out' / 'protocol.json').read_text('utf-8'))['runs']['ours']
    assert [record['folder'], *(run['folder'] for run in record['repeats'])] == ['seed1', 'seed2', 'seed3']


def test_runs_that_are_their_targets_have_no_spread_and_no_difference(folders):
    for seed in (1, 2):
        shutil.copytree(folders / 'target', folders / f'seed{seed}')
    compare(['ours=seed1', 'ours=seed2', 'fair'], 'out', targets=['target'], gallery_images=0)
    page = (folders / 'out' / 'comparison.md').read_text('utf-8')
    cells = [[cell.strip() for cell in line.split('|')] for line in page.splitlines()]
    assert ['', 'ours', '2', 'images', 'PSNR', '-', '-', '-', '-', ''] in cells
    assert rows('out/differences.csv')[0]['verdict'].startswith('too few images')


def test_an_image_without_a_score_in_one_run_counts_in_none(folders):
    """Otherwise the runs would differ by the choice of their images."""
    shutil.copytree(folders / 'good', folders / 'seed2')
    write_image(folders / 'good' / 'p3.png', 255 - cv2.imread(str(folders / 'good' / 'p3.png')))
    shutil.copy(folders / 'target' / 'p3.png', folders / 'seed2' / 'p3.png')
    compare(['ours=good', 'ours=seed2', 'fair'], 'out', targets=['target'], gallery_images=0)
    own, fair = (np.array([scores(folders / name, s)[0] for s in STEMS if s != 'p3']) for name in ('good', 'fair'))
    expected = paired_difference(fair, own)  # both runs are equal on the images that count
    psnr = rows('out/differences.csv')[0]
    assert float(psnr['mean']) == pytest.approx(expected.mean)
    assert float(psnr['high']) - float(psnr['low']) == pytest.approx(expected.high - expected.low, rel=0.3)


def test_tested_runs_of_one_name_have_one_network(tested):
    runs = [tested('a'), tested('b', manual_seed=5), tested('c', **{'network_g:ffn': 'gdfn'})]
    result = compare([f'net={run}' for run in runs[:2]], 'out', gallery_images=0)
    assert [m.name for m in result.methods] == ['Rainy', 'net']
    with pytest.raises(InputError, match=r"results/a and results/c are both called 'net', and their networks differ"):
        compare([f'net={run}' for run in runs], 'more', gallery_images=0)


def test_a_run_that_lacks_images_of_the_others_is_counted(folders):
    (folders / 'fair' / 'p2.png').unlink()
    with pytest.raises(InputError, match=r'of 8 images ours lacks 1: p2'):
        compare(['ours=good', 'ours=fair'], 'out', targets=['target'])


# --- what a user can do wrong


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['nowhere'], 'nowhere: no such folder'),
        (['empty'], 'empty: neither results.json nor images there'),
        (['good', 'good'], 'the same folder is named twice'),
        (['good', 'fair/../deep/good'], "two runs are called 'good'; name them"),
        (['A=good', 'B=good'], 'the same folder is named twice'),
        (['good', '--reference', 'god'], "--reference god: no such run; did you mean 'good'?"),
        (['good', '--metrics', 'pnsr'], "'pnsr' is no score; did you mean 'psnr'?"),
        (['good', '--target', 'X=target'], "--target X=target: no run has a set 'X'"),
        (['good', '--target', 'nothing'], '--target'),
        (['good', '--metrics', 'psnr'], 'images has no targets for PSNR and SSIM; give --target'),
        (['good', '--target', 'target', '--table2'], '--table2 is a table of NIQE and BRISQUE'),
        (['good', '--gallery', '-1'], '--gallery -1: wanted 0 or more'),
        (['good', '--threads', '0'], '--threads 0: wanted 1 or more'),
        (['good', '-o', 'fair'], 'fair is there and holds something else than a comparison'),
        (['good', '-o', 'file'], 'file is there and holds something else'),
        (['broken'], 'broken: results.json or options.yml is damaged'),
    ],
)
def test_one_message_and_nothing_written(folders, arguments, message, capsys):
    (folders / 'empty').mkdir()
    (folders / 'file').write_text('x')
    shutil.copytree(folders / 'fair', folders / 'deep' / 'good')
    (folders / 'broken').mkdir()
    (folders / 'broken' / 'results.json').write_text('{"sets": ')
    before = sorted(p.name for p in folders.iterdir())
    assert main(['compare', *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1
    assert sorted(p.name for p in folders.iterdir()) == before


def test_missing_images_are_counted_and_compared_without_only_where_that_is_allowed(folders, capsys):
    (folders / 'fair' / 'p2.png').unlink()
    (folders / 'fair' / 'p5.png').unlink()
    with pytest.raises(InputError, match='images: of 8 images fair lacks 2: p2, p5; make them'):
        compare(['good', 'fair'], 'out', targets=['target'])
    result = compare(['good', 'fair'], 'out', targets=['target'], allow_missing=True, gallery_images=0)
    assert result.warnings == ['images: without p2, p5, which not all methods have']
    kept = [s for s in STEMS if s not in ('p2', 'p5')]
    means = {r['network']: float(r['psnr']) for r in rows('out/comparison.csv')}
    assert means['good'] == pytest.approx(np.mean([scores(folders / 'good', s)[0] for s in kept]))


def test_names_that_do_not_meet_are_shown(folders):
    for path in list((folders / 'good').iterdir()):
        path.rename(path.with_stem(f'{path.stem}1_derained'))
    with pytest.raises(InputError, match=r'no image that all runs and the targets have.* p0, p1, p2 and p01_derained'):
        compare(['good'], 'out', targets=['target'])


def test_targets_of_other_names_are_found_by_a_rule_that_is_told(folders):
    expected = scores(folders / 'good', 'p3')[0]
    for path in list((folders / 'good').iterdir()):
        path.rename(path.with_stem(path.stem + '_derained'))
    result = compare(['good'], 'out', targets=['target'], gallery_images=1)
    told = 'images: images and target matched by: common, what * stands for in p*_derained and p* is equal'
    assert result.warnings == [told]
    psnr = {row['image']: float(row['psnr']) for row in rows('out/images.csv')}
    assert psnr['p3_derained'] == pytest.approx(expected)


def test_images_of_another_size_are_named_with_their_target(folders):
    write_image(folders / 'good' / 'p4.png', cv2.imread('good/p4.png')[:50])
    with pytest.raises(InputError, match=r'good/p4.png is 72 x 50 pixels, its target target/p4.png 72 x 60'):
        compare(['good'], 'out', targets=['target'])
    assert not (folders / 'out').exists()


def test_an_earlier_comparison_is_replaced_only_when_told_to(folders):
    compare(['good'], 'out', targets=['target'], gallery_images=0)
    with pytest.raises(InputError, match='out holds a comparison already; give --overwrite'):
        compare(['fair'], 'out', targets=['target'], gallery_images=0)
    compare(['fair'], 'out', targets=['target'], gallery_images=0, overwrite=True)
    assert rows('out/comparison.csv')[0]['network'] == 'fair'
    assert not list(folders.glob('*.part'))


def test_loose_images_beside_runs_of_several_sets_are_refused(folders):
    for name in ('A', 'B'):
        shutil.copytree(folders / 'fair', folders / 'many' / name)
    with pytest.raises(InputError, match='good: images of which set? The other runs have A, B'.replace('?', r'\?')):
        compare(['many', 'good'], 'out')
    with pytest.raises(InputError, match='--target target: of which set'):
        compare(['many'], 'out', targets=['target'])


def test_the_command_ends_with_the_table_and_the_files(folders, capsys):
    assert main(['compare', '--target', 'target', '--gallery', '1', '--threads', '1', 'good', 'fair']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('| Method')
    assert lines[-2:] == [
        'tables: comparison/comparison.md (.csv, .tex), images.csv, differences.csv',
        'pictures: comparison/gallery.html',
    ]


def test_results_of_an_option_file_with_relative_roots_are_found_from_elsewhere(tested, workplace, pairs, monkeypatch):
    """The paths in options.yml are relative to where the test ran."""
    shutil.copytree(pairs / 'target', workplace / 'clean')
    tested(**{'datasets:test_1:dataroot_gt': 'clean', 'datasets:test_1:dataroot_lq': str(pairs / 'input')})
    options = yaml.safe_load((workplace / 'results/run/options.yml').read_text('utf-8'))
    assert options['datasets']['test_1']['dataroot_gt'] == 'clean'
    (workplace / 'elsewhere').mkdir()
    monkeypatch.chdir(workplace / 'elsewhere')
    result = compare(['../results/run'], 'out', gallery_images=0)
    assert math.isfinite(result.sets[0].mean('run', 'psnr'))
