"""Photos of many kinds, made without our own code: each entry writes a file and returns the pixels that it shows."""

import io
import struct
import zlib

import cv2
import numpy as np
import tifffile
from PIL import Image

H, W = 9, 14


def noise(*channels, dtype=np.uint8, seed=0):
    most = np.iinfo(dtype).max if np.dtype(dtype).kind == 'u' else None
    rng = np.random.default_rng(seed)
    if most is None:
        return rng.random((H, W, *channels)).astype(dtype)
    return rng.integers(0, most, (H, W, *channels), dtype=dtype, endpoint=True)


def png(path, values, bits, colours, *chunks):
    """Write a PNG by hand: ``(H, W)`` or ``(H, W, C)`` of numbers below 2^bits, and chunks (kind, content)."""
    values = values[..., None] if values.ndim == 2 else values
    if bits == 16:
        rows = [row.astype('>u2').tobytes() for row in values]
    else:
        places = np.arange(bits)[::-1]
        rows = [np.packbits((row.reshape(-1, 1) >> places & 1).ravel().astype(np.uint8)).tobytes() for row in values]
    head = struct.pack('>IIBBBBB', values.shape[1], values.shape[0], bits, colours, 0, 0, 0)
    data = zlib.compress(b''.join(b'\0' + row for row in rows))
    parts = [(b'IHDR', head), *chunks, (b'IDAT', data), (b'IEND', b'')]
    whole = (struct.pack('>I', len(c)) + k + c + struct.pack('>I', zlib.crc32(k + c)) for k, c in parts)
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + b''.join(whole))


def with_alpha(pixels, alpha):
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return np.concatenate([pixels, alpha[..., None].astype(pixels.dtype)], axis=2)


def tiff(pixels=None, wanted=None, **how):
    """Return what writes pixels by tifffile with its keywords."""

    def make(path):
        tifffile.imwrite(path, pixels, **how)
        return pixels if wanted is None else wanted

    return make


def rgb_tiffs():
    """All layouts of RGB."""
    for kind in (np.uint8, np.uint16):
        name, pixels = f'rgb{8 * np.dtype(kind).itemsize}', noise(3, dtype=kind)
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        shared = {'photometric': 'rgb', 'wanted': pixels}
        yield f'{name}_contiguous', tiff(pixels, **shared)
        yield f'{name}_planar', tiff(planes, planarconfig='separate', **shared)
        yield f'{name}_planar_strips', tiff(planes, planarconfig='separate', rowsperstrip=2, **shared)
        yield f'{name}_planar_tiled', tiff(planes, planarconfig='separate', tile=(16, 16), **shared)
        yield f'{name}_tiled', tiff(np.ascontiguousarray(np.tile(pixels, (3, 3, 1))), photometric='rgb', tile=(16, 16))
        yield f'{name}_big_endian', tiff(pixels, byteorder='>', **shared)
        yield f'{name}_planar_big_endian', tiff(planes, planarconfig='separate', byteorder='>', **shared)
        yield f'{name}_bigtiff', tiff(pixels, bigtiff=True, **shared)
        yield f'{name}_bigtiff_big_endian', tiff(pixels, bigtiff=True, byteorder='>', **shared)
        yield f'{name}_deflate', tiff(pixels, compression='zlib', rowsperstrip=4, **shared)
        yield f'{name}_deflate_predictor', tiff(pixels, compression='zlib', predictor=True, **shared)
        yield (
            f'{name}_deflate_planar',
            tiff(planes, planarconfig='separate', compression='zlib', predictor=True, **shared),
        )


def premultiplied(kind):
    whole = np.iinfo(kind).max
    straight, alpha = noise(3, dtype=kind), noise(dtype=kind, seed=1)
    alpha[0] = 0
    alpha[1] = whole
    stored = (straight.astype(np.uint64) * alpha[..., None] // whole).astype(kind)
    cover = np.where(alpha > 0, alpha, whole)[..., None].astype(float)
    wanted = with_alpha(np.floor(np.minimum(stored.astype(float) * whole / cover, whole) + 0.5).astype(kind), alpha)
    return tiff(with_alpha(stored, alpha), wanted, photometric='rgb', extrasamples=['assocalpha'])


def other_tiffs():
    grey, deep = noise(), noise(dtype=np.uint16)
    yield 'grey8', tiff(grey, photometric='minisblack')
    yield 'grey16_tiled', tiff(np.tile(deep, (3, 2)), photometric='minisblack', tile=(16, 16))
    yield 'miniswhite8', tiff(grey, 255 - grey, photometric='miniswhite')
    yield 'miniswhite16', tiff(deep, 65535 - deep, photometric='miniswhite')
    wide = noise(3, dtype=np.uint32)
    yield 'rgb_uint32', tiff(wide, (wide >> 16).astype(np.uint16), photometric='rgb')
    for kind in (np.float16, np.float32):
        shown = noise(3, dtype=kind)
        yield f'rgb_{np.dtype(kind).name}', tiff(shown, shown.astype(np.float32), photometric='rgb')
    floats = noise(3, dtype=np.float32)
    planes = np.ascontiguousarray(floats.transpose(2, 0, 1))
    yield 'float32_planar_big_endian', tiff(planes, floats, photometric='rgb', planarconfig='separate', byteorder='>')
    for kind in (np.uint8, np.uint16):
        bits = 8 * np.dtype(kind).itemsize
        yield f'alpha{bits}', tiff(noise(4, dtype=kind), photometric='rgb', extrasamples=['unassalpha'])
        yield f'grey_alpha{bits}', tiff(noise(2, dtype=kind), photometric='minisblack', extrasamples=['unassalpha'],
                                        planarconfig='contig')  # fmt: skip
        yield f'premultiplied{bits}', premultiplied(kind)
        more = noise(5, dtype=kind)
        yield f'extra_channels{bits}', tiff(more, more[..., :3], photometric='rgb', planarconfig='contig',
                                            extrasamples=['unspecified', 'unspecified'])  # fmt: skip
    index = noise() % 4
    palette = np.zeros((3, 256), np.uint16)
    palette[:, :4] = np.array([[10, 20, 30, 40], [50, 60, 70, 80], [90, 100, 110, 120]]) * 257
    yield 'palette', tiff(index, (palette >> 8).T.astype(np.uint8)[index], photometric='palette', colormap=palette)

    def bilevel(path):
        image = Image.fromarray((grey > 99).astype(np.uint8) * 255).convert('1')
        image.save(path, compression='group4')
        return np.asarray(image.convert('L'))

    def packed(compression, pixels=grey):
        def make(path):
            Image.fromarray(pixels).save(path, compression=compression)
            return pixels

        return make

    def lzw_deep(path):
        pixels = noise(3, dtype=np.uint16)
        cv2.imwrite(str(path), pixels[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
        return pixels

    def jpeg(path):
        smooth = np.full((32, 32, 3), (90, 140, 60), np.uint8)
        Image.fromarray(smooth).save(path, compression='jpeg', quality=95)
        with Image.open(path) as image:
            return np.asarray(image.convert('RGB'))

    def twelve_bits(path):
        values = noise(dtype=np.uint16) >> 4
        digits = (values[..., None] >> np.arange(12)[::-1] & 1).astype(np.uint8).reshape(H, -1)
        row = np.packbits(digits, axis=1).tobytes()
        tags = ((256, W), (257, H), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, H), (279, len(row)))
        block = struct.pack('<H', len(tags)) + b''.join(struct.pack('<HHII', t, 4, 1, v) for t, v in tags) + bytes(4)
        path.write_bytes(struct.pack('<2sHI', b'II', 42, 8 + len(row)) + row + block)
        return np.rint(values / 4095 * 65535).astype(np.uint16)

    yield 'fax', bilevel
    yield 'lzw16', lzw_deep
    yield 'jpeg', jpeg
    yield 'grey12', twelve_bits
    for compression in ('tiff_lzw', 'zstd', 'packbits', 'lzma'):
        yield compression, packed(compression)
        yield f'{compression}_rgb', packed(compression, noise(3))

    def pages(path):
        tifffile.imwrite(path, np.stack([deep, deep[::-1], deep]), photometric='minisblack')
        return deep

    yield 'pages', pages


def pngs():
    for bits in (1, 2, 4, 8, 16):
        kind = np.uint16 if bits == 16 else np.uint8
        values = noise(dtype=kind) >> (0 if bits in (8, 16) else 8 - bits)
        shown = values if bits == 16 else (values * (255 // (2**bits - 1))).astype(np.uint8)
        key = int(values[0, 0])
        clear = np.where(values == key, 0, 65535 if bits == 16 else 255)
        yield f'grey{bits}', lambda path, v=values, b=bits, s=shown: (png(path, v, b, 0), s)[1]
        yield f'grey{bits}_transparent', lambda path, v=values, b=bits, k=key, s=shown, c=clear: (
            png(path, v, b, 0, (b'tRNS', struct.pack('>H', k))), with_alpha(s, c))[1]  # fmt: skip
        if bits in (8, 16):
            rgb = noise(3, dtype=kind)
            clear = np.where((rgb == rgb[2, 3]).all(2), 0, 65535 if bits == 16 else 255)
            chunk = b'tRNS', struct.pack('>3H', *map(int, rgb[2, 3]))
            yield f'rgb{bits}', lambda path, v=rgb, b=bits: (png(path, v, b, 2), v)[1]
            yield f'rgb{bits}_transparent', lambda path, v=rgb, b=bits, n=chunk, c=clear: (
                png(path, v, b, 2, n), with_alpha(v, c))[1]  # fmt: skip
            for channels, colours in ((2, 4), (4, 6)):
                alpha = noise(channels, dtype=kind)
                yield f'channels{channels}_{bits}', lambda path, v=alpha, b=bits, c=colours: (png(path, v, b, c), v)[1]
    index = noise() % 3
    chunks = (b'PLTE', bytes([9, 8, 7, 60, 50, 40, 200, 210, 220])), (b'tRNS', bytes([0, 99]))
    colours = np.array([[9, 8, 7, 0], [60, 50, 40, 99], [200, 210, 220, 255]], np.uint8)
    yield 'palette_transparent', lambda path: (png(path, index, 8, 3, *chunks), colours[index])[1]
    yield 'palette', lambda path: (png(path, index, 2, 3, chunks[0]), colours[index][..., :3])[1]


def saved(image, shown=None, **how):
    def make(path):
        image.save(path, **how)
        return np.asarray(image if shown is None else shown)

    return make


def others():
    """(name, suffix, suffix of the result, what makes it)"""
    rgb, rgba, grey = (Image.fromarray(noise(*c)) for c in ((3,), (4,), ()))
    yield 'bmp', '.bmp', '.bmp', saved(rgb)
    yield 'bmp_grey', '.bmp', '.bmp', saved(grey)
    yield 'dib', '.dib', '.bmp', saved(rgb)
    yield 'webp', '.webp', '.webp', saved(rgb, lossless=True)
    yield 'webp_alpha', '.webp', '.webp', saved(rgba, lossless=True, exact=True)
    yield 'webp_animated', '.webp', '.webp', saved(rgb, lossless=True, save_all=True, append_images=[rgb.rotate(180)])
    yield 'apng', '.apng', '.png', saved(rgb, format='PNG', save_all=True, append_images=[rgb.rotate(180)])
    for mode, image in (('rgb', rgb), ('rgba', rgba), ('grey', grey)):
        yield f'tga_{mode}', '.tga', '.tga', saved(image)
        yield f'tga_rle_{mode}', '.tga', '.tga', saved(image, compression='tga_rle')
    yield 'gif', '.gif', '.png', saved(grey, Image.merge('RGB', [grey] * 3))
    yield 'gif_animated', '.gif', '.png', saved(grey, Image.merge('RGB', [grey] * 3), save_all=True,
                                                append_images=[grey.rotate(180)])  # fmt: skip
    for mode, image in (('rgb', rgb), ('rgba', rgba), ('grey', grey)):
        large = image.resize((W * 4, H * 4))
        yield f'jp2_{mode}', '.jp2', '.jp2', saved(large)
    yield 'j2k', '.j2k', '.jp2', saved(rgb.resize((64, 64)))

    def deep_jp2(path):
        pixels = np.tile(noise(3, dtype=np.uint16), (8, 8, 1))
        cv2.imwrite(str(path), pixels[..., ::-1], [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
        return pixels

    yield 'jp2_16', '.jp2', '.jp2', deep_jp2
    yield 'ppm', '.ppm', '.ppm', saved(rgb)
    yield 'pgm', '.pgm', '.pgm', saved(grey)
    yield 'pbm', '.pbm', '.pgm', saved(grey.convert('1'), grey.convert('1').convert('L'))
    for most in (1023, 65535):
        values = noise(3, dtype=np.uint16) & most
        shown = np.rint(values / most * 65535).astype(np.uint16)
        head = f'P6 # rain\n{W} {H}\n{most}\n'.encode()
        yield f'ppm_{most}', '.ppm', '.ppm', lambda path, h=head, v=values, s=shown: (
            path.write_bytes(h + v.astype('>u2').tobytes()), s)[1]  # fmt: skip
        text = f'P2\n{W} {H}\n{most}\n' + '\n'.join(' '.join(map(str, row)) for row in values[..., 0].tolist())
        yield f'pgm_text_{most}', '.pgm', '.pgm', lambda path, t=text, s=shown[..., 0]: (path.write_text(t), s)[1]
    yield 'ico', '.ico', '.png', saved(rgba.resize((32, 32)), sizes=[(32, 32)], bitmap_format='png')


def all_kinds():
    """Yield (name, suffix, suffix of the result, what makes it) of every kind that is kept without loss."""
    for name, make in (*rgb_tiffs(), *other_tiffs()):
        yield f'tiff_{name}', '.tif', '.tif', make
    for name, make in pngs():
        yield f'png_{name}', '.png', '.png', make
    yield from others()


def outside(path):
    """Read a result without our own code."""
    if path.suffix == '.tif':
        return tifffile.imread(path)
    data = path.read_bytes()
    if (path.suffix == '.png' and data[24] == 16) or (path.suffix in ('.ppm', '.pgm', '.jp2')):
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if path.suffix == '.png' and data[25] == 4:
            return pixels[..., [0, 3]]
        return pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)
