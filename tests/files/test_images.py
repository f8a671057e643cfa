import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import ORIENTATION, noise
from PIL import Image, ImageOps

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import (
    IMAGE_SUFFIXES,
    check_partners,
    decode_image,
    encode_image,
    files_in,
    images_by_stem,
    natural_key,
    read_image,
    some,
    write_image,
)

LOSSLESS = ('.bmp', '.png', '.tif', '.tiff', '.webp')
REMEDY = 'replace it, or remove it together with its partner'


def smooth(height=24, width=40):
    """An image that JPEG keeps almost as it is, and no symmetry that could hide a turn."""
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * x, 6 * y, 3 * x + 2 * y], -1).astype(np.uint8)


def pillow_bytes(array_rgb, kind, **options):
    stream = io.BytesIO()
    Image.fromarray(array_rgb).save(stream, kind, **options)
    return stream.getvalue()


def jpeg_segment(marker, content):
    return b'\xff' + bytes([marker]) + (len(content) + 2).to_bytes(2, 'big') + content


# Decoding


@pytest.mark.core
@pytest.mark.parametrize('suffix', LOSSLESS)
def test_lossless_file_is_read_as_bgr(suffix, tmp_path):
    rgb = noise(20, 30)
    Image.fromarray(rgb).save(tmp_path / f'a{suffix}', **({'lossless': True} if suffix == '.webp' else {}))
    image = read_image(tmp_path / f'a{suffix}')
    assert image.dtype == np.uint8
    assert np.array_equal(image, rgb[..., ::-1])


def test_jpeg_is_read_as_pillow_reads_it():
    data = pillow_bytes(smooth(), 'JPEG', quality=90)
    expected = np.asarray(Image.open(io.BytesIO(data)))[..., ::-1]
    assert np.abs(decode_image(data, 'a').astype(int) - expected).max() <= 2


def test_grey_becomes_bgr_and_alpha_is_dropped():
    rgb = noise(20, 30)
    grey = decode_image(pillow_bytes(rgb[..., 0], 'PNG'), 'a')
    assert np.array_equal(grey, np.repeat(rgb[..., :1], 3, -1))
    alpha = np.full((*rgb.shape[:2], 1), 7, np.uint8)
    assert np.array_equal(decode_image(pillow_bytes(np.concatenate([rgb, alpha], -1), 'PNG'), 'a'), rgb[..., ::-1])


def test_sixteen_bits_become_eight():
    deep = np.random.default_rng(0).integers(0, 65536, (9, 7), dtype=np.uint16)
    image = decode_image(pillow_bytes(deep, 'PNG'), 'a')
    assert image.dtype == np.uint8
    assert np.abs(image[..., 1] - deep / 257).max() <= 1


@pytest.mark.parametrize('orientation', range(1, 9))
def test_jpeg_is_turned_as_its_exif_data_say(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = pillow_bytes(smooth(), 'JPEG', quality=95, subsampling=0, exif=exif.tobytes())
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))[..., ::-1]
    image = decode_image(data, 'a')
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= 3


@pytest.mark.parametrize('suffix', IMAGE_SUFFIXES)
def test_truncated_file_is_refused_at_every_cut(suffix):
    data = encode_image(noise(20, 30), suffix)
    cuts = {1, 2, 8, 20, 100, len(data) // 4, len(data) // 2, len(data) * 3 // 4, len(data) - 13, len(data) - 2}
    for cut in sorted(cuts):
        with pytest.raises(InputError) as error:
            decode_image(data[:cut], f'cut{suffix}')
        assert str(error.value) == f'cut{suffix}: truncated or not an image ({cut} bytes); {REMEDY}'


def test_truncated_progressive_jpeg_is_refused():
    data = pillow_bytes(smooth(), 'JPEG', progressive=True)
    assert decode_image(data, 'a').shape == (24, 40, 3)
    last_scan = data.rindex(b'\xff\xda')
    with pytest.raises(InputError, match='truncated'):
        decode_image(data[:last_scan], 'a')


def test_end_mark_of_a_preview_does_not_hide_a_truncated_jpeg():
    preview = jpeg_segment(0xE1, b'Exif\0\0' + pillow_bytes(smooth(8, 8), 'JPEG'))
    data = pillow_bytes(noise(20, 30), 'JPEG')
    data = data[:2] + preview + data[2:]
    assert decode_image(data, 'a').shape == (20, 30, 3)
    with pytest.raises(InputError, match='truncated'):
        decode_image(data[: len(data) - 300], 'a')


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_a_film_behind_the_end_mark_is_no_defect(kind):
    """Phones append megabytes to a photo."""
    data = pillow_bytes(smooth(), kind)
    assert np.array_equal(decode_image(data + b'\0' * 50_000, 'a'), decode_image(data, 'a'))


def test_fill_bytes_before_a_jpeg_marker_are_no_defect():
    data = pillow_bytes(smooth(), 'JPEG')
    assert np.array_equal(decode_image(data[:2] + b'\xff\xff' + data[2:], 'a'), decode_image(data, 'a'))


@pytest.mark.parametrize(
    ('data', 'kind'),
    [(b'', 'empty (0 bytes)'), (b'<html>not found</html>', 'truncated or not an image (22 bytes)')],
)
def test_what_is_no_image_is_named_with_the_remedy(data, kind, tmp_path):
    path = tmp_path / 'norain-1.png'
    path.write_bytes(data)
    with pytest.raises(InputError) as error:
        read_image(path)
    assert str(error.value) == f'{path}: {kind}; {REMEDY}'


def test_header_with_an_absurd_size_is_no_image():
    data = bytearray(encode_image(noise(20, 30), '.bmp'))
    data[18:22] = (1 << 25).to_bytes(4, 'little')  # the width, beyond what OpenCV takes
    with pytest.raises(InputError, match=r'^wide\.bmp: truncated or not an image'):
        decode_image(bytes(data), 'wide.bmp')


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r'gone\.png: cannot be read \(No such file'):
        read_image(tmp_path / 'gone.png')
    with pytest.raises(InputError, match='cannot be read'):
        read_image(tmp_path)


# Encoding and writing


@pytest.mark.parametrize('suffix', [*LOSSLESS, '.PNG'])
def test_lossless_formats_give_the_image_back_to_pillow(suffix):
    image = noise(20, 30)
    decoded = np.asarray(Image.open(io.BytesIO(encode_image(image, suffix))).convert('RGB'))
    assert np.array_equal(decoded[..., ::-1], image)


@pytest.mark.parametrize('suffix', ['.jpg', '.jpeg', '.JPG'])
def test_jpeg_has_the_tables_of_quality_95(suffix):
    tables = Image.open(io.BytesIO(encode_image(noise(20, 30), suffix))).quantization
    assert tables == Image.open(io.BytesIO(pillow_bytes(noise(20, 30), 'JPEG', quality=95))).quantization


def test_unknown_format_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"image format '\.gif' is not known; use one of \.bmp, \.jpeg"):
        encode_image(noise(20, 30), '.gif')
    with pytest.raises(InputError, match="image format '' is not known"):
        encode_image(noise(20, 30), '')


def test_what_a_format_cannot_hold_is_refused():
    with pytest.raises(InputError, match=r'shape \(0, 5, 3\) cannot be encoded as \.png'):
        encode_image(np.zeros((0, 5, 3), np.uint8), '.png')
    with pytest.raises(InputError, match=r'shape \(1, 17000, 3\) cannot be encoded as \.webp'):
        encode_image(np.zeros((1, 17000, 3), np.uint8), '.webp')


def test_written_image_is_whole_and_alone_in_a_new_folder(tmp_path):
    path = tmp_path / 'new' / 'deep' / 'a.png'
    write_image(path, noise(20, 30))
    assert np.array_equal(cv2.imread(str(path)), noise(20, 30))
    assert [p.name for p in path.parent.iterdir()] == ['a.png']


def test_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / 'a.png'
    write_image(path, noise(20, 30))
    before = path.read_bytes()
    with pytest.raises(InputError):
        write_image(path, np.zeros((0, 5, 3), np.uint8))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ['a.png']


# Folders


def test_images_come_in_natural_order_and_other_files_are_left_alone(tmp_path):
    for name in ('rain-10.png', 'rain-2.JPG', 'rain-1.webp', '雨-3.bmp', 'two words.tif'):
        (tmp_path / name).touch()
    for name in ('Thumbs.db', '.DS_Store', '._rain-1.png', 'notes.txt', 'rain-4.png.part'):
        (tmp_path / name).touch()
    (tmp_path / 'folder.png').mkdir()
    found = images_by_stem(tmp_path)
    assert list(found) == ['rain-1', 'rain-2', 'rain-10', 'two words', '雨-3']
    assert found['rain-2'] == tmp_path / 'rain-2.JPG'


def test_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    names = ['1.png', '01.png', '001.png']
    for name in names:
        (tmp_path / name).touch()
    for order in (names, names[::-1]):
        monkeypatch.setattr(Path, 'iterdir', lambda self, order=order: iter([self / name for name in order]))
        assert list(images_by_stem(tmp_path)) == ['001', '01', '1']


def test_two_images_of_one_stem_are_named(tmp_path):
    for name in ('a.png', 'a.jpg', 'b.png'):
        (tmp_path / name).touch()
    with pytest.raises(InputError) as error:
        images_by_stem(tmp_path, '--input')
    assert str(error.value) == f'--input: {tmp_path} has two images of one name: a.jpg and a.png; keep one of each'


def test_missing_or_empty_folder_is_named_with_the_role(tmp_path):
    with pytest.raises(InputError, match=r'^--target: no folder .*absent$'):
        images_by_stem(tmp_path / 'absent', '--target')
    (tmp_path / 'notes.txt').touch()
    with pytest.raises(InputError, match=r'^--target: no image in .* \(looked for \.bmp, '):
        images_by_stem(tmp_path, '--target')
    with pytest.raises(InputError, match='no folder'):
        images_by_stem(tmp_path / 'notes.txt')


def test_partners_on_both_sides_pass():
    check_partners([], [], 'IN', 'OUT', 'stem')


def test_stems_without_partner_are_named_with_the_side():
    with pytest.raises(InputError) as error:
        check_partners(['c', 'a'], ['d'], 'IN', 'OUT', 'stem')
    assert str(error.value) == (
        '2 of IN have no partner in OUT: a, c; 1 of OUT have no partner in IN: d. '
        'Add the missing images or remove the lonely ones (pairs match by stem)'
    )


def test_long_lists_are_cut():
    assert some(['a', 'b']) == 'a, b'
    assert some(list('abcde')) == 'a, b, c, d, e'
    assert some(list('abcdefg')) == 'a, b, c, d, e and 2 more'


def test_natural_order_counts_as_people_do():
    assert sorted(['r10', 'r9', 'r', '2', '10', 'r9b', 'a2b10', 'a2b9'], key=natural_key) == [
        '2', '10', 'a2b9', 'a2b10', 'r', 'r9', 'r9b', 'r10',
    ]  # fmt: skip


def test_superscript_digits_are_letters():
    """``'²'.isdigit()`` is true, but int('²') is an error."""
    assert sorted(['5²6', '5²10', '4'], key=natural_key) == ['4', '5²6', '5²10']


def test_a_folder_above_the_images_is_told_with_what_lies_in_it(tmp_path):
    for name in ('input', 'target', 'notes'):
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f'did you mean {tmp_path / "input"}\\?'):
        images_by_stem(tmp_path, 'datasets.val.dataroot_lq')
    with pytest.raises(InputError, match=f'did you mean {tmp_path / "target"}\\?'):
        images_by_stem(tmp_path, 'datasets.val.dataroot_gt')
    with pytest.raises(InputError, match=r'no image in .*\.webp\)$'):
        images_by_stem(tmp_path / 'notes', 'datasets.val.dataroot_lq')


def test_links_in_a_circle_are_no_files_and_no_folders(tmp_path):
    (tmp_path / 'loop.png').symlink_to('loop.png')
    assert files_in(tmp_path) == []
    with pytest.raises(InputError, match='no folder'):
        files_in(tmp_path / 'loop.png')
    (tmp_path / 'a.txt').touch()
    with pytest.raises(InputError, match=r'no folder .*a\.txt, which is a file'):
        files_in(tmp_path / 'a.txt')
