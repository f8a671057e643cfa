"""Tell by its first bytes what a file is that somebody gives as weights, whatever its name says."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence

TORCH_ZIP, TORCH_LEGACY, SAFETENSORS = 'torch', 'torch before 1.6', 'safetensors'
READABLE = (TORCH_ZIP, TORCH_LEGACY, SAFETENSORS)
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the number with which files of torch before 1.6 begin
LONGEST_HEADER = 100_000_000  # bytes of JSON in a file of safetensors, the limit of the format
GET_AGAIN = 'get it again'
WEIGHT_NAMES = ('.pth', '.pt', '.ckpt', '.bin', '.safetensors')
HIGHEST_IR = 64  # of ONNX; the second byte of such a file

ARCHIVES = {
    b'\x1f\x8b': 'gzip', b'BZh': 'bzip2', b'\xfd7zXZ': 'xz', b'7z\xbc\xaf': '7z',
    b'Rar!': 'rar', b'\x28\xb5\x2f\xfd': 'zstd',
}  # fmt: skip
OTHERS = {
    b'\x93NUMPY': 'an array of numpy (.npy)',
    b'\x89HDF\r\n\x1a\n': 'a file of HDF5, such as Keras writes',
    b'GGUF': 'a file of GGUF',
    b'MATLAB 5.0': 'a file of MATLAB',
}
NO_ARRAYS = {b'\x89PNG': 'a picture (PNG)', b'\xff\xd8\xff': 'a picture (JPEG)', b'%PDF': 'a document (PDF)'}
TO_STATE = 'save its tensors by name, as torch.save({name: torch.from_numpy(array), ...}, FILE.pth) does'


def kind_of(data: bytes) -> tuple[str, str]:
    """Tell what a file is.

    Returns:
        One of ``READABLE``, or '' for what holds no weights that this package reads.
        In the latter case, what it is and what to do, ready to follow the name of the file.
    """
    if not data:
        return '', f'is empty; {GET_AGAIN}'
    if data.startswith(b'PK\x03\x04'):
        return _kind_of_zip(data)
    if _is_legacy(data):
        return TORCH_LEGACY, ''
    if data[257:262] == b'ustar':
        return '', 'is a tar archive; unpack it, and give the weight file that was in it'
    for start, name in ARCHIVES.items():
        if data.startswith(start):
            return '', f'is compressed by {name}; unpack it, and give the weight file that was in it'
    for start, name in OTHERS.items():
        if data.startswith(start):
            return '', f'is {name}, no weights of torch; {TO_STATE}'
    for start, name in NO_ARRAYS.items():
        if data.startswith(start):
            return '', f'is {name}, no weights; give the weight file itself'
    if data[4:8] == b'TFL3':
        return '', 'is a network of TensorFlow Lite, no weights of torch'
    told = _text(data)
    if told:
        return '', told
    if data[:2] in (b'PK', b'\x80\x02', b'\x80\x03', b'\x80\x04', b'\x80\x05'):
        return '', _of_pickle(data)
    return _kind_of_header(data)


def _kind_of_header(data: bytes) -> tuple[str, str]:
    length = int.from_bytes(data[:8], 'little')
    if len(data) > 8 and data[8:9] == b'{' and 2 <= length <= LONGEST_HEADER:
        if len(data) < 8 + length:
            return '', (
                f'cannot be read: it is cut off, as its header alone has {length:,} bytes, and {len(data):,} are '
                f'there; {GET_AGAIN}'
            )
        return SAFETENSORS, ''
    if is_onnx_data(data):
        return '', (
            'holds a network of ONNX, not its weights alone; give it a name that ends in .onnx to run it, or take the '
            'weights that it was exported from'
        )
    return '', f'is no weight file (its first bytes, {data[:8]!r}, are of no known kind); {GET_AGAIN}'


def is_onnx_data(data: bytes) -> bool:
    """Whether a file begins as ONNX does: its version, and then its producer, a model version, domain or graph."""
    return len(data) > 2 and data[0] == 0x08 and 0 < data[1] < HIGHEST_IR and data[2] in (0x12, 0x1A, 0x22, 0x28, 0x3A)


def _is_legacy(data: bytes) -> bool:
    magic = LEGACY_MAGIC.to_bytes(10, 'little')
    return data[:1] == b'\x80' and magic in data[:16]


def _of_pickle(data: bytes) -> str:
    if data[:2] == b'PK':
        return f'is a broken zip; {GET_AGAIN}'
    return (
        'is a plain pickle, which could run code and is not opened; write its weights by '
        'torch.save(net.state_dict(), FILE.pth)'
    )


def _text(data: bytes) -> str:
    """Say what a file of text is; '' for one of bytes."""
    head = data[:2048].lstrip(b'\xef\xbb\xbf \t\r\n')
    lower = head[:256].lower()
    if head.startswith(b'version https://git-lfs'):
        return 'is a pointer of git LFS, not the weights; run `git lfs pull`, or download the file itself'
    if lower.startswith((b'<!doctype html', b'<html', b'<head', b'<body', b'<!--')) or b'<html' in lower:
        return 'is a web page, not weights; open the link in a browser, and download the file that the page offers'
    if lower.startswith((b'<?xml', b'<error')):
        return 'is an answer of a server (XML), not weights; ' + GET_AGAIN
    try:
        text = data[:4096].decode('ascii')
    except UnicodeDecodeError:
        return ''
    if not text.isprintable() and not all(letter.isprintable() or letter in '\r\n\t' for letter in text):
        return ''
    if head.startswith(b'{'):
        return f'is text (JSON), not weights{_shards(data)}'
    first = text.strip().splitlines()
    return (
        f'is text ({first[0][:60]!r} ...), not weights; give the weight file itself'
        if first
        else f'is blank text; {GET_AGAIN}'
    )


def _shards(data: bytes) -> str:
    """Name the files that a list of parts, as large networks have it, refers to."""
    try:
        files = sorted(set(json.loads(data)['weight_map'].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f'; {GET_AGAIN}'
    return f'; it lists the files {", ".join(map(str, files[:3]))}: join their tensors into one file'


def _kind_of_zip(data: bytes) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            unpacked = sum(info.file_size for info in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError, UnicodeError):
        return '', (
            f'cannot be read: it is cut off or damaged, as it begins as an archive that has no end after {len(data):,} '
            f'bytes; {GET_AGAIN}'
        )
    within = {name.partition('/')[2] or name for name in names}
    if 'constants.pkl' in within or any(name.startswith('code/') for name in within):
        return '', (
            'is a program of TorchScript, which could run code and is not opened; whoever made it can write its '
            'weights by torch.save(torch.jit.load(FILE).state_dict(), WEIGHTS.pth)'
        )
    if 'archive_format' in within or any(
        name.endswith(('exported_program.json', 'models/model.json')) for name in names
    ):
        return '', (
            'holds a program of torch.export, not its weights alone; give it a name that ends in .pt2 to run it, or '
            'take the weights that it was exported from'
        )
    if 'data.pkl' in within:
        if unpacked > 2 * len(data) + 1_000_000:
            return '', f'says that it unpacks to {unpacked:,} bytes from {len(data):,}, which no weight file does'
        return TORCH_ZIP, ''
    return '', _zip_of(names)


def _zip_of(names: Sequence[str]) -> str:
    weights = [name for name in names if name.lower().endswith(WEIGHT_NAMES)]
    if weights:
        shown = ', '.join(weights[:3])
        return f'is a zip of {shown}; unpack it, and give the weight file that was in it'
    if names and all(name.endswith('.npy') for name in names):
        return f'is a file of arrays of numpy (.npz), no weights of torch; {TO_STATE}'
    return f'is a zip without weights, of {", ".join(names[:3]) or "nothing"}; unpack it if they are elsewhere in it'
