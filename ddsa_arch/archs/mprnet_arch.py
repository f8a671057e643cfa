"""MPRNet: multi-stage progressive image restoration (https://arxiv.org/abs/2102.02808).

Written from the paper's and the release's description; where they differ (the paper has max pooling, the release the
mean of 2x2 pixels), the release is followed, whose weights load without conversion. Attribute names are its names.

Shapes: B batch; C_l = n_feat + (l - 1) * scale_unetfeats channels at level l = 1, 2, 3, with 1, 1/2, 1/4 of the
resolution. A pyramid is a list of the three levels' features, level 1 first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from ddsa_arch.archs.blocks.channel_attention import CAB, same_conv
from ddsa_arch.registration import register

MakeCAB = Callable[[int], CAB]  # from the number of channels


def to_parts(x: Tensor, dim: int) -> Tensor:
    """Cut images in two along ``dim`` and put the second parts after the first ones into the batch, B -> 2B."""
    return torch.cat(x.chunk(2, dim=dim))


def from_parts(x: Tensor, dim: int) -> Tensor:
    """Join what ``to_parts`` cut, 2B -> B."""
    return torch.cat(x.chunk(2), dim=dim)


class SAM(nn.Module):
    """Supervised attention module: hands on the features that the restored image of the stage approves of.

        image = W2 f + x
        out = W1 f * sigmoid(W3 image) + f

    (B, C, H, W) and (B, 3, H, W) -> features (B, C, H, W) and image (B, 3, H, W).
    """

    def __init__(self, channels: int, bias: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=bias)
        self.conv2 = nn.Conv2d(channels, 3, 1, bias=bias)
        self.conv3 = nn.Conv2d(3, channels, 1, bias=bias)

    def forward(self, features: Tensor, rain: Tensor) -> tuple[Tensor, Tensor]:
        image = self.conv2(features) + rain
        attention = self.conv3(image).sigmoid()
        return self.conv1(features) * attention + features, image


class Down(nn.Module):
    """One level down: the mean of 2x2 pixels, which is bilinear x0.5 of even sizes, and a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(in_channels, out_channels, 1, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(x)


class Up(nn.Module):
    """One level up: bilinear x2 and a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2, mode='bilinear', align_corners=False),
            nn.Conv2d(in_channels, out_channels, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x)


class EncoderLevels(nn.Module):
    """The layers that both encoders have: two CABs a level, and what leads one level down.

    Args:
        widths: C_1, C_2, C_3.
        make_cab: makes a CAB of so many channels.
        bias: bias in the 1x1 convolutions.
    """

    def __init__(self, widths: Sequence[int], make_cab: MakeCAB, bias: bool = False) -> None:
        super().__init__()
        c1, c2, c3 = widths
        self.encoder_level1 = nn.Sequential(make_cab(c1), make_cab(c1))
        self.encoder_level2 = nn.Sequential(make_cab(c2), make_cab(c2))
        self.encoder_level3 = nn.Sequential(make_cab(c3), make_cab(c3))
        self.down12 = Down(c1, c2, bias)
        self.down23 = Down(c2, c3, bias)


class Encoder(EncoderLevels):
    """Two CABs a level, (B, C_1, H, W) -> the pyramid of their outputs."""

    def forward(self, x: Tensor) -> list[Tensor]:
        e1 = self.encoder_level1(x)
        e2 = self.encoder_level2(self.down12(e1))
        e3 = self.encoder_level3(self.down23(e2))
        return [e1, e2, e3]


class FusingEncoder(EncoderLevels):
    """Encoder with cross-stage feature fusion (CSFF).

    1x1 convolutions of the earlier stage's encoder and decoder pyramids are added to each level's output; the sum
    also feeds the next level.
    """

    def __init__(self, widths: Sequence[int], make_cab: MakeCAB, bias: bool = False) -> None:
        super().__init__(widths, make_cab, bias)
        self.csff_enc1, self.csff_enc2, self.csff_enc3 = (nn.Conv2d(c, c, 1, bias=bias) for c in widths)
        self.csff_dec1, self.csff_dec2, self.csff_dec3 = (nn.Conv2d(c, c, 1, bias=bias) for c in widths)

    def forward(self, x: Tensor, encoded: Sequence[Tensor], decoded: Sequence[Tensor]) -> list[Tensor]:
        e1 = self.encoder_level1(x) + self.csff_enc1(encoded[0]) + self.csff_dec1(decoded[0])
        e2 = self.encoder_level2(self.down12(e1)) + self.csff_enc2(encoded[1]) + self.csff_dec2(decoded[1])
        e3 = self.encoder_level3(self.down23(e2)) + self.csff_enc3(encoded[2]) + self.csff_dec3(decoded[2])
        return [e1, e2, e3]


class Decoder(nn.Module):
    """Two CABs a level, and a CAB on each skip connection; a pyramid -> the pyramid of the decoded features."""

    def __init__(self, widths: Sequence[int], make_cab: MakeCAB, bias: bool = False) -> None:
        super().__init__()
        c1, c2, c3 = widths
        self.decoder_level1 = nn.Sequential(make_cab(c1), make_cab(c1))
        self.decoder_level2 = nn.Sequential(make_cab(c2), make_cab(c2))
        self.decoder_level3 = nn.Sequential(make_cab(c3), make_cab(c3))
        self.skip_attn1 = make_cab(c1)
        self.skip_attn2 = make_cab(c2)
        self.up21 = Up(c2, c1, bias)
        self.up32 = Up(c3, c2, bias)

    def forward(self, encoded: Sequence[Tensor]) -> list[Tensor]:
        e1, e2, e3 = encoded
        d3 = self.decoder_level3(e3)
        d2 = self.decoder_level2(self.up32(d3) + self.skip_attn2(e2))
        d1 = self.decoder_level1(self.up21(d2) + self.skip_attn1(e1))
        return [d1, d2, d3]


class ORB(nn.Module):
    """Original resolution block: x + conv3x3(CABs(x)), (B, C, H, W) -> the same."""

    def __init__(self, channels: int, make_cab: MakeCAB, num_cab: int, kernel_size: int, bias: bool = False) -> None:
        super().__init__()
        if num_cab < 1:
            raise ValueError(f'num_cab: {num_cab} leaves nothing to repeat; the published network has 8')
        cabs = [make_cab(channels) for _ in range(num_cab)]
        self.body = nn.Sequential(*cabs, same_conv(channels, channels, kernel_size, bias))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ORSNet(nn.Module):
    """Original resolution subnetwork: three ORBs at the full resolution.

    After the ORB j the features of level j of the earlier stage's encoder and decoder are brought to the full
    resolution, convolved 1x1 and added. (B, C, H, W) and two pyramids -> (B, C, H, W).

    Args:
        channels: C.
        widths: C_1, C_2, C_3 of the pyramids.
        make_orb: makes an ORB of so many channels.
        bias: bias in the 1x1 convolutions.
    """

    def __init__(self, channels: int, widths: Sequence[int], make_orb: Callable[[int], ORB], bias: bool) -> None:
        super().__init__()
        c1, c2, c3 = widths
        self.orb1, self.orb2, self.orb3 = (make_orb(channels) for _ in range(3))
        self.up_enc1, self.up_dec1 = Up(c2, c1, bias), Up(c2, c1, bias)
        self.up_enc2 = nn.Sequential(Up(c3, c2, bias), Up(c2, c1, bias))
        self.up_dec2 = nn.Sequential(Up(c3, c2, bias), Up(c2, c1, bias))
        self.conv_enc1, self.conv_enc2, self.conv_enc3 = (nn.Conv2d(c1, channels, 1, bias=bias) for _ in range(3))
        self.conv_dec1, self.conv_dec2, self.conv_dec3 = (nn.Conv2d(c1, channels, 1, bias=bias) for _ in range(3))

    def forward(self, x: Tensor, encoded: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
        e1, e2, e3 = encoded
        d1, d2, d3 = decoded
        x = self.orb1(x) + self.conv_enc1(e1) + self.conv_dec1(d1)
        x = self.orb2(x) + self.conv_enc2(self.up_enc1(e2)) + self.conv_dec2(self.up_dec1(d2))
        return self.orb3(x) + self.conv_enc3(self.up_enc2(e3)) + self.conv_dec3(self.up_dec2(d3))


@register(ARCH_REGISTRY)
class MPRNet(nn.Module):
    """Restores an image in three stages, from its quarters over its halves to the whole.

    Stage 1 encodes the four quarters and decodes the two halves, stage 2 encodes the halves and decodes the whole
    image, stage 3 keeps its resolution. Each stage hands its features on through a supervised attention module (SAM)
    and through the pyramids of its encoder and decoder. Zero padding and channel attention end where a part does, so
    the parts leave seams, most of all in the earlier outputs.

    One PReLU, with one slope, serves all channel attention blocks. The defaults are the deraining network.

    Args:
        n_feat: C_1, channels at full resolution.
        scale_unetfeats: what each level below has more.
        scale_orsnetfeats: what stage 3 has more than C_1.
        num_cab: channel attention blocks in each ORB of stage 3.
        kernel_size: of all convolutions that are not 1x1; odd.
        reduction: of the channel attention's hidden width.
        bias: bias in the convolutions.

    Shape: (B, 3, H, W) in [0, 1] -> [stage 1, stage 2, stage 3], each the same shape, the last one final; H and W
    multiples of 8; not clamped. The release gives stage 3 first.
    """

    size_multiple = 8
    block_types = (CAB,)  # whose activations `train.checkpoint_blocks` computes anew in the backward pass

    def __init__(
        self,
        n_feat: int = 40,
        scale_unetfeats: int = 20,
        scale_orsnetfeats: int = 16,
        num_cab: int = 8,
        kernel_size: int = 3,
        reduction: int = 4,
        bias: bool = False,
    ) -> None:
        super().__init__()
        widths = [n_feat + level * scale_unetfeats for level in range(3)]
        wide = n_feat + scale_orsnetfeats
        # an own PReLU for every network: two networks of one process learn two slopes
        make_cab = partial(CAB, activation=nn.PReLU(), kernel_size=kernel_size, reduction=reduction, bias=bias)
        make_orb = partial(ORB, make_cab=make_cab, num_cab=num_cab, kernel_size=kernel_size, bias=bias)
        conv = partial(same_conv, kernel_size=kernel_size, bias=bias)

        self.shallow_feat1, self.shallow_feat2, self.shallow_feat3 = (
            nn.Sequential(conv(3, n_feat), make_cab(n_feat)) for _ in range(3)
        )
        self.stage1_encoder = Encoder(widths, make_cab, bias)
        self.stage1_decoder = Decoder(widths, make_cab, bias)
        self.stage2_encoder = FusingEncoder(widths, make_cab, bias)
        self.stage2_decoder = Decoder(widths, make_cab, bias)
        self.stage3_orsnet = ORSNet(wide, widths, make_orb, bias)
        self.sam12 = SAM(n_feat, bias)
        self.sam23 = SAM(n_feat, bias)
        self.concat12 = conv(n_feat * 2, n_feat)
        self.concat23 = conv(n_feat * 2, wide)
        self.tail = conv(wide, 3)

    def forward(self, rain: Tensor) -> list[Tensor]:
        halves = to_parts(rain, dim=2)  # (2B, 3, H/2, W), the upper halves before the lower ones
        quarters = to_parts(halves, dim=3)  # (4B, 3, H/2, W/2), the left ones before the right ones

        # parts lie in the batch, as all of a stage share its weights: one call for two or four
        encoded = self.stage1_encoder(self.shallow_feat1(quarters))
        encoded = [from_parts(e, dim=3) for e in encoded]  # (2B, C_1, H/2, W), ...
        decoded = self.stage1_decoder(encoded)
        features, stage1 = self.sam12(decoded[0], halves)

        x = self.concat12(torch.cat([self.shallow_feat2(halves), features], dim=1))  # (2B, C_1, H/2, W)
        encoded = self.stage2_encoder(x, encoded, decoded)
        encoded = [from_parts(e, dim=2) for e in encoded]  # (B, C_1, H, W), ...
        decoded = self.stage2_decoder(encoded)
        features, stage2 = self.sam23(decoded[0], rain)

        x = self.concat23(torch.cat([self.shallow_feat3(rain), features], dim=1))  # (B, wide, H, W)
        stage3 = self.tail(self.stage3_orsnet(x, encoded, decoded)) + rain
        return [from_parts(stage1, dim=2), stage2, stage3]
