"""The JSON Schema of option files: a schema, true of every option file and false of wrong ones."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from ddsa_arch.options.json_schema import json_schema, versions
from ddsa_arch.options.loading import load_options, to_yaml
from ddsa_arch.runners.cli import main

OPTIONS = Path(__file__).resolve().parents[2] / 'options'
FILES = sorted(OPTIONS.rglob('*.yml'))
SCHEMA = json.loads(json_schema())
CHECK = jsonschema.Draft7Validator(SCHEMA)
WHOLE = """
name: x
datasets: {train: {name: a, dataroot_lq: a}}
network_g: {type: DDSANet}
train: {total_iter: 5, optim_g: {type: AdamW, lr: 1e-3}, pixel_opt: {type: L1Loss}}
"""


def errors(text):
    """Where a file breaks the schema, as dotted keys."""
    return ['.'.join(map(str, error.absolute_path)) for error in CHECK.iter_errors(yaml.safe_load(text))]


def test_the_command_prints_it(capsys):
    assert main(['options', 'schema']) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA
    assert versions() in SCHEMA['$comment']  # the arguments of other packages' parts are those of these


def test_the_schema_is_one_of_draft_7():
    assert SCHEMA['$schema'] == 'http://json-schema.org/draft-07/schema#'
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize('path', FILES, ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_every_option_file_is_valid(path):
    assert errors(path.read_text(encoding='utf-8')) == []


@pytest.mark.parametrize('path', FILES, ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_every_resolved_option_file_is_valid(path):
    resolved = to_yaml(load_options(path, 'train' in path.relative_to(OPTIONS).parts))
    assert '_base_' not in resolved
    assert errors(resolved) == []


@pytest.mark.parametrize(
    'text',
    [
        WHOLE,
        WHOLE.replace('train: {name: a, dataroot_lq: a}', 'train: [{name: a, dataroot_lq: a}, {name: b}]'),
        '_base_: [./a.yml, ./b.yml]',
        '_base_: a.yml\ntrain: {optim_g: {lr: 1e-4}, total_iter: 3e5, ema_decay: 0}',
        '_base_: a.yml\ntrain: {amp: off}',
        '_base_: a.yml\ndatasets: {train: [{name: a, weight: 2, gt_size: 64, batch_size_per_gpu: 2}, {name: b}]}',
        '_base_: a.yml\ndatasets: {train: {type: MixtureDataset, sets: {a: {weight: 2}, b: {}}}}',
        '_base_: a.yml\ndatasets: {train: {type: MixtureDataset, sets: [{name: a, weight: 2}, {name: b}]}}',
        '_base_: a.yml\ntrain: {amp: "{{$PRECISION:bf16}}", pixel_opt: ~, grad_clip: ~}',
        '_base_: a.yml\ndatasets: {val: ~, train: {dataroot_lq: "{{$DDSA_DATA:datasets}}/a.lmdb"}}',
        '_base_: a.yml\ndatasets: {_delete_: true, test_1: {name: x, dataroot_lq: y}}',
        '_base_: a.yml\ndatasets: {train: {type: PairedImageDataset, filename_tmpl: x, io_backend: {client: y}}}',
        '_base_: a.yml\nval: {metrics: {ssim: ~, mine: {_delete_: true, type: calculate_psnr, crop_border: 0}}}',
        '_base_: a.yml\nval: {metrics: ~}',
        '_base_: a.yml\ntrain: {scheduler: [{type: LinearLR, end: 5}, {type: CosineAnnealingLR, T_max: 1e4}]}',
        '_base_: a.yml\nnum_gpu: auto',
        '_base_: a.yml\nnum_gpu: 4',
        '_base_: a.yml\nimports: [mine]\nnetwork_g: {_delete_: true, type: Mine, width: 3}\nmodel_type: MyModel',
        '_base_: a.yml\nimports: [mine]\nnetwork_g: {width: 3}',
        '_base_: a.yml\nnetwork_g: {_delete_: true, type: SwinIR, upscale: 1, anything: 3}',
    ],
)
def test_what_the_loader_takes_is_valid(text):
    assert errors(text) == []


@pytest.mark.parametrize(
    ('text', 'place'),
    [
        ('trian: {}', ''),
        ('datasets: {train: {type: MixtureDataset, sets: {a: {weigth: 2}}}}', 'datasets.train.sets.a'),
        ('datasets: {train: {type: MixtureDataset, sets: {a: {weight: -2}}}}', 'datasets.train.sets.a.weight'),
        ('datasets: {train: {type: MixtureDataset, sets: {a: {num_worker_per_gpu: 2}}}}', 'datasets.train.sets.a'),
        ('datasets: {train: [{weight: 2}]}', 'datasets.train.0'),
        ('datasets: {train: {weight: 2}}', 'datasets.train'),
        ('train: {total_iters: 5}', 'train'),
        ('train: {total_iter: many}', 'train.total_iter'),
        ('train: {total_iter: 0}', 'train.total_iter'),
        ('train: {total_iter: 1.5}', 'train.total_iter'),
        ('train: {amp: fp8}', 'train.amp'),
        ('train: {amp: on}', 'train.amp'),
        ('train: {accumulate: true}', 'train.accumulate'),
        ('train: {checkpoint_blocks: 1}', 'train.checkpoint_blocks'),
        ('train: {optim_g: {type: AdanW}}', 'train.optim_g.type'),
        ('train: {optim_g: {type: RMSprop, fused: true}}', 'train.optim_g'),
        ('train: {optim_g: {type: AdamW, lr: fast}}', 'train.optim_g.lr'),
        ('train: {optim_g: {_delete_: true, type: AdamW}}', 'train.optim_g'),
        ('train: {optim_g: AdamW}', 'train.optim_g'),
        ('train: {scheduler: {T_maks: 5}}', 'train.scheduler'),
        ('train: {scheduler: [{type: Cosine}]}', 'train.scheduler.0.type'),
        ('train: {pixel_opt: {loss_wieght: 1}}', 'train.pixel_opt'),
        ('train: {_delete_: true, total_iter: 5}', 'train'),
        ('network_g: {dims: 48}', 'network_g'),
        ('network_g: {type: DDSANet, dims: 48}', 'network_g'),
        ('network_g: {type: DDSANet, heads: 1}', 'network_g.heads'),
        ('network_g: {_delete_: true, dim: 48}', 'network_g'),
        ('network_g: {type: DDSANett}', 'network_g.type'),
        ('network_g: ~', 'network_g'),
        ('model_type: DerainModle', 'model_type'),
        ('datasets: {validation: {name: x}}', 'datasets'),
        ('datasets: {train: {gt_sise: 4}}', 'datasets.train'),
        ('datasets: {train: {gt_size: -4}}', 'datasets.train.gt_size'),
        ('datasets: {train: {type: PairedRain}}', 'datasets.train.type'),
        ('datasets: {train: {io_backend: {type: zip}}}', 'datasets.train.io_backend.type'),
        ('datasets: {_delete_: true, test: {dataroot_lq: x}}', 'datasets.test'),
        ('val: {metrics: {psnr: {type: derain_pnsr}}}', 'val.metrics.psnr.type'),
        ('val: {metrics: {psnr: {type: derain_psnr, crop: 4}}}', 'val.metrics.psnr'),
        ('val: {save_img: 3}', 'val.save_img'),
        ('logger: {keep_checkpoints: 0}', 'logger.keep_checkpoints'),
        ('dist_params: {timeout: -1}', 'dist_params.timeout'),
        ('num_gpu: many', 'num_gpu'),
        ('scale: 2', 'scale'),
        ('name: ~', 'name'),
        ('_base_: 5', '_base_'),
    ],
)
def test_what_the_loader_refuses_is_not_valid(text, place):
    base = '' if '_base_:' in text else '_base_: a.yml\n'
    assert set(errors(base + text)) == {place}


@pytest.mark.parametrize(
    ('dropped', 'place'),
    [
        ('name: x', ''),
        ('datasets: {train: {name: a, dataroot_lq: a}}', ''),
        ('network_g: {type: DDSANet}', ''),
        ('type: DDSANet', 'network_g'),
        ('total_iter: 5, ', 'train'),
        ('type: AdamW, ', 'train.optim_g'),
        (', lr: 1e-3', 'train.optim_g'),
        ('type: L1Loss', 'train.pixel_opt'),
        ('name: a, ', 'datasets.train'),
    ],
)
def test_a_file_without_a_base_has_all_that_is_required(dropped, place):
    assert dropped in WHOLE
    assert errors(WHOLE.replace(dropped, '')) == [place]


def test_an_editor_finds_sentences_units_and_defaults():
    train = SCHEMA['properties']['train']['properties']
    assert train['amp']['description'] == 'Mixed precision; attention scores, norms and the loss stay float32.'
    assert train['amp']['default'] == 'off'
    assert SCHEMA['properties']['dist_params']['properties']['timeout']['description'].endswith(' In minutes.')
    network = SCHEMA['definitions']['arch.DDSANet']['properties']
    assert set(network) - {'type', '_delete_'} == {
        'in_channels', 'dim', 'blocks', 'heads', 'keep_ratio', 'attention', 'scale', 'mask_fill', 'ffn',
        'spatial_attention', 'expansion', 'norm_bias', 'bias',
    }  # fmt: skip
    assert network['blocks'] == {
        'description': 'N_0 .. N_4, blocks per level.', 'type': 'array', 'default': [2, 4, 6, 6, 8],
        'items': {'minimum': 1, 'maximum': 1000},
    }  # fmt: skip
    assert 'AdamW' in SCHEMA['definitions']['optimiser']['properties']['type']['anyOf'][0]['enum']
