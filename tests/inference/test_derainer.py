"""Images of all kinds through one network; `Fade` makes the expected values plain."""

import numpy as np
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from PIL import Image
from torch import nn

from ddsa_arch import Derainer
from ddsa_arch.archs.weights import write_weights
from ddsa_arch.errors import InputError
from ddsa_arch.fast import is_accelerated
from ddsa_arch.inference import derainer as module
from ddsa_arch.inference.image_memory import ImageMemory


@ARCH_REGISTRY.register()
class Fade(nn.Module):
    """Less of the red, none of the blue; pixels of a batch are told apart by their own values alone."""

    size_multiple = 4

    def __init__(self):
        super().__init__()
        self.factors = nn.Parameter(torch.tensor([0.4, 1.0, 0.0]))
        self.sizes = []

    def forward(self, rain):
        self.sizes.append(tuple(rain.shape[-2:]))
        return rain * self.factors[:, None, None]


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / 'fade.pth'
    write_weights(path, Fade().state_dict(), {'type': 'Fade'}, {})
    return path


@pytest.fixture
def fade(weights):
    return Derainer(weights, device='cpu')


def faded(image):
    """RGB."""
    return np.rint(image * np.array([0.4, 1, 0])).astype(image.dtype)


@pytest.mark.core
def test_arrays(fade, rng):
    image = rng.integers(0, 256, (7, 9, 3)).astype(np.uint8)
    assert np.array_equal(fade(image), faded(image))
    assert np.array_equal(fade(image[..., ::-1], bgr=True), faded(image)[..., ::-1])
    batch = np.stack([image, image[::-1]])
    assert np.array_equal(fade(batch), faded(batch))
    deep = image.astype(np.uint16) * 257
    assert np.abs(fade(deep).astype(int) - faded(deep)).max() <= 1
    alpha = np.concatenate([image, image[..., :1]], axis=2)
    assert np.array_equal(fade(alpha)[..., :3], faded(image))
    assert np.array_equal(fade(alpha)[..., 3], alpha[..., 3])
    assert np.abs(fade(image / 255) - image / 255 * [0.4, 1, 0]).max() <= 1e-6
    luma = 0.299 * 0.4 + 0.587
    assert np.abs(fade(image[..., 0]) - image[..., 0] * luma).max() <= 0.51
    assert fade(batch[:0]).shape == (0, 7, 9, 3)


def test_pil_images_keep_their_mode(fade, rng):
    colour = Image.fromarray(rng.integers(0, 256, (7, 9, 4)).astype(np.uint8))
    for mode, kept in (('RGB', 'RGB'), ('RGBA', 'RGBA'), ('L', 'L'), ('LA', 'LA'), ('P', 'RGB'), ('CMYK', 'RGB')):
        derained = fade(colour.convert('RGB').convert(mode) if mode == 'P' else colour.convert(mode))
        assert derained.mode == kept
        assert derained.size == (9, 7)
    assert fade(colour.convert('P')).mode == 'RGBA'  # its palette has alpha
    assert np.array_equal(np.asarray(fade(colour.convert('RGB'))), faded(np.asarray(colour)[..., :3]))


def test_tensors(fade):
    rain = torch.rand(2, 3, 6, 5)
    wanted = rain * torch.tensor([0.4, 1, 0])[:, None, None]
    assert torch.allclose(fade(rain), wanted, atol=1e-6)
    assert torch.allclose(fade(rain[0]), wanted[0], atol=1e-6)
    assert fade(rain.double()).dtype == torch.float64
    assert torch.equal(fade((rain * 255).byte())[:, 1], (rain * 255).byte()[:, 1])


def test_lists_of_any_sizes(fade, rng):
    images = [rng.integers(0, 256, (size, 5, 3)).astype(np.uint8) for size in (1, 3, 8)]
    assert all(np.array_equal(a, faded(b)) for a, b in zip(fade(images), images, strict=True))


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        ('photo.jpg', 'not a str'),
        (torch.zeros(4, 8, 8), r'\(4, 8, 8\) is no image; wanted \(3, H, W\)'),
        (torch.zeros(3, 8, 8, dtype=torch.bfloat16), 'bfloat16 is no image'),
        (np.full((4, 4, 3), 2.0), r'in \[0, 1\]'),
    ],
)
def test_what_is_no_image_is_refused(fade, image, message):
    with pytest.raises(InputError, match=message):
        fade(image)


@pytest.mark.core
def test_tiles_give_what_the_whole_image_gives(weights, rng):
    image = rng.integers(0, 256, (150, 201, 3)).astype(np.uint8)
    derain = Derainer(weights, device='cpu', tile=64)
    assert np.array_equal(derain(image), faded(image))
    assert set(derain.net.sizes) == {(64, 64)}


def test_the_fast_execution_can_be_left_out(rng):
    image = rng.integers(0, 256, (40, 56, 3)).astype(np.uint8)
    fast, plain = Derainer(device='cpu'), Derainer(device='cpu', fast=False)
    assert is_accelerated(fast.net)
    assert not is_accelerated(plain.net)
    assert np.abs(fast(image).astype(int) - plain(image)).max() <= 1


def test_the_ensemble_is_the_mean_over_flips_and_turns(weights, monkeypatch, rng):
    image = rng.integers(0, 256, (8, 12, 3)).astype(np.uint8)
    derain = Derainer(weights, device='cpu', ensemble=8)
    assert np.array_equal(derain(image), faded(image))  # which do not matter to it
    assert derain.net.sizes == [(8, 12), (12, 8)] * 4
    flips = Derainer(weights, device='cpu', ensemble=4)
    assert np.array_equal(flips(image), faded(image))
    assert flips.net.sizes == [(8, 12)] * 4
    monkeypatch.setattr(derain.net, 'forward', lambda x: x * torch.linspace(0, 1, x.shape[-1]))
    square = np.ones((8, 8, 3))
    ramp = np.linspace(0, 1, 8)
    wanted = (ramp + ramp[::-1])[None] / 4 + (ramp + ramp[::-1])[:, None] / 4
    assert np.abs(derain(square) - wanted[..., None]).max() <= 1e-6
    monkeypatch.setattr(flips.net, 'forward', lambda x: x * torch.linspace(0, 1, x.shape[-1]) ** 2)
    wanted = (ramp**2 + ramp[::-1] ** 2)[None].repeat(8, 0) / 2
    assert np.abs(flips(square) - wanted[..., None]).max() <= 1e-6


@pytest.mark.parametrize('ensemble', [True, 0, 2, 4.0, 'all'])
def test_ensembles_that_there_are_none_of_are_refused(weights, ensemble):
    with pytest.raises(InputError, match='wanted one of 1, 4, 8'):
        Derainer(weights, device='cpu', ensemble=ensemble)


def test_sixteen_bits_that_overflow_are_computed_again(weights, monkeypatch, rng):
    image = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    derain = Derainer(weights, device='cpu', half=True)
    assert derain(image).shape == image.shape
    assert derain.notes == []
    forward = derain.net.forward

    def overflows(rain):
        return forward(rain) * (float('inf') if torch.is_autocast_enabled('cpu') else 1)

    monkeypatch.setattr(derain.net, 'forward', overflows)
    assert np.array_equal(derain(image), faded(image))
    assert len(derain.notes) == 1
    assert 'not finite' in derain.notes[0]


def test_sixteen_bits_that_a_network_does_not_take_are_left_alone(weights, monkeypatch, rng):
    image = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    derain = Derainer(weights, device='cpu', half=True)
    forward, calls = derain.net.forward, []

    def refuses(rain):
        calls.append(torch.is_autocast_enabled('cpu'))
        if calls[-1]:
            raise RuntimeError('"unfold" not implemented for BFloat16')
        return forward(rain)

    monkeypatch.setattr(derain.net, 'forward', refuses)
    for _ in range(2):
        assert np.array_equal(derain(image), faded(image))
    assert calls == [True, False, False]
    assert '"unfold" not implemented' in derain.notes[0]


def test_weights_that_give_no_numbers_are_named(weights, monkeypatch):
    derain = Derainer(weights, device='cpu')
    monkeypatch.setattr(derain.net, 'forward', lambda rain: rain * float('nan'))
    with pytest.raises(InputError, match='not finite; are these weights whole'):
        derain(np.zeros((8, 8, 3)))


@pytest.mark.parametrize(
    'error', [torch.cuda.OutOfMemoryError('CUDA out of memory'), MemoryError(),
              RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]
)  # fmt: skip
def test_out_of_memory_is_tried_again_in_smaller_tiles(weights, monkeypatch, rng, error):
    image = rng.integers(0, 256, (300, 400, 3)).astype(np.uint8)
    derain = Derainer(weights, device='cpu')
    forward = derain.net.forward

    def narrow(rain):
        if rain.shape[-1] > 128:
            raise error
        return forward(rain)

    monkeypatch.setattr(derain.net, 'forward', narrow)
    assert np.array_equal(derain(image), faded(image))
    assert derain.notes == [
        'out of memory with the whole image; went on with tiles of 192',
        'out of memory with 192; went on with tiles of 64',
    ]
    monkeypatch.setattr(derain.net, 'forward', lambda rain: (_ for _ in ()).throw(error))
    with pytest.raises(InputError, match='out of memory with tiles of 64 pixels on cpu'):
        derain(image)


def test_another_error_of_a_network_is_not_swallowed(weights, monkeypatch):
    derain = Derainer(weights, device='cpu')
    monkeypatch.setattr(derain.net, 'forward', lambda rain: rain.view(7))
    with pytest.raises(RuntimeError, match='invalid for input'):
        derain(np.zeros((8, 8, 3)))


def test_tiles_come_from_the_free_memory(weights, monkeypatch, rng):
    image = rng.integers(0, 256, (600, 700, 3)).astype(np.uint8)
    monkeypatch.setattr(module.ImageMemory, 'measure', lambda net, device: ImageMemory(1000, 100))
    for free, sizes in ((60e6, {(600, 700)}), (5e6, {(192, 192)}), (0, {(64, 64)}), (None, {(600, 700)})):
        monkeypatch.setattr(module, 'free_memory', lambda device, free=free: free)
        derain = Derainer(weights, device='cpu')
        assert np.array_equal(derain(image), faded(image))
        assert set(derain.net.sizes) == sizes, free


def test_the_copies_of_a_large_image_count_too(weights, monkeypatch, rng):
    """40 MB are enough for what the network needs of it, not for all copies."""
    image = rng.integers(0, 256, (600, 700, 3)).astype(np.uint8)
    monkeypatch.setattr(module.ImageMemory, 'measure', lambda net, device: ImageMemory(1000, 60))
    monkeypatch.setattr(module, 'free_memory', lambda device: 40e6)
    for largest, sizes in ((1536, {(600, 700)}), (256, {(256, 256)})):
        monkeypatch.setattr(module, 'LARGEST_TILE', largest)
        derain = Derainer(weights, device='cpu')
        assert np.array_equal(derain(image), faded(image))
        assert set(derain.net.sizes) == sizes


def test_a_network_can_be_named_for_weights_that_name_none(tmp_path, rng):
    torch.save(Fade().state_dict(), tmp_path / 'plain.pth')
    with pytest.raises(InputError, match=r'plain.pth does not say how its network is built'):
        Derainer(tmp_path / 'plain.pth')
    image = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    for network in ('Fade', {'type': 'Fade'}):
        assert np.array_equal(Derainer(tmp_path / 'plain.pth', network, 'cpu')(image), faded(image))
    with pytest.raises(InputError, match="no network 'Fadee'; did you mean 'Fade'"):
        Derainer(tmp_path / 'plain.pth', 'Fadee')


@pytest.mark.parametrize('tile', [1, 32, 66, 'large', 100.5])
def test_tiles_that_a_network_does_not_take_are_refused(weights, tile):
    with pytest.raises(InputError, match='wanted auto, or a multiple of 4 from 64 pixels up'):
        Derainer(weights, tile=tile)


@pytest.mark.parametrize('device', ['gpu', 'cuda:99', 'warp'])
def test_devices_that_are_not_there_are_named(weights, device):
    with pytest.raises(InputError, match=f"device '{device}' cannot be used here"):
        Derainer(weights, device=device)
