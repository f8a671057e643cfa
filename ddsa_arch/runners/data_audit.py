"""``ddsa data audit``: search sets of image pairs for test images in the training data, duplicates and faults."""

from __future__ import annotations

import argparse
import sys

from ddsa_arch.files.name_rules import AUTO, MATCHES
from ddsa_arch.files.tables import markdown_table
from ddsa_arch.sets import audit_report
from ddsa_arch.sets.audit import HEADER, audit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ddsa data audit`` to a parser."""
    meaning = 'folders with input.lmdb and target.lmdb, with folders input and target, or with both sides'
    parser.add_argument('--train', nargs='+', default=[], metavar='SET', help=meaning)
    parser.add_argument('--test', nargs='+', default=[], metavar='SET', help='the same; must not be in the train sets')
    parser.add_argument('--out', required=True, metavar='DIR', help='gets audit.csv, report.html, exclude_keys.txt')
    parser.add_argument('--match', default=AUTO, choices=MATCHES, help='which clean image belongs to which rainy one')


def run(args: argparse.Namespace) -> int:
    """Run the audit and print its summary; findings are its result, so the exit code is 0."""
    summary = audit(args.train, args.test, args.out, sys.stderr.isatty(), args.match)
    print(markdown_table(summary.rows, HEADER))
    for finding in summary.findings:
        if finding.kind == audit_report.SWAPPED:
            print(f'{finding.set}: {finding.detail}')
    print(f'{len(summary.findings)} findings: {summary.table}')
    print(f'images side by side: {summary.page}')
    for path, count in summary.excluded.items():
        print(f'{count} training keys to leave out: {path}')
    return 0
