"""Gates of recurrent units: convolutions of one input run as one, and kernels that have no effect are left out.

Shapes: (B, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddsa_arch.archs import mspfn_arch, rescan_arch
from ddsa_arch.fast.eligible import conv_obstacle, is_touched, unobserved

OF_X = {rescan_arch.GRU: ('conv_xz', 'conv_xr', 'conv_xn'),
        rescan_arch.LSTM: ('conv_xf', 'conv_xi', 'conv_xo', 'conv_xj')}  # fmt: skip
OF_H = {rescan_arch.GRU: ('conv_hz', 'conv_hr', 'conv_hn'),
        rescan_arch.LSTM: ('conv_hf', 'conv_hi', 'conv_ho', 'conv_hj')}  # fmt: skip


class GRU(rescan_arch.GRU):
    """Fast execution of RESCAN's gated recurrent unit."""

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not unobserved(x) or unit_obstacle(self):
            return rescan_arch.GRU.forward(self, x, h)
        if h is None:
            z, n = joint_conv([self.conv_xz, self.conv_xn], x)
            h = z.sigmoid() * n.tanh()
        else:
            xz, xr, xn = joint_conv([self.conv_xz, self.conv_xr, self.conv_xn], x)
            hz, hr = joint_conv([self.conv_hz, self.conv_hr], h)
            z, r = (xz + hz).sigmoid(), (xr + hr).sigmoid()
            n = (xn + self.conv_hn(r * h)).tanh()
            h = (1 - z) * h + z * n
        h = self.finish(h)
        return h, h


class LSTM(rescan_arch.LSTM):
    """Fast execution of RESCAN's long short-term memory."""

    def forward(self, x: Tensor, h: Tensor | None = None, c: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        if not unobserved(x) or unit_obstacle(self):
            return rescan_arch.LSTM.forward(self, x, h, c)
        if h is None or c is None:
            i, o, j = joint_conv([self.conv_xi, self.conv_xo, self.conv_xj], x)
            c = i.sigmoid() * j.tanh()
            h = o.sigmoid() * c
        else:
            of_x = joint_conv([self.conv_xf, self.conv_xi, self.conv_xo, self.conv_xj], x)
            of_h = joint_conv([self.conv_hf, self.conv_hi, self.conv_ho, self.conv_hj], h)
            f, i, o, j = (a + b for a, b in zip(of_x, of_h, strict=True))
            c = f.sigmoid() * c + i.sigmoid() * j.tanh()
            h = o.sigmoid() * c.tanh()
        h = self.finish(h)
        return h, h, c


class ConvLSTM(mspfn_arch.ConvLSTM):
    """Fast execution of MSPFN's step from a state of zeros: neither the forget gate nor the state's kernels count."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.gates.weight, self.gates.bias
        if not unobserved(x) or conv_lstm_obstacle(self) or bias is None:
            return mspfn_arch.ConvLSTM.forward(self, x)
        kernels, biases = weight[:, : x.shape[1]].chunk(4), bias.chunk(4)
        used = [0, 1, 3]
        gates = F.conv2d(x, torch.cat([kernels[k] for k in used]), torch.cat([biases[k] for k in used]), padding=1)
        i, j, o = gates.chunk(3, dim=1)
        return (i.sigmoid() * j.tanh()).tanh() * o.sigmoid()


def unit_obstacle(unit: rescan_arch.Unit) -> str | None:
    """Return why the fast form cannot stand in for a unit of RESCAN; None if it can."""
    if is_touched(unit):
        return 'it has hooks or methods of its own'
    kind = rescan_arch.GRU if isinstance(unit, rescan_arch.GRU) else rescan_arch.LSTM
    dilation = getattr(getattr(unit, OF_X[kind][0]), 'dilation', (1,))[0]
    for names, step in ((OF_X[kind], dilation), (OF_H[kind], 1)):
        for name in names:
            layer = getattr(unit, name)
            if why := conv_obstacle(layer, name, 3, dilation=step):
                return why
            if layer.bias is None:
                return f'{name} has no bias'
    return None


def conv_lstm_obstacle(lstm: mspfn_arch.ConvLSTM) -> str | None:
    """Return why the fast form cannot stand in for MSPFN's ConvLSTM; None if it can."""
    if is_touched(lstm):
        return 'it has hooks or methods of its own'
    return conv_obstacle(lstm.gates, 'gates', 3) or ('gates has no bias' if lstm.gates.bias is None else None)


def joint_conv(convs: Sequence[nn.Conv2d], x: Tensor) -> tuple[Tensor, ...]:
    """Run equal 3x3 convolutions of one input as one, and return their outputs."""
    weight = torch.cat([conv.weight for conv in convs])
    bias = torch.cat([conv.bias for conv in convs if conv.bias is not None])
    dilation = convs[0].dilation
    return F.conv2d(x, weight, bias, padding=dilation, dilation=dilation).chunk(len(convs), dim=1)
