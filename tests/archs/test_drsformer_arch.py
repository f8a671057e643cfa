"""DRSformer against the outputs of the published network and literal, slow twins of its equations."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ddsa_arch.archs import drsformer_arch
from ddsa_arch.archs.drsformer_arch import MEFC, MSFN, TKSA, DRSformer, below_top_k
from ddsa_arch.models.training_step import checkpoint_blocks

SLOW = pytest.mark.slow
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def with_fixed_selection(monkeypatch):
    """Outputs by published name; float32 lets the rows keep the scores that they kept in float64, the call before.

    At the golden inputs the k-th score of some rows leads the next by 2e-7 only, less than float32 is exact, and one
    exchange changes these outputs by up to 1. What is left to compare in float32 is all the arithmetic.
    """
    chosen = []

    def record(scores, kept):
        chosen.append(below_top_k(scores, kept))
        return chosen[-1]

    def outputs(net, x):
        if x.dtype == torch.float64:
            chosen.clear()
            monkeypatch.setattr(drsformer_arch, 'below_top_k', record)
        else:
            monkeypatch.setattr(drsformer_arch, 'below_top_k', lambda scores, kept: chosen.pop(0))
        return {'out': net(x)}

    return outputs


@pytest.mark.parametrize(
    ('name', 'size'),
    [
        ('drsformer', '1x3x40x56'),
        pytest.param('drsformer', '1x3x64x64', marks=SLOW),
        pytest.param('drsformer', '2x3x64x96', marks=SLOW),
        ('drsformer_no_mefc', '1x3x40x64'),
        pytest.param('drsformer_no_mefc', '1x3x48x64', marks=SLOW),
    ],
)
def test_the_published_outputs_are_reached(golden, monkeypatch, name, size):
    file = golden(name)
    run = file.spec['runs']['plain']
    run['outputs'] = {size: run['outputs'][size]}
    file.check(DRSformer(mefc=name == 'drsformer'), with_fixed_selection(monkeypatch))


def randomised(module, dtype=torch.float64):
    """Weights of every kind away from their initial values, so that each one matters."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3
        if name.endswith('temperature'):
            parameter.data += 5.0
    return module.to(dtype)


def noise(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def literal_tksa(net, x, heads):
    """Four branches, each with its own product with v; the entries kept are those that sorting puts first."""
    batch, channels, height, width = x.shape
    d = channels // heads
    qkv = F.conv2d(F.conv2d(x, net.qkv.weight), net.qkv_dwconv.weight, padding=1, groups=3 * channels)
    out = torch.zeros(batch, channels, height * width, dtype=x.dtype)
    for b in range(batch):
        for head in range(heads):
            q, k, v = (
                qkv[b, part * channels + head * d : part * channels + (head + 1) * d].flatten(1) for part in range(3)
            )
            scores = F.normalize(q, dim=1) @ F.normalize(k, dim=1).T * net.temperature[head]
            for kept, factor in (
                (int(d / 2), net.attn1), (int(d * 2 / 3), net.attn2),
                (int(d * 3 / 4), net.attn3), (int(d * 4 / 5), net.attn4),
            ):  # fmt: skip
                branch = torch.zeros(d, height * width, dtype=x.dtype)
                for i in range(d):
                    best = sorted(range(d), key=lambda j, row=scores[i]: -row[j])[:kept]
                    total = sum(math.exp(scores[i, j]) for j in best)
                    for j in best:
                        branch[i] += math.exp(scores[i, j]) / total * v[j]
                out[b, head * d : (head + 1) * d] += factor * branch
    return F.conv2d(out.view(x.shape), net.project_out.weight)


@pytest.mark.parametrize(('dim', 'heads'), [(2, 1), (7, 1), (10, 2)])
def test_tksa_equals_four_branches_with_their_own_products(dim, heads):
    net = randomised(TKSA(dim, heads))
    x = noise(2, dim, 5, 7)
    with torch.no_grad():
        expected = literal_tksa(net, x, heads)
        for layout in LAYOUTS:
            assert (net(x.contiguous(memory_format=layout)) - expected).abs().max() <= 1e-10


@pytest.mark.parametrize(
    ('width', 'kept'), [(48, [24, 32, 36, 38]), (96, [48, 64, 72, 76]), (2, [1] * 4), (3, [1, 2, 2, 2])]
)
def test_a_row_keeps_half_to_four_fifths_of_its_scores(width, kept):
    assert TKSA(width * 2, 2).kept == kept


def test_scores_that_tie_with_the_kth_largest_all_stay():
    scores = torch.tensor([[3.0, 1.0, 2.0, 2.0, 2.0], [0.0] * 5, [1.0, 5.0, 4.0, 3.0, 2.0]])
    below = below_top_k(scores, [1, 2])
    assert below[0].tolist() == [[False, True, True, True, True], [False] * 5, [True, False, True, True, True]]
    assert below[1].tolist() == [[False, True, False, False, False], [False] * 5, [True, False, False, True, True]]


def test_what_a_branch_drops_has_no_weight_and_the_rest_adds_up_to_its_factor():
    net = TKSA(10, 1).double()  # keeps 5, 6, 7 and 8 of 10
    row = torch.arange(10, dtype=torch.float64)
    weights = sum(net.attention_maps(row.expand(1, 1, 10, 10)))[0, 0, 0].detach()
    assert (weights[:2] == 0).all()
    assert (weights[2:] > 0).all()
    assert math.isclose(weights.sum(), 0.8, rel_tol=1e-6)  # four factors of 0.2 at first, in no softmax
    net.attn4.data.zero_()
    assert sum(net.attention_maps(row.expand(1, 1, 10, 10)))[0, 0, 0, 2] == 0  # only the branch of 8 kept it


@pytest.mark.parametrize('dim', [4, 7])
def test_msfn_equals_its_equations(dim):
    net = randomised(MSFN(dim))
    hidden = int(dim * 2.66)
    x = noise(2, dim, 6, 5)
    with torch.no_grad():
        u = F.conv2d(x, net.project_in.weight)
        p = F.relu(F.conv2d(u, net.dwconv3x3.weight, padding=1, groups=2 * hidden))
        r = F.relu(F.conv2d(u, net.dwconv5x5.weight, padding=2, groups=2 * hidden))
        s1 = [*p[:, :hidden].unbind(1), *r[:, :hidden].unbind(1)]
        s2 = [*p[:, hidden:].unbind(1), *r[:, hidden:].unbind(1)]
        mixed = []
        for s, conv, padding in ((s1, net.dwconv3x3_1, 1), (s2, net.dwconv5x5_1, 2)):
            for g in range(hidden):  # neighbours 2g and 2g + 1
                pair = torch.stack(s[2 * g : 2 * g + 2], 1)
                mixed.append(F.relu(F.conv2d(pair, conv.weight[g : g + 1], padding=padding)))
        expected = F.conv2d(torch.cat(mixed, 1), net.project_out.weight)
        assert (net(x) - expected).abs().max() <= 1e-10


def literal_pool(x):
    """Mean over those of the 3x3 neighbours that lie inside the image."""
    out = torch.empty_like(x)
    height, width = x.shape[1:]
    for i in range(height):
        for j in range(width):
            out[:, i, j] = x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].mean(dim=(1, 2))
    return out


def literal_expert(weights, op, s):
    """Operation 0 to 7 of a step for one sample (C, H, W); ``weights`` by published name, from ``op.``."""
    s = s[None]
    if op == 7:
        return literal_pool(s[0])
    kernel = (1, 3, 5, 7, 3, 5, 7)[op]
    dilation = 1 if op < 4 else 2
    padding = dilation * (kernel - 1) // 2
    for start in (0, 3) if op < 4 else (0,):
        if start:
            s = F.relu(s)
        s = F.conv2d(s, weights[f'{start}.weight'], padding=padding, dilation=dilation, groups=s.shape[1])
        s = F.conv2d(s, weights[f'{start + 1}.weight'])
    return s[0]


def literal_mefc(state, x):
    """One sample (C, H, W) after the other, with weights by published name."""

    def under(prefix):
        return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}

    gate = under('layers.0.ca_fc.')
    outs = []
    for sample in x:
        hidden = F.relu(gate['0.weight'] @ sample.mean(dim=(1, 2)) + gate['0.bias'])
        weights = (gate['2.weight'] @ hidden + gate['2.bias']).view(4, 8).softmax(dim=1)
        s = F.relu(F.conv2d(sample[None], state['layers.1.preprocess.op.0.weight']))[0]
        for step in range(4):
            prefix = f'layers.1._ops.{step}.'
            experts = [
                literal_expert(under(f'{prefix}_ops.{op}.op.'), op, s) * weights[step, op].item() for op in range(8)
            ]
            mixed = F.relu(F.conv2d(torch.cat(experts)[None], state[f'{prefix}_out.0.weight']))[0]
            s = F.relu(mixed + s)
        outs.append(s)
    return torch.stack(outs)


def test_mefc_equals_its_equations_for_samples_with_different_weights():
    net = randomised(MEFC(5))
    x = noise(2, 5, 7, 6)
    x[1] += 1
    with torch.no_grad():
        gate = net.layers[0](x)
        assert gate.shape == (2, 4, 8)
        assert (gate[0] - gate[1]).abs().max() > 0.01
        expected = literal_mefc(net.state_dict(), x)
        for layout in LAYOUTS:
            out = net.to(memory_format=layout)(x.contiguous(memory_format=layout))
            assert (out - expected).abs().max() <= 1e-10 * max(1.0, expected.abs().max().item())


def test_gradients_under_autocast_are_near_those_in_float32_whatever_memory_held_before():
    torch.manual_seed(0)
    net = MEFC(16).to(memory_format=torch.channels_last)
    x = noise(2, 16, 32, 40).float().contiguous(memory_format=torch.channels_last)
    grads = []
    for enabled in (False, True):
        net.zero_grad()
        stale = [torch.full((size,), math.nan).bfloat16() for size in (100, 1000, 10_000, 100_000) for _ in range(20)]
        del stale
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            net(x).float().square().sum().backward()
        grads.append([p.grad for p in net.parameters()])
    for exact, rounded in zip(*grads, strict=True):
        assert (exact - rounded).norm() <= 0.1 * exact.norm()


def tiny(**changes):
    torch.manual_seed(0)
    return DRSformer(**({'dim': 8, 'num_blocks': (1, 1, 1, 1)} | changes))


def test_the_network_has_the_published_cost():
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        DRSformer()(torch.rand(1, 3, 32, 32))
    pixels = 256 * 256 // (32 * 32)  # published for 256 x 256; a flop is half a multiplication and addition
    by_kind = {str(kind): flops // 2 for kind, flops in counter.get_flop_counts()['Global'].items()}
    assert by_kind.pop('aten.addmm') == 13_312  # the linear layers of the gates see one mean of the image
    products = 22_649_241_600  # of q with k once and of the maps with v four times, all of one size
    assert sum(by_kind.values()) * pixels == 220_330_524_672 + products


def test_the_network_adds_a_residual_to_its_input():
    net = tiny()
    net.output.weight.data.zero_()
    x = torch.rand(1, 3, 16, 24)
    assert torch.equal(net(x), x)


def test_no_skip_leads_around_the_compensators():
    net = tiny()
    for mefc in (net.encoder_level0, net.refinement):
        mefc.register_forward_hook(lambda module, inputs, output: output * 0)
    seen = []
    for layer in (net.encoder_level1, net.output):
        layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].abs().max().item()))
    net(torch.rand(1, 3, 16, 16))
    assert seen == [0, 0]


def test_without_the_compensators_the_other_parts_are_the_same():
    whole, plain = tiny().state_dict(), tiny(mefc=False).state_dict()
    assert plain.keys() == {key for key in whole if not key.startswith(('encoder_level0.', 'refinement.'))}


def test_bias_reaches_every_convolution_but_those_of_the_compensators():
    net = tiny(bias=True)
    without = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.bias is None]
    assert without
    assert all(name.startswith(('encoder_level0.', 'refinement.')) for name in without)


def test_checkpointed_blocks_give_the_same_gradients():
    x = torch.rand(1, 3, 16, 16)
    grads = []
    for checkpointed in (False, True):
        net = tiny()
        if checkpointed:
            checkpoint_blocks(net)
            assert not isinstance(net.refinement.layers[1]._ops[0].forward, type(net.forward))  # a partial now
        net(x).square().mean().backward()
        grads.append([p.grad for p in net.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'num_blocks': (1, 1)}, r'num_blocks: \[1, 1\] has 2 entries; one for each of the 4 levels'),
        ({'heads': (1,)}, r'heads: \[1\] has 1 entries'),
        ({'heads': (3, 2, 4, 8)}, 'heads: 3 does not divide the 8 channels; try 1'),
        ({'heads': (8, 2, 4, 8)}, 'heads: 8 leave 1 of 8 channels each.*try fewer'),
        ({'dim': 9}, 'dim: 9 is odd.*try 10'),
        ({'LayerNorm_type': 'LayerNorm'}, "LayerNorm_type: 'LayerNorm' is not known; choose one of WithBias, BiasFree"),
        ({'out_channels': 1}, 'out_channels: 1 is not inp_channels 3.*try out_channels 3'),
        ({'ffn_expansion_factor': 0.0}, 'expansion 0.0 leaves no hidden channel of 8'),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=words):
        tiny(**arguments)


def test_the_result_does_not_depend_on_the_memory_layout():
    net = tiny().double()
    x = torch.rand(2, 3, 24, 16, dtype=torch.float64)
    expected = net(x)
    net.to(memory_format=torch.channels_last)
    assert (net(x.to(memory_format=torch.channels_last)) - expected).abs().max() < 1e-12
