"""What a training tells while it runs, and the table it leaves."""

import re
from collections import deque
from types import SimpleNamespace

import pytest
from helpers import rows

from ddsa_arch.models.derain_model import DerainModel
from ddsa_arch.runners.train import train
from ddsa_arch.training.progress import Best, Progress, Sample, bar_text, figures_text, rates

TIMINGS = ('images_per_second', 'data_wait')


def table(folder):
    return rows(folder / 'training.csv')


def without_timings(table):
    return [{name: value for name, value in row.items() if name not in TIMINGS} for row in table]


def stop_at(monkeypatch, iteration):
    """Interrupt the training in the middle of a step."""
    optimize = DerainModel.optimize_parameters

    def interrupted(self, current_iter):
        if current_iter == iteration:
            raise KeyboardInterrupt
        optimize(self, current_iter)

    monkeypatch.setattr(DerainModel, 'optimize_parameters', interrupted)


def test_the_text_of_known_numbers():
    best = Best('psnr', 27.561)
    assert figures_text(41.234, 0.031, best) == 'best psnr 27.56, 41.2 images/s, 3% waiting for data'
    assert figures_text(0.5, 0.0, None) == '0.5 images/s, 0% waiting for data'
    assert bar_text(0.02134, 3 * 3600 + 62, 41.2, 0.5, best, 1e-4) == (
        'loss 0.0213, 3:01:02 left, best psnr 27.56, 41.2 images/s, 50% waiting for data, lr 1.0e-04'
    )
    assert bar_text(1, None, 1, 0, None, 1).startswith('loss 1.0000, ? left')


def test_validation_and_saving_do_not_count_as_training():
    """10 s, of which 2 s went to validation and 4 s to waiting; 16 images in the other 8 s."""
    assert rates(Sample(100, 1, 3, 8), Sample(110, 3, 7, 24)) == (2.0, 0.5)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_speed_wait_and_time_left_of_a_run_with_a_known_clock():
    """Steps of 3 s after 1 s of waiting each, resumed at 100 of 110: the earlier 100 took no time of this run."""
    clock = Clock()
    progress = Progress(clock)
    progress.options = {'train': {'total_iter': 110}, 'world_size': 2}
    progress.iteration = 100
    progress.logged = progress.sample()

    def fetch():
        clock.now += 1
        return {'lq': [0, 0]}

    prefetcher = SimpleNamespace(next=fetch)
    for _ in range(5):
        progress.next_batch(prefetcher)
        clock.now += 3
    progress.step_done()
    progress.in_step = False
    assert (progress.iteration, progress.seconds_left()) == (105, pytest.approx(5 * 4))
    assert rates(progress.logged, progress.sample()) == (5 * 2 * 2 / 20, 1 / 4)
    for _ in range(9):
        progress.next_batch(prefetcher)
    assert progress.iteration == 110  # batches that are fetched behind the last step begin none


def test_the_table_has_a_row_for_each_line_of_the_log(write_options, capsys):
    folder = train(write_options('train'))
    shown = capsys.readouterr().err
    assert '\r' not in shown  # no bar, as the output is no terminal
    assert len(re.findall(r'images/s, \d+% waiting for data', shown)) == 4
    told = table(folder)
    log = next(folder.glob('*.log')).read_text(encoding='utf-8')
    line = (
        r'epoch: +(\d+), iter: +(\d+), lr:\(([^,]+),\).*l_pix: (\S+) \[.*?([\d.]+) images/s, (\d+)% waiting for data\]'
    )
    logged = re.findall(line, log)
    assert [row['iteration'] for row in told] == ['2', '4', '6', '8']
    for row, (epoch, iteration, lr, loss, speed, wait) in zip(told, logged, strict=True):
        assert (row['epoch'], row['iteration']) == (epoch, iteration)
        assert float(row['lr']) == pytest.approx(float(lr), rel=1e-3)
        assert float(row['l_pix']) == pytest.approx(float(loss), rel=1e-4)
        assert float(row['images_per_second']) == pytest.approx(float(speed), rel=0.01)
        assert float(row['data_wait']) == pytest.approx(float(wait) / 100, abs=0.006)
    assert log.count('[eta: 0:00:00, ') >= 1
    assert '[eta: -' not in log
    assert len(re.findall(r'l_pix: \S+ \[best psnr \d+\.\d\d, ', log)) == 2  # after the validation at 4


def test_a_killed_and_resumed_run_leaves_the_table_of_an_uninterrupted_one(write_options, monkeypatch):
    """Killed at 7 with a state of 4, while writing a line: the row of 6 is dropped and made anew."""
    changes = {'train:total_iter': 10, 'val:val_freq': 100}
    whole = train(write_options('train', name='whole', **changes))
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        with pytest.raises(KeyboardInterrupt):
            train(write_options('train', name='killed', **changes))
    killed = whole.with_name('killed')
    assert [row['iteration'] for row in table(killed)] == ['2', '4', '6']
    path = killed / 'training.csv'
    path.write_bytes(path.read_bytes() + b'7,2,0.0')
    resumed = train(write_options('train', name='killed', **changes), auto_resume=True)
    assert without_timings(table(resumed)) == without_timings(table(whole))
    assert [row['iteration'] for row in table(resumed)] == ['2', '4', '6', '8', '10']


def test_a_bar_moves_and_log_lines_stay_whole(write_options, capsys, monkeypatch):
    monkeypatch.setattr('ddsa_arch.training.progress.SHOW_EVERY', 0.0)
    folder = train(write_options('train', **{'logger:progress': 'bar', 'val:val_freq': 100}))
    shown = capsys.readouterr().err
    bars = re.findall(r'(\d+)%\|[^|]+\| (\d)/8, loss (0\.\d{4}), \S+ left, .*?\S+ images/s, \d+% waiting', shown)
    steps = [int(step) for _, step, _ in bars]
    assert steps == sorted(steps)
    assert set(range(1, 9)) <= set(steps)
    assert bars[-1][0] == '100'
    assert float(bars[-1][2]) == pytest.approx(float(table(folder)[-1]['l_pix']), abs=1e-4)
    for line in next(folder.glob('*.log')).read_text(encoding='utf-8').splitlines():
        if 'l_pix' in line:
            assert re.search(rf'^(.*\r)? *{re.escape(line)}$', shown, re.MULTILINE)


@pytest.mark.parametrize(
    ('wanted', 'terminal', 'bar'),
    [('auto', True, True), ('auto', False, False), ('bar', False, True), ('lines', True, False)],
)
def test_a_terminal_gets_a_bar_unless_lines_are_wanted(wanted, terminal, bar, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('sys.stderr.isatty', lambda: terminal)
    progress = Progress()
    options = {'rank': 0, 'path': {'experiments_root': str(tmp_path)}, 'logger': {'progress': wanted},
               'train': {'total_iter': 8}}  # fmt: skip
    with progress.running(options):
        progress.start(3)
    assert ('3/8' in capsys.readouterr().err) == bar


def test_the_bar_reads_losses_about_once_a_second(monkeypatch):
    read = []

    class Loss:
        def __float__(self):
            read.append(clock.now)
            return 0.5

    clock = Clock()
    progress = Progress(clock)
    progress.options = {'train': {'total_iter': 1000}, 'world_size': 1, 'datasets': {}, 'val': {}}
    progress.model = SimpleNamespace(losses={'l_pix': Loss()}, get_current_learning_rate=lambda: [1e-3])
    progress.bar = SimpleNamespace(n=0, set_postfix_str=lambda text: None)
    progress.recent = deque([progress.sample()], maxlen=5)
    for _ in range(51):
        progress.next_batch(SimpleNamespace(next=lambda: {'lq': [0]}))
        clock.now += 0.125
    assert len(read) == 7  # at 0.125, 1.125, ... 6.125 s
    assert progress.bar.n == 49


def test_other_ranks_write_and_show_nothing(tmp_path, capsys):
    progress = Progress()
    options = {'rank': 1, 'path': {'experiments_root': str(tmp_path)}, 'logger': {'progress': 'bar'}}
    with progress.running(options):
        progress.start(0)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ''
