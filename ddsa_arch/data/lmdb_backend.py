"""BasicSR's ``lmdb`` file client on the stores of ``files.lmdb_store``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from basicsr.utils.file_client import BaseStorageBackend, FileClient

from ddsa_arch.files.lmdb_store import read_value


class StoreBackend(BaseStorageBackend):
    """Stands in for BasicSR's LmdbBackend, which lmdb 2 and later break.

    They refuse to open a database twice in a process (validation on the training LMDB, a worker forked while its
    parent has it open), and an open one cannot be pickled. This one holds paths alone. Goes when BasicSR shares its
    environments.

    Args:
        db_paths: one path or several.
        client_keys: a name for each.
        kwargs: options of ``lmdb.open``, which the shared environment sets by itself.
    """

    def __init__(
        self, db_paths: str | Sequence[str], client_keys: str | Sequence[str] = 'default', **kwargs: object
    ) -> None:
        paths = [db_paths] if isinstance(db_paths, str | Path) else list(db_paths)
        names = [client_keys] if isinstance(client_keys, str) else list(client_keys)
        if len(paths) != len(names):
            raise ValueError(f'{len(paths)} db_paths and {len(names)} client_keys: give one key for each path')
        self.paths = dict(zip(names, map(str, paths), strict=True))

    def get(self, filepath: object, client_key: str = 'default') -> bytes:
        if client_key not in self.paths:
            raise ValueError(f'no LMDB {client_key!r}; client_keys names {", ".join(self.paths)}')
        return read_value(self.paths[client_key], str(filepath))

    def get_text(self, filepath: object) -> str:
        return self.get(filepath).decode('utf-8')


FileClient._backends['lmdb'] = StoreBackend
