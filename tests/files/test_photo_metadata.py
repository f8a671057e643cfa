"""What a photo tells besides its pixels is kept at every depth, and what is damaged in it stops nothing."""

import io
import struct
import sys
import zlib

import numpy as np
import pytest
import tifffile
from photo_kinds import noise, png
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin, features

from ddsa_arch.errors import InputError
from ddsa_arch.files import pillow_images
from ddsa_arch.files.photos import read_photo, write_photo

CAMERA, GPS, MAKE, ORIENTATION = 0x8769, 0x8825, 0x010F, 0x0112
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6">rain</x:xmpmeta>'


def exif(orientation=1):
    tags = Image.Exif()
    tags[MAKE] = 'Camera'
    tags[ORIENTATION] = orientation
    tags.get_ifd(CAMERA)[0x829A] = TiffImagePlugin.IFDRational(1, 100)  # exposure
    tags.get_ifd(GPS)[1] = 'N'
    tags.get_ifd(GPS)[2] = (48.0, 31.0, 12.5)
    return tags


def check_exif(tags):
    assert tags[MAKE] == 'Camera'
    assert tags.get(ORIENTATION, 1) == 1
    assert tags.get_ifd(CAMERA)[0x829A] == pytest.approx(0.01)
    assert tags.get_ifd(GPS)[1] == 'N'
    assert [float(n) for n in tags.get_ifd(GPS)[2]] == pytest.approx([48.0, 31.0, 12.5])


def rewritten(path, suffix=None):
    result = path.with_name(f'result{suffix or path.suffix}')
    photo = read_photo(path)
    write_photo(result, photo)
    return photo, result


def tiff_with_tags(path, pixels, orientation=1):
    """Write a TIFF by Pillow's own writer of tags, with the samples behind them."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    data = np.ascontiguousarray(pixels.transpose(2, 0, 1)).tobytes()  # planes
    height, width = pixels.shape[:2]
    size = len(data) // 3
    layout = {
        256: width, 257: height, 258: (8 * pixels.itemsize,) * 3, 259: 1, 262: 2, 274: orientation,
        273: (0, size, 2 * size), 277: 3, 278: height, 279: (size,) * 3, 284: 2, 282: 300.0, 283: 150.0, 296: 2,
        700: XMP, 34675: SRGB, 0x010F: 'Camera',
    }  # fmt: skip
    for tag, value in layout.items():
        tags[tag] = value
    tags.tagtype[273] = tags.tagtype[279] = 4
    tags.tagtype[700] = 1
    source = exif()
    for block in (CAMERA, GPS):
        tags[block] = dict(source.get_ifd(block))
        tags.tagtype[block] = 4
    out = io.BytesIO()
    tags.save(out)
    path.write_bytes(out.getvalue() + data)


@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
@pytest.mark.parametrize('orientation', [1, 3, 6])
def test_a_tiff_keeps_all(tmp_path, kind, orientation):
    pixels = noise(3, dtype=kind)
    tiff_with_tags(tmp_path / 'a.tif', pixels, orientation)
    photo, result = rewritten(tmp_path / 'a.tif')
    assert photo.notes == ()
    turned = {1: pixels, 3: pixels[::-1, ::-1], 6: np.rot90(pixels, -1)}[orientation]
    assert np.array_equal(tifffile.imread(result), turned)
    with tifffile.TiffFile(result) as tiff:
        tags = tiff.pages[0].tags
        assert tags['InterColorProfile'].value == SRGB
        assert b'rain' in tags['XMP'].value
        assert b'Orientation' not in tags['XMP'].value
        assert tags['XResolution'].value == ((300, 1) if orientation != 6 else (150, 1))
        assert tags['ExifTag'].value['ExposureTime'] == (1, 100)
        assert tags['GPSTag'].value['GPSLatitudeRef'] == 'N'
    told = Image.Exif()
    told.load_from_fp(io.BytesIO(result.read_bytes()[:]))
    check_exif(told)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_tiff_that_libtiff_unpacks_is_turned_once(tmp_path, orientation):
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :16, 0] = pixels[16:, 32:, 1] = 200
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    Image.fromarray(pixels).save(tmp_path / 'a.tif', compression='jpeg', exif=tags.tobytes())
    Image.fromarray(pixels).save(tmp_path / 'a.png', exif=tags)
    with Image.open(tmp_path / 'a.png') as image:
        upright = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    photo, result = rewritten(tmp_path / 'a.tif')
    assert photo.pixels.shape == upright.shape
    assert np.abs(photo.pixels - upright).mean() <= 3
    assert np.array_equal(tifffile.imread(result), photo.pixels)
    with tifffile.TiffFile(result) as tiff:
        assert 'Orientation' not in tiff.pages[0].tags


@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_a_jpeg_of_twelve_bits_is_refused_by_name(tmp_path, mode):
    out = io.BytesIO()
    Image.new(mode, (16, 16)).save(out, 'JPEG')
    data = bytearray(out.getvalue())
    data[data.find(b'\xff\xc0') + 4] = 12
    (tmp_path / 'a.jpg').write_bytes(data)
    with pytest.raises(InputError, match=r'a\.jpg: a JPEG of 12 bits for a channel is not taken'):
        read_photo(tmp_path / 'a.jpg')


def test_a_png_of_sixteen_bits_keeps_all(tmp_path):
    stand_in = io.BytesIO()
    Image.new('L', (1, 1)).save(stand_in, 'PNG', exif=exif(6), icc_profile=SRGB, dpi=(300, 300))
    data, chunks, at = stand_in.getvalue(), [], 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], 'big')
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    kept = [chunk for chunk in chunks if chunk[0] in (b'eXIf', b'iCCP', b'pHYs')]
    text = b'iTXt', b'XML:com.adobe.xmp\0\0\0\0\0' + XMP
    pixels = noise(3, dtype=np.uint16)
    png(tmp_path / 'a.png', pixels, 16, 2, *kept, text)
    photo, result = rewritten(tmp_path / 'a.png')
    assert photo.notes == ()
    assert np.array_equal(photo.pixels, np.rot90(pixels, -1))
    with Image.open(result) as image:
        image.load()
        check_exif(image.getexif())
        assert image.info['icc_profile'] == SRGB
        assert image.info['dpi'] == pytest.approx((300, 300), abs=0.1)
        assert 'rain' in image.text['XML:com.adobe.xmp']
        assert 'Orientation' not in image.text['XML:com.adobe.xmp']
    assert np.array_equal(read_photo(result).pixels, photo.pixels)


def raw_profile(content):
    """The text by which ImageMagick writes EXIF into a PNG."""
    digits = content.hex()
    lines = '\n'.join(digits[i : i + 72] for i in range(0, len(digits), 72))
    return b'zTXt', b'Raw profile type exif\0\0' + zlib.compress(f'\nexif\n{len(content):8}\n{lines}\n'.encode())


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('where', ['eXIf', 'text', 'both', 'xmp'])
def test_a_png_is_turned_once_wherever_it_says_so(tmp_path, bits, where):
    pixels = noise(3, dtype=np.uint16 if bits == 16 else np.uint8)
    content = exif(6).tobytes()
    chunks = [(b'eXIf', content[6:])] if where in ('eXIf', 'both') else []
    chunks += [raw_profile(content)] if where in ('text', 'both') else []
    chunks += [(b'iTXt', b'XML:com.adobe.xmp\0\0\0\0\0' + XMP)] if where == 'xmp' else []
    png(tmp_path / 'a.png', pixels, bits, 2, *chunks)
    photo, result = rewritten(tmp_path / 'a.png')
    assert np.array_equal(photo.pixels, np.rot90(pixels, -1))
    assert np.array_equal(read_photo(result).pixels, photo.pixels)
    with Image.open(result) as image:
        assert ImageOps.exif_transpose(image).size == image.size == (pixels.shape[0], pixels.shape[1])
        assert 'Raw profile type exif' not in image.text


@pytest.mark.parametrize('bits', [8, 16])
def test_how_the_colours_of_a_png_are_seen_is_kept(tmp_path, bits):
    pixels = noise(3, dtype=np.uint16 if bits == 16 else np.uint8)
    primaries = (b'cHRM', struct.pack('>8I', 31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600))
    chunks = [(b'cICP', bytes([9, 16, 0, 1])), (b'gAMA', struct.pack('>I', 45455)), primaries, (b'sRGB', b'\0')]
    png(tmp_path / 'a.png', pixels, bits, 2, *chunks)
    photo, result = rewritten(tmp_path / 'a.png')
    assert photo.notes == ('HDR (PQ); its values were taken as they are, and the network knows no HDR',)
    assert np.array_equal(photo.pixels, pixels)
    for kind, content in chunks:
        assert kind + content in result.read_bytes()
    assert result.read_bytes().find(b'cICP') < result.read_bytes().find(b'IDAT')


DAMAGED_EXIF = [
    b'Exif\0\0', b'Exif\0\0garbage of no kind', b'Exif\0\0MM\0*\0\0\0\x08\xff\xff' + b'\xff\x87' * 40,
    b'Exif\0\0II*\0\xff\xff\xff\x7f',
]  # fmt: skip


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp'])
@pytest.mark.parametrize('content', DAMAGED_EXIF)
def test_damaged_exif_does_not_stop_a_sound_photo(tmp_path, suffix, content):
    pixels = np.full((8, 8, 3), 90, np.uint8)
    Image.fromarray(pixels).save(tmp_path / f'a{suffix}', exif=content)
    photo, _ = rewritten(tmp_path / f'a{suffix}')
    assert np.abs(photo.pixels.astype(int) - 90).max() <= 2


def test_damaged_chunks_do_not_stop_a_sound_photo(tmp_path):
    pixels = noise(3)
    bad = b'zTXt', b'Comment\0\0' + zlib.compress(bytes(2**27))  # 128 MiB of text
    png(tmp_path / 'a.png', pixels, 8, 2, bad)
    photo, _ = rewritten(tmp_path / 'a.png')
    assert np.array_equal(photo.pixels, pixels)
    assert photo.notes == ('its metadata are damaged and left out',)
    png(tmp_path / 'a.png', pixels, 8, 2, (b'tEXt', b'Title\0rain'), (b'iCCP', b'profile\0\0no profile'))
    data = bytearray((tmp_path / 'a.png').read_bytes())
    data[data.find(b'Title')] ^= 1  # its checksum is wrong now
    (tmp_path / 'a.png').write_bytes(data)
    assert np.array_equal(rewritten(tmp_path / 'a.png')[0].pixels, pixels)


@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_what_is_cut_off_is_refused(tmp_path, kind, suffix):
    pixels = noise(3, dtype=kind)
    if suffix == '.tif':
        tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='rgb', compression='zlib')
    else:
        png(tmp_path / 'a.png', pixels, 8 * pixels.itemsize, 2)
    data = (tmp_path / f'a{suffix}').read_bytes()
    for part in (0.2, 0.5, 0.9):
        (tmp_path / f'cut{suffix}').write_bytes(data[: int(len(data) * part)])
        with pytest.raises(InputError, match=f'cut{suffix}: ') as told:
            read_photo(tmp_path / f'cut{suffix}')
        assert '\n' not in str(told.value)


def test_a_damaged_png_of_sixteen_bits_is_refused(tmp_path):
    png(tmp_path / 'a.png', noise(3, dtype=np.uint16), 16, 2)
    data = bytearray((tmp_path / 'a.png').read_bytes())
    data[data.find(b'IDAT') + 100] ^= 255
    (tmp_path / 'a.png').write_bytes(data)
    with pytest.raises(InputError, match=r'a\.png: '):
        read_photo(tmp_path / 'a.png')


def test_a_jpeg_keeps_its_comment(tmp_path):
    image = Image.new('RGB', (8, 8), (90, 90, 90))
    image.save(tmp_path / 'a.jpg', comment='rain in Tübingen', exif=exif(), icc_profile=SRGB, xmp=XMP, dpi=(240, 240))
    _, result = rewritten(tmp_path / 'a.jpg')
    with Image.open(result) as image:
        assert image.info['comment'].decode() == 'rain in Tübingen'
        assert image.info['dpi'] == (240, 240)
        assert b'rain' in image.info['xmp']
        check_exif(image.getexif())


@pytest.mark.parametrize('suffix', ['.avif', '.heic', '.jxl'])
@pytest.mark.parametrize('mode', ['RGB', 'RGBA'])
def test_the_formats_of_phones_are_read_and_written(tmp_path, suffix, mode):
    if suffix == '.avif' and not features.check('avif'):
        pytest.skip('this Pillow has no AVIF')
    if suffix == '.heic':
        pytest.importorskip('pillow_heif').register_heif_opener()
    if suffix == '.jxl':
        pytest.importorskip('pillow_jxl')
    image = Image.new(mode, (40, 24), (180, 90, 30, 128)[: len(mode)])
    image.paste((20, 60, 200, 255)[: len(mode)], (0, 0, 20, 12))
    image.save(tmp_path / f'a{suffix}', exif=exif(1).tobytes(), icc_profile=SRGB)
    photo, result = rewritten(tmp_path / f'a{suffix}')
    assert photo.notes == ()
    with Image.open(result) as again:
        assert (again.mode, again.size) == (mode, (40, 24))
        assert np.abs(np.asarray(again).astype(int) - np.asarray(image)).mean() <= 5  # packed twice
        assert again.info['icc_profile'] == SRGB or suffix == '.jxl'  # which writes it in its own words
        check_exif(again.getexif())


@pytest.mark.parametrize(
    ('start', 'message'),
    [
        (b'\0\0\0\x1cftypheic\0\0\0\0mif1heic', 'HEIC needs the package pillow-heif'),
        (b'\0\0\0\x1cftypmif1\0\0\0\0mif1avif', 'AVIF needs a newer Pillow'),
        (b'\xff\x0a' + bytes(30), 'JPEG XL needs the package pillow-jxl-plugin'),
    ],
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, start, message):
    for name in ('pillow_heif', 'pillow_jxl'):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(pillow_images.features, 'check', lambda name: False)
    (tmp_path / 'a.heic').write_bytes(start)
    with pytest.raises(InputError, match=f"a.heic: {message}.*pip install 'ddsa_arch\\[photos\\]'"):
        read_photo(tmp_path / 'a.heic')


@pytest.mark.parametrize('planar', [False, True])
@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
def test_cmyk_of_a_tiff_becomes_rgb(tmp_path, kind, planar):
    ink = np.zeros((8, 10, 4), kind)
    ink[..., 1] = ink[..., 2] = np.iinfo(kind).max
    how = {'photometric': 'separated', 'planarconfig': 'separate' if planar else 'contig'}
    tifffile.imwrite(tmp_path / 'a.tif', ink.transpose(2, 0, 1).copy() if planar else ink, **how)
    photo = read_photo(tmp_path / 'a.tif')
    assert np.abs(photo.pixels.astype(int) - [255, 0, 0]).max() <= 3
    assert 'CMYK became RGB' in photo.notes


def test_lab_of_a_tiff_becomes_rgb(tmp_path):
    image = Image.new('RGB', (8, 6), (200, 60, 40))
    image.convert('LAB').save(tmp_path / 'a.tif')
    photo = read_photo(tmp_path / 'a.tif')
    assert np.abs(photo.pixels.astype(int) - [200, 60, 40]).max() <= 3
    assert photo.notes == ('LAB became RGB',)


@pytest.mark.parametrize(
    ('pixels', 'how', 'message'),
    [
        (np.zeros((4, 4), np.int16), {}, 'signed numbers of 16 bits are not taken'),
        (np.zeros((4, 4), np.complex64), {}, 'complex numbers of 64 bits'),
        (
            np.full((4, 4), 2, np.float32),
            {},
            r'floating-point pixels from 2 to 2 are not taken',
        ),
        (np.zeros((4, 4), np.uint16), {'photometric': 'cfa'}, 'a TIFF of colours of kind CFA'),
        (
            np.zeros((4, 4, 3), np.uint16),
            {'photometric': 'ycbcr', 'planarconfig': 'contig'},
            'YCbCr that is subsampled',
        ),
    ],
)
def test_what_a_tiff_cannot_be_taken_for_is_named(tmp_path, pixels, how, message):
    tifffile.imwrite(tmp_path / 'a.tif', pixels, **({'photometric': 'minisblack'} | how))
    with pytest.raises(InputError, match=f'a.tif: {message}'):
        read_photo(tmp_path / 'a.tif')


def test_a_tiff_packed_in_a_way_of_its_own_is_named(tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', noise(3), photometric='rgb')
    data = bytearray((tmp_path / 'a.tif').read_bytes())
    at = data.find(struct.pack('<HHIH', 259, 3, 1, 1))  # compression
    data[at + 8 : at + 10] = struct.pack('<H', 50001)
    (tmp_path / 'a.tif').write_bytes(data)
    with pytest.raises(InputError, match=r'a\.tif: a TIFF of 8 bits packed as WEBP is not taken; save it as LZW'):
        read_photo(tmp_path / 'a.tif')


def test_a_smaller_version_in_front_is_not_the_picture(tmp_path):
    pixels = noise(3)
    with tifffile.TiffWriter(tmp_path / 'a.tif') as writer:
        writer.write(np.ascontiguousarray(pixels[::2, ::2]), photometric='rgb', subfiletype=1)
        writer.write(pixels, photometric='rgb')
    photo = read_photo(tmp_path / 'a.tif')
    assert np.array_equal(photo.pixels, pixels)
    assert photo.notes == ()


def test_two_pictures_of_a_phone_become_one(tmp_path):
    first, second = (Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (90, 200))
    first.save(tmp_path / 'a.jpg', 'MPO', save_all=True, append_images=[second])
    photo, result = rewritten(tmp_path / 'a.jpg')
    assert photo.notes == ('the first of 2 frames',)
    with Image.open(result) as image:
        assert image.format == 'JPEG'
        assert abs(int(np.asarray(image)[0, 0, 0]) - 90) <= 2


def test_a_name_that_says_another_format_is_told(tmp_path):
    Image.fromarray(noise(3)).save(tmp_path / 'a.jpg', 'PNG')
    assert read_photo(tmp_path / 'a.jpg').notes == ('the name says JPEG, but the content is PNG',)
