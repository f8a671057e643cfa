"""Whole networks in inference: layers between blocks run strip by strip, and a skip is kept where it will be joined.

The order of operations stands in the paper's forward, to which each of these steps aside in training.
"""

from __future__ import annotations

from torch import Tensor

from ddsa_arch.archs import ddsanet_arch, drsformer_arch, restormer_arch
from ddsa_arch.archs.blocks.transformer_unet import TransformerUNet
from ddsa_arch.fast.blocks import run_blocks
from ddsa_arch.fast.eligible import in_inference
from ddsa_arch.fast.strips import StripPlan, embed, fuse, join, plan_of, through, with_room


class DDSANet(ddsanet_arch.DDSANet):
    """Fast execution of DDSANet."""

    def forward(self, rain: Tensor) -> Tensor:
        if in_inference(rain):
            return run_ddsanet(self, rain, plan_of(self))
        return ddsanet_arch.DDSANet.forward(self, rain)


class Restormer(restormer_arch.Restormer):
    """Fast execution of Restormer."""

    def forward(self, rain: Tensor) -> Tensor:
        if in_inference(rain):
            return run_restormer(self, rain, plan_of(self))
        return restormer_arch.Restormer.forward(self, rain)


class DRSformer(drsformer_arch.DRSformer):
    """Fast execution of DRSformer."""

    def forward(self, rain: Tensor) -> Tensor:
        if in_inference(rain):
            return run_drsformer(self, rain, plan_of(self))
        return drsformer_arch.DRSformer.forward(self, rain)


def run_ddsanet(net: ddsanet_arch.DDSANet, rain: Tensor, plan: StripPlan) -> Tensor:
    """Run DDSANet.forward, (B, 3, H, W) -> the same."""
    room, x1 = embed(net.embed, rain, plan)
    x1 = run_blocks(net.encoder1, run_blocks(net.encoder0, x1, plan), plan)  # (B, dim, H, W)
    x2 = run_blocks(net.encoder2, through(net.down12, x1, 2, plan), plan)  # (B, 2 dim, H/2, W/2)
    x3 = run_blocks(net.encoder3, through(net.down23, x2, 2, plan), plan)  # (B, 4 dim, H/4, W/4)
    y = run_blocks(net.level4, through(net.down34, x3, 2, plan), plan)  # (B, 8 dim, H/8, W/8)
    y = run_blocks(net.decoder3, fuse(net.fuse3, net.up43, y, x3, plan), plan)
    y = run_blocks(net.decoder2, fuse(net.fuse2, net.up32, y, x2, plan), plan)
    del x2, x3  # memory that the full resolution needs
    y = run_blocks(net.decoder1, join(net.up21, y, x1, room, plan), plan)  # (B, 2 dim, H, W)
    return rain + through(net.output, run_blocks(net.decoder0, y, plan), 1, plan)


def run_restormer(net: restormer_arch.Restormer, rain: Tensor, plan: StripPlan) -> Tensor:
    """Run Restormer.forward, (B, 3, H, W) -> the same."""
    room, x = embed(net.patch_embed, rain, plan)  # (B, dim, H, W)
    skip = None if net.skip_conv is None else net.skip_conv(x)
    y = run_blocks(net.refinement, levels(net, room, x, plan), plan)  # (B, 2 dim, H, W)
    if skip is not None:
        return net.output(y + skip)
    return rain + through(net.output, y, 1, plan)


def run_drsformer(net: drsformer_arch.DRSformer, rain: Tensor, plan: StripPlan) -> Tensor:
    """Run DRSformer.forward, (B, 3, H, W) -> the same."""
    x = net.encoder_level0(through(net.patch_embed, rain, 1, plan))  # (B, dim, H, W)
    return rain + through(net.output, net.refinement(levels(net, *with_room(x), plan)), 1, plan)


def levels(net: TransformerUNet, room: Tensor, x1: Tensor, plan: StripPlan) -> Tensor:
    """Run TransformerUNet.levels, from what ``embed`` gives to (B, 2 dim, H, W)."""
    x1 = run_blocks(net.encoder_level1, x1, plan)
    x2 = run_blocks(net.encoder_level2, through(net.down1_2, x1, 2, plan), plan)  # (B, 2 dim, H/2, W/2)
    x3 = run_blocks(net.encoder_level3, through(net.down2_3, x2, 2, plan), plan)  # (B, 4 dim, H/4, W/4)
    y = run_blocks(net.latent, through(net.down3_4, x3, 2, plan), plan)  # (B, 8 dim, H/8, W/8)
    y = run_blocks(net.decoder_level3, fuse(net.reduce_chan_level3, net.up4_3, y, x3, plan), plan)
    y = run_blocks(net.decoder_level2, fuse(net.reduce_chan_level2, net.up3_2, y, x2, plan), plan)
    del x2, x3  # memory that the full resolution needs
    return run_blocks(net.decoder_level1, join(net.up2_1, y, x1, room, plan), plan)
