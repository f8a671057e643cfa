"""Photos are written as they were read, with all that belongs to them."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from ddsa_arch.errors import InputError
from ddsa_arch.files.photos import Photo, encode_photo, read_photo, write_photo

CAMERA, MAKE, GPS = 0x8769, 0x010F, 0x8825
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()


def noise(rng, *shape, dtype=np.uint8):
    return rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def exif(orientation=1):
    tags = Image.Exif()
    tags[MAKE] = 'Camera'
    tags[0x0112] = orientation
    tags.get_ifd(CAMERA)[0x829A] = 0.01  # exposure
    return tags


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.tiff', '.bmp', '.webp'])
@pytest.mark.parametrize('shape', [(7, 5), (7, 5, 3), (7, 5, 4), (1, 1, 3), (1, 300, 3)])
def test_eight_bits_survive_without_loss(tmp_path, rng, suffix, shape):
    if (shape == (7, 5) and suffix == '.webp') or (shape == (7, 5, 4) and suffix == '.bmp'):
        pytest.skip('WebP has no grey, BMP no alpha')
    pixels = noise(rng, *shape)
    assert write_photo(tmp_path / f'a{suffix}', Photo(pixels)) == ()
    assert np.array_equal(read_photo(tmp_path / f'a{suffix}').pixels, pixels)


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
@pytest.mark.parametrize('shape', [(7, 5), (7, 5, 3), (7, 5, 4)])
def test_sixteen_bits_survive_without_loss(tmp_path, rng, suffix, shape):
    pixels = noise(rng, *shape, dtype=np.uint16)
    write_photo(tmp_path / f'a{suffix}', Photo(pixels))
    assert np.array_equal(read_photo(tmp_path / f'a{suffix}').pixels, pixels)
    as_opencv_has_it = cv2.imread(str(tmp_path / f'a{suffix}'), cv2.IMREAD_UNCHANGED)
    if len(shape) == 3:
        as_opencv_has_it = as_opencv_has_it[..., [2, 1, 0, 3][: shape[2]]]
    assert np.array_equal(as_opencv_has_it, pixels)


def test_a_jpeg_keeps_its_kind(tmp_path, photo):
    for name, pixels in (('colour', photo[..., ::-1]), ('grey', photo[..., 1])):
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / 'in.jpg', quality=90)
        read = read_photo(tmp_path / 'in.jpg')
        write_photo(tmp_path / f'{name}.jpg', read)
        with Image.open(tmp_path / f'{name}.jpg') as image:
            assert image.mode == ('RGB' if name == 'colour' else 'L')
            assert np.abs(np.asarray(image).astype(int) - read.pixels).mean() <= 1.5


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.tif'])
def test_photos_are_turned_upright_and_stay_so(tmp_path, orientation, suffix):
    """Pillow's exif_transpose is the measure."""
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :8, 0] = pixels[8:, 16:, 1] = 200
    Image.fromarray(pixels).save(tmp_path / f'a{suffix}', exif=exif(orientation), quality=100)
    with Image.open(tmp_path / f'a{suffix}') as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
    read = read_photo(tmp_path / f'a{suffix}')
    assert np.abs(read.pixels.astype(int) - upright).max() <= 3
    write_photo(tmp_path / f'b{suffix}', read)
    again = read_photo(tmp_path / f'b{suffix}')
    assert np.abs(again.pixels.astype(int) - upright).max() <= 12
    with Image.open(tmp_path / f'b{suffix}') as image:
        assert image.getexif().get(0x0112, 1) == 1
        assert image.getexif()[MAKE] == 'Camera'


@pytest.mark.parametrize('orientation', [3, 5, 6, 8])
def test_a_tiff_of_16_bits_is_turned_upright(tmp_path, rng, orientation):
    tifffile = pytest.importorskip('tifffile')
    pixels = noise(rng, 4, 6, 3, dtype=np.uint16)
    turned = {3: pixels[::-1, ::-1], 5: pixels.swapaxes(0, 1), 6: np.rot90(pixels, -1), 8: np.rot90(pixels)}
    tags = [(274, 'H', 1, orientation, True)]
    tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='rgb', extratags=tags)
    assert np.array_equal(read_photo(tmp_path / 'a.tif').pixels, turned[orientation])


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_metadata_is_kept(tmp_path, rng, dtype):
    text = PngImagePlugin.PngInfo()
    text.add_text('Title', 'Rain in Tübingen')
    text.add_itxt('XML:com.adobe.xmp', '<x:xmpmeta tiff:Orientation="6"/>')
    source = tmp_path / 'a.png'
    Image.fromarray(noise(rng, 5, 4, 3)).save(source, exif=exif(), icc_profile=SRGB, dpi=(300, 300), pnginfo=text)
    read = read_photo(source)
    write_photo(tmp_path / 'b.png', read.with_pixels(noise(rng, 5, 4, 3, dtype=dtype)))
    with Image.open(tmp_path / 'b.png') as image:
        image.load()
        assert image.getexif()[MAKE] == 'Camera'
        assert image.getexif().get_ifd(CAMERA)[0x829A] == pytest.approx(0.01)
        assert image.info['icc_profile'] == SRGB
        assert image.info['dpi'] == pytest.approx((300, 300), abs=0.1)
        assert image.text['Title'] == 'Rain in Tübingen'
        assert 'xmpmeta' in image.text['XML:com.adobe.xmp']
        assert 'Orientation' not in image.text['XML:com.adobe.xmp']


@pytest.mark.parametrize('suffix', ['.jpg', '.webp', '.tif'])
def test_metadata_is_kept_in_other_formats(tmp_path, rng, suffix):
    Image.fromarray(noise(rng, 16, 16, 3)).save(tmp_path / f'a{suffix}', exif=exif().tobytes(), icc_profile=SRGB)
    write_photo(tmp_path / f'b{suffix}', read_photo(tmp_path / f'a{suffix}'))
    with Image.open(tmp_path / f'b{suffix}') as image:
        assert image.getexif()[MAKE] == 'Camera'
        assert image.getexif().get_ifd(CAMERA)[0x829A] == pytest.approx(0.01)
        assert image.info['icc_profile'] == SRGB


@pytest.mark.parametrize(
    ('mode', 'shape'),
    [('1', (6, 8)), ('L', (6, 8)), ('LA', (6, 8, 2)), ('P', (6, 8, 3)), ('RGBA', (6, 8, 4)), ('I;16', (6, 8))],
)
def test_other_modes_become_plain_ones(tmp_path, rng, mode, shape):
    image = Image.fromarray(noise(rng, 6, 8, 4), 'RGBA')
    if mode == 'I;16':
        image = Image.fromarray(noise(rng, 6, 8, dtype=np.uint16))
    else:
        image = image.convert('RGB').convert('P') if mode == 'P' else image.convert(mode)
    image.save(tmp_path / 'a.png')
    read = read_photo(tmp_path / 'a.png')
    assert read.pixels.shape == shape
    assert read.pixels.dtype == (np.uint16 if mode == 'I;16' else np.uint8)
    expected = image.convert({'1': 'L', 'P': 'RGB'}.get(mode, mode))
    assert np.array_equal(read.pixels, np.asarray(expected))


def test_a_transparent_colour_becomes_alpha(tmp_path):
    image = Image.new('P', (4, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / 'a.png', transparency=0)
    pixels = read_photo(tmp_path / 'a.png').pixels
    assert pixels[0, 0, 3] == 0
    assert pixels[1, 1].tolist() == [10, 20, 30, 255]


def test_cmyk_becomes_rgb_and_is_named(tmp_path):
    Image.new('CMYK', (8, 8), (0, 255, 255, 0)).save(tmp_path / 'a.jpg', quality=100)
    read = read_photo(tmp_path / 'a.jpg')
    assert read.notes == ('CMYK became RGB',)
    assert np.abs(read.pixels[4, 4].astype(int) - [255, 0, 0]).max() <= 3


def test_the_first_of_several_frames_is_taken_and_named(tmp_path, rng):
    frames = [Image.fromarray(noise(rng, 8, 8, 3)) for _ in range(3)]
    for suffix in ('.webp', '.png', '.tif'):
        how = {'lossless': True} if suffix == '.webp' else {}
        frames[0].save(tmp_path / f'a{suffix}', save_all=True, append_images=frames[1:], **how)
        read = read_photo(tmp_path / f'a{suffix}')
        assert np.array_equal(read.pixels, np.asarray(frames[0]))
        assert read.notes == ('the first of 3 frames',)


def test_what_a_format_has_no_room_for_is_named(rng):
    photo = Photo(noise(rng, 5, 4, 4, dtype=np.uint16))
    data, notes = encode_photo(photo, '.jpg')
    assert notes == ('.jpg has no alpha', '.jpg has 8 bits for a channel')
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == 'RGB'
    data, notes = encode_photo(photo, '.webp')
    assert notes == ('.webp has 8 bits for a channel',)
    with Image.open(io.BytesIO(data)) as image:
        assert np.abs(np.asarray(image)[..., 3].astype(int) - np.rint(photo.pixels[..., 3] / 257)).max() == 0


def test_a_file_with_another_suffix_is_known_by_its_content(tmp_path, rng):
    pixels = noise(rng, 8, 8, 3)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    (tmp_path / 'a.png').rename(tmp_path / 'a.jpg')
    assert np.array_equal(read_photo(tmp_path / 'a.jpg').pixels, pixels)


def test_broken_files_are_named(tmp_path, rng):
    whole = {}
    for suffix in ('.png', '.jpg', '.webp', '.tif', '.bmp'):
        Image.fromarray(noise(rng, 64, 64, 3)).save(tmp_path / f'whole{suffix}')
        whole[suffix] = (tmp_path / f'whole{suffix}').read_bytes()
    broken = {'empty.png': b'', 'text.png': b'this is no picture', 'header.png': whole['.png'][:20]}
    broken |= {f'half{suffix}': data[: len(data) // 2] for suffix, data in whole.items()}
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=name):
            read_photo(tmp_path / name)
    with pytest.raises(InputError, match=r'none.png: cannot be read \(No such file'):
        read_photo(tmp_path / 'none.png')


def test_floating_point_pixels_are_kept_within_their_range(tmp_path, rng):
    pixels = rng.random((8, 8), np.float32)
    Image.fromarray(pixels).save(tmp_path / 'a.tif')
    write_photo(tmp_path / 'b.tif', read_photo(tmp_path / 'a.tif'))
    with Image.open(tmp_path / 'b.tif') as image:
        assert np.array_equal(np.asarray(image), pixels)
    for values in (pixels * 255, pixels - 1, np.where(pixels < 0.5, np.nan, pixels)):
        Image.fromarray(values).save(tmp_path / 'a.tif')
        with pytest.raises(InputError, match=r'floating-point pixels from \S+ to \S+ are not taken'):
            read_photo(tmp_path / 'a.tif')


def test_an_image_that_a_format_cannot_hold_is_named(tmp_path):
    with pytest.raises(InputError, match=r'20000 x 1 pixels cannot be written as .webp'):
        write_photo(tmp_path / 'a.webp', Photo(np.zeros((1, 20000, 3), np.uint8)))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"'.gif' is not known"):
        write_photo(tmp_path / 'a.gif', Photo(np.zeros((4, 4, 3), np.uint8)))
