"""What tests of several rooms share: noise, small networks, tables, and stores that are read without our own code."""

import csv
import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
import yaml

from ddsa_arch.files.images import write_image
from ddsa_arch.files.matching import Pairs
from ddsa_arch.sets.pair_stores import write_pair_stores

TESTS = Path(__file__).resolve().parent
OPTIONS = TESTS.parent / 'options'
SMALL = yaml.safe_load((TESTS / 'small_networks.yml').read_text(encoding='utf-8'))
TINY = {'type': 'DDSANet', **SMALL['DDSANet']}
LONGEST = 600  # seconds that anything may take on a machine that is busy with other work
ORIENTATION = 0x0112  # EXIF tag

needs_fork = pytest.mark.skipif(sys.platform == 'win32', reason='no fork')


def noise(height=12, width=10, seed=0):
    """An image of random pixels, (height, width, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_noise(path, seed=0, height=12, width=10):
    """Write such an image, in a new folder if need be, and return its path."""
    write_image(path, noise(height, width, seed))
    return path


def normal(*shape, seed=1, dtype=torch.float32):
    """A tensor of normally distributed numbers, the same in every precision but for its rounding."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def names(folder):
    """The sorted names in a folder, but for the lock of a process that was killed; none if there is no such folder."""
    return sorted(path.name for path in folder.iterdir() if path.name != '.ddsa.lock') if folder.exists() else []


def rows(path):
    """The rows of a CSV file as dictionaries."""
    with open(path, encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def same(a, b):
    """Whether two dictionaries, such as items of a data set or state dicts, hold the same."""
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a
    )


def content(store):
    """Everything in an LMDB, read with nothing but lmdb."""
    with lmdb.open(str(store), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return dict(transaction.cursor())


def write_stores(inputs, targets, out, progress=iter):
    """Write the LMDBs of two sides without faults."""
    return write_pair_stores(Pairs(inputs, targets), out, progress)[0]


def in_child(task, *args):
    """Run a task in a forked process and return its exit code."""
    process = multiprocessing.get_context('fork').Process(target=task, args=args)
    process.start()
    process.join(LONGEST)
    return process.exitcode


def killing(at):
    """A progress bar that kills its process."""

    def progress(items):
        for i, item in enumerate(items):
            if i == at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield item

    return progress


def free_port():
    """A port of this machine at which nobody listens."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        return server.getsockname()[1]


def variables(**more):
    """The variables of a command that is run in a process of its own: one thread, and this checkout."""
    return os.environ | {'PYTHONPATH': str(TESTS.parent), 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'} | more


MIXTURE_SHARES = {'heavy': 0.5, 'light': 0.3, 'rendered': 0.2}


def write_mixture(write_options, name, **changes):
    """An option file whose training set is a list of three."""
    path = write_options('train', name=name, **changes)
    options = yaml.safe_load(path.read_text(encoding='utf-8'))
    one = options['datasets']['train']
    sets = [{**one, 'name': set_name, 'weight': share} for set_name, share in MIXTURE_SHARES.items()]
    sets[2] |= {'type': 'RenderedRainDataset', 'dataroot_lq': None}
    options['datasets']['train'] = [sets[0], *({k: v for k, v in s.items() if 'batch' not in k} for s in sets[1:])]
    path = path.with_name(f'{name}.yml')
    path.write_text(yaml.safe_dump(options), encoding='utf-8')
    return path
