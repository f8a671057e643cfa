"""The pictures that a training leaves."""

import csv

import numpy as np
import pytest

from ddsa_arch.files.images import read_image, write_image
from ddsa_arch.models.derain_model import DerainModel
from ddsa_arch.ops.figures import BAR, GAP
from ddsa_arch.ops.quality import psnr_y
from ddsa_arch.runners.cli import main
from ddsa_arch.runners.summary import evenly, summarise
from ddsa_arch.runners.train import train

TIMES = 4  # tiles of 51 pixels are enlarged, so that labels fit
WIDTH, HEIGHT = 51 * TIMES, 60 * TIMES


def is_blank(path):
    return np.ptp(read_image(path)) < 100


def column(strip, place):
    """One picture of a strip."""
    left = place * (WIDTH + GAP)
    return strip[BAR:, left : left + WIDTH]


def test_a_training_leaves_curves_strips_and_scores(write_options, pairs, capsys):
    assert main(['train', '-opt', str(write_options('train', **{'logger:strips': 2}))]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith('summary: ')
    folder = next(write_options('train').parent.glob('experiments/run'))
    summary = folder / 'summary'
    assert last.endswith(str(summary))
    pictures = sorted(str(p.relative_to(summary)) for p in summary.rglob('*.png'))
    assert pictures == ['loss.png', 'lr.png', 'psnr.png', 'ssim.png',
                        'strips/held_out/tile0_0.png', 'strips/held_out/tile1_0.png']  # fmt: skip
    assert not any(is_blank(summary / name) for name in pictures)
    assert (summary / 'results.csv').read_text() == (folder / 'validation' / 'summary.csv').read_text()

    strip = read_image(summary / 'strips' / 'held_out' / 'tile1_0.png')
    assert strip.shape == (BAR + HEIGHT, 4 * WIDTH + 3 * GAP, 3)  # rainy, 4, 8, target
    rainy, target = (read_image(pairs / side / 'tile1_0.png') for side in ('input', 'target'))
    assert (column(strip, 0)[::TIMES, ::TIMES] == rainy).all()
    assert (column(strip, 3)[::TIMES, ::TIMES] == target).all()
    with (folder / 'validation' / 'held_out.csv').open(encoding='utf-8') as file:
        scores = {row['image']: float(row['psnr']) for row in csv.DictReader(file)}
    assert psnr_y(np.ascontiguousarray(column(strip, 2)[::TIMES, ::TIMES]), target) == scores['tile1_0']


def test_a_resumed_run_makes_later_images_anew(write_options, monkeypatch):
    """Killed at 7 after validations at 3 and 6, with a state of 5: the image of 6 is of no run that counts."""
    optimize = DerainModel.optimize_parameters

    def interrupted(self, current_iter):
        if current_iter == 7:
            raise KeyboardInterrupt
        optimize(self, current_iter)

    changes = {'train:total_iter': 8, 'val:val_freq': 3, 'logger:save_checkpoint_freq': 5, 'logger:strips': 1}
    with monkeypatch.context() as patch:
        patch.setattr(DerainModel, 'optimize_parameters', interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(write_options('train', **changes))
    options = write_options('train', **changes | {'val:val_freq': 100})
    strips = options.parent / 'experiments' / 'run' / 'validation' / 'strips' / 'held_out'
    names = [f'tile0_0_{label}.png' for label in (3, 6, 'rainy', 'target')]
    assert sorted(p.name for p in strips.iterdir()) == names
    train(options, auto_resume=True)
    assert sorted(p.name for p in strips.iterdir()) == [names[0], 'tile0_0_8.png', *names[2:]]


def write_table(path, header, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join([header, *rows, '']), encoding='utf-8')


def test_the_curves_are_those_of_the_tables(tmp_path, monkeypatch):
    figures = {}
    monkeypatch.setattr('ddsa_arch.runners.summary.write_plot', lambda path, f: figures.update({path.name: f}))
    header = 'iteration,epoch,l_pix,lr,images_per_second,data_wait'
    write_table(tmp_path / 'training.csv', header, '10,0,0.5,1e-3,7,0', '20,0,0.25,1e-4,7,0')
    write_table(tmp_path / 'validation' / 'summary.csv', 'set,iteration,images,psnr,psnr_counted',
                'a,10,2,20.5,2', 'b,10,2,30,2', 'a,20,2,21.5,2', 'Average,,,25.75,')  # fmt: skip
    summarise(tmp_path)

    def lines(name):
        return {line.get_label(): line.get_xydata().tolist() for line in figures[name].axes[0].lines}

    assert sorted(figures) == ['loss.png', 'lr.png', 'psnr.png']
    assert lines('loss.png') == {'l_pix': [[10, 0.5], [20, 0.25]]}
    assert [*lines('lr.png').values()] == [[[10, 1e-3], [20, 1e-4]]]
    assert lines('psnr.png') == {'a': [[10, 20.5], [20, 21.5]], 'b': [[10, 30]]}


def test_many_losses_are_smoothed(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr('ddsa_arch.runners.summary.write_plot', lambda path, figure: figures.append(figure))
    rows = [f'{i},0,{1 + i % 2},1e-3,7,0' for i in range(1, 121)]
    write_table(tmp_path / 'training.csv', 'iteration,epoch,l_pix,lr,images_per_second,data_wait', *rows)
    summarise(tmp_path)
    raw, smooth = figures[0].axes[0].lines
    assert set(raw.get_ydata()) == {1, 2}
    assert set(smooth.get_ydata()[4:]) == {1.5}  # the mean of 4


def test_a_training_that_has_just_begun_has_an_empty_summary(tmp_path):
    assert list(summarise(tmp_path).iterdir()) == []


def test_a_strip_shows_few_iterations_and_copes_without_a_target(tmp_path):
    strips = tmp_path / 'validation' / 'strips' / 'set'
    image = np.full((60, 200, 3), 90, np.uint8)
    write_image(strips / 'a_b_rainy.png', image)
    for i in range(0, 1000, 100):
        write_image(strips / f'a_b_{i}.png', image)
    summarise(tmp_path)
    strip = read_image(tmp_path / 'summary' / 'strips' / 'set' / 'a_b.png')
    assert strip.shape == (BAR + 60, 6 * 200 + 5 * GAP, 3)


@pytest.mark.parametrize(
    ('count', 'chosen'), [(1, [0]), (3, [0, 1, 2]), (9, [0, 2, 4, 6, 8]), (101, [0, 25, 50, 75, 100])]
)
def test_iterations_are_chosen_evenly(count, chosen):
    assert evenly(range(count), 5) == chosen


def test_the_command_draws_what_a_training_has_left_so_far(trained, capsys):
    folder = trained
    expected = {p.name: p.read_bytes() for p in (folder / 'summary').glob('*.png')}
    for path in (folder / 'summary').glob('*.png'):
        path.unlink()
    assert main(['summary', str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f'summary: {folder / "summary"}'
    assert {p.name: p.read_bytes() for p in (folder / 'summary').glob('*.png')} == expected


def test_a_folder_that_is_no_training_is_named(workplace, capsys):
    (workplace / 'empty').mkdir()
    assert main(['summary', 'empty']) == 2
    expected = 'error: empty: no options.yml there; name the folder of a training, experiments/NAME\n'
    assert capsys.readouterr().err == expected
    assert list((workplace / 'empty').iterdir()) == []


@pytest.mark.parametrize('text', ['', '- a list', 'name: [', 'a: !!python/object/apply:os.system [true]'])
def test_resolved_options_that_are_damaged_are_named(trained, capsys, text):
    (trained / 'options.yml').write_text(text, encoding='utf-8')
    assert main(['summary', str(trained)]) == 2
    assert f'error: {trained / "options.yml"}: ' in capsys.readouterr().err
