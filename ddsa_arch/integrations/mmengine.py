"""Name the networks and losses of this package in configs of mmengine, and so of MMagic.

    from ddsa_arch.integrations.mmengine import install
    from mmengine.registry import MODELS

    install()
    net = MODELS.build(dict(type='DDSANet', dim=48))

A config that is to do without this call names things by their place, which is imported when it is needed:
``type='ddsa_arch.archs.ddsanet_arch.DDSANet'``, or ``type='ddsa_arch.integrations.mmengine.DerainRestorer'``, whose
``network`` and ``losses`` then go by their short names.

mmengine 0.10.7 cannot resume a training with torch 2.6 and later; ``ddsa train`` can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY
from mmengine.model import BaseModel
from mmengine.registry import MODELS, Registry
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from ddsa_arch.archs.blocks.precision import full_precision
from ddsa_arch.archs.weights import read_weights
from ddsa_arch.errors import InputError
from ddsa_arch.fast import accelerate
from ddsa_arch.models.restore import restore

OURS = 'ddsa_arch.'  # how the modules of this package begin
NETWORK = 'network.'  # before the names of the network's own tensors
MODES = ('tensor', 'loss', 'predict')


def install(registry: Registry = MODELS) -> list[str]:
    """Register every network and loss of this package, and ``DerainRestorer``, under the names that BasicSR knows.

    mmengine's ``load_checkpoint`` then takes files of safetensors too.

    Args:
        registry: mmengine's models, where those of MMagic and its kin look too.

    Returns:
        The names that are new there, sorted. A name that is taken is left alone.
    """
    parts = {name: part for known in (ARCH_REGISTRY, LOSS_REGISTRY) for name, part in known}
    ours = {name: part for name, part in parts.items() if part.__module__.startswith(OURS)}
    ours[DerainRestorer.__name__] = DerainRestorer
    CheckpointLoader.register_scheme(r'.*\.safetensors$', load_from_safetensors, force=True)
    new = sorted(ours.keys() - registry.module_dict.keys())
    for name in new:
        registry.register_module(name=name, module=ours[name])
    return new


def load_from_safetensors(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read weights of a file of safetensors for mmengine's ``load_checkpoint``, which does not know such files."""
    del map_location  # they are copied into the network, wherever it is
    return {'state_dict': read_weights(filename).state_dict()}


class DerainRestorer(BaseModel):
    """A network with its losses, as mmengine's Runner trains, validates and tests them.

    Items of a data set are ``{'inputs': rainy image, 'data_samples': clean image}``, ``(3, H, W)`` each, floating
    point in [0, 1]. In place of the clean image may stand what carries it as ``gt_img``, as MMagic's DataSample does.

    Args:
        network: ``{type, ...}``.
        losses: ``{type, ...}`` each, by a name of your own; they get the network's outputs and the clean images, and
            are logged as ``loss_`` and their name. Absent, DerainL1Loss alone.
        data_preprocessor: see mmengine's BaseModel.
        init_cfg: see mmengine's BaseModel.
    """

    def __init__(
        self,
        network: dict[str, Any],
        losses: Mapping[str, dict[str, Any]] | None = None,
        data_preprocessor: dict[str, Any] | nn.Module | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        install()
        losses = {'pixel': {'type': 'DerainL1Loss'}} if losses is None else losses
        self.network = MODELS.build(network)
        accelerate(self.network)
        self.losses = nn.ModuleDict({name: MODELS.build(loss) for name, loss in losses.items()})

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """Take the weights of the network alone too, as ``ddsa train`` and ``ddsa export`` write them."""
        own = f'{prefix}{NETWORK}'
        if not any(name.startswith(own) for name in state_dict):
            for name in [name for name in state_dict if name.startswith(prefix)]:
                state_dict[f'{own}{name.removeprefix(prefix)}'] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *others)

    def forward(
        self, inputs: Tensor | Sequence[Tensor], data_samples: Any = None, mode: str = 'tensor'
    ) -> Tensor | list[Tensor] | dict[str, Tensor] | list[dict[str, Tensor]]:
        """
        Args:
            inputs: ``(B, 3, H, W)`` in [0, 1], or a list of ``(3, H, W)``.
            data_samples: the clean images, ``(B, 3, H, W)``, or a list of ``(3, H, W)`` or of what has them as
                ``gt_img``; may be absent unless the mode is ``loss``.
            mode: what is wanted.

        Returns:
            * ``tensor``: what the network gives. H and W must be what it takes.
            * ``loss``: the losses by name, scalars.
            * ``predict``: for each image, of any size, ``pred_img`` and, where it is known, ``gt_img``,
              ``(3, H, W)`` in [0, 1].

        Raises:
            InputError: another mode, or losses without clean images.
        """
        if mode not in MODES:
            raise InputError(f'mode: {mode!r} is not known; choose one of {", ".join(map(repr, MODES))}')
        targets = None if data_samples is None else _clean_images(data_samples)
        if mode == 'predict':
            predictions = [{'pred_img': restore(self.network, rain[None])[0].clamp(0, 1)} for rain in inputs]
            if targets is None:
                return predictions
            return [one | {'gt_img': clean} for one, clean in zip(predictions, targets, strict=True)]
        outputs = self.network(_batch(inputs))
        if mode == 'tensor':
            return outputs
        if targets is None:
            raise InputError("mode 'loss' needs the clean images as data_samples, and there are none")
        target = _batch(targets)
        with torch.autocast(target.device.type, enabled=False):
            outputs = full_precision(outputs) if isinstance(outputs, Tensor) else list(map(full_precision, outputs))
            return {f'loss_{name}': loss(outputs, target) for name, loss in self.losses.items()}


def _clean_images(data_samples: Any) -> Tensor | list[Tensor]:  # Any: mmengine has many kinds of samples
    """Return the clean images as ``(B, 3, H, W)``, or as a list of ``(3, H, W)``."""
    if isinstance(data_samples, list | tuple):
        return [_clean_image(one) for one in data_samples]
    return _clean_image(data_samples)


def _clean_image(sample: Any) -> Tensor:
    return sample if isinstance(sample, Tensor) else sample.gt_img


def _batch(images: Tensor | Sequence[Tensor]) -> Tensor:
    """Stack images to ``(B, 3, H, W)``."""
    return images if isinstance(images, Tensor) else torch.stack(list(images))
