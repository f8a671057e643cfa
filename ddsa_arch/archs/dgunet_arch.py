"""DGUNet and DGUNet+: deep generalized unfolding networks (https://arxiv.org/abs/2204.13348).

Written from the paper's and the release's description. Attribute names are the release's, whose weights load without
conversion. The networks unfold proximal gradient descent on a degradation Phi of which nothing is known: Phi and its
transpose are small learned networks (phi, phit), the proximal operator is a U-Net.

Shapes: B batch, C = n_feat channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.archs.blocks.channel_attention import CAB, same_conv
from ddsa_arch.archs.blocks.hin_unet import UNET_LEVELS, Decoder, DecoderLevel, Encoder, EncoderLevel, unet_widths
from ddsa_arch.archs.blocks.subspace import Merge
from ddsa_arch.registration import register

GRADIENT_WIDTH = 64  # hidden channels of phi and phit
FIRST_STEP = 0.5  # initial step size r


class ResBlock(nn.Module):
    """phi or phit, x + conv(activation(conv(x))), (B, 3, H, W) -> the same. The activation is handed in, see CAB."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, GRADIENT_WIDTH, 3, padding=1), activation, nn.Conv2d(GRADIENT_WIDTH, 3, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class SAM(nn.Module):
    """Ends a stage: features f + W1 f, (B, C, H, W), and the image x + W2 f, (B, 3, H, W).

    Named after MPRNet's supervised attention module, but without its attention.
    """

    def __init__(self, channels: int, bias: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=bias)
        self.conv2 = nn.Conv2d(channels, 3, 1, bias=bias)

    def forward(self, features: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.conv1(features) + features, self.conv2(features) + x


class State(NamedTuple):
    """What a stage hands to the next one.

    Args:
        image: (B, 3, H, W).
        features: (B, C, H, W); None before the first stage.
        encoded: the encoder's features, from full to 1/8 resolution; empty before the first stage.
        decoded: the decoder's features, from 1/4 to full resolution; empty before the first stage.
    """

    image: Tensor
    features: Tensor | None = None
    encoded: Sequence[Tensor] = ()
    decoded: Sequence[Tensor] = ()


class GradientStep(NamedTuple):
    """The step size and the modules of the first half of a stage, by whatever names the networks keep them.

    It is called with the input image y and the state after the earlier stage. The first stage has no ``merge``.
    """

    r: Tensor
    phi: nn.Module
    phit: nn.Module
    shallow_feat: nn.Module
    merge: Callable[..., Tensor] | None = None

    def __call__(self, rain: Tensor, earlier: State) -> tuple[Tensor, Tensor]:
        """x = s - r phit(phi(s) - y), from an image s towards one that phi degrades to y; and the features of x."""
        s = earlier.image
        x = s - self.r * self.phit(self.phi(s) - rain)  # (B, 3, H, W)
        features = self.shallow_feat(x)  # (B, C, H, W)
        return x, features if self.merge is None else self.merge(features, earlier.features)


class Stage(NamedTuple):
    """A whole stage; it is called as its gradient step is. The last stage is a gradient step alone."""

    gradient_step: GradientStep
    encoder: nn.Module
    decoder: nn.Module
    sam: nn.Module

    def __call__(self, rain: Tensor, earlier: State) -> State:
        x, features = self.gradient_step(rain, earlier)
        encoded = self.encoder(features, earlier.encoded, earlier.decoded)
        decoded = self.decoder(encoded)
        features, image = self.sam(decoded[-1], x)
        return State(image, features, encoded, decoded)


def step_size() -> nn.Parameter:
    return nn.Parameter(torch.full((1,), FIRST_STEP))


def check_depth(depth: int) -> None:
    if depth < 1:
        raise ValueError(f'depth: {depth} leaves no stage between the first and the last; the published ones have 5')


class SharedStage(nn.Module):
    """Stages 2 to 6 of DGUNet, which share their weights; the names are those of stage 2."""

    def __init__(
        self, widths: Sequence[int], activation: nn.Module, kernel_size: int, reduction: int, bias: bool
    ) -> None:
        super().__init__()
        n_feat = widths[0]
        self.r1 = step_size()
        self.phi_1 = ResBlock(activation)
        self.phit_1 = ResBlock(activation)
        self.shallow_feat2 = nn.Sequential(
            same_conv(3, n_feat, kernel_size, bias), CAB(n_feat, nn.PReLU(), kernel_size, reduction, bias)
        )
        self.stage2_encoder = Encoder(widths, fusion=True)
        self.stage2_decoder = Decoder(widths)
        self.sam23 = SAM(n_feat, bias)
        # stands in the release's weights, but merge12 does its work: frozen, so that no optimiser waits for a gradient
        self.concat12 = same_conv(n_feat * 2, n_feat, kernel_size, bias).requires_grad_(False)
        self.merge12 = Merge(n_feat)

    def forward(self, rain: Tensor, earlier: State) -> State:
        step = GradientStep(self.r1, self.phi_1, self.phit_1, self.shallow_feat2, self.merge12)
        return Stage(step, self.stage2_encoder, self.stage2_decoder, self.sam23)(rain, earlier)


@register(ARCH_REGISTRY)
class DGUNet(nn.Module):
    """Seven unfolded stages, of which the second to the sixth share one set of weights.

    Stages 1 to 6, with the input y and the earlier stage's image s (at first y):

        x = s - r phit(phi(s) - y)                                gradient step
        f = merge(shallow(x), f)                                  not in stage 1
        s, f = SAM(decoder(encoder(f, earlier features)), x)      proximal step

    The last stage has no U-Net: y + tail([shallow(x), f]). It adds to the input, not to its own gradient step.

    One PReLU serves phi and phit of all stages, one the shallow features of the first and last stage, one those of
    the shared stages. In the release the first is shared even by all networks of a process; here each has its own.

    An image of one colour is no obstacle: zero padding makes its features differ towards the borders, and with fresh
    weights the matrices that ``merge`` inverts keep condition numbers below 1e5, against some 1e2 for noise. Where
    there is no inverse nonetheless, ``solve_gram`` keeps the numbers finite.

    Args:
        n_feat: C, channels at full resolution.
        scale_unetfeats: what each level of the U-Net has more.
        scale_orsnetfeats: what the last stage has more than C.
        depth: how often the shared stage is passed, at least once.
        kernel_size: of the shallow features, the fusion before the tail and the tail; odd.
        reduction: of the channel attention's hidden width.
        bias: bias in the same convolutions and in SAM; all others have one but for the down-sampling.

    Shape: (B, 3, H, W) in [0, 1] -> [stage 1, ..., last stage], depth + 2 images of the same shape, the last one
    final; H and W multiples of 8; not clamped. The release gives the last stage first.
    """

    size_multiple = 2 ** (UNET_LEVELS - 1)
    # whose activations `train.checkpoint_blocks` computes anew in the backward pass
    block_types = (ResBlock, CAB, EncoderLevel, DecoderLevel, Merge)

    def __init__(
        self,
        n_feat: int = 40,
        scale_unetfeats: int = 20,
        scale_orsnetfeats: int = 16,
        depth: int = 5,
        kernel_size: int = 3,
        reduction: int = 4,
        bias: bool = False,
    ) -> None:
        super().__init__()
        check_depth(depth)
        widths = unet_widths(n_feat, scale_unetfeats)
        conv = partial(same_conv, kernel_size=kernel_size, bias=bias)
        cab = partial(CAB, n_feat, nn.PReLU(), kernel_size, reduction, bias)
        activation = nn.PReLU()

        self.depth = depth
        self.r0, self.r6 = step_size(), step_size()
        self.basic = SharedStage(widths, activation, kernel_size, reduction, bias)
        self.shallow_feat1 = nn.Sequential(conv(3, n_feat), cab())
        self.shallow_feat7 = nn.Sequential(conv(3, n_feat), cab())
        self.stage1_encoder = Encoder(widths, fusion=False)
        self.stage1_decoder = Decoder(widths)
        self.sam12 = SAM(n_feat, bias)
        self.phi_0, self.phit_0 = ResBlock(activation), ResBlock(activation)
        self.phi_6, self.phit_6 = ResBlock(activation), ResBlock(activation)
        self.concat67 = conv(n_feat * 2, n_feat + scale_orsnetfeats)
        self.tail = conv(n_feat + scale_orsnetfeats, 3)

    def forward(self, rain: Tensor) -> list[Tensor]:
        step = GradientStep(self.r0, self.phi_0, self.phit_0, self.shallow_feat1)
        first = Stage(step, self.stage1_encoder, self.stage1_decoder, self.sam12)
        last = GradientStep(self.r6, self.phi_6, self.phit_6, self.shallow_feat7, self.merge67)

        state = first(rain, State(rain))
        images = [state.image]
        for _ in range(self.depth):
            state = self.basic(rain, state)
            images.append(state.image)
        _, features = last(rain, state)
        return [*images, self.tail(features) + rain]

    def merge67(self, features: Tensor, earlier: Tensor) -> Tensor:
        return self.concat67(torch.cat([features, earlier], dim=1))


@register(ARCH_REGISTRY)
class DGUNetPlus(nn.Module):
    """DGUNet+: as DGUNet, but every stage has its own weights, and the last one a ``merge`` too: y + tail(merge(..)).

    One PReLU serves phi and phit of all stages, another the shallow features of all stages.

    Arguments, shape and images of one colour: as DGUNet; ``depth`` counts the stages between the first and the last.
    """

    size_multiple = DGUNet.size_multiple
    block_types = DGUNet.block_types

    def __init__(
        self,
        n_feat: int = 40,
        scale_unetfeats: int = 20,
        depth: int = 5,
        kernel_size: int = 3,
        reduction: int = 4,
        bias: bool = False,
    ) -> None:
        super().__init__()
        check_depth(depth)
        widths = unet_widths(n_feat, scale_unetfeats)
        conv = partial(same_conv, kernel_size=kernel_size, bias=bias)
        cab = partial(CAB, n_feat, nn.PReLU(), kernel_size, reduction, bias)
        activation = nn.PReLU()

        # the release counts r and phi from 0, everything else from 1, and names what stands between two stages by both
        self.depth = depth
        for k in range(1, depth + 3):
            setattr(self, f'r{k - 1}', step_size())
            setattr(self, f'shallow_feat{k}', nn.Sequential(conv(3, n_feat), cab()))
            setattr(self, f'phi_{k - 1}', ResBlock(activation))
            setattr(self, f'phit_{k - 1}', ResBlock(activation))
        for k in range(1, depth + 2):
            setattr(self, f'stage{k}_encoder', Encoder(widths, fusion=k > 1))
            setattr(self, f'stage{k}_decoder', Decoder(widths))
            setattr(self, f'sam{k}{k + 1}', SAM(n_feat, bias))
            setattr(self, f'merge{k}{k + 1}', Merge(n_feat))
        self.tail = conv(n_feat, 3)

    def gradient_step(self, k: int) -> GradientStep:
        """The gradient step of the k-th stage, counted from 1."""
        names = (f'r{k - 1}', f'phi_{k - 1}', f'phit_{k - 1}', f'shallow_feat{k}', f'merge{k - 1}{k}')
        return GradientStep(*(getattr(self, name) for name in (names if k > 1 else names[:-1])))

    def stage(self, k: int) -> Stage:
        """The k-th stage, but for the last one."""
        names = (f'stage{k}_encoder', f'stage{k}_decoder', f'sam{k}{k + 1}')
        return Stage(self.gradient_step(k), *(getattr(self, name) for name in names))

    def forward(self, rain: Tensor) -> list[Tensor]:
        state, images = State(rain), []
        for k in range(1, self.depth + 2):
            state = self.stage(k)(rain, state)
            images.append(state.image)
        _, features = self.gradient_step(self.depth + 2)(rain, state)
        return [*images, self.tail(features) + rain]
