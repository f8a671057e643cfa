"""Find the packages that are missing, and install BasicSR 1.4.2, whose own build fails on Python 3.13 and later.

Standard library only, and written so that Python 3.6 can still read it.
"""

import importlib.util
import re
import sys
import tarfile
from importlib import import_module
from pathlib import Path
from typing import Callable

MINIMUM_PYTHON = (3, 10)
VERSION = '1.4.2'
BASICSR = 'basicsr==' + VERSION
NEEDED = {  # module: package
    'torch': 'torch', 'torchvision': 'torchvision', 'numpy': 'numpy', 'cv2': 'opencv-python', 'yaml': 'pyyaml',
    'av': 'av', 'lmdb': 'lmdb', 'mmengine': 'mmengine', 'PIL': 'pillow', 'psutil': 'psutil', 'scipy': 'scipy',
    'skimage': 'scikit-image', 'safetensors': 'safetensors', 'tqdm': 'tqdm', 'matplotlib': 'matplotlib',
    'setuptools': 'setuptools', 'basicsr': 'basicsr',
}  # fmt: skip
REPAIR = 'ddsa doctor --repair'

# BasicSR's setup.py runs its version file with exec() and reads the result from locals(). Since Python 3.13
# every exec() in a function gets a fresh copy of the local names (PEP 667); given the frame's own mapping it
# writes through.
SITECUSTOMIZE = """\
import builtins
import sys

_exec = builtins.exec


def exec_in_caller(source, globals=None, locals=None, **options):
    frame = sys._getframe(1)
    if locals is None:
        locals = frame.f_locals if globals is None else globals
    if globals is None:
        globals = frame.f_globals
    _exec(source, globals, locals, **options)


builtins.exec = exec_in_caller
"""


def python_problem(version: tuple = tuple(sys.version_info)) -> str:
    """One sentence if this Python is too old, else ''."""
    if tuple(version[:2]) >= MINIMUM_PYTHON:
        return ''
    found, wanted = '.'.join(map(str, version[:3])), '.'.join(map(str, MINIMUM_PYTHON))
    return f'Python {wanted} or newer is needed, and this is {found} ({sys.executable})'


def missing() -> dict:
    """The packages that are not installed, each with what installs it."""
    remedies = {}
    for module, package in NEEDED.items():
        if importlib.util.find_spec(module) is not None:
            continue
        if package == 'basicsr':
            remedies[package] = REPAIR
        elif package == 'av':
            remedies[package] = 'pip install "av<19"'  # with the names of arguments that are used
        elif package == 'torchvision' and 'torch' not in remedies:
            # without the second word pip may replace torch by a newer one
            remedies[package] = 'pip install torchvision "torch=={}"'.format(version_of('torch'))
        else:
            remedies[package] = 'pip install ' + package
    return remedies


def version_of(package: str) -> str:
    return import_module('importlib.metadata').version(package)  # since Python 3.8


def install_basicsr(run: Callable, python: Path, folder: Path) -> None:
    """Install BasicSR into the environment of ``python``, without what it needs.

    Its list of needs gets ``tensorboard`` in the place of ``tb-nightly``, which writes into the same folder.

    Args:
        run: called with a title, a command (list of str) and environment variables, for each step.
        python: whose pip does it.
        folder: an empty folder for the time of the installation.
    """
    folder = Path(str(folder))
    help_exec = {}
    if sys.version_info >= (3, 13):
        (folder / 'sitecustomize.py').write_text(SITECUSTOMIZE, 'utf-8')
        help_exec['PYTHONPATH'] = str(folder)
    pip = [str(python), '-m', 'pip']
    alone = ['--no-input', '--progress-bar', 'off', '--no-deps', '--no-build-isolation']  # needs what is there
    source = ['--no-binary', 'basicsr', '--dest', str(folder)]
    run('Downloading ' + BASICSR, [*pip, 'download', *alone, *source, BASICSR], **help_exec)
    unpacked = _unpacked(folder)
    run('Installing ' + BASICSR, [*pip, 'install', *alone, str(unpacked)], **help_exec)


def _unpacked(folder: Path) -> Path:
    for archive in folder.glob('basicsr-*.tar.gz'):
        with tarfile.open(str(archive)) as tar:
            if hasattr(tarfile, 'data_filter'):
                tar.extractall(str(folder), filter='data')
            else:
                tar.extractall(str(folder))
    unpacked = folder / f'basicsr-{VERSION}'
    needs = unpacked / 'requirements.txt'
    if needs.exists():
        needs.write_text(re.sub(r'(?m)^tb-nightly$', 'tensorboard', needs.read_text('utf-8')), 'utf-8')
    return unpacked
