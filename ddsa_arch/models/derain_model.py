"""The model class: SRModel with what today's training needs.

BasicSR's pipelines drive it; they pass ``validation(loader, current_iter=, tb_logger=, save_img=)`` and
``save(epoch=, current_iter=)`` by keyword, so the overrides keep these names.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import torch
from basicsr.losses import build_loss
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ddsa_arch.archs.building import sharing_tensors
from ddsa_arch.archs.weights import WeightFile, load_weights, read_weights, state_checksum, untrained_tensors
from ddsa_arch.errors import InputError
from ddsa_arch.fast import accelerate
from ddsa_arch.fast.memory_format import lay_out
from ddsa_arch.models.checkpoints import STATE_SUFFIX, prune, save_whole
from ddsa_arch.models.compiling import compile_for_training
from ddsa_arch.models.gathering import gather
from ddsa_arch.models.objectives import Objectives
from ddsa_arch.models.optimisation import beginning_of, build_optimiser, build_schedulers, plan_of
from ddsa_arch.models.progressive import ProgressivePatches
from ddsa_arch.models.protocol import protocol_block
from ddsa_arch.models.restore import Recipe
from ddsa_arch.models.results import ResultFiles
from ddsa_arch.models.training_step import TrainingStep, checkpoint_blocks
from ddsa_arch.models.validated_model import ValidatedModel
from ddsa_arch.registration import register

SCHEDULED = 'scheduled_lr'  # of an optimiser's group, during a warm-up
MAX_SKIPPED = 20  # steps in a row; the default of train.max_skipped


@register(MODEL_REGISTRY)
class DerainModel(ValidatedModel):
    """Trains and tests any registered network whose input and output are images of one size.

    Beyond SRModel: optimisers of torch.optim and schedules of mmengine by name, steps with mixed precision,
    accumulation, clipping and a guard (see TrainingStep), channels_last, compiled networks, networks with several
    outputs, averaged weights (EMA) with buffers, images of any size at test, validation shared by all processes,
    weight files that say how their network was built, atomic files, exact resumes, results as CSV and JSON.

    Args:
        opt: the options of an experiment, as ``ddsa_arch.options.loading`` resolves them.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        layout = torch.channels_last if opt.get('channels_last') else torch.contiguous_format
        self.memory_format = layout
        self.plan = plan_of(opt) if opt['is_train'] else {}
        self.beginning = beginning_of(opt) if opt['is_train'] else {}
        self.recipe = Recipe(**(opt['val'].get('restore') or {}))
        self.weight_file: WeightFile | None = None
        self.seen: Counter[str] = Counter()  # samples of each set of a mixture, of this process
        self.seen_by_all: dict[str, int] = {}
        self.loaded: dict[str, Any] | None = None
        super().__init__(opt)
        self.weight_file = None  # it is as large as the network
        folder = opt['path']['experiments_root'] if self.is_train else opt['path']['results_root']
        protocol = protocol_block(
            opt, self.get_bare_model(self.net_g), self.recipe, self.device, None if self.is_train else self.loaded
        )
        self.results = ResultFiles(Path(folder) / 'validation' if self.is_train else folder, protocol)
        self.validated_at: dict[str, Any] = {}

    # --- set-up ----------------------------------------------------------------------------------------------

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Move a network to its device, give it its fast execution, and wrap it for several processes or GPUs.

        What is compiled is the network as built, and blocks that compute their activations anew keep it for
        training alone: validation runs on a second network of the same tensors then.
        """
        net = lay_out(net.to(self.device), self.memory_format)
        checkpointed = self.is_train and self.opt['train'].get('checkpoint_blocks')
        compiled = self.is_train and self.opt['train'].get('compile')
        self.net_for_inference = None
        if checkpointed or compiled:
            self.net_for_inference = sharing_tensors(net)
            self._accelerate(self.net_for_inference)
        if not compiled:
            self._accelerate(net)
        if checkpointed:
            checkpoint_blocks(net)
        if compiled:
            compile_for_training(net)
        if self.opt['dist']:
            devices = [torch.cuda.current_device()] if self.device.type == 'cuda' else None
            unused = self.opt.get('find_unused_parameters', False)
            return DistributedDataParallel(net, device_ids=devices, find_unused_parameters=unused)
        return DataParallel(net) if self.opt['num_gpu'] > 1 else net

    def _accelerate(self, net: nn.Module) -> None:
        if not self.opt.get('fast', True):
            return
        done = accelerate(net)
        if done.kept:
            get_root_logger().warning(f'Fast execution: {done}')

    @master_only
    def print_network(self, net: nn.Module) -> None:
        """Log the network's name and size; its structure is in the option file."""
        net = self.get_bare_model(net)
        parameters = sum(p.numel() for p in net.parameters())
        get_root_logger().info(f'Network: {type(net).__name__}, {parameters:,d} parameters')

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = 'params'
    ) -> None:
        """Load a weight file; InputError names what does not fit."""
        if self.weight_file is None or self.weight_file.path != Path(load_path):
            self.weight_file = read_weights(load_path)  # the averaged weights come from the same file
        bare = self.get_bare_model(net)
        loaded = load_weights(bare, self.weight_file, param_key, strict)
        get_root_logger().info(f'Loaded {load_path} ({loaded.key or "its root"}): {loaded.taken} tensors')
        if loaded.random:
            told = untrained_tensors(bare, load_path, loaded)
            if not self.is_train:
                raise InputError(f'path.pretrain_network_g: {told}. A test needs all of them; set strict_load_g: true')
            get_root_logger().warning(told)
        self.loaded = {
            'file': str(load_path),
            'sha256': self.weight_file.sha256,
            'key': loaded.key,
            'tensors_sha256': state_checksum(bare.state_dict()),
        }

    def init_training_settings(self) -> None:
        super().init_training_settings()
        options, seed = self.opt['train'], self.opt['manual_seed'] or 0
        self.step = TrainingStep(self.net_g, self.optimizer_g, options, self.device, seed, self.opt['rank'])
        further = {name: build_loss(o).to(self.device) for name, o in (options.get('losses') or {}).items()}
        self.objectives = Objectives(self.cri_pix, self.cri_perceptual, further)
        self.best = self._best_weights()
        self.progressive = None
        if options.get('progressive'):
            drawn_from = {'seed': seed, 'rank': self.opt['rank']}
            self.progressive = ProgressivePatches(**options['progressive'], **drawn_from, parts=self.step.parts)
        self.skipped = self.skipped_in_a_row = 0
        if self.ema_decay > 0:
            self._accelerate(lay_out(self.net_g_ema, self.memory_format))

    def get_optimizer(self, optim_type: str, params: list, lr: float, **kwargs: Any) -> torch.optim.Optimizer:
        return build_optimiser(optim_type, params, lr=lr, **kwargs)

    def setup_schedulers(self) -> None:
        options = self.opt['train'].get('scheduler')
        if options:
            self.schedulers = [s for o in self.optimizers for s in build_schedulers(o, options)]

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Take a step of the schedules, and let the learning rate rise linearly while the warm-up lasts.

        BasicSR's leaves the rate of the warm-up in the optimiser, from which schedules then compute the next one.
        Here they find their own, kept in the optimiser's groups, and so in its state.
        """
        groups = [group for optimiser in self.optimizers for group in optimiser.param_groups]
        for group in groups:
            group['lr'] = group.pop(SCHEDULED, group['lr'])
        if current_iter > 1:
            for scheduler in self.schedulers:
                scheduler.step()
        if current_iter < warmup_iter:
            for group in groups:
                group[SCHEDULED] = group['lr']
                group['lr'] = group['initial_lr'] / warmup_iter * current_iter

    # --- training --------------------------------------------------------------------------------------------

    def feed_data(self, data: dict[str, Any]) -> None:
        self.names = list(data.get('lq_path', ()))
        if self.is_train:
            self.seen.update(data.get('set', ()))

        def place(image: Tensor) -> Tensor:
            return image.to(self.device, non_blocking=True, memory_format=self.memory_format)

        self.lq = place(data['lq'])
        self.gt = place(data['gt']) if 'gt' in data else None

    def optimize_parameters(self, current_iter: int) -> None:
        assert self.gt is not None  # in training every sample has a target
        if self.progressive:
            self.lq, self.gt = self.progressive.cut(current_iter, self.lq, self.gt)
        result = self.step.run(current_iter, self.lq, self.gt, self.objectives)
        self.output, self.losses = result.output, result.losses
        if not result.taken:
            self._skip(current_iter)
            return
        self.skipped_in_a_row = 0
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)

    def _skip(self, current_iter: int) -> None:
        """Tell of a step that was not taken; stop when there are too many in a row."""
        self.skipped += 1
        self.skipped_in_a_row += 1
        names = sorted({name for part in gather(self.names) for name in part})
        message = (
            f'iteration {current_iter}: a loss or the gradient is not finite, so the step was skipped '
            f'({self.skipped} so far, {self.skipped_in_a_row} in a row); images: {", ".join(names)}'
        )
        get_root_logger().warning(message)
        if self.skipped_in_a_row >= self.opt['train'].get('max_skipped', MAX_SKIPPED):
            raise InputError(
                f'{message}. Training stops here (train.max_skipped); the weights are those before these steps. '
                'Look at the images, lower the learning rate, or set grad_clip'
            )

    def get_current_log(self) -> OrderedDict[str, float]:
        """The losses of the newest iteration, averaged over processes; read only when a line is logged."""
        return self.reduce_loss_dict(OrderedDict((k, v.detach()) for k, v in self.losses.items()))

    @torch.no_grad()
    def model_ema(self, decay: float = 0.999) -> None:
        """Move the averaged weights towards the current ones; buffers are copied."""
        net = self.get_bare_model(self.net_g)
        averaged = dict(self.net_g_ema.named_parameters())
        current = dict(net.named_parameters())
        torch._foreach_lerp_([averaged[k] for k in current], list(current.values()), 1 - decay)
        buffers = dict(net.named_buffers())
        for name, buffer in self.net_g_ema.named_buffers():
            buffer.copy_(buffers[name])

    # --- files -----------------------------------------------------------------------------------------------

    def save(self, epoch: int, current_iter: int) -> None:
        """Write weights and a training state; broken numbers are never written over sound ones."""
        nets = {'the network': self.net_g} | ({'its average': self.net_g_ema} if self.ema_decay > 0 else {})
        for name, net in nets.items():
            if not all(bool(p.isfinite().all()) for p in net.parameters()):
                raise InputError(
                    f'the weights of {name} are not finite any more, so none were saved; those saved before are sound. '
                    'Lower train.optim_g.lr, or set train.grad_clip, and go on with --auto_resume'
                )
        self.seen_by_all = self.samples_seen()
        if seen := self.seen_by_all:
            told = ', '.join(f'{name} {count / sum(seen.values()):.1%}' for name, count in seen.items())
            get_root_logger().info(f'Samples of each set so far: {told}')
        super().save(epoch, current_iter)

    def samples_seen(self) -> dict[str, int]:
        """Return how many samples of each set of a mixture all processes have trained on."""
        total: Counter[str] = Counter()
        for part in gather(self.seen):
            total.update(part)
        return dict(sorted(total.items()))

    def save_weights(self, label: str) -> None:
        """Write ``net_g_LABEL.pth``, with the averaged weights if there are any."""
        if self.ema_decay > 0:
            self.save_network([self.net_g, self.net_g_ema], 'net_g', label, ['params', 'params_ema'])
        else:
            self.save_network(self.net_g, 'net_g', label)

    @master_only
    def save_network(
        self,
        net: nn.Module | list[nn.Module],
        net_label: str,
        current_iter: int | str,
        param_key: str | list[str] = 'params',
    ) -> None:
        """Write ``{param_key: state dict, network_g: how to build the network}``, whole or not at all.

        The last of the state dicts also stands under ``state_dict``, where mmengine and other toolboxes look for it.
        """
        nets = net if isinstance(net, list) else [net]
        keys = param_key if isinstance(param_key, list) else [param_key]
        checkpoint = {
            key: {k: v.detach().cpu().contiguous() for k, v in self.get_bare_model(n).state_dict().items()}
            for key, n in zip(keys, nets, strict=True)
        }
        checkpoint['state_dict'] = checkpoint[keys[-1]]
        checkpoint['network_g'] = self.opt['network_g']
        label = 'latest' if current_iter == -1 else current_iter
        save_whole(checkpoint, Path(self.opt['path']['models']) / f'{net_label}_{label}.pth')

    @master_only
    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Write what a resume needs beside the weights, whole or not at all, and remove old states."""
        if current_iter == -1:
            return
        state = {
            'epoch': epoch,
            'iter': current_iter,
            'optimizers': [o.state_dict() for o in self.optimizers],
            'schedulers': [s.state_dict() for s in self.schedulers],
            'best_metric_results': self.best_results(),
            'skipped': self.skipped,
            'seen': self.seen_by_all,
            'plan': self.plan,
            'beginning': self.beginning,
        }
        if self.step.scaler:
            state['scaler'] = self.step.scaler.state_dict()
        if self.best is not None:
            state['best'] = self.best.state()
        if carried := self.objectives.state():
            state['losses'] = carried
        folder = Path(self.opt['path']['training_states'])
        save_whole(state, folder / f'{current_iter}{STATE_SUFFIX}')
        keep = self.opt['logger'].get('keep_checkpoints')
        if keep:
            best = [record['iter'] for metrics in self.best_results().values() for record in metrics.values()]
            prune(self.opt['path']['models'], folder, keep, best)

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """Take up optimisers, schedules, the record of best scores and what else ``save_training_state`` wrote."""
        super().resume_training(resume_state)
        if resume_state.get('best_metric_results'):
            self.best_metric_results = resume_state['best_metric_results']
        self.skipped = resume_state.get('skipped', 0)
        if self.best is not None:
            self.best.load_state(resume_state.get('best', {}))
        if self.opt['rank'] == 0:  # who carries on what all have seen
            self.seen = Counter(resume_state.get('seen', {}))
        if self.step.scaler and 'scaler' in resume_state:
            self.step.scaler.load_state_dict(resume_state['scaler'])
        self.objectives.load_state(resume_state.get('losses', {}))
