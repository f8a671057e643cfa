"""DID-MDN: density-aware de-raining with a multi-stream dense network (https://arxiv.org/abs/1802.07412).

Written from the paper's and the release's description. Attribute names are the release's, whose weights load without
conversion. Of the three published networks two restore: DIDMDN takes off the rain, knowing its density, and
DIDMDNResidual takes it off without knowing; what it takes off tells the third, RainDensityClassifier, the density.
DIDMDNChain joins them.

Batch norm: the release tests all three with the statistics of the image itself (``val.restore.batch_statistics``).

Shapes: B batch; images are in [-1, 1] inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.archs.blocks import precision
from ddsa_arch.archs.blocks.dense import SLOPE, dense_level, image_from, keep_unused
from ddsa_arch.registration import register

LABELS = range(5)  # 0 to 2 in the published training, 1 to 4 in the published test
LOGITS = 4  # of the classifier, though there are three densities
POOL = 7  # window of the classifier's pooling
MULTI_LEVEL = 5  # times that a stream gives its multi-level map

Level = tuple[int, int, str]  # a dense block and its transition: growth, channels afterwards, resampling

DERAIN_STREAMS: dict[int, Sequence[Level]] = {  # levels 1 to 6 of the stream with each kernel size
    3: ((5, 4, 'down'), (8, 12, 'same'), (4, 12, 'same'), (4, 12, 'same'), (8, 4, 'same'), (8, 4, 'up')),
    5: ((13, 8, 'down'), (16, 16, 'down'), (16, 16, 'same'), (16, 16, 'same'), (8, 8, 'up'), (8, 4, 'up')),
    7: ((13, 8, 'down'), (16, 16, 'down'), (16, 16, 'down'), (16, 16, 'up'), (8, 8, 'up'), (8, 4, 'up')),
}
RESIDUAL_STREAMS: Sequence[Sequence[Level]] = (  # levels 1 to 6 of each stream; all kernels are 3 x 3
    ((5, 4, 'same'), (8, 12, 'same'), (4, 12, 'same'), (4, 12, 'same'), (8, 4, 'same'), (8, 2, 'same')),
    ((13, 8, 'down'), (16, 16, 'same'), (16, 16, 'same'), (16, 16, 'same'), (8, 8, 'same'), (8, 2, 'up')),
    ((13, 8, 'down'), (16, 16, 'down'), (16, 16, 'same'), (16, 16, 'same'), (8, 8, 'up'), (8, 2, 'up')),
)
UNUSED_LEVELS: Sequence[Level] = (  # of the residual network, outside its streams
    (13, 8, 'same'), (16, 16, 'same'), (32, 16, 'same'), (16, 16, 'same'), (8, 8, 'same'), (8, 4, 'same'),
)  # fmt: skip


def named_levels(inputs: Sequence[int], levels: Sequence[Level], kernel_size: int) -> dict[str, nn.Module]:
    """``dense_block1``, ``trans_block1``, ``dense_block2`` ... from the channels that go into each level."""
    modules: dict[str, nn.Module] = {}
    for number, (channels, level) in enumerate(zip(inputs, levels, strict=True), start=1):
        block, transition = dense_level(channels, *level, kernel_size)
        modules |= {f'dense_block{number}': block, f'trans_block{number}': transition}
    return modules


class Stream(nn.Module):
    """The six levels of dense blocks that both kinds of stream have.

    Args:
        inputs: channels that go into each level.
        levels: the six.
        kernel_size: of all dense blocks.
    """

    def __init__(self, inputs: Sequence[int], levels: Sequence[Level], kernel_size: int) -> None:
        super().__init__()
        for name, module in named_levels(inputs, levels, kernel_size).items():
            self.add_module(name, module)

    def level(self, number: int, x: Tensor) -> Tensor:
        return getattr(self, f'trans_block{number}')(getattr(self, f'dense_block{number}')(x))


class DerainStream(Stream):
    """A stream of the de-raining network, whose skips concatenate, (B, 3, H, W) -> (B, 12, H, W).

    Returns [x6, e, e, e, e, e, image] with x6 of 4 channels and one channel e from x1. The release means e to come
    from five levels, and takes it from the first each time.
    """

    def __init__(self, levels: Sequence[Level], kernel_size: int) -> None:
        w1, w2, w3, w4, w5, _ = (channels for _, channels, _ in levels)
        super().__init__((3, w1, w2, w3, w4 + w2, w5 + w1), levels, kernel_size)
        self.conv11 = nn.Conv2d(w1, 1, 3, padding=1)
        keep_unused(  # the other four levels of e, and one more
            self,
            conv21=nn.Conv2d(w2, 1, 3, padding=1),
            conv31=nn.Conv2d(w3, 1, 3, padding=1),
            conv41=nn.Conv2d(w4 + w2, 1, 3, padding=1),
            conv51=nn.Conv2d(w5 + w1, 1, 3, padding=1),
            conv61=nn.Conv2d(8, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.level(1, x)
        x2 = self.level(2, x1)
        x4 = self.level(4, self.level(3, x2))
        x5 = self.level(5, torch.cat([x4, x2], dim=1))
        x6 = self.level(6, torch.cat([x5, x1], dim=1))
        e = F.interpolate(F.leaky_relu(self.conv11(x1), SLOPE), size=x.shape[-2:])  # (B, 1, H, W)
        return torch.cat([x6, *[e] * MULTI_LEVEL, x], dim=1)


class ResidualStream(Stream):
    """A stream of the residual network, whose skips add, (B, 3, H, W) -> (B, 2, H, W)."""

    def __init__(self, levels: Sequence[Level]) -> None:
        super().__init__((3, *(channels for _, channels, _ in levels[:-1])), levels, kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.level(1, x)
        x2 = self.level(2, x1)
        x4 = self.level(4, self.level(3, x2)) + x2
        x5 = self.level(5, x4) + x1
        return self.level(6, x5)


def check_label(label: int) -> int:
    """Return ``label``, or raise a ValueError that tells which there are."""
    if label not in LABELS:
        raise ValueError(f'label: {label!r} is not known; choose 0 (heavy), 1 (medium) or 2 (light), at most 4')
    return label


class MultiStream(nn.Module):
    """Three streams side by side and a head on them that sees the mean of ever larger squares; see its kinds.

        f = lrelu(conv3x3([stream 0, image, stream 1, stream 2, label map]))
        p_n = the mean of n x n pixels of f, lrelu(conv1x1(.)), repeated to full size, for n = 32, 16, 8, 4
        out = tanh(conv3x3([p_32, p_16, p_8, p_4, f]))

    Args:
        streams: three, of equally many channels.
        stream_channels: their number.
        label_channels: of the label map, all of which hold the label's number.
        channels: of f.
        pooled_channels: of each p_n.
        label: density of the rain where the call gives none.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        stream_channels: int,
        label_channels: int,
        channels: int,
        pooled_channels: int,
        label: int,
    ) -> None:
        super().__init__()
        self.label = check_label(label)
        self.label_channels = label_channels
        self.dense0, self.dense1, self.dense2 = streams
        self.conv_refin = nn.Conv2d(3 * stream_channels + 3 + label_channels, channels, 3, padding=1)
        self.conv1010 = nn.Conv2d(channels, pooled_channels, 1)
        self.conv1020 = nn.Conv2d(channels, pooled_channels, 1)
        self.conv1030 = nn.Conv2d(channels, pooled_channels, 1)
        self.conv1040 = nn.Conv2d(channels, pooled_channels, 1)
        self.refine3 = nn.Conv2d(channels + 4 * pooled_channels, 3, 3, padding=1)

    def head(self, x: Tensor, label: int | Tensor | None) -> Tensor:
        """The output in (-1, 1) from an image in [-1, 1], (B, 3, H, W) -> the same."""
        f = torch.cat([self.dense0(x), x, self.dense1(x), self.dense2(x), self.label_map(x, label)], dim=1)
        f = F.leaky_relu(self.conv_refin(f), SLOPE)  # (B, channels, H, W)
        levels, mean = [f], F.avg_pool2d(f, 2)
        for conv in (self.conv1040, self.conv1030, self.conv1020, self.conv1010):
            mean = F.avg_pool2d(mean, 2)  # of 4 x 4, 8 x 8, 16 x 16, 32 x 32 pixels of f
            levels.insert(0, F.interpolate(F.leaky_relu(conv(mean), SLOPE), size=x.shape[-2:]))
        return precision.full_precision(self.refine3(torch.cat(levels, dim=1))).tanh()

    def label_map(self, x: Tensor, label: int | Tensor | None) -> Tensor:
        """(B, label_channels, H, W) that holds the number of each image's label."""
        batch, _, height, width = x.shape
        if isinstance(label, Tensor):
            if label.shape != (batch,):
                raise ValueError(f'label: shape {tuple(label.shape)} for {batch} images; give one number for each')
            numbers = label.to(x).view(batch, 1, 1, 1)
        else:
            numbers = x.new_full((batch, 1, 1, 1), self.label if label is None else check_label(label))
        return numbers.expand(batch, self.label_channels, height, width)


def unused_norms() -> dict[str, nn.Module]:
    """Make the norms that the published weights hold, and that no forward calls."""
    return {'batchnorm20': nn.BatchNorm2d(20), 'batchnorm1': nn.BatchNorm2d(1)}


def unused_head() -> dict[str, nn.Module]:
    """A head that streams 1 and 2 have in the published weights, as if each were a network of its own."""
    return {
        'conv_refin': nn.Conv2d(11, 20, 3, padding=1),
        'refine3': nn.Conv2d(24, 3, 3, padding=1),
        **unused_norms(),
    }


@register(ARCH_REGISTRY)
class DIDMDN(MultiStream):
    """The de-raining network (Dense_rain): streams with 3 x 3, 5 x 5 and 7 x 7 kernels, guided by the rain's density.

        residual = head(image, label)
        clean = tanh(conv3x3(lrelu(conv7x7(image - residual))))

    The label is one number for the whole image. The release trains with 0 heavy, 1 medium, 2 light, but tests with
    the classifier's argmax + 1, so 1 to 4: published weights meet labels one too large, and some never seen.

    Args:
        label: of every image where the call gives none, 0 to 4.

    Shape: (B, 3, H, W) in [0, 1] -> the same; not clamped. A second argument of forward, a number or one for each
        image, (B,), replaces the label.

    H and W are multiples of 8 from 32 up. ``size_multiple`` is 32 all the same: the means of 32 x 32 pixels drop the
    border of other sizes and what is left is stretched over it, and padding to 32 cannot give a size that is too small.
    """

    size_multiple = 32
    block_types = ()  # none: a block that is computed anew moves the statistics of its batch norms twice

    def __init__(self, label: int = 1) -> None:
        streams = [DerainStream(levels, kernel_size) for kernel_size, levels in DERAIN_STREAMS.items()]
        super().__init__(streams, stream_channels=12, label_channels=8, channels=47, pooled_channels=2, label=label)
        self.refineclean1 = nn.Conv2d(3, 8, 7, padding=3)
        self.refineclean2 = nn.Conv2d(8, 3, 3, padding=1)
        keep_unused(self, **unused_norms())
        for stream in streams[1:]:
            keep_unused(stream, **unused_head())

    def forward(self, rain: Tensor, label: int | Tensor | None = None) -> Tensor:
        return (self.published_outputs(2 * rain - 1, label)['clean'] + 1) / 2

    def published_outputs(self, x: Tensor, label: int | Tensor | None = None) -> dict[str, Tensor]:
        """Return the release's outputs by name, residual and clean in (-1, 1), from the rainy image in [-1, 1]."""
        residual = self.head(x, label)
        return {'residual': residual, 'clean': image_from(x - residual, self.refineclean1, self.refineclean2)}


@register(ARCH_REGISTRY)
class DIDMDNResidual(MultiStream):
    """The residual network (Dense_rain_residual): the clean image at a first go, to see what the rain is.

    Named after its use in the paper; its output is an estimate of the clean image, and the rain layer the input less
    the output.

    Args:
        label: of every image where the call gives none, 0 to 4; the release always has 0.

    Shape: (B, 3, H, W) in [0, 1] -> the same; not clamped. Sizes, and the second argument of forward, as of DIDMDN.
    """

    size_multiple = DIDMDN.size_multiple
    block_types = ()

    def __init__(self, label: int = 0) -> None:
        streams = [ResidualStream(levels) for levels in RESIDUAL_STREAMS]
        super().__init__(streams, stream_channels=2, label_channels=4, channels=20, pooled_channels=1, label=label)
        keep_unused(self, **unused_norms(), **named_levels((3, 8, 16, 16, 16, 8), UNUSED_LEVELS, kernel_size=3))
        for stream in streams[1:]:
            pools = {name: nn.Conv2d(20, 1, 1) for name in ('conv1010', 'conv1020', 'conv1030', 'conv1040')}
            keep_unused(stream, **unused_head(), **pools)

    def forward(self, rain: Tensor, label: int | Tensor | None = None) -> Tensor:
        return (self.head(2 * rain - 1, label) + 1) / 2


@register(ARCH_REGISTRY)
class RainDensityClassifier(nn.Module):
    """The density of the rain (vgg19ca), (B, 3, size, size) -> logits (B, 4). Not a restoration network.

    Convolution, batch norm and ReLU as VGG19 begins (the release starts from ImageNet's weights), one more
    convolution, and two linear layers on the mean of 7 x 7 pixels. Nearly all its parameters stand in the first one.

    Args:
        size: side of the images; the linear layer takes no other. The published weights have 512.

    Shape: the input is a rain layer, the difference of two images in [-1, 1].
    """

    def __init__(self, size: int = 512) -> None:
        super().__init__()
        if size < POOL:
            raise ValueError(f'size: {size} is smaller than a window of {POOL} pixels; the published one is 512')
        self.size = size
        self.feature = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(inplace=True))
        self.conv16 = nn.Conv2d(64, 24, 3, padding=1)
        self.dense_classifier = nn.Linear(24 * (size // POOL) ** 2, 512)
        self.dense_classifier1 = nn.Linear(512, LOGITS)

    def forward(self, rain_layer: Tensor) -> Tensor:
        if rain_layer.shape[-2:] != (self.size, self.size):
            height, width = rain_layer.shape[-2:]
            raise ValueError(f'the classifier takes {self.size} x {self.size}, not {height} x {width}; resize first')
        x = F.relu(self.conv16(self.feature(rain_layer)), inplace=True)  # (B, 24, size, size)
        x = F.avg_pool2d(x, POOL).flatten(1)  # (B, 24 * (size // 7)^2)
        return self.dense_classifier1(F.relu(self.dense_classifier(x)))


@register(ARCH_REGISTRY)
class DIDMDNChain(nn.Module):
    """The published way from a rainy image to a clean one, as one network.

        rain layer = image - residual(image, label 0)
        label = argmax(classifier(rain layer)) + 1, of each image
        clean = derain(image, label)

    The rain layer is resized for the classifier alone; the release resizes the image before all else. The argmax
    hands no gradient to the classifier and the residual network: they are frozen, and only ``derain`` learns. Train
    them by themselves, and join the three with ``join_published``.

    Args:
        classifier_size: see RainDensityClassifier.

    Shape: (B, 3, H, W) in [0, 1] -> the same; sizes as of DIDMDN; not clamped.
    """

    size_multiple = DIDMDN.size_multiple
    block_types = ()

    def __init__(self, classifier_size: int = 512) -> None:
        super().__init__()
        self.residual = DIDMDNResidual().requires_grad_(False)
        self.classifier = RainDensityClassifier(classifier_size).requires_grad_(False)
        self.derain = DIDMDN()

    def train(self, mode: bool = True) -> DIDMDNChain:
        """Set the mode of ``derain`` alone; the statistics of the frozen networks then do not move."""
        super().train(mode)
        self.residual.eval()
        self.classifier.eval()
        return self

    def forward(self, rain: Tensor) -> Tensor:
        return self.derain(rain, self.labels(rain))

    def labels(self, rain: Tensor) -> Tensor:
        """The label of each image, (B, 3, H, W) in [0, 1] -> (B,), 1 to 4."""
        rain_layer = 2 * (rain - self.residual(rain))  # between images in [-1, 1]
        size = (self.classifier.size,) * 2
        # antialias is what PIL does, with which the release resizes; 512 x 512 stays as it is
        rain_layer = F.interpolate(rain_layer, size, mode='bilinear', antialias=True)
        return self.classifier(rain_layer).argmax(dim=1) + 1


def join_published(
    derain: Mapping[str, Tensor], residual: Mapping[str, Tensor], classifier: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The state dict of DIDMDNChain from those of the three published files."""
    parts = {'residual': residual, 'classifier': classifier, 'derain': derain}
    return {f'{part}.{key}': value for part, state in parts.items() for key, value in state.items()}
