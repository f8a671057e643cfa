"""The plain options of a run, beside its log: stock BasicSR takes them too."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Any

from ddsa_arch.files.atomic import write_text
from ddsa_arch.options.loading import to_yaml

RESOLVED_NAME = 'options.yml'


def write_resolved(options: dict[str, Any], option_file: str, folder: str | Path) -> None:
    """Write the plain options of a run beside its log, as BasicSR copies its option file."""
    if options['rank'] != 0:
        return
    added = ('is_train', 'auto_resume', 'dist', 'rank', 'world_size', 'root_path', 'missing_sets')
    given = ('pretrain_network_g', 'strict_load_g', 'param_key_g', 'resume_state', 'ignore_resume_networks')
    plain = {k: v for k, v in options.items() if k not in added}
    plain['path'] = {k: v for k, v in options['path'].items() if k in given}
    plain['datasets'] = {
        phase: {k: v for k, v in d.items() if k not in ('phase', 'scale')} for phase, d in options['datasets'].items()
    }
    for dataset in plain['datasets'].values():  # torch refuses them without workers, and so BasicSR's own pipeline
        dataset['persistent_workers'] = bool(dataset.get('persistent_workers') and dataset.get('num_worker_per_gpu'))
    header = f'# {time.asctime()}\n# {shlex.join(sys.argv)}\n# resolved from {option_file}\n\n'
    write_text(Path(folder) / RESOLVED_NAME, header + to_yaml(plain))
