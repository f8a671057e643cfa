"""Numbers, names and words of option files that are refused, and what messages say of them."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from ddsa_arch.errors import InputError, shown
from ddsa_arch.options.json_schema import json_schema
from ddsa_arch.options.loading import force, is_of_training, load_options
from ddsa_arch.options.parts import argument_range
from ddsa_arch.options.reading import parse
from ddsa_arch.options.reference import reference
from ddsa_arch.options.schema import Range

OPTIONS = Path(__file__).resolve().parents[2] / 'options'
FLAGSHIP = OPTIONS / 'train' / 'DDSANet_Rain13K.yml'
BEYOND = [
    ('train: {ema_decay: 2}', 'train.ema_decay: 2.0 is not below 1, wanted 0 <= x < 1'),
    ('train: {grad_clip: 0.0}', 'train.grad_clip: 0.0 is not above 0'),
    ('train: {warmup_iter: -7}', 'train.warmup_iter: -7 is below -1'),
    ('train: {total_iter: 1e30}', 'train.total_iter: 1000000000000000019884624838656 is above 1,000,000,000'),
    ('train: {optim_g: {lr: 3}}', 'train.optim_g.lr: 3 is above 1, wanted 0 < x <= 1'),
    ('train: {optim_g: {lr: -.inf}}', 'train.optim_g.lr: -inf is no finite number'),
    ('train: {optim_g: {lr: 0.0}}', 'train.optim_g.lr: 0.0 is not above 0, wanted 0 < x <= 1'),
    (
        'train: {optim_g: {betas: [0.9, 0.99, 0.999]}}',
        'train.optim_g.betas: [0.9, 0.99, 0.999] has 3 numbers, wanted 2',
    ),
    ('train: {optim_g: {betas: [-0.1, 0.9]}}', 'train.optim_g.betas: [-0.1, 0.9] is below 0'),
    ('train: {optim_g: {betas: [x, 0.9]}}', "train.optim_g.betas: 'x' is str, AdamW takes numbers there"),
    ('train: {optim_g: {weight_decay: -1e-4}}', 'train.optim_g.weight_decay: -0.0001 is below 0'),
    ('train: {optim_g: {eps: 0}}', 'train.optim_g.eps: 0 is not above 0'),
    ('train: {scheduler: [[]]}', 'train.scheduler[0].type is missing'),
    ('train: {scheduler: [~]}', 'train.scheduler[0] is missing'),
    ('train: {scheduler: {T_max: -3}}', 'train.scheduler.T_max: -3 is below 1'),
    ('train: {scheduler: {eta_min: -.nan}}', "train.scheduler.eta_min: '-.nan' is str"),
    ('train: {scheduler: {eta_min: .NaN}}', 'train.scheduler.eta_min: nan is no finite number'),
    ('train: {pixel_opt: {loss_weight: -0.5}}', 'train.pixel_opt.loss_weight: -0.5 is not above 0'),
    ('train: {losses: {edge: {type: EdgeLoss, loss_weight: 0}}}', 'train.losses.edge.loss_weight: 0 is not above 0'),
    ('network_g: {blocks: [2, -3, 1, 1, 1]}', 'network_g.blocks: [2, -3, 1, 1, 1] is below 1, wanted 1 <= x <= 1,000'),
    ('network_g: {blocks: [1, 1, 9999, 1, 1]}', 'network_g.blocks: [1, 1, 9999, 1, 1] is above 1,000'),
    ('network_g: {dim: 0}', 'network_g.dim: 0 is below 1'),
    ('network_g: {heads: [1, 1, 0, 4, 8]}', 'network_g.heads: [1, 1, 0, 4, 8] is below 1'),
    ('network_g: {blocks: [[1], 2, 3, 4, 5]}', 'network_g.blocks: [1] is list, DDSANet takes whole numbers there'),
    ('network_g: {expansion: .inf}', 'network_g.expansion: inf is no finite number'),
    ('val: {metrics: {psnr: {better: larger}}}', "val.metrics.psnr.better: 'larger', wanted 'higher' or 'lower'"),
    ('val: {metrics: {psnr: {crop_border: -2}}}', 'val.metrics.psnr.crop_border: -2 is below 0'),
    ('manual_seed: 9999999999', 'manual_seed: 9999999999 is not below 4,294,967,296'),
    ('dist_params: {port: 100000}', 'dist_params.port: 100000 is above 65,535'),
    ('dist_params: {timeout: 1e9}', 'dist_params.timeout: 1000000000.0 is above 525,600'),
    ('val: {val_freq: 1e25}', 'val.val_freq: 1e+25 is beyond 2**63'),
    ('dist_params: {backend: mpi}', "dist_params.backend: 'mpi', wanted 'nccl' or 'gloo'"),
]
NAMES = [
    ('name: "a\\u2028b"', "name: 'a\\u2028b' cannot name a folder; leave out spaces"),
    ('name: "tab\\there"', "name: 'tab\\there' holds the control character '\\t'"),
    ('name: ' + 'ü' * 60, 'has 120 bytes, wanted at most 100; choose a shorter name'),
    ('datasets: {val: {name: " spaced"}}', "datasets.val.name: ' spaced' cannot name a folder; leave out spaces"),
    ('datasets: {val: {name: average}}', "datasets.val.name: 'average' is a name of other results; choose another"),
    ('val: {suffix: ..}', "val.suffix: '..' cannot name a folder"),
    ('val: {suffix: a\\b}', "val.suffix: 'a\\\\b' cannot name a folder"),
    ('val: {metrics: {a/b: {type: derain_psnr}}}', 'unknown key val.metrics.a/b. Scores of sets with targets'),
    ('val: {metrics: {seconds: {type: derain_psnr}}}', "val.metrics.seconds: 'seconds' is a column of other figures"),
    ('val: {metrics: {x_counted: {type: derain_psnr}}}', "'x_counted' is a column of other figures"),
    ('train: {losses: {pix: {type: EdgeLoss}}}', "train.losses.pix: 'pix' is a column of other figures"),
    (f'train: {{losses: {{{"e" * 70}: {{type: EdgeLoss}}}}}}', 'unknown key train.losses.eee'),
    (f'datasets: {{train: {{dataroot_lq: {"d" * 256}}}}}', '256 bytes are no name that a disk takes'),
    ('datasets: {train: {dataroot_lq: " "}}', "datasets.train.dataroot_lq: ' ' is empty; write ~ for none"),
    ('imports: 7', 'imports: 7, wanted a list of names of modules'),
    ('name: off', 'name: False is bool, wanted str; YAML reads yes, no, on and off as truth values; write the word in'),
    ('network_g: {type: yes}', 'network_g.type: True: YAML reads yes, no, on and off as truth values; write the word'),
    ('val: {metrics: {on: {type: derain_psnr}}}', 'val.metrics.True: YAML reads yes, no, on and off as truth values'),
]


@pytest.mark.parametrize(('text', 'words'), BEYOND + NAMES, ids=[text[:50] for text, _ in BEYOND + NAMES])
def test_what_is_beyond_a_range_or_no_name_is_refused_with_its_key(text, words, tmp_path):
    path = tmp_path / 'wrong.yml'
    path.write_text(f'_base_: {FLAGSHIP}\n{text}\n', encoding='utf-8')
    with pytest.raises(InputError) as error:
        load_options(path, True)
    message = str(error.value)
    assert words in message
    assert message.startswith(str(path))
    assert len(message) < 600
    assert '\n' not in message


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('a: 0644', '0644 is the octal number 0o644; write 644 or 420'),
        ('a: -012', '-012 is the octal number 0o12; write 12 or -10'),
        ('a: 2:05', "2:05 is a number to the base of 60; write 125, or '2:05' in quotes"),
        ('a: 1:1.5', "1:1.5 is a number to the base of 60; write 61.5, or '1:1.5' in quotes"),
        ('a: !!timestamp "noon"', 'not plain YAML'),
        ('a: !!bool perhaps', 'not plain YAML'),
        ('a: 0x1' + '0' * 20, 'a: a number of 81 bits, wanted one below 2**63'),
        ('a: "\\udfff"', 'holds the control character'),
        ('a: ' + 'y' * 2001, 'has 2,001 letters, wanted at most 2,000'),
        ('a: &x {b: *x}', 'more than 32 sections within each other'),
    ],
)
def test_what_yaml_reads_as_something_else_is_refused(text, words):
    with pytest.raises(InputError) as error:
        parse(text, 'FILE')
    assert words in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ('text', 'value'), [('0', 0), ('-0', 0), ('0.25', 0.25), ('0x1f', 31), ('1_000', 1000), ('08', '08')]
)
def test_plain_numbers_are_read_as_they_stand(text, value):
    assert parse(f'a: {text}', 'FILE') == {'a': value}


def test_force_yml_takes_dots_and_colons():
    options = {'train': {'optim_g': {'lr': 1}}, 'val': {'metrics': {'psnr.y': 1}}}
    force(options, ['train.optim_g.lr=0.5', 'train:optim_g:eps=1e-4', 'val:metrics:psnr.y=~', 'logger.strips=0'])
    assert options == {
        'train': {'optim_g': {'lr': 0.5, 'eps': '1e-4'}}, 'val': {'metrics': {'psnr.y': None}}, 'logger': {'strips': 0}
    }  # fmt: skip


@pytest.mark.parametrize('value', ['012', '2001-13-45', '[', '!!python/name:os.system'])
def test_force_yml_reads_no_value_that_a_file_may_not_hold(value):
    with pytest.raises(InputError, match='--force_yml name='):
        force({}, [f'name={value}'])


def test_ranges_say_what_they_take():
    assert [str(r) for r in (Range(), Range(1), Range(above=0), Range(maximum=5), Range(0, below=1))] == [
        '', 'x >= 1', 'x > 0', 'x <= 5', '0 <= x < 1'
    ]  # fmt: skip
    assert Range(0, below=1).problem([0.5, 1]) == 'is not below 1, wanted 0 <= x < 1'
    assert Range(1).problem(True) == Range(1).problem('x') == Range(1).problem(None) == ''


def test_integers_of_our_networks_are_positive_where_their_defaults_are():
    assert argument_range('arch', 'Restormer', 'num_refinement_blocks') == Range(minimum=0, maximum=1000)
    assert argument_range('arch', 'Uformer', 'embed_dim') == Range(minimum=1)
    assert argument_range('arch', 'DIDMDN', 'label') == Range(minimum=0)
    assert argument_range('arch', 'Uformer', 'mlp_ratio') == Range()
    assert argument_range('arch', 'MSRResNet', 'num_feat') == Range()  # of another package


def test_ranges_show_in_the_reference_and_in_the_json_schema():
    text = reference()
    assert '| `train.ema_decay` | float, 0 <= x < 1 |' in text
    assert '| optimiser | `betas` | 0 <= x < 1 (2 of them) |' in text
    assert '`_base_: train/DDSANet_Rain13K`' in text
    check = jsonschema.Draft7Validator(json.loads(json_schema()))

    def places(text):
        return {'.'.join(map(str, error.absolute_path)) for error in check.iter_errors(yaml.safe_load(text))}

    base = '_base_: a.yml\n'
    assert places(base + 'train: {ema_decay: 1, grad_clip: 0}') == {'train.ema_decay', 'train.grad_clip'}
    assert places(base + 'train: {optim_g: {type: AdamW, lr: 2, betas: [0.9, 1]}}') == {
        'train.optim_g.lr', 'train.optim_g.betas.1'
    }  # fmt: skip
    assert places(base + 'network_g: {type: DDSANet, blocks: [1, 0, 1, 1, 1]}') == {'network_g.blocks.1'}
    assert places(base + 'val: {metrics: {x: {type: derain_psnr, better: more}}}') == {'val.metrics.x.better'}
    assert places(base + 'dist_params: {port: 65535}\ntrain: {ema_decay: 0.999}') == set()


def test_messages_shorten_what_is_long():
    assert shown('a' * 500) == f"'{'a' * 60} ... {'a' * 30}'"
    assert shown([1, 2]) == '[1, 2]'
    assert len(shown(list(range(1000)))) < 100


def test_a_file_of_a_test_names_the_command_that_takes_it():
    with pytest.raises(InputError, match='this is the option file of a test; `ddsa test -opt FILE` takes it'):
        load_options(OPTIONS / 'test' / 'Restormer_benchmarks.yml', True)


@pytest.mark.parametrize(
    ('text', 'training'),
    [
        ('train: {total_iter: 5}\ndatasets: {test_1: {name: a}}', False),  # which inherits a training
        ('datasets: {test_1: {name: a}}', False),
        ('train: {total_iter: 5}\ndatasets: {val: {name: a}}', True),
        ('datasets: {train: {name: a}, test_1: {name: b}}', True),
        ('_base_: a.yml\ntrain: {total_iter: 5}', True),
    ],
)
def test_a_file_of_test_sets_alone_is_that_of_a_test(text, training):
    assert is_of_training(yaml.safe_load(text)) == training


def test_a_training_without_its_sections_is_not_called_a_test(tmp_path):
    (tmp_path / 'a.yml').write_text('name: a\nnetwork_g: {type: DDSANet}\ndatasets: {val: {name: a, dataroot_lq: x}}')
    with pytest.raises(InputError, match='train') as told:
        load_options(tmp_path / 'a.yml', True)
    assert 'ddsa test' not in str(told.value)
