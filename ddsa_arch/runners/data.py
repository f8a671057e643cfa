"""``ddsa data``: everything about sets of image pairs, from the download to verified LMDBs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ddsa_arch.runners import data_audit, data_download, data_lmdb, data_prepare, data_speed, data_synth, data_verify

MODULES = (
    ('download', data_download, 'the archives of the field, from Google Drive'),
    ('prepare', data_prepare, 'the archives of the field to LMDBs, verified'),
    ('lmdb', data_lmdb, 'image files to two LMDBs'),
    ('verify', data_verify, 'check sets; exit code 1 names what is wrong'),
    ('synth', data_synth, 'render rain on clean photos, or a sheet of samples'),
    ('audit', data_audit, 'test images in the training data, duplicates, faulty pairs'),
    ('speed', data_speed, 'how fast sets are read for training'),
)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog='ddsa data', description=__doc__)
    commands = top.add_subparsers(dest='command', required=True)
    for name, module, meaning in MODULES:
        command = commands.add_parser(name, help=meaning, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return args.run(args)
