import multiprocessing
import sys
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from helpers import LONGEST, same
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ddsa_arch.archs import ddsanet_arch
from ddsa_arch.archs.ddsanet_arch import DDSANet
from ddsa_arch.errors import InputError
from ddsa_arch.models.training_step import TrainingStep, checkpoint_blocks

CPU = torch.device('cpu')


class Normed(nn.Module):
    """A network with running statistics, which one bad image would spoil."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))

    def forward(self, x):
        return x + self.layers(x)


def tiny(**more):
    torch.manual_seed(5)
    return DDSANet(dim=8, blocks=[1, 1, 1, 1, 1], **more)


def batch(count=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    rain, clean = (torch.rand(count, 3, 16, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    return rain.to(dtype), clean.to(dtype)


def l1(outputs, target):
    return OrderedDict(l_pix=F.l1_loss(outputs, target))


def step_of(net, **options):
    return TrainingStep(net, torch.optim.SGD(net.parameters(), lr=0.1), options, CPU, seed=3)


def state(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.mark.core
def test_a_step_is_that_of_plain_pytorch():
    net, twin = tiny(), tiny()
    rain, clean = batch()
    result = step_of(net).run(1, rain, clean, l1)
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.1)
    loss = F.l1_loss(twin(rain), clean)
    loss.backward()
    optimiser.step()
    assert result.taken
    assert same(state(net), state(twin))
    assert result.losses == {'l_pix': loss.detach()}


@pytest.mark.parametrize('parts', [2, 4, 8])
def test_accumulated_gradients_are_those_of_the_whole_batch(parts):
    nets = [tiny().double(), tiny().double()]
    results = [
        step_of(net, accumulate=n).run(1, *batch(dtype=torch.float64), l1)
        for net, n in zip(nets, (1, parts), strict=True)
    ]
    assert float(results[0].losses['l_pix'] - results[1].losses['l_pix']) == pytest.approx(0, abs=1e-14)
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert (a.grad - b.grad).abs().max() <= 1e-12 * a.grad.abs().max()


def _gradients_of_rank(rank, folder, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    net = tiny().double()
    rain, clean = (images[rank::2] for images in batch(dtype=torch.float64))
    step_of(DistributedDataParallel(net), accumulate=2).run(1, rain, clean, l1)
    poisoned = rain.clone()
    if rank == 1:
        poisoned[0, 0, 0, 0] = torch.nan
    weights = [p.detach().clone() for p in net.parameters()]
    gradients = [p.grad.clone().numpy() for p in net.parameters()]
    taken = step_of(DistributedDataParallel(net)).run(2, poisoned, clean, l1).taken
    unchanged = all(torch.equal(a, b) for a, b in zip(weights, net.parameters(), strict=True))
    results.put((rank, gradients, taken, unchanged))
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(sys.platform == 'win32', reason='no fork')
def test_two_processes_with_accumulation_give_the_gradient_of_one_batch(tmp_path):
    """2 processes x 2 images x 2 parts against one process with 8 images; and both skip where one has a NaN."""
    context = multiprocessing.get_context('spawn')
    results = context.Queue()
    processes = [context.Process(target=_gradients_of_rank, args=(rank, tmp_path, results)) for rank in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=LONGEST) for _ in processes]
    for process in processes:
        process.join(LONGEST)
    net = tiny().double()
    step_of(net).run(1, *batch(dtype=torch.float64), l1)
    for _, gradients, taken, unchanged in found:
        assert (taken, unchanged) == (False, True)
        for a, b in zip(net.parameters(), gradients, strict=True):
            assert (a.grad - torch.from_numpy(b)).abs().max() <= 1e-6 * a.grad.abs().max()


@pytest.mark.parametrize('value', [torch.nan, torch.inf])
@pytest.mark.parametrize('where', ['rain', 'target'])
@pytest.mark.parametrize('amp', ['off', 'bf16', 'fp16'])
def test_a_poisoned_batch_changes_nothing(value, where, amp):
    net = Normed()
    step = step_of(net, amp=amp, accumulate=2)
    step.run(1, *batch(), l1)
    before = state(net)
    rain, clean = batch()
    (rain if where == 'rain' else clean)[3, 0, 5, 5] = value
    result = step.run(2, rain, clean, l1)
    assert not result.taken
    assert same(state(net), before)
    assert step.run(3, *batch(), l1).taken
    assert not same(state(net), before)


def test_gradients_are_clipped_to_their_norm():
    net = tiny()
    step_of(net, grad_clip=1e-3).run(1, *batch(), l1)
    norm = torch.cat([p.grad.flatten() for p in net.parameters()]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)


def test_mixed_precision_keeps_scores_norms_and_loss_in_float32(monkeypatch):
    net = tiny()
    seen = {}

    def watch(name, kind):
        module = next(m for m in net.modules() if type(m).__name__ == kind)
        module.register_forward_hook(lambda m, inputs, output: seen.update({name: output.dtype}))

    watch('convolution', 'Conv2d')
    watch('norm', 'ChannelLayerNorm')
    scores = ddsanet_arch.channel_scores
    seen_scores = []

    def watched(q, k, temperature):
        value = scores(q, k, temperature)
        seen_scores.append((q.dtype, value.dtype))
        return value

    def loss(outputs, target):
        seen['loss'] = outputs.dtype
        return l1(outputs, target)

    monkeypatch.setattr(ddsanet_arch, 'channel_scores', watched)
    step_of(net, amp='bf16').run(1, *batch(), loss)
    assert seen == {'convolution': torch.bfloat16, 'norm': torch.float32, 'loss': torch.float32}
    assert set(seen_scores) == {(torch.bfloat16, torch.float32)}
    assert {p.dtype for p in net.parameters()} == {torch.float32}


@pytest.mark.parametrize('amp', ['bf16', 'fp16'])
def test_mixed_precision_gives_nearly_the_gradient_of_float32(amp):
    nets = [tiny(), tiny()]
    for net, kind in zip(nets, ('off', amp), strict=True):
        step_of(net, amp=kind).run(1, *batch(), l1)
    a, b = (torch.cat([p.grad.flatten() for p in net.parameters()]) for net in nets)
    assert F.cosine_similarity(a, b, dim=0) > 0.99
    assert float(b.norm() / a.norm()) == pytest.approx(1, abs=0.05)


def test_activations_computed_anew_change_no_gradient_and_no_name():
    nets = [tiny(), tiny()]
    checkpoint_blocks(nets[1])
    assert list(nets[0].state_dict()) == list(nets[1].state_dict())
    saved = []
    for net in nets:
        kept = 0

        def count(tensor):
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            step_of(net).run(1, *batch(), l1)
        saved.append(kept)
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-6, atol=0)
    assert saved[1] < saved[0] / 2


def test_blocks_must_be_named_by_the_network():
    with pytest.raises(InputError, match=r'train\.checkpoint_blocks: Normed names no block_types; set it to false'):
        checkpoint_blocks(Normed())


def test_what_a_network_draws_depends_on_the_iteration_alone():
    class Drawn(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return x * self.weight * torch.rand(1)

    losses = []
    for first, second in ((1, 2), (5, 2), (7, 2)):
        step = step_of(Drawn())
        step.run(first, *batch(), l1)
        step.net.weight.data.fill_(1)
        losses.append(step.run(second, *batch(), l1).losses['l_pix'])
    assert losses[0] == losses[1] == losses[2]
    other = step_of(Drawn()).run(3, *batch(), l1).losses['l_pix']
    assert other != losses[0]
