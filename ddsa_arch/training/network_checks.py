"""Whether a network, its losses, optimiser and weights go together, found out with shapes alone before a run."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils.data import Dataset

from ddsa_arch.archs.building import build_network
from ddsa_arch.archs.weights import fit_weights, untrained_tensors
from ddsa_arch.errors import InputError, shown
from ddsa_arch.models.optimisation import build_optimiser, build_schedulers, check_steps
from ddsa_arch.models.progressive import ProgressivePatches
from ddsa_arch.models.restore import PLAIN, Recipe
from ddsa_arch.models.training_step import check_training_size
from ddsa_arch.training.schedules import check_schedules

TEST_SIZE = 64  # about the side of an image on which networks are tried, in pixels
PATCH_SIZE = 128  # of a set that names none
CHANNELS = 3
LOOKS_AT_VALUES = (DataDependentOutputException, DynamicOutputShapeException)  # of tensors that have shapes alone
NEEDS_BATCH = 'more than 1 value per channel'  # of torch's batch norm
LOADING_LOSSES = ('PerceptualLoss',)  # which BasicSR gives the weights of VGG


class StandIn(NamedTuple):
    """A network whose tensors have shapes alone, and the mode in which it computes shapes."""

    net: nn.Module
    mode: FakeTensorMode

    @classmethod
    def of(cls, network_g: dict[str, Any]) -> StandIn:
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        try:
            with mode:
                return cls(build_network(network_g), mode)
        except InputError as error:
            if not isinstance(error.__cause__, RuntimeError | TypeError):
                raise
            return cls(build_network(network_g), mode)  # it looks at values while it is built, or fails again


def check_training(options: dict[str, Any], net: nn.Module) -> None:
    """Build the optimiser and the schedules once for a stand-in, and look for the blocks to compute anew."""
    train = options['train']
    arguments = {k: v for k, v in train['optim_g'].items() if k != 'type'}
    dimensions = sorted({parameter.ndim for parameter in net.parameters() if parameter.requires_grad})
    if not dimensions:
        raise InputError(f'network_g: {type(net).__name__} has no weights, so there is nothing to train')
    parameters = [nn.Parameter(torch.zeros([2] * count)) for count in dimensions]
    optimiser = build_optimiser(train['optim_g']['type'], parameters, **arguments)
    schedulers = build_schedulers(optimiser, train['scheduler']) if train.get('scheduler') else []
    check_schedules(train)
    check_steps(optimiser, schedulers)
    if train.get('progressive'):
        _check_progressive(options)
    _check_patch_sizes(options, net)
    if train['checkpoint_blocks'] and not getattr(net, 'block_types', ()):
        raise InputError(
            f'train.checkpoint_blocks: {type(net).__name__} does not name its blocks; '
            'give its class `block_types = (Block,)`, or set checkpoint_blocks: false'
        )


def check_shapes(options: dict[str, Any], dataset: Dataset | None, stand_in: StandIn, recipe: Recipe = PLAIN) -> None:
    """Give the network an image, and the losses of a training what it makes of it.

    Shapes alone go through, nothing is computed; a network of the user's that looks at values is left to the run.

    Args:
        options: of the run.
        dataset: to train on; None in a test.
        stand_in: the network.
        recipe: by which a test prepares images.
    """
    net, name = stand_in.net, options['network_g']['type']
    losses = {} if dataset is None else _build_losses(options['train'])
    tile = getattr(net, 'fixed_size', None) or recipe.tile_size
    multiple = recipe.multiple(net)
    size = tile or -(-TEST_SIZE // multiple) * multiple
    key, batch, channels = 'network_g', 1, CHANNELS
    if dataset is not None:
        size = options['datasets']['train'].get('gt_size') or PATCH_SIZE
        batch_key, batch = _smallest_batch(options)
        key, batch, channels = 'datasets.train.gt_size', min(batch, 2), getattr(dataset, 'input_channels', CHANNELS)
    image, target = torch.Size((batch, channels, size, size)), torch.Size((batch, CHANNELS, size, size))
    net.train(dataset is not None)
    with stand_in.mode, torch.no_grad():
        try:
            outputs = net(torch.zeros(image))
        except ValueError as error:
            if dataset is not None and batch == 1 and NEEDS_BATCH in str(error):
                raise InputError(
                    f'{batch_key}: 1, and {name} has a batch norm that sees one number of each patch, which needs more '
                    'than one patch in training; set 2 or more'
                ) from error
            raise InputError(f'{key}: {size}: {error}' if dataset is not None else f'{key}: {name}: {error}') from error
        except Exception as error:
            if isinstance(error, LOOKS_AT_VALUES) or not _fails_in_earnest(options, image):
                return
            raise InputError(
                f'network_g: {name} takes no images of {channels} channels and {size} x {size} pixels (images are '
                f'RGB): {type(error).__name__}: {shown(str(error))}'
            ) from error
        _check_output(name, outputs, target)
        for loss_name, loss in losses.items():
            try:
                value = loss(outputs, torch.zeros(target))
            except ValueError as error:
                raise InputError(f'train.{loss_name}: {error}') from error
            except Exception:
                value = None  # it looks at values
            if value is None:
                continue
            if isinstance(value, torch.Tensor) and value.numel() != 1:
                raise InputError(
                    f'train.{loss_name}: {type(loss).__name__} gives {value.numel():,} numbers, wanted one; '
                    'set its reduction: mean'
                )


def _smallest_batch(options: dict[str, Any]) -> tuple[str, int]:
    """Return the fewest patches that a network gets at once in training, and the key that says so."""
    found = [('datasets.train.batch_size_per_gpu', options['datasets']['train'].get('batch_size_per_gpu') or 1)]
    sizes = (options['train'].get('progressive') or {}).get('batch_sizes', [])
    found += [('train.progressive.batch_sizes', size) for size in sizes]
    return min(found, key=lambda entry: entry[1])


def _fails_in_earnest(options: dict[str, Any], image: torch.Size) -> bool:
    """Whether a network fails with numbers too, and not for having shapes alone."""
    try:
        with torch.no_grad():
            build_network(options['network_g'])(torch.zeros(image))
    except Exception:
        return True
    return False


def _check_output(name: str, outputs: Any, wanted: torch.Size) -> None:
    tensors = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    if not isinstance(tensors, list | tuple) or not all(isinstance(t, torch.Tensor) for t in tensors) or not tensors:
        raise InputError(
            f'network_g: {name} gives {shown(type(outputs).__name__)}, wanted an image, or a list whose last entry is '
            'the final one'
        )
    found = tensors[-1].shape
    if found != wanted:
        raise InputError(
            f'network_g: {name} turns images of {_size(wanted)} into {_size(found)}; wanted the same size, and '
            f'{CHANNELS} channels (images are RGB). Check its arguments'
        )


def _size(shape: torch.Size) -> str:
    if len(shape) != 4:
        return f'a tensor of shape {tuple(shape)}'
    return f'{shape[1]} channels and {shape[3]} x {shape[2]} pixels'


def _build_losses(train: dict[str, Any]) -> dict[str, nn.Module]:
    """The losses of a training by their names in ``train``, but for those that load a network from the internet."""
    sections = {key: train.get(key) for key in ('pixel_opt', 'perceptual_opt')}
    sections |= {f'losses.{name}': loss for name, loss in (train.get('losses') or {}).items()}
    losses = {}
    for name, section in sections.items():
        if section is None:
            continue
        kind = LOSS_REGISTRY.get(section['type'])
        if section['type'] in LOADING_LOSSES:
            continue
        try:
            built = kind(**{k: v for k, v in section.items() if k != 'type'})
        except Exception as error:  # whatever it does wrong with its arguments
            raise InputError(f'train.{name}: {section["type"]} cannot be built: {error or type(error)}') from error
        if isinstance(built, nn.Module):
            losses[name] = built
    return losses


def _check_patch_sizes(options: dict[str, Any], net: nn.Module) -> None:
    """Training pads nothing: patches have a size that the network takes."""
    multiple = getattr(net, 'size_multiple', 1)
    sizes = {'datasets.train.gt_size': [options['datasets']['train'].get('gt_size') or multiple]}
    sizes['train.progressive.patch_sizes'] = (options['train'].get('progressive') or {}).get('patch_sizes', [])
    for key, values in sizes.items():
        for size in values:
            check_training_size(key, net, size, size, multiple)


def _check_progressive(options: dict[str, Any]) -> None:
    """Stages of progressive training that go together, and fit into the batches of the loader."""
    train, data = options['train'], options['datasets']['train']
    stages = train['progressive']
    for key in ('iterations', 'patch_sizes', 'batch_sizes'):
        values = stages.get(key)
        if not values or not all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in values):
            raise InputError(f'train.progressive.{key}: {values!r}, wanted whole numbers above 0, one for each stage')
    ProgressivePatches(**stages)
    for key, available, name in (
        ('patch_sizes', data.get('gt_size'), 'gt_size'),
        ('batch_sizes', data['batch_size_per_gpu'], 'batch_size_per_gpu'),
    ):
        if available and max(stages[key]) > available:
            raise InputError(
                f'train.progressive.{key}: {max(stages[key])} is more than datasets.train.{name}: {available}; raise it'
            )
    if sum(stages['iterations']) != train['total_iter']:
        raise InputError(
            f'train.progressive.iterations: they sum up to {sum(stages["iterations"])}, '
            f'and train.total_iter is {train["total_iter"]}; make them equal'
        )


def check_weights(options: dict[str, Any], net: nn.Module) -> None:
    """Read the weights that the run begins with, and see whether they fit the network."""
    paths = options['path']
    path = paths.get('pretrain_network_g')
    if not path:
        return
    try:
        _, loaded = fit_weights(net, path, paths['param_key_g'], paths['strict_load_g'])
    except InputError as error:
        raise InputError(f'path.pretrain_network_g: {error}') from error
    if loaded.random and not options['is_train']:
        told = untrained_tensors(net, path, loaded)
        raise InputError(f'path.pretrain_network_g: {told}. A test needs all of them; set strict_load_g: true')
