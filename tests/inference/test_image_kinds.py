"""Images in memory of every kind through a network whose output is its input, and blends of its input and output."""

import io

import numpy as np
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from PIL import Image, ImageCms
from torch import nn

from ddsa_arch.archs.weights import write_weights
from ddsa_arch.errors import InputError
from ddsa_arch.inference.derainer import Derainer
from ddsa_arch.models.restore import Recipe, restore


@ARCH_REGISTRY.register()
class Same(nn.Module):
    """Its output is its input, or black."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, rain):
        return rain * self.factor


def derainer(tmp_path_factory, factor):
    path = tmp_path_factory.mktemp('same') / 'same.pth'
    write_weights(path, Same(factor).state_dict(), {'type': 'Same'}, {})
    return Derainer(path, device='cpu')


@pytest.fixture(scope='module')
def same(tmp_path_factory):
    return derainer(tmp_path_factory, 1.0)


@pytest.fixture(scope='module')
def black(tmp_path_factory):
    return derainer(tmp_path_factory, 0.0)


def rgba(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (7, 9, 4)).astype(np.uint8)


def pil_images():
    colour = Image.fromarray(rgba())
    plain, grey = colour.convert('RGB'), colour.convert('L')
    for mode in ('RGB', 'L', 'LA', 'RGBA'):
        yield mode, colour.convert(mode), colour.convert(mode)
    yield '1', plain.convert('1'), plain.convert('1').convert('L')
    yield 'P', plain.convert('P'), plain.convert('P').convert('RGB')
    index = Image.fromarray(np.asarray(grey) % 3)
    clear = Image.frombytes('P', index.size, index.tobytes())
    clear.putpalette([255, 255, 255, 10, 20, 30, 40, 50, 60])
    clear.info['transparency'] = 0
    yield 'P with a clear colour', clear, clear.convert('RGBA')
    several = clear.copy()
    several.info['transparency'] = bytes([0, 99])
    yield 'P with alpha', several, several.convert('RGBA')
    yield 'PA', clear.convert('PA'), clear.convert('PA').convert('RGBA')
    keyed = plain.copy()
    keyed.info['transparency'] = plain.getpixel((2, 3))
    yield 'RGB with a clear colour', keyed, keyed.convert('RGBA')
    keyed = grey.copy()
    keyed.info['transparency'] = grey.getpixel((2, 3))
    yield 'L with a clear value', keyed, keyed.convert('LA')
    yield 'RGBa', colour.convert('RGBa'), colour.convert('RGBa').convert('RGBA')
    yield 'La', colour.convert('LA').convert('La'), colour.convert('LA').convert('La').convert('LA')
    for mode in ('CMYK', 'YCbCr', 'HSV', 'LAB', 'RGBX'):
        yield mode, plain.convert(mode), plain.convert(mode).convert('RGB')
    deep = np.random.default_rng(0).integers(0, 65536, (7, 9)).astype(np.uint16)
    yield 'I;16', Image.fromarray(deep), Image.fromarray(deep)
    for mode, kind in (('I;16B', '>u2'), ('I;16L', '<u2')):
        image = Image.frombytes(mode, (9, 7), deep.astype(kind).tobytes())
        yield mode, image, image
    yield 'I', Image.fromarray(deep.astype(np.int32)), Image.fromarray(deep.astype(np.int32))
    floats = Image.fromarray(np.random.default_rng(0).random((7, 9), np.float32))
    yield 'F', floats, floats


PIL_IMAGES = {name: rest for name, *rest in pil_images()}


@pytest.mark.parametrize('name', PIL_IMAGES)
@pytest.mark.parametrize('strength', [0, 1])
def test_pil_images(same, name, strength):
    image, wanted = PIL_IMAGES[name]
    before = image.tobytes()
    got = same(image, strength=strength)
    assert (got.mode, got.size) == (wanted.mode, wanted.size)
    if got.mode == 'F':  # grey is mixed of three colours
        assert np.abs(np.asarray(got) - np.asarray(wanted)).max() <= 1e-6
    else:
        assert got.tobytes() == wanted.tobytes()
    assert image.tobytes() == before
    assert 'transparency' not in got.info


def test_what_belongs_to_a_pil_image_stays(same):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    image = Image.fromarray(rgba()[..., :3])
    image.info |= {'icc_profile': profile, 'dpi': (300, 300)}
    assert same(image).info == image.info
    assert 'icc_profile' not in same(image.convert('CMYK')).info  # which described other colours


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (
            Image.fromarray(np.full((4, 4), 70000, np.int32)),
            'mode I is in 0 to 65535; this one goes from 70000 to 70000',
        ),
        (Image.fromarray(np.full((4, 4), 255, np.float32)), r'in \[0, 1\]; this one goes from 255 to 255'),
        (Image.new('RGB', (0, 4)), 'an image of 0 x 4 pixels is none'),
    ],
)
def test_pil_images_outside_their_range_are_refused(same, image, message):
    with pytest.raises(InputError, match=message):
        same(image)


def test_a_pil_image_that_is_cut_off_is_refused(same):
    out = io.BytesIO()
    Image.fromarray(rgba()).save(out, 'PNG')
    with pytest.raises(InputError, match='the PIL image cannot be read'):
        same(Image.open(io.BytesIO(out.getvalue()[:150])))


@pytest.mark.parametrize('kind', ['u1', '<u2', '>u2', '<f2', '>f2', '<f4', '>f4', '<f8', '>f8'])
@pytest.mark.parametrize('channels', [None, 1, 2, 3, 4])
def test_arrays_of_any_type(same, kind, channels):
    shape = (7, 9) if channels is None else (7, 9, channels)
    rng, kind = np.random.default_rng(0), np.dtype(kind)
    image = (
        rng.random(shape).astype(kind) if kind.kind == 'f' else rng.integers(0, 256**kind.itemsize, shape).astype(kind)
    )
    wide = np.zeros((14, 27, *shape[2:]), kind)
    wide[::2, ::3] = image
    still = image.copy()
    still.flags.writeable = False
    for given in (image, wide[::2, ::3], still, np.asfortranarray(image), image[::-1, ::-1][::-1, ::-1]):
        got = same(given)
        assert (got.dtype, got.shape) == (image.dtype, image.shape)
        if kind.kind == 'f':
            assert np.abs(got.astype(float) - image.astype(float)).max() <= (1e-3 if kind.itemsize == 2 else 1e-6)
        else:
            assert np.array_equal(got, image)
        assert np.array_equal(same(given, strength=0), image)


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (np.zeros((4, 4, 3), bool), 'an image of bool cannot be used; wanted uint8, uint16, float16, float32, float64'),
        (np.zeros((4, 4, 3), int), 'an image of int64 cannot be used'),
        (np.zeros((4, 4, 3), np.int16), 'an image of int16 cannot be used'),
        (np.zeros((4, 4, 3), np.uint32), 'an image of uint32 cannot be used'),
        (np.zeros((4, 4, 3), complex), 'an image of complex128 cannot be used'),
        (np.zeros((4, 4, 3), object), 'an image of object cannot be used'),
        (np.full((4, 4, 3), np.nan), r'in \[0, 1\]; this one holds NaN'),
        (np.full((4, 4, 3), np.inf), r'in \[0, 1\]; this one goes from inf to inf'),
        (np.full((4, 4, 3), -0.5), r'in \[0, 1\]; this one goes from -0.5'),
        (np.zeros((3, 40, 40)), r'shape \(3, 40, 40\) is no image; wanted \(H, W\), \(H, W, 3\) or \(H, W, 4\)'),
        (np.zeros(4), r'shape \(4,\) is no image'),
        (np.float32(1) * np.zeros(()), 'not a float'),
        (np.zeros((0, 4, 3)), r'shape \(0, 4, 3\) is no image'),
        (np.zeros((1, 1, 4, 4, 3)), r'shape \(1, 1, 4, 4, 3\) is no image'),
        (torch.zeros(4, 4), r'shape \(4, 4\) is no image; wanted \(3, H, W\)'),
        (torch.zeros(3, 4, 4, dtype=torch.int64), 'an image of int64 cannot be used'),
        (torch.zeros(3, 4, 4, dtype=torch.bool), 'an image of bool cannot be used'),
        (torch.zeros(3, 4, 4, dtype=torch.complex64), 'a sparse, quantised or complex tensor is no image'),
        (torch.zeros(3, 4, 4).to_sparse(), 'a sparse, quantised or complex tensor is no image'),
        (torch.full((3, 4, 4), float('nan')), 'holds NaN'),
        (None, 'not a NoneType'),
    ],
)
@pytest.mark.parametrize('strength', [0, 1])
def test_what_is_no_image_is_refused_in_one_sentence(same, image, message, strength):
    with pytest.raises(InputError, match=message) as told:
        same(image, strength=strength)
    assert '\n' not in str(told.value)


def test_tensors_of_any_kind(same):
    rain = torch.rand(2, 3, 6, 5, requires_grad=True)
    for given in (rain, rain * 1, rain.flip(-1), rain.to(memory_format=torch.channels_last), rain[..., ::2]):
        got = same(given)
        assert torch.equal(got, given)
        assert not got.requires_grad
    for kind in (torch.uint8, torch.uint16, torch.float16, torch.float64):
        given = (torch.rand(3, 4, 5) * (200 if not kind.is_floating_point else 1)).to(kind)
        assert same(given).dtype == kind
        assert torch.allclose(same(given).double(), given.double(), atol=1e-3 if kind == torch.float16 else 1e-6)


def test_the_strength_blends(black):
    image = rgba()
    for strength in (0.0, 0.25, 0.5, 1.0):
        got = black(image, strength=strength)
        assert np.abs(got[..., :3] - image[..., :3] * (1 - strength)).max() <= 0.51
        assert np.array_equal(got[..., 3], image[..., 3])
    assert np.array_equal(black(image, strength=0), image)
    assert black(image, strength=0) is not image
    floats = np.random.default_rng(0).random((5, 6))
    assert np.array_equal(black(floats, strength=0), floats)
    assert torch.equal(black(torch.ones(3, 4, 4), strength=0.25), torch.full((3, 4, 4), 0.75))
    assert [black(one, strength=0.5).max() for one in (image, image)] == [
        got.max() for got in black([image] * 2, strength=0.5)
    ]


def test_the_strength_is_of_the_object_or_of_a_call(black, tmp_path):
    write_weights(tmp_path / 'black.pth', Same(0.0).state_dict(), {'type': 'Same'}, {})
    half = Derainer(tmp_path / 'black.pth', device='cpu', strength=0.5)
    image = np.full((4, 4, 3), 100, np.uint8)
    assert (half(image) == 50).all()
    assert (half(image, strength=1) == 0).all()


@pytest.mark.parametrize('strength', [-0.1, 1.1, float('nan'), float('inf'), True, '0.5', [0.5]])
def test_strengths_that_there_are_none_of_are_refused(same, strength):
    with pytest.raises(InputError, match=r'strength: .*; wanted a number from 0'):
        same(np.zeros((4, 4, 3)), strength=strength)
    with pytest.raises(InputError, match='strength: '):
        Derainer(strength=strength)


@pytest.mark.core
@pytest.mark.parametrize(
    ('shape', 'kind'),
    [((100, 90, 3), np.uint8), ((100, 64), np.float32), ((70, 64, 4), np.uint8), ((64, 70, 2), np.uint8)],
)
def test_rows_of_tiles_give_the_numbers_of_all_tiles_at_once(shape, kind):
    """The tiles of ``restore`` are the measure, of a network whose tiles differ where they overlap."""
    whole = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    image = whole if kind == np.uint8 else (whole / 255).astype(np.float32)
    derain = Derainer(device='cpu', tile=64)
    colour = (
        image[..., :3] if shape[2:] in ((3,), (4,)) else np.stack([image if len(shape) == 2 else image[..., 0]] * 3, 2)
    )
    values = colour.astype(np.float32) / np.float32(255 if kind == np.uint8 else 1)
    rain = torch.from_numpy(values.transpose(2, 0, 1)[None])
    recipe = Recipe(tile_size=64, tile_overlap=32, tile_weight='pyramid')
    wanted = restore(derain.net, rain, recipe)[0].permute(1, 2, 0).clamp(0, 1).numpy()
    got = derain(image)
    if len(shape) == 2 or shape[2] == 2:
        wanted = (wanted @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
        got = got.reshape(*shape[:2], -1)[..., :1]
    wanted = np.rint(wanted * np.float32(255)) if kind == np.uint8 else wanted
    assert np.array_equal(got[..., : wanted.shape[2]], wanted.clip(0, 255).astype(kind))
    if shape[2:] in ((2,), (4,)):
        assert np.array_equal(derain(image)[..., -1], image[..., -1])
