"""The networks and losses in configs of mmengine, up to a training by its Runner."""

import multiprocessing

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import DATASETS, METRICS, MODELS, Registry
from mmengine.runner import Runner, load_checkpoint
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils.data import Dataset

from ddsa_arch import Derainer
from ddsa_arch.archs.weights import write_weights
from ddsa_arch.errors import InputError
from ddsa_arch.integrations.mmengine import DerainRestorer, install
from ddsa_arch.runners.cli import main as ddsa

OURS = {
    name: part
    for known in (ARCH_REGISTRY, LOSS_REGISTRY)
    for name, part in known
    if part.__module__.startswith('ddsa_arch.')
}
PARTS = {'DDSA', 'SEFN', 'MAM', 'HFN'}  # of networks, which need to be told their width
NETWORKS = sorted(OURS.keys() & ARCH_REGISTRY.keys() - PARTS)
TINY = {'type': 'DDSANet', 'dim': 8, 'blocks': [1, 1, 1, 1, 1]}
STEPS = 5


@pytest.fixture(autouse=True, scope='module')
def installed():
    install()


class Taken(nn.Module):
    """Something else under one of our names."""


def test_every_network_and_loss_is_registered_once():
    registry = Registry('model', scope='trial')
    assert install(registry) == sorted([*OURS, 'DerainRestorer'])
    assert registry.module_dict == OURS | {'DerainRestorer': DerainRestorer}
    assert {'DDSANet', 'Restormer', 'DerainL1Loss', 'EdgeLoss'} <= registry.module_dict.keys()
    assert 'SwinIR' not in registry.module_dict  # BasicSR's own
    assert install(registry) == []


def test_a_name_that_is_taken_is_left_alone():
    registry = Registry('model', scope='trial')
    registry.register_module(name='EdgeLoss', module=Taken)
    assert install(registry) == sorted([*OURS.keys() - {'EdgeLoss'}, 'DerainRestorer'])
    assert registry.get('EdgeLoss') is Taken


def test_mmengine_knows_them():
    assert MODELS.get('DDSANet') is OURS['DDSANet']
    assert isinstance(MODELS.build({'type': 'SSIMLoss', 'loss_weight': 0.5}), OURS['SSIMLoss'])


@pytest.mark.parametrize('name', NETWORKS)
def test_a_network_is_the_one_that_basicsr_builds(name):
    with torch.device('meta'):
        net, wanted = MODELS.build({'type': name}), build_network({'type': name})
    assert type(net) is type(wanted)
    shapes = [{key: value.shape for key, value in one.state_dict().items()} for one in (net, wanted)]
    assert shapes[0] == shapes[1]


def test_a_place_serves_as_name_without_installing():
    for name in ('ddsa_arch.archs.ddsanet_arch.DDSANet', 'ddsa_arch.losses.edge_loss.EdgeLoss'):
        assert Registry('model', scope='trial').get(name) is OURS[name.rpartition('.')[2]]


def test_modes_of_the_restorer():
    torch.manual_seed(0)
    losses = {'pixel': {'type': 'DerainL1Loss'}, 'edge': {'type': 'EdgeLoss', 'loss_weight': 0.05}}
    model = DerainRestorer(TINY, losses)
    rain, clean = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    assert torch.equal(model(rain), model.network(rain))

    wanted = {f'loss_{name}': loss(model.network(rain), clean) for name, loss in model.losses.items()}
    samples = [BaseDataElement(gt_img=image) for image in clean]
    for inputs, targets in ((rain, clean), (list(rain), list(clean)), (rain, BaseDataElement(gt_img=clean)),
                            (list(rain), samples)):  # fmt: skip
        found = model(inputs, targets, mode='loss')
        assert found.keys() == {'loss_pixel', 'loss_edge'}
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)

    with pytest.raises(InputError, match='needs the clean images'):
        model(rain, mode='loss')
    with pytest.raises(InputError, match="'train' is not known; choose one of 'tensor', 'loss', 'predict'"):
        model(rain, mode='train')


def test_images_of_all_sizes_are_predicted():
    model = DerainRestorer(TINY)
    images = [torch.rand(3, 37, 53), torch.rand(3, 16, 8)]
    predictions = model(images, mode='predict')
    assert [one.keys() for one in predictions] == [{'pred_img'}] * 2
    assert [one['pred_img'].shape for one in predictions] == [image.shape for image in images]
    assert all(one['pred_img'].min() >= 0 and one['pred_img'].max() <= 1 for one in predictions)
    together = model(images, images, mode='predict')
    assert all(torch.equal(one['gt_img'], image) for one, image in zip(together, images, strict=True))


def test_losses_are_computed_in_float32_under_autocast():
    model = DerainRestorer({'type': 'MPRNet', 'n_feat': 8, 'scale_unetfeats': 4, 'scale_orsnetfeats': 4, 'num_cab': 1,
                            'reduction': 1})  # fmt: skip
    with torch.autocast('cpu', torch.bfloat16):
        (loss,) = model(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16), mode='loss').values()
    assert loss.dtype == torch.float32
    assert loss.isfinite()


class Pairs(Dataset):
    """Random images, and the same a little brighter."""

    def __init__(self, size=16):
        generator = torch.Generator().manual_seed(0)
        self.images = 0.8 * torch.rand(4, 3, size, size, generator=generator)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {'inputs': self.images[index], 'data_samples': self.images[index] + 0.2}


class MeanError(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [(one['pred_img'] - one['gt_img']).abs().mean().item() for one in data_samples]

    def compute_metrics(self, results):
        return {'error': sum(results) / len(results)}


@pytest.fixture
def runner_surroundings():
    """What a Runner changes for the whole process is put back."""
    start_method, threads = multiprocessing.get_start_method(allow_none=True), cv2.getNumThreads()
    DATASETS.register_module(name='DerainTestPairs', module=Pairs)
    METRICS.register_module(name='DerainTestError', module=MeanError)
    yield
    del DATASETS.module_dict['DerainTestPairs'], METRICS.module_dict['DerainTestError']
    multiprocessing.set_start_method(start_method, force=True)
    cv2.setNumThreads(threads)


CONFIG = f"""
model = dict(
    type='ddsa_arch.integrations.mmengine.DerainRestorer',
    network=dict(type='DDSANet', dim=8, blocks=[1, 1, 1, 1, 1]),
    losses=dict(pixel=dict(type='DerainCharbonnierLoss'), ssim=dict(type='SSIMLoss', loss_weight=0.1)))
train_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dict(type='DerainTestPairs'),
    sampler=dict(type='InfiniteSampler', shuffle=True, seed=0))
train_cfg = dict(type='IterBasedTrainLoop', max_iters={STEPS}, val_interval={STEPS})
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3), clip_grad=dict(max_norm=1.0))
param_scheduler = dict(type='CosineAnnealingLR', T_max={STEPS}, by_epoch=False)
val_dataloader = dict(
    batch_size=1, num_workers=0, dataset=dict(type='DerainTestPairs', size=21),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_cfg = dict(type='ValLoop')
val_evaluator = dict(type='DerainTestError')
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='CheckpointHook', interval={STEPS}, by_epoch=False))
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
"""


def test_the_runner_of_mmengine_trains_and_validates(tmp_path, runner_surroundings):
    (tmp_path / 'config.py').write_text(CONFIG)
    config = Config.fromfile(tmp_path / 'config.py')
    config.work_dir = str(tmp_path / 'work')
    runner = Runner.from_cfg(config)
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    runner.train()

    assert runner.iter == STEPS
    losses, _ = runner.message_hub.get_scalar('train/loss').data
    assert len(losses) == STEPS
    assert losses[-1] < losses[0]
    after = runner.model.state_dict()
    assert [name for name, value in before.items() if torch.equal(value, after[name])] == []
    assert runner.message_hub.get_scalar('train/loss_ssim').current() < 0
    assert 0 < runner.message_hub.get_scalar('val/error').current() < 0.5

    saved = torch.load(tmp_path / 'work' / f'iter_{STEPS}.pth', weights_only=False)
    assert saved['state_dict'].keys() == before.keys()

    # what mmengine saved derains: without a word about the network, which its config tells
    path, photo = tmp_path / 'work' / f'iter_{STEPS}.pth', np.random.default_rng(0).random((21, 37, 3), np.float32)
    derained = Derainer(path, device='cpu')(photo)
    runner.model.eval()
    (wanted,) = runner.model(torch.from_numpy(photo).permute(2, 0, 1)[None], mode='predict')
    assert np.abs(derained - wanted['pred_img'].permute(1, 2, 0).numpy()).max() < 1e-5
    cv2.imwrite(str(tmp_path / 'photo.png'), (photo * 255).astype(np.uint8))
    assert ddsa(['derain', str(tmp_path / 'photo.png'), '-o', str(tmp_path / 'out'), '-w', str(path)]) == 0
    assert (tmp_path / 'out' / 'photo.png').is_file()


@pytest.mark.parametrize('name', ['w.pth', 'w.safetensors', 'trained.pth'])
@pytest.mark.parametrize('whole', [False, True])
def test_weights_of_ours_load_by_mmengine(tmp_path, name, whole):
    """Into the network, and into the model that holds it; strictly, so that no name is missing or left over."""
    torch.manual_seed(0)
    section = {**TINY, 'attention': 'sparse'}
    source = MODELS.build(dict(section))
    write_weights(tmp_path / name, source.state_dict(), section, {})
    if name == 'trained.pth':
        state = source.state_dict()
        torch.save({'params': state, 'state_dict': state, 'network_g': section}, tmp_path / name)
    torch.manual_seed(1)
    target = DerainRestorer(dict(section)) if whole else MODELS.build(dict(section))
    load_checkpoint(target, str(tmp_path / name), map_location='cpu', strict=True)
    found = target.network.state_dict() if whole else target.state_dict()
    assert all(torch.equal(found[key], value) for key, value in source.state_dict().items())
