"""Read files of ``torch.save`` without running anything that they hold.

A pickle names functions and classes to call. Here a few names become what builds tensors and containers; every other
name becomes a ``Stranger``, which keeps what it is given and does nothing. So checkpoints of any toolbox can be read,
with their optimisers, histories and networks of unknown classes, and only tensors and plain values come out.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

DEEPEST = 40  # containers within each other
MOST_TENSORS = 100_000  # of a network
SPARE = 2**20  # numbers by which a tensor may be larger than its storage, by repeating them
PLAIN = (str, bool, int, float, type(None))
STORAGES = {
    'DoubleStorage': torch.float64, 'FloatStorage': torch.float32, 'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16, 'LongStorage': torch.int64, 'IntStorage': torch.int32,
    'ShortStorage': torch.int16, 'CharStorage': torch.int8, 'ByteStorage': torch.uint8, 'BoolStorage': torch.bool,
    'ComplexFloatStorage': torch.complex64, 'ComplexDoubleStorage': torch.complex128, 'UntypedStorage': torch.uint8,
}  # fmt: skip
ARRAYS = {
    'f8': torch.float64, 'f4': torch.float32, 'f2': torch.float16, 'i8': torch.int64, 'i4': torch.int32,
    'i2': torch.int16, 'i1': torch.int8, 'u1': torch.uint8, 'b1': torch.bool,
}  # fmt: skip
CONTAINERS: dict[str, type] = {'set': set, 'frozenset': frozenset, 'list': list, 'tuple': tuple, 'dict': dict}


class Stranger:
    """An object of a class that is not known here; it keeps its state and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Stranger:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *_: Any, **__: Any) -> Stranger:
        return Stranger()

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """Drop an element."""

    def extend(self, _: Any) -> None:
        """Drop elements."""

    def add(self, _: Any) -> None:
        """Drop an element."""


class _Array(Stranger):
    """An array of numpy, which pickles build in two steps."""

    def tensor(self) -> Tensor | None:
        """Return it as a tensor; None for one that is no plain array of numbers."""
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            return None
        _, shape, kind, by_columns, raw = self.state
        if not isinstance(kind, _Kind) or not isinstance(shape, tuple) or not isinstance(raw, bytes):
            return None
        letters = kind.letters
        if letters not in ARRAYS or kind.state[1:2] not in (('<',), ('|',)):
            return None
        numbers = _numbers(raw, ARRAYS[letters])
        if by_columns:
            return numbers.reshape(shape[::-1]).permute(*range(len(shape))[::-1]).contiguous()
        return numbers.reshape(shape)


class _Kind(Stranger):
    """A dtype of numpy, such as f4."""

    def __init__(self, letters: Any = '', *_: Any) -> None:
        self.letters, self.state = letters, ()


def read_torch_zip(data: bytes) -> Any:
    """Return what a file of ``torch.save`` holds: tensors on the CPU in plain containers.

    Raises:
        Exception: of many kinds, for a file that is damaged.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickled = next(name for name in archive.namelist() if name.endswith('data.pkl'))
        folder = pickled[: -len('data.pkl')]
        if f'{folder}byteorder' in archive.namelist() and archive.read(f'{folder}byteorder') != b'little':
            raise ValueError('it was written on a machine of the other byte order')
        storages: dict[str, Tensor] = {}

        def storage(pid: Any) -> Tensor:
            _, dtype, key, _, count = pid[:5]
            key = str(key)
            if key not in storages:
                storages[key] = _numbers(archive.read(f'{folder}data/{key}'), dtype)
            if storages[key].dtype != dtype or len(storages[key]) < count:
                raise ValueError(f'its storage {key} is too short')
            return storages[key]

        return plain(_Reader(io.BytesIO(archive.read(pickled)), storage).load())


def read_torch_legacy(data: bytes) -> Any:
    """Return what a file of torch before 1.6 holds, as ``read_torch_zip`` does."""
    file = io.BytesIO(data)
    storages: dict[str, Tensor] = {}
    promised = 0

    def storage(pid: Any) -> Tensor:
        nonlocal promised
        if pid[0] == 'module':  # a class with its source
            return pid[1]
        _, dtype, key, _, count, *view = pid
        key = str(key)
        if key not in storages:
            promised += count * dtype.itemsize
            if count < 0 or promised > len(data):
                raise EOFError('its tensors are not all there')
            storages[key] = torch.zeros(count, dtype=dtype)
        if view and view[0]:
            _, offset, size = view[0]
            return storages[key][offset : offset + size]
        return storages[key]

    for _ in range(2):  # the number that tells the kind, and the version
        _Reader(file, storage).load()
    machine = _Reader(file, storage).load()
    if not machine.get('little_endian', True):
        raise ValueError('it was written on a machine of the other byte order')
    content = _Reader(file, storage).load()
    for key in _Reader(file, storage).load():
        flat = storages[str(key)]
        count = int.from_bytes(file.read(8), 'little')
        raw = file.read(len(flat) * flat.element_size())
        if count != len(flat) or len(raw) < len(flat) * flat.element_size():
            raise EOFError('its tensors are not all there')
        flat.copy_(_numbers(raw, flat.dtype))
    return plain(content)


def plain(content: Any) -> Any:
    """Return tensors, plain values and containers of them; a network becomes its state dict, a stranger None."""
    return _plain(content, {}, 0)


def _plain(content: Any, done: dict[int, Any], depth: int) -> Any:
    if isinstance(content, PLAIN):
        return content
    if isinstance(content, Tensor):
        return content
    if depth > DEEPEST:
        raise ValueError('its containers lie too deep in each other')
    if id(content) in done:
        return done[id(content)]
    result: Any = None
    if isinstance(content, _Array):
        result = content.tensor()
    elif isinstance(content, Stranger):
        state: dict[str, Tensor] = {}
        result = state if _collect(content, '', state, depth) else None
    elif isinstance(content, dict):
        result = {}
        done[id(content)] = result
        for key, value in dict.items(content):  # not by a method that the file may have set
            if isinstance(key, PLAIN):
                result[key] = _plain(value, done, depth + 1)
    elif isinstance(content, list | tuple):
        result = []
        done[id(content)] = result
        result += [_plain(value, done, depth + 1) for value in content]
    done[id(content)] = result
    return result


def _collect(module: Stranger, prefix: str, state: dict[str, Tensor], depth: int) -> bool:
    """Put the tensors of a pickled network into a state dict; whether it was a network."""
    told = module.state
    if not isinstance(told, dict) or not isinstance(told.get('_modules'), dict):
        return False
    if depth > DEEPEST or len(state) > MOST_TENSORS:
        raise ValueError('its network has too many parts')
    passing = told.get('_non_persistent_buffers_set')
    left_out = passing if isinstance(passing, set) else set()
    for kind in ('_parameters', '_buffers'):
        found = told.get(kind)
        for name, value in dict.items(found) if isinstance(found, dict) else ():
            if isinstance(value, Tensor) and name not in left_out:
                state[f'{prefix}{name}'] = value
    for name, child in dict.items(told['_modules']):
        if isinstance(child, Stranger):
            _collect(child, f'{prefix}{name}.', state, depth + 1)
    return True


def _numbers(raw: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)


class _Reader(pickle.Unpickler):
    """Unpickles with the names of ``_names`` alone.

    Args:
        file: at the beginning of a pickle.
        storage: gives the numbers of a storage by what the pickle says of it.
    """

    def __init__(self, file: io.BytesIO, storage: Callable[[Any], Any]) -> None:
        super().__init__(file, encoding='utf-8', errors='replace')
        self._storage = storage
        self._names = _names()  # new each time: a pickle may set attributes of what it is given

    def find_class(self, module: str, name: str) -> Any:
        if module in ('torch', 'torch.storage') and name in STORAGES:
            return STORAGES[name]
        if module in ('builtins', '__builtin__') and name in CONTAINERS:
            return CONTAINERS[name]
        if module == 'torch' and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        known = self._names.get(f'{module}.{name}')
        return type('Stranger', (Stranger,), {}) if known is None else known

    def persistent_load(self, pid: Any) -> Any:
        return self._storage(pid)


def _names() -> dict[str, Any]:
    """Return what builds tensors and containers, by the names that pickles of torch have for it."""

    def tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
        size = tuple(size)
        if torch.Size(size).numel() > storage.numel() + SPARE:
            raise ValueError('a tensor is larger than what is stored of it')
        return storage.as_strided(size, tuple(stride), storage.storage_offset() + offset)

    def untyped(storage: Tensor, offset: int, size: Any, stride: Any, _: Any, __: Any, dtype: Any, *___: Any) -> Tensor:
        return tensor(storage.view(dtype), offset, size, stride)

    def parameter(data: Tensor, *_: Any) -> Tensor:
        return data

    def with_attributes(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
        return function(*arguments)

    def as_bytes(text: Any, *_: Any) -> Any:
        return text.encode('latin1') if isinstance(text, str) else Stranger()

    def array(*_: Any) -> _Array:
        return _Array()

    return {
        '_codecs.encode': as_bytes,
        'numpy.core.multiarray._reconstruct': array,
        'numpy._core.multiarray._reconstruct': array,
        'numpy.dtype': _Kind,
        'collections.OrderedDict': collections.OrderedDict,
        'collections.defaultdict': lambda *_: {},
        'torch.Size': tuple,
        'torch._utils._rebuild_tensor': tensor,
        'torch._utils._rebuild_tensor_v2': tensor,
        'torch._utils._rebuild_tensor_v3': untyped,
        'torch._utils._rebuild_parameter': parameter,
        'torch._utils._rebuild_parameter_with_state': parameter,
        'torch._tensor._rebuild_from_type_v2': with_attributes,
    }
