"""Every key of an option file: its type, default, unit and meaning, in one place.

The loader checks option files against it, and options/README.md is written from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ddsa_arch.files.name_rules import MATCHES
from ddsa_arch.models.restore import PLAIN
from ddsa_arch.ops.patches import AUGMENTATIONS
from ddsa_arch.ops.tiling import TILE_WEIGHTS

REQUIRED = object()


@dataclass(frozen=True)
class Range:
    """The numbers that an option takes.

    Args:
        minimum: the smallest.
        above: they are larger than this.
        maximum: the largest.
        below: they are smaller than this.
        count: how many of them there are, where a list is wanted.
    """

    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    count: int | None = None

    def problem(self, value: Any) -> str:
        """Say what is wrong with a number, or with any number of a list; '' if nothing is."""
        if isinstance(value, list | tuple):
            if self.count is not None and len(value) != self.count:
                return f'has {len(value)} numbers, wanted {self.count}'
            return next((found for entry in value if (found := self.problem(entry))), '')
        if isinstance(value, bool) or not isinstance(value, int | float):
            return ''  # its type is checked elsewhere
        if not -math.inf < value < math.inf:
            return 'is no finite number'
        if self.minimum is not None and value < self.minimum:
            wrong = f'is below {self.minimum:g}'
        elif self.above is not None and value <= self.above:
            wrong = f'is not above {self.above:g}'
        elif self.maximum is not None and value > self.maximum:
            wrong = f'is above {_written(self.maximum)}'
        elif self.below is not None and value >= self.below:
            wrong = f'is not below {_written(self.below)}'
        else:
            return ''
        bounds = [b for b in (self.minimum, self.above, self.maximum, self.below) if b is not None]
        return wrong if len(bounds) == 1 else f'{wrong}, wanted {self}'

    def __str__(self) -> str:
        low = self.minimum if self.minimum is not None else self.above
        high = self.maximum if self.maximum is not None else self.below
        not_below, not_above = self.minimum is not None, self.maximum is not None
        if low is None:
            return '' if high is None else f'x {"<=" if not_above else "<"} {_written(high)}'
        if high is None:
            return f'x {">=" if not_below else ">"} {low:g}'
        return f'{low:g} {"<=" if not_below else "<"} x {"<=" if not_above else "<"} {_written(high)}'

    def json(self) -> dict[str, float]:
        """Return the words of JSON Schema for one number."""
        words = {
            'minimum': self.minimum, 'exclusiveMinimum': self.above,
            'maximum': self.maximum, 'exclusiveMaximum': self.below,
        }  # fmt: skip
        return {word: bound for word, bound in words.items() if bound is not None}


def _written(bound: float) -> str:
    return f'{bound:,}' if isinstance(bound, int) else f'{bound:g}'


@dataclass(frozen=True)
class Key:
    """One option.

    Args:
        kind: the Python type, or several; an int serves where a float is wanted.
        default: taken where the key is absent; REQUIRED refuses the file, None leaves the option off.
        doc: one sentence.
        unit: such as ``px``.
        choices: the values allowed, if few; the words allowed, where a number may stand too.
        minimum, above, maximum, below: the numbers allowed, see ``Range``.
        word: the text becomes part of the name of a file or a folder.
    """

    kind: type | tuple[type, ...]
    default: Any
    doc: str
    unit: str = ''
    choices: tuple[Any, ...] = ()
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    word: bool = False

    @property
    def range(self) -> Range:
        return Range(self.minimum, self.above, self.maximum, self.below)

    @property
    def kinds(self) -> tuple[type, ...]:
        return self.kind if isinstance(self.kind, tuple) else (self.kind,)


@dataclass(frozen=True)
class Part:
    """A section ``{type: NAME, ...}`` that builds a registered part; its other keys are the part's arguments.

    Args:
        registry: ``arch``, ``loss``, ``metric``, ``optimiser`` or ``scheduler``.
        doc: one sentence.
        many: a list of such sections is taken too.
        required: whether the section must be there.
    """

    registry: str
    doc: str
    many: bool = False
    required: bool = False


@dataclass(frozen=True)
class Named:
    """A section whose keys the user chooses, all with the same content."""

    content: Any
    doc: str
    pattern: str = r'.+'


Section = Mapping[str, Any]

DATASET: Section = {
    'name': Key(str, REQUIRED, 'Name of the set, in logs and result files.', word=True),
    'type': Key(str, 'PairedRainDataset', 'Pairs of images; RenderedRainDataset renders rain on clean ones.'),
    'dataroot_lq': Key(str, None, 'Rainy images: a folder or an X.lmdb, relative to where the command runs.'),
    'dataroot_gt': Key(str, None, 'Clean images, likewise; may be absent in tests without targets.'),
    'match': Key(
        str, 'auto', 'Which clean image belongs to which rainy one; told by the names with auto.', choices=MATCHES
    ),
    'pairs_file': Key(str, None, 'Text file of pairs, a rainy and a clean path a line, below dataroot_lq or the list.'),
    'dataroot_streaks': Key(str, None, 'Streak layers for rendered rain, likewise; drawn streaks when absent.'),
    'dataroot_real': Key(str, None, 'Rainy photos without targets, likewise, for SemiRainDataset.'),
    'exclude_keys': Key(str, None, 'Text file of images to leave out, one name without suffix a line; likewise.'),
    'streak_scale': Key(list, None, 'Size of rendered streaks over that of the style, drawn from [LOW, HIGH].'),
    'streak_density': Key(list, None, 'Number of drawn streaks over that of the style, drawn from [LOW, HIGH].'),
    'veil': Key(list, None, 'Haze of distant rain at the farthest point, drawn from [LOW, HIGH] within 0 and 1.'),
    'gain': Key(list, None, 'Factor on the brightness of clean photos, drawn from [LOW, HIGH].'),
    'gamma': Key(list, None, 'Exponent of clean photos, drawn from [LOW, HIGH].'),
    'jpeg_quality': Key(list, None, 'JPEG quality of images with rendered rain, drawn from [LOW, HIGH].'),
    'drawn_share': Key(float, None, 'Share of samples with drawn streaks where there are streak layers.', minimum=0),
    'rainless_share': Key(float, None, 'Share of rendered samples without rain: input = target.', minimum=0),
    'structures_share': Key(float, None, 'Share of samples with fences, lattices, poles, bars, joints.', minimum=0),
    'style': Key(str, 'light', 'Of rendered rain.', choices=('light', 'heavy')),
    'io_backend': {
        'type': Key(str, None, 'As BasicSR names it; told from the data roots when absent.', choices=('disk', 'lmdb')),
    },
    'gt_size': Key(int, None, 'Side of a training patch; smaller images are extended by reflection.', 'px', minimum=1),
    'augment': Key(
        str,
        'flips',
        'How patches are flipped and turned; dihedral: in all 8 ways; dihedral9 is MPRNet, cycle_spin UMRL.',
        choices=AUGMENTATIONS,
    ),
    'use_hflip': Key(bool, True, 'Random horizontal flips in training, with augment: flips.'),
    'use_vflip': Key(bool, True, 'Random vertical flips in training, with augment: flips.'),
    'cache_images': Key(bool, False, 'Keep decoded images in memory; each loading process keeps its own.'),
    'seed': Key(int, None, 'Seed of the patches and flips; manual_seed when absent.', minimum=0, below=2**32),
    'batch_size_per_gpu': Key(int, 1, 'Patches in one step of one process.', 'images', minimum=1),
    'num_worker_per_gpu': Key(int, 0, 'Processes that load images; 0 loads in the training process.', minimum=0),
    'dataset_enlarge_ratio': Key(int, 1, 'Passes through the images that count as one epoch.', minimum=1),
    'persistent_workers': Key(bool, False, 'Keep the loading processes between epochs.'),
    'pin_memory': Key(bool, False, 'Load into page-locked memory, which speeds copies to a GPU.'),
    'prefetch_mode': Key(str, None, 'cuda copies the next batch to the GPU ahead of time.', choices=('cuda',)),
    'phase': Key(str, None, 'Set by the loader.'),
    'scale': Key(int, None, 'Set by the loader.'),
}

OF_LOADERS = (
    'name', 'batch_size_per_gpu', 'num_worker_per_gpu', 'dataset_enlarge_ratio', 'persistent_workers', 'pin_memory',
    'prefetch_mode', 'phase', 'scale',
)  # fmt: skip
# A set of a mixture: what it does not say is inherited, so nothing has a default
PART_OF_MIXTURE: Section = {
    'weight': Key(float, 1.0, "The set's share of the samples, over the sum of all weights.", minimum=0),
    **{
        name: replace(key, default=None) if isinstance(key, Key) and name != 'type' else key
        for name, key in DATASET.items()
        if name not in OF_LOADERS
    },
}
DATASET = {
    **DATASET,
    'sets': Named(PART_OF_MIXTURE, 'The sets of a MixtureDataset by name; a list of sets with names does too.', r'\w+'),
}

RESTORE: Section = {
    'size_multiple': Key(
        int, None, 'Of height and width; told by the network when absent.', 'px', minimum=1, maximum=1024
    ),
    'pad': Key(
        str, PLAIN.pad, 'Extend by reflection, or put into a black square (Uformer).', choices=('reflect', 'square')
    ),
    'tile_size': Key(int, None, 'Derain in overlapping tiles of this side; absent for whole images.', 'px', minimum=1),
    'tile_overlap': Key(int, PLAIN.tile_overlap, 'Pixels that neighbouring tiles share.', 'px', minimum=0),
    'tile_weight': Key(
        str, PLAIN.tile_weight,
        'How tiles are averaged: alike, the centre most (IDT), falling to the edges; or the first alone (NeRD-Rain).',
        choices=TILE_WEIGHTS,
    ),
    'batch_statistics': Key(bool, PLAIN.batch_statistics, 'Batch norm by the image itself (UMRL, DID-MDN).'),
    'cycle_spin': Key(
        int, None, 'Mean over cyclic shifts by multiples of this (UMRL: 50); absent for none.', 'px', minimum=1
    ),
    'output_range': Key(
        str, PLAIN.output_range, 'Clamp to [0, 1], or stretch each image to it (UMRL).', choices=('clamp', 'stretch')
    ),
    'rounding': Key(str, PLAIN.rounding, 'To 8 bits: to the nearest, or downwards.', choices=('round', 'truncate')),
}  # fmt: skip

SCORE_NAME = r'\w[\w.+-]{0,63}'  # a column of a table
METRIC = Part('metric', 'A registered metric with its arguments; `better: higher` or `lower`.')

OPTIONS: Section = {
    'name': Key(str, REQUIRED, 'Name of the experiment: its folder under experiments/ or results/.', word=True),
    'model_type': Key(str, 'DerainModel', 'Registered model class that trains and tests the network.'),
    'scale': Key(int, 1, 'Output over input size; 1 for deraining.', choices=(1,)),
    'num_gpu': Key(
        (int, str), 'auto', 'GPUs of one process; 0 is the CPU, auto takes what is there.', choices=('auto',), minimum=0
    ),
    'manual_seed': Key(int, 0, 'Seed of weights, order, patches and flips.', minimum=0, below=2**32),
    'channels_last': Key(bool, False, 'Keep channels next to each other in memory; faster on CPUs and tensor cores.'),
    'fast': Key(bool, True, 'Run the fast execution of networks that have one; the same numbers to rounding.'),
    'tf32': Key(bool, False, 'On NVIDIA GPUs, multiply float32 matrices in TF32: faster, 10 bits of mantissa.'),
    'deterministic': Key(bool, False, 'Algorithms that give the same bits in every run, on a GPU too; slower there.'),
    'cudnn_benchmark': Key(bool, True, 'On NVIDIA GPUs, time the algorithms of each new shape and take the fastest.'),
    'keep_memory': Key(bool, True, 'On a CPU under Linux, let freed memory stay with the process; 1.4 times faster.'),
    'threads': Key(int, None, "Threads that compute on the CPU; none is torch's choice, one for each core.", minimum=1),
    'imports': Key(list, None, 'Modules of your own, imported first, which register networks or other parts.'),
    'find_unused_parameters': Key(bool, False, 'For networks that leave parameters unused, in several processes.'),
    'dist_params': {
        'port': Key(int, None, 'Port of the first process under Slurm.', minimum=1, maximum=65_535),
        'backend': Key(
            str, None, 'Taken as BasicSR has it, and not needed: nccl on GPUs, gloo on CPUs.', choices=('nccl', 'gloo')
        ),
        'timeout': Key(
            float,
            30.0,
            'How long a process waits for the others before the run ends.',
            'minutes',
            minimum=0.01,
            maximum=525_600,
        ),
    },
    'datasets': Named(DATASET, 'Image sets: train, val, val_2, test, test_2 ...', r'(train|val|test)(_\w{1,64})?'),
    'network_g': Part('arch', 'The network and its arguments.', required=True),
    'path': {
        'pretrain_network_g': Key(str, None, 'Weight file to start from or to test.'),
        'strict_load_g': Key(bool, True, 'Refuse a weight file that does not fit in every name and shape.'),
        'param_key_g': Key(str, 'params_ema', 'Which weights of the file; averaged ones by default, if it has any.'),
        'resume_state': Key(str, None, 'Training state to continue from; --auto_resume finds the newest.'),
        'ignore_resume_networks': Key(list, None, 'Networks whose weights a resume leaves alone.'),
    },
    'train': {
        'total_iter': Key(int, REQUIRED, 'Steps of the optimiser.', 'iterations', minimum=1, maximum=10**9),
        'warmup_iter': Key(
            int,
            -1,
            'Steps over which the learning rate rises linearly; -1 for none.',
            'iterations',
            minimum=-1,
            maximum=10**9,
        ),
        'optim_g': Part('optimiser', 'An optimiser of torch.optim and its arguments.', required=True),
        'scheduler': Part(
            'scheduler', "A schedule of mmengine in iterations, one of BasicSR's with restarts, or a list.", many=True
        ),
        'pixel_opt': Part('loss', 'Loss between output and target.'),
        'losses': Named(
            Part('loss', 'A registered loss and its arguments.'), 'Further losses by their name in logs.', r'\w{1,64}'
        ),
        'perceptual_opt': Part('loss', 'Perceptual loss of BasicSR, added to the pixel loss.'),
        'ema_decay': Key(
            float, 0.0, 'Decay of the averaged weights, which are then validated; 0 for none.', minimum=0, below=1
        ),
        'progressive': {
            'iterations': Key(list, None, 'Steps of each stage of progressive training; they sum up to total_iter.'),
            'patch_sizes': Key(list, None, 'Side of the patch in each stage, cut out of one of gt_size.', 'px'),
            'batch_sizes': Key(list, None, 'Patches in one batch of each stage, out of batch_size_per_gpu.', 'images'),
        },
        'amp': Key(
            str,
            'off',
            'Mixed precision; attention scores, norms and the loss stay float32.',
            choices=('off', 'bf16', 'fp16'),
        ),
        'accumulate': Key(int, 1, 'Batches whose gradients make one step; each holds batch_size_per_gpu.', minimum=1),
        'compile': Key(
            bool, False, 'Compile the network with torch.compile: minutes at the start, then faster on GPUs.'
        ),
        'checkpoint_blocks': Key(
            bool, False, 'Compute activations anew in the backward pass: less memory, a third slower.'
        ),
        'max_skipped': Key(
            int,
            20,
            'Steps in a row that may be skipped for values that are not finite; then training stops.',
            minimum=1,
        ),
        'grad_clip': Key(float, None, 'Largest norm of the gradient; absent for no clipping.', above=0),
    },
    'val': {
        'val_freq': Key(int, 5000, 'Steps between two validations.', 'iterations', minimum=1),
        'save_img': Key(bool, False, 'Write the derained images as PNG.'),
        'suffix': Key(str, None, 'Added to the names of these images.', word=True),
        'pbar': Key(bool, False, 'Show a progress bar.'),
        'restore': RESTORE,
        'best': {
            'metric': Key(str, None, 'Metric of val.metrics whose mean over the sets picks net_g_best.pth.'),
            'weights': Key(dict, None, 'Weight of each validation set in this mean, by name; alike when absent.'),
            'patience': Key(int, None, 'Validations without a better mean after which the training ends.', minimum=1),
        },
        'metrics': Named(METRIC, 'Scores of sets with targets, by the name they have in results.', SCORE_NAME),
        'metrics_without_target': Named(
            METRIC, 'Scores of sets without targets: derain_niqe, derain_brisque.', SCORE_NAME
        ),
    },
    'logger': {
        'print_freq': Key(int, 100, 'Steps between two log lines.', 'iterations', minimum=1),
        'save_checkpoint_freq': Key(int, 5000, 'Steps between two saved states.', 'iterations', minimum=1),
        'keep_checkpoints': Key(
            int, None, 'How many of the newest states and weights stay, beside the best; absent for all.', minimum=1
        ),
        'progress': Key(
            str,
            'auto',
            'A live bar, plain lines, or a bar where the output is a terminal.',
            choices=('auto', 'bar', 'lines'),
        ),
        'strips': Key(int, 4, 'Validation images of each set that the summary shows over time.', 'images', minimum=0),
        'use_tb_logger': Key(bool, True, 'Write TensorBoard files to tb_logger/.'),
        'wandb': {
            'project': Key(str, None, 'Project on Weights & Biases; absent for none.'),
            'resume_id': Key(str, None, 'Run there to continue.'),
        },
    },
}

NOT_WORDS = 'YAML reads yes, no, on and off as truth values; write the word in quotes'
LARGEST_COUNT = 1000  # blocks or stages of a network: building more of them would not end
COUNTS = (
    'blocks', 'dec_blk_nums', 'depth', 'depths', 'enc_blk_nums', 'middle_blk_num', 'num_block', 'num_blocks', 'num_cab',
    'num_refinement_blocks', 'num_res', 'rcabs', 'stages', 'units',
)  # fmt: skip
# arguments of registered parts, by their names
RANGES: Mapping[str, Mapping[str, Range]] = {
    'optimiser': {
        'lr': Range(above=0, maximum=1),
        'betas': Range(minimum=0, below=1, count=2),
        'eps': Range(above=0, maximum=1),
        'weight_decay': Range(minimum=0, maximum=10),
        'momentum': Range(minimum=0, below=1),
    },
    'scheduler': {
        'begin': Range(minimum=0),
        'end': Range(minimum=1),
        'T_max': Range(minimum=1),
        'eta_min': Range(minimum=0, maximum=1),
        'step_size': Range(minimum=1),
        'milestones': Range(minimum=0),
        'gamma': Range(above=0, maximum=1),
        'periods': Range(minimum=1),
        'restarts': Range(minimum=0),
        'restart_weights': Range(above=0),
    },
    'loss': {
        'loss_weight': Range(above=0, maximum=10**6),
        'output_weights': Range(minimum=0),
        'eps': Range(above=0, maximum=1),
        'perceptual_weight': Range(minimum=0),
        'style_weight': Range(minimum=0),
    },
    'metric': {'crop_border': Range(minimum=0)},
    'arch': {name: Range(minimum=0, maximum=LARGEST_COUNT) for name in COUNTS},
}
CHOICES: Mapping[str, Mapping[str, tuple[str, ...]]] = {'metric': {'better': ('higher', 'lower')}}
