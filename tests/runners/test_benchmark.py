import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from basicsr.utils.registry import ARCH_REGISTRY
from helpers import LONGEST, rows

from ddsa_arch.archs.cards import CARDS, published_scores
from ddsa_arch.archs.complexity import complexity
from ddsa_arch.benchmarking.networks import choose_networks
from ddsa_arch.benchmarking.process import exit_text, run_row
from ddsa_arch.benchmarking.row import Job, measure
from ddsa_arch.errors import InputError
from ddsa_arch.fast import is_accelerated
from ddsa_arch.machine.memory import PeakMemory
from ddsa_arch.runners.benchmark import benchmark, main
from ddsa_arch.runners.cli import run_main

MODULE = 'benchmarked_toys'
TOYS = '''
import os
import signal
import time

from basicsr.utils.registry import ARCH_REGISTRY
import torch
from torch import nn


@ARCH_REGISTRY.register()
class ToyOfKnownMemory(nn.Module):
    """16 MiB of weights; two tensors of 64 MiB are there at once."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2**22))

    def forward(self, x):
        large = x.new_ones(2**24)
        return x + (large + 1)[:1]


@ARCH_REGISTRY.register()
class ToyOfOneSize(nn.Module):
    fixed_size = 32

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        assert x.shape[-2:] == (32, 32)
        return self.conv(x)


@ARCH_REGISTRY.register()
class ToyThatEnds(nn.Module):
    def __init__(self, way: str = 'kill'):
        super().__init__()
        self.way = way
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        print('about to end')
        if self.way == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        if self.way == 'raise':
            raise ValueError('the toy is broken\\nand how')
        if self.way == 'no memory':
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        open('asleep', 'w').close()
        time.sleep(10_000)
'''
PRN = {'type': 'PRN', 'stages': 2, 'width': 8, 'blocks': 2}


@pytest.fixture
def toys(workplace, monkeypatch):
    """A module of the user's in the current directory, and a writer of option files that use it."""
    (workplace / f'{MODULE}.py').write_text(TOYS, encoding='utf-8')
    monkeypatch.syspath_prepend(str(workplace))

    def write(name, **network_g):
        path = workplace / f'{name}.yml'
        options = {'name': name, 'imports': [MODULE], 'network_g': network_g}
        path.write_text(yaml.safe_dump(options), encoding='utf-8')
        return str(path)

    yield write
    sys.modules.pop(MODULE, None)
    for name in [name for name, _ in ARCH_REGISTRY if name.startswith('ToyOf') or name == 'ToyThatEnds']:
        ARCH_REGISTRY._obj_map.pop(name)


def job(network_g, **changes):
    given = {
        'imports': [MODULE] if network_g['type'].startswith('Toy') else None, 'size_multiple': None, 'height': 16,
        'width': 24, 'dtype': 'float32', 'mode': 'inference', 'form': 'fast', 'batch': 2, 'device': 'cpu',
        'compiled': False, 'threads': None, 'warmup': 1,
        'repeats': 2, 'keep_memory': False, 'count': True,
    }  # fmt: skip
    return Job(network_g, **given | changes)


def measured(network_g, **changes):
    """In this process."""
    figures = {}
    measure(job(network_g, **changes), lambda **more: figures.update(more))
    return figures


def read_rows(out):
    return rows(out / 'benchmark.csv')


def rows_of(parent):
    """Process ids of the rows that a process measures just now."""
    listed = subprocess.run(['ps', '-eo', 'pid,ppid,args'], capture_output=True, text=True, check=True).stdout
    lines = [line.split(maxsplit=2) for line in listed.splitlines()[1:]]
    return [int(pid) for pid, of, args in lines if int(of) == parent and 'ddsa_arch.benchmarking.row' in args]


def is_running(pid):
    found = subprocess.run(['ps', '-o', 'stat=', '-p', str(pid)], capture_output=True, text=True).stdout.strip()
    return found != '' and not found.startswith('Z')


# --- one row -----------------------------------------------------------------------------------------------


def test_a_row_holds_size_cost_and_time():
    figures = measured(PRN)
    cost = complexity(ARCH_REGISTRY.get('PRN')(stages=2, width=8, blocks=2), 16, 24)
    assert (figures['parameters'], figures['conv_macs'], figures['macs']) == (cost.parameters, cost.macs, cost.macs)
    assert figures['flops'] > 2 * figures['macs']
    assert 0 < figures['latency_ms'] <= figures['latency_p95_ms']
    assert figures['images_per_second'] == pytest.approx(1000 / figures['latency_ms'])
    assert 'error' not in figures


@pytest.mark.parametrize('dtype', ['bf16', 'fp16'])
def test_half_precision_is_that_of_autocast(dtype, monkeypatch):
    seen = []
    convolve = torch.nn.Conv2d.forward
    monkeypatch.setattr(torch.nn.Conv2d, 'forward', lambda self, x: seen.append(convolve(self, x)) or seen[-1])
    assert measured(PRN, dtype=dtype, count=False)['latency_ms'] > 0
    assert {out.dtype for out in seen} == {{'bf16': torch.bfloat16, 'fp16': torch.float16}[dtype]}


def test_the_peak_of_a_network_of_known_memory(toys):
    """In a process of its own, as this one may hold freed memory."""
    if PeakMemory().source != 'VmHWM':
        pytest.skip('the peak cannot be set back on this system')
    toys('known', type='ToyOfKnownMemory')
    figures = run_row(job({'type': 'ToyOfKnownMemory'}), LONGEST)
    assert figures['peak_memory_mib'] == pytest.approx(16 + 2 * 64, abs=4)


def test_a_network_of_one_size_is_counted_tile_by_tile(toys):
    """Along 48 pixels tiles of 32 that share at least 20 begin at 0, 12 and 16; 32 pixels are one tile."""
    toys('one', type='ToyOfOneSize')
    figures = measured({'type': 'ToyOfOneSize'}, height=48, width=32)
    assert figures['macs'] == 3 * 32 * 32 * 9
    assert figures['size_note'] == '3 tiles of 32x32'


def test_padding_is_counted_and_named():
    network_g = {'type': 'Restormer', 'dim': 8, 'num_blocks': [1, 1, 1, 1], 'num_refinement_blocks': 1}
    even, odd = measured(network_g), measured(network_g, height=9, width=17)
    assert 'size_note' not in even
    assert odd['size_note'] == 'padded to 16x24'
    assert odd['macs'] == even['macs']


@pytest.mark.parametrize(
    ('network_g', 'message'),
    [
        ({'type': 'Restormer', 'dim': 8}, '--sizes: 16x20 is not a multiple of 8, which Restormer needs; try 16x24'),
        ({'type': 'IDT', 'img_size': 64}, '--sizes: 16x20 is not 64, the only size that IDT takes; try 64'),
    ],
)
def test_training_at_a_size_that_the_network_does_not_take_is_refused(network_g, message):
    with pytest.raises(InputError) as caught:
        measured(network_g, width=20, mode='training')
    assert str(caught.value) == message


def test_a_row_that_runs_out_of_time_is_ended():
    assert run_row(job(PRN), timeout=0.5)['error'] == 'time limit of 0.5 s'
    if sys.platform == 'linux':
        assert rows_of(os.getpid()) == []


def test_a_signal_is_told_by_its_name():
    assert exit_text(-signal.SIGSEGV) == 'ended by SIGSEGV'
    assert exit_text(3) == 'ended with exit code 3'


# --- what is asked for -------------------------------------------------------------------------------------


def test_all_are_the_cards_and_each_network_comes_once(write_options):
    chosen = choose_networks(['all', 'PReNet'])
    assert [network.label for network in chosen] == [card.name for card in CARDS]
    assert {network.label: network.size_multiple for network in chosen}['SwinIR'] == 8
    path = write_options('test')
    assert [(c.label, c.network_g) for c in choose_networks(['DIDMDNChain', str(path)])] == [
        ('DIDMDNChain', {'type': 'DIDMDNChain'}),
        ('test', {'type': 'DDSANet', 'dim': 8, 'blocks': [1, 1, 1, 1, 1]}),
    ]


def test_the_file_of_a_published_network_has_its_score(repository):
    (chosen,) = choose_networks([str(repository / 'options' / 'train' / 'DDSANet_Rain13K.yml')])
    assert (chosen.label, chosen.card) == ('DDSANet_Rain13K', 'DDSANet')
    (by_registered_name,) = choose_networks(['Uformer'])
    assert (by_registered_name.label, by_registered_name.card) == ('Uformer', 'Uformer-B')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['Restorme'], "no network 'Restorme'; did you mean 'Restormer'?"),
        (['none.yml'], 'no option file none.yml'),
        (['PRN', '--sizes', '64'], '--sizes 64: wanted HxW in pixels, such as 256x256'),
        (['PRN', '--sizes', '0x64'], '--sizes 0x64: wanted HxW'),
        (['PRN', '--dtypes', 'bf15'], "--dtypes bf15: wanted float32, tf32, bf16, fp16; did you mean 'bf16'?"),
        (['PRN', '--modes', 'trainin'], "--modes trainin: wanted inference, training; did you mean 'training'?"),
        (['PRN', '--batch', '0'], '--batch 0: wanted a whole number from 1 up'),
        (['PRN', '--device', 'tpu'], '--device tpu: wanted'),
        (['PRN', '--repeats', '0'], '--repeats 0: wanted a whole number from 1 up'),
        (['PRN', '--threads', '0'], '--threads 0: wanted'),
        (['PRN', '--timeout', '0'], '--timeout 0: wanted seconds above 0'),
        (['PRN', '--psnr', 'none.csv'], '--psnr none.csv: cannot be read'),
        (['ToyThatIsNot.yaml'], 'no option file ToyThatIsNot.yaml'),
    ],
)
def test_wrong_input_writes_nothing(arguments, message, workplace, capsys):
    assert run_main('ddsa_arch.runners.benchmark', [*arguments, '-o', 'out']) == 2
    assert f'error: {message}' in capsys.readouterr().err
    assert list(workplace.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_gpu_that_is_not_there_is_refused(workplace):
    with pytest.raises(InputError, match='sees no CUDA GPU; give --device cpu'):
        benchmark(['PRN'], 'out', device='cuda')


def test_arguments_that_do_not_go_together_are_found_before_the_first_row(toys, workplace):
    path = toys('wrong', type='IDT', img_size=96)
    with pytest.raises(InputError, match='wrong: network_g: IDT cannot be built: img_size: 96'):
        benchmark([path], workplace / 'out')
    assert not (workplace / 'out').exists()


def test_one_name_for_two_networks_is_refused(toys, workplace):
    (workplace / 'other').mkdir()
    first, second = toys('same', **PRN), toys('other/same', **PRN | {'width': 9})
    with pytest.raises(InputError, match="two different networks would be called 'same'; rename the file"):
        benchmark([first, second], workplace / 'out')


# --- the whole command, with processes of its own ----------------------------------------------------------


@pytest.mark.skipif(sys.platform == 'win32', reason='no SIGKILL')
def test_a_killed_row_has_a_note_and_the_others_go_on(toys, workplace, capsys):
    out = workplace / 'out'
    (workplace / 'scores.csv').write_text('network,psnr\nsmall,30.5\nends,20\n', encoding='utf-8')
    files = [toys('ends', type='ToyThatEnds', way='kill'), toys('small', **PRN)]
    arguments = [*files, '--sizes', '16x24', '--warmup', '0', '--repeats', '2', '--threads', '1', '-o', str(out)]
    assert main([*arguments, '--psnr', 'scores.csv']) == 1
    killed, small = read_rows(out)
    assert (killed['network'], killed['parameters'], killed['latency_ms']) == ('ends', '12', '')
    assert killed['note'] == 'killed (SIGKILL), most likely for want of memory'
    assert (small['size'], small['dtype'], small['compiled'], small['threads']) == ('16x24', 'float32', 'False', '1')
    assert float(small['latency_ms']) > 0
    assert float(small['peak_memory_mib']) > 0
    assert small['note'] == ''
    printed = capsys.readouterr()
    assert re.search(r'\[2/2\] small 16x24 float32 cpu: [\d.]+ ms', printed.out)
    assert 'failed: ends 16x24 float32 cpu: killed' in printed.out
    assert 'about to end' in printed.err
    assert printed.out.splitlines()[-4:] == [
        str(out / name)
        for name in ('benchmark.csv', 'benchmark.md', 'psnr_against_macs.png', 'psnr_against_latency.png')
    ]
    before = (out / 'benchmark.csv').read_bytes()
    assert run_main('ddsa_arch.runners.benchmark', arguments) == 2
    assert 'is there already; give --overwrite or another folder' in capsys.readouterr().err
    assert (out / 'benchmark.csv').read_bytes() == before


def test_the_fast_form_stands_beside_the_plain_one(toys, workplace, capsys):
    tiny = toys('tiny', type='DDSANet', dim=8, blocks=[1] * 5)
    out = workplace / 'out'
    arguments = [tiny, '--sizes', '32x40', '--modes', 'training', '--batch', '2', '--plain']
    assert main([*arguments, '--warmup', '1', '--repeats', '2', '-o', str(out)]) == 0
    rows = read_rows(out)
    assert [(row['mode'], row['form']) for row in rows] == [
        ('training, batch 2', 'plain'), ('training, batch 2', 'fast')
    ]  # fmt: skip
    plain = rows[0]
    for row in rows:
        seconds, rate = float(row['latency_ms']) / 1000, float(row['gemm_gflops']) * 1e9
        share = 2 * 6 * int(row['macs']) / seconds / rate
        assert float(row['gemm_share']) == pytest.approx(share, abs=1e-4)
        if row is not plain:
            assert float(row['times_plain']) == pytest.approx(float(plain['latency_ms']) / seconds / 1000, abs=1e-3)
        else:
            assert (row['times_plain'], row['memory_of_plain']) == ('', '')
    assert rows[0]['macs'] == rows[1]['macs']
    assert '| speed over the plain form |' in (out / 'benchmark.md').read_text(encoding='utf-8')
    assert 'training, batch 2 plain form: ' in capsys.readouterr().out


def test_tf32_is_refused_on_a_cpu():
    with pytest.raises(InputError, match='there is no tf32 on this cpu'):
        measured(PRN, dtype='tf32')


def test_a_plain_row_runs_the_network_as_built_in_the_usual_layout(monkeypatch):
    seen = []

    def look(net, rain, recipe):
        seen.append((is_accelerated(net), rain.is_contiguous(), rain.is_contiguous(memory_format=torch.channels_last)))
        return rain

    monkeypatch.setattr('ddsa_arch.benchmarking.row.restore', look)
    for form in ('plain', 'fast'):
        network = {'type': 'RESCAN', 'channels': 8, 'depth': 4, 'stages': 2}
        measured(network, form=form, warmup=0, repeats=1, count=False)
    assert seen == [(False, True, False), (True, False, True)]


def test_operations_are_counted_once_for_all_dtypes_and_old_plots_go(workplace, capsys):
    out = workplace / 'out'
    out.mkdir()
    (out / 'psnr_against_macs.png').write_bytes(b'of another benchmark')
    arguments = ['PRN_r', '--sizes', '16x24', '--dtypes', 'float32', 'bf16', '--warmup', '0', '--repeats', '1']
    assert main([*arguments, '-o', str(out), '--overwrite']) == 0
    rows = read_rows(out)
    assert [row['dtype'] for row in rows] == ['float32', 'bf16']
    assert rows[0]['macs'] == rows[1]['macs'] != ''
    assert sorted(path.name for path in out.iterdir()) == ['benchmark.csv', 'benchmark.md']
    assert 'PRN_r' not in published_scores()['ddsa_table1']['rows']
    assert 'no plots, as no PSNR is known: PRN_r' in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ('way', 'note'),
    [
        ('raise', 'ValueError: the toy is broken'),
        ('no memory', "out of memory: RuntimeError: DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_an_error_of_a_network_becomes_a_note(toys, workplace, way, note):
    summary = benchmark([toys('broken', type='ToyThatEnds', way=way)], workplace / 'out', sizes=['16x16'])
    assert summary.failed == summary.rows
    assert summary.rows[0]['note'].startswith(note)
    assert 'Traceback' in summary.rows[0]['complaints']


@pytest.mark.slow
def test_a_compiled_row_stands_beside_the_other(workplace):
    """Without a C++ compiler it has a note instead of figures."""
    summary = benchmark(['PRN_r'], workplace / 'out', sizes=['16x24'], warmup=0, repeats=1, compiled=True)
    plain, compiled = summary.rows
    assert (plain['compiled'], compiled['compiled']) == (False, True)
    assert 'compile_s' not in plain
    assert compiled.get('compile_s', 0) > 0.1 or compiled['note'].startswith('torch.compile failed: ')


@pytest.mark.slow
def test_a_compiler_that_fails_becomes_a_note(workplace, monkeypatch):
    monkeypatch.setenv('CXX', str(workplace / 'no_compiler'))
    monkeypatch.setenv('PATH', str(Path(sys.executable).parent))
    summary = benchmark(['PRN_r'], workplace / 'out', sizes=['16x24'], device='cpu', warmup=0, repeats=1, compiled=True)
    assert [row in summary.failed for row in summary.rows] == [False, True]
    assert summary.rows[1]['note'].startswith('torch.compile failed: ')


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='reads the list of processes')
@pytest.mark.parametrize(('sent', 'code'), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_no_process_outlives_the_command(toys, workplace, repository, sent, code):
    path = toys('sleeps', type='ToyThatEnds', way='sleep')
    program = (
        'import sys; from ddsa_arch.runners.cli import run_main; '
        f'sys.exit(run_main("ddsa_arch.runners.benchmark", ["PRN_r", {path!r}, "--sizes", "16x16", "-o", "out"]))'
    )
    environment = os.environ | {'PYTHONPATH': str(repository)}
    process = subprocess.Popen([sys.executable, '-c', program], cwd=workplace, env=environment)
    until = time.monotonic() + LONGEST
    while not (workplace / 'asleep').exists() and time.monotonic() < until:
        time.sleep(0.1)
    (row,) = rows_of(process.pid)
    assert is_running(row)
    process.send_signal(sent)
    assert process.wait(LONGEST) == code
    while is_running(row) and time.monotonic() < until:
        time.sleep(0.1)
    assert not is_running(row)
    assert [row['network'] for row in read_rows(workplace / 'out')] == ['PRN_r']
