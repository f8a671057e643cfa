"""Option files with something wrong in them, by the hundred: each is refused with a sentence, or its run works."""

import contextlib
import copy
import random
import signal

import pytest
import yaml

from ddsa_arch.errors import InputError
from ddsa_arch.options.loading import load_options, to_yaml
from ddsa_arch.options.schema import OPTIONS
from ddsa_arch.training.dry_run import dry_run

SEED = 2024
COUNT = 300
LIMIT = 120  # seconds of one dry run, a long time for so few steps
LONG = 'x' * 3000
VALUES = [
    None, True, False, '', ' ', '..', 'no such thing', 'ünïcödé ☂', '日本', '../../up', 'a/b', LONG, '=1+1', '1e-4',
    0, 1, -1, 2, 3, 7, 1.5, -0.5, 1e-12, 1e30, 10**6, 10**12, 10**18, float('nan'), float('inf'), -float('inf'),
    [], {}, [[]], [[1, [2]]], [0], [-1, 2], ['a'], [None], [float('nan')], {'a': 1}, {'type': 'DDSANet'},
    {'type': None}, {'type': ['L1Loss']}, {'type': 'L1Loss'}, {'type': 'AdamW', 'lr': 0.1},
]  # fmt: skip
# sizes for which a run may ask, and be given what memory there is
HEAVY = ('gt_size', 'tile_size', 'dim', 'num_feat', 'tile_overlap')


def places(value, path=()):
    """The paths to all entries of options, sections and lists too."""
    if path:
        yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from places(entry, (*path, key))


def at(options, path):
    for key in path:
        options = options[key]
    return options


def mutated(options, rng):
    """A copy of options with one entry changed, and what was done to it in words."""
    options = copy.deepcopy(options)
    kind = rng.choice(['delete', 'value', 'value', 'near', 'near', 'near', 'unknown', 'move', 'swap'])
    path = rng.choice([p for p in places(options) if kind != 'near' or type(at(options, p)) in (int, float)])
    section, key = at(options, path[:-1]), path[-1]
    dotted = '.'.join(map(str, path))
    if kind == 'delete':
        del section[key]
    elif kind == 'value':
        choices = [v for v in VALUES if key not in HEAVY or not isinstance(v, int | float) or abs(v) < 10**4]
        section[key] = copy.deepcopy(rng.choice(choices))
        return options, f'{dotted} = {str(section[key])[:40]!r}'
    elif kind == 'near':
        number = section[key]
        section[key] = rng.choice([-number, number * 2, number + 1, number - 1, number / 2, 0, str(number)])
        return options, f'{dotted} = {section[key]!r}'
    elif kind == 'unknown' and isinstance(section, dict):
        section[rng.choice(['surplus', f'{key}s', LONG, 'ключ', '', str(key).upper()])] = section[key]
    elif kind == 'move':
        other = at(options, rng.choice([p for p in places(options) if isinstance(at(options, p), dict)]))
        if other is not section[key]:
            other[str(key)] = copy.deepcopy(section[key])
    else:
        path2 = rng.choice(list(places(options)))
        if path[: len(path2)] == path2 or path2[: len(path)] == path:
            return mutated(options, rng)
        section2 = at(options, path2[:-1])
        section[key], section2[path2[-1]] = section2[path2[-1]], section[key]
        return options, f'swap {dotted} and {".".join(map(str, path2))}'
    return options, f'{kind} {dotted}'


@contextlib.contextmanager
def time_limit(seconds):
    def stop(*_):
        raise TimeoutError(f'more than {seconds} s')

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(path):
    """``works``, or the sentence with which a dry run refuses a file."""
    try:
        with time_limit(LIMIT):
            dry_run(path)
    except InputError as error:
        return str(error)
    return 'works'


def rich_options(write_options):
    """Options in which most sections stand, resolved."""
    path = write_options('train', **{
        'datasets:train:num_worker_per_gpu': 0,
        'datasets:train:dataset_enlarge_ratio': 2,
        'train:scheduler': [
            {'type': 'LinearLR', 'start_factor': 0.1, 'begin': 0, 'end': 3},
            {'type': 'CosineAnnealingLR', 'begin': 3, 'end': 8, 'T_max': 5, 'eta_min': 1e-6},
        ],
        'train:optim_g': {'type': 'AdamW', 'lr': 1e-3, 'weight_decay': 1e-4, 'betas': [0.9, 0.99], 'eps': 1e-8},
        'train:losses': {'edge': {'type': 'EdgeLoss', 'loss_weight': 0.05, 'kind': 'pyramid'}},
        'train:pixel_opt': {'type': 'DerainL1Loss', 'loss_weight': 1.0, 'output_weights': [1.0]},
        'train:progressive': {'iterations': [4, 4], 'patch_sizes': [16, 32], 'batch_sizes': [3, 1]},
        'train:accumulate': 2,
        'train:warmup_iter': 2,
        'val:restore': {'pad': 'reflect', 'tile_size': 48, 'tile_overlap': 8},
        'val:metrics_without_target': {'niqe': {'type': 'derain_niqe', 'better': 'lower'}},
        'network_g': {'type': 'DDSANet', 'dim': 8, 'blocks': [1, 1, 1, 1, 1], 'heads': [1, 1, 2, 2, 4],
                      'keep_ratio': 0.7, 'expansion': 2.0, 'ffn': 'msfn', 'bias': False},
        'logger:keep_checkpoints': 2,
    })  # fmt: skip
    return yaml.safe_load(to_yaml(load_options(path, True)))


@pytest.mark.slow
@pytest.mark.parametrize('part', range(10))
def test_a_wrong_option_file_is_refused_with_a_sentence_or_its_run_works(part, write_options, workplace, capsys):
    options = rich_options(write_options)
    rng = random.Random(SEED + part)
    path = workplace / 'train.yml'
    wrong = []
    for _ in range(COUNT // 10):
        changed, words = mutated(options, rng)
        path.write_text(yaml.safe_dump(changed, sort_keys=False, allow_unicode=True), encoding='utf-8')
        try:
            told = outcome(path)
        except Exception as error:
            wrong.append(f'{words}: {type(error).__name__}: {error}')
            continue
        names_key = told.startswith((str(path), *OPTIONS))
        if told != 'works' and (not names_key or '\n' in told or len(told) > 1500):
            wrong.append(f'{words}: no clear sentence: {told}')
        left = [p.name for p in workplace.iterdir() if p != path]
        if left:
            wrong.append(f'{words}: left {left}')
    capsys.readouterr()
    assert wrong == []
