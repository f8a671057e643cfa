"""Make the environment of the other scripts, from a bare Python: a folder .venv in the checkout.

Standard library only, and written so that Python 3.6 can still read it and say that it is too old.

``ensure_environment()`` is quick when nothing is to be done: a stamp in .venv holds a hash of all that
decides what is installed, is written after the last step alone, and while it fits neither pip nor the network
is touched. A run that was killed leaves no fitting stamp, so the next one completes what it began.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from ddsa_start.toolbox import BASICSR, install_basicsr, python_problem

ROOT = Path(__file__).resolve().parent.parent
BRISQUE = 'brisque==0.2.0'  # for the files of its model alone; the libsvm that it needs takes a C++ compiler
TORCH_VARIABLE = 'DDSA_TORCH'
TORCH_GIGABYTES = 3 if sys.platform == 'linux' else 0.3  # Linux wheels bring CUDA along

PACKAGING = ('pip', 'setuptools', 'wheel')
TORCH = ('torch', 'torchvision')
AFTER_TORCH = ('spandrel',)  # ask for any torch; pip would take the newest, with CUDA
COMPILED = ('av', 'cv2', 'lmdb', 'scipy', 'skimage', 'torch')  # what may install well and yet not load

# First line of .venv/install.log: a .venv without it belongs to somebody else and is never emptied.
HEADER = 'Made by scripts/_environment.py, which may remake this folder at any time.'

# What a failing step prints (any of the strings, whatever the language) and what to do about it.
REMEDIES = (
    (
        ('ensurepip is not available', 'ensurepip is disabled', 'No module named ensurepip',
         'No module named venv'),
        'This Python lacks its venv module; on Debian or Ubuntu: sudo apt install python{python}-venv',
    ),
    (
        ('Errno 28]', 'Errno 122]', 'No space left', 'not enough space on the disk', 'WinError 112]'),
        'The disk of this folder or of the temporary files (TMPDIR) is full; a complete environment with its '
        'downloads takes up to 12 GB. Make room and run the command again.',
    ),
    (
        ('libGL', 'libgthread', 'libglib', 'libxcb', 'libSM.so', 'libXext'),
        'OpenCV needs libraries of the system; on Debian or Ubuntu: '
        'sudo apt install libgl1 libglib2.0-0 libxcb1',
    ),
    (
        ('NewConnectionError', 'NameResolutionError', 'ConnectTimeout', 'ReadTimeout', 'Read timed out',
         'Max retries exceeded', 'ProxyError', 'SSLError', 'ConnectionResetError', 'IncompleteRead',
         'ProtocolError', 'HTTP error', 'HTTPError'),
        'The package index cannot be reached. Check the network (behind a proxy: HTTPS_PROXY; for a mirror: '
        'PIP_INDEX_URL) and run the command again.',
    ),
    (
        ('No matching distribution found', 'ResolutionImpossible'),
        'The package index has no such release for Python {python} on this machine, or cannot be reached. '
        'Check the network, take Python 3.10 to 3.14, or name another torch (see scripts/requirements.txt).',
    ),
    (
        ('Errno 13]', 'Errno 30]', 'Permission denied', 'WinError 5]', 'WinError 32]'),
        'A file cannot be written. See to it that this folder is yours and that no program runs from .venv.',
    ),
)  # fmt: skip
OTHERWISE = 'Run the command again; if it fails in the same way, remove the folder .venv and start afresh.'


class InstallError(Exception):
    """The environment cannot be made; the text tells why and what to do."""


def ensure_environment(root: Path = ROOT) -> Path:
    """Make ``root/.venv`` complete, and exit with a plain sentence where that fails.

    Args:
        root: the checkout.

    Returns:
        The Python of the environment.
    """
    check_python()
    try:
        return _ensure(Path(root))
    except InstallError as error:
        sys.exit(f'{error}')
    except OSError as error:
        sys.exit(f'{error}\n{remedy(str(error))}')
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def check_python(version: tuple = tuple(sys.version_info)) -> None:
    """Exit with one line on a Python that is too old."""
    problem = python_problem(version)
    if problem:
        sys.exit(f'{problem}: run the script with a newer one, such as python3.12.')


def wait_considerately(environment: dict = os.environ) -> dict:
    """Let threads of OpenMP spin for microseconds alone, unless the user chose; see ddsa_arch/openmp.py."""
    if not environment.get('OMP_WAIT_POLICY'):
        environment.setdefault('GOMP_SPINCOUNT', '1000')
    return environment


def hand_over(command: list, environment: dict = os.environ) -> int:
    """Run ``command`` in the checkout; its exit status. Ctrl-C and SIGTERM are for the command to answer."""
    environment = wait_considerately(dict(environment))
    process = subprocess.Popen([str(part) for part in command], cwd=str(ROOT), env=environment)
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    interrupted = False
    while process.returncode is None:
        try:
            process.wait()
        except KeyboardInterrupt:
            interrupted = True
    signal.signal(signal.SIGTERM, before)
    status = process.returncode
    if status < 0:  # ended by a signal: what a shell would say
        status = 128 - status
    return 128 + signal.SIGINT if interrupted and status else status


def run_logged(command: list, log: object, environment: dict) -> tuple:
    """Run ``command`` with its output appended to the open file ``log``; its exit status and the output."""
    start = os.path.getsize(log.name)
    streams = {'stdin': subprocess.DEVNULL, 'stdout': log, 'stderr': subprocess.STDOUT}
    status = subprocess.call(command, env=environment, **streams)
    with open(log.name, 'rb') as file:
        file.seek(start)
        return status, file.read().decode('utf-8', 'replace')


def remedy(output: str) -> str:
    """One sentence on what to do about a step that failed with this output."""
    flat = ' '.join(output.split())  # some messages are folded
    for signs, advice in REMEDIES:
        if any(sign in flat for sign in signs):
            return advice.format(python='{}.{}'.format(*sys.version_info[:2]))
    return OTHERWISE


def read_requirements(path: Path) -> list:
    """The requirements of a file without its comments, one string each."""
    lines = [re.sub(r'(^|\s)#.*', '', line).strip() for line in path.read_text('utf-8').splitlines()]
    return [line for line in lines if line]


def project_name(requirement: str) -> str:
    """The name that a requirement begins with, lower case."""
    return re.match(r'[\w.-]*', requirement).group().lower()


def fingerprint(root: Path, torch: str) -> str:
    """A hash of all that decides what is installed, and of the path that the editable install points to."""
    files = [(root / name).read_text('utf-8') for name in ('scripts/requirements.txt', 'setup.py')]
    parts = [*files, BASICSR, BRISQUE, torch, sys.implementation.cache_tag, str(root)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _ensure(root: Path) -> Path:
    venv = root / '.venv'
    python = venv / ('Scripts/python.exe' if os.name == 'nt' else 'bin/python')
    stamp = _Stamp(root, venv)
    if stamp.fits() and _version_of(python) == _version():
        return python

    started = time.time()
    if not venv.exists():
        venv.mkdir()
    log_path = venv / 'install.log'
    if not any(venv.iterdir()):
        log_path.write_text(f'{HEADER}\n', 'utf-8')
    with open(str(log_path), 'a', encoding='utf-8') as log:
        _lock(log)
        if stamp.fits() and _version_of(python) == _version():  # by the run that held the lock
            return python
        step = _Stepper(log)
        _make_venv(venv, python, step)
        _drop_half_installed(venv)
        stamp.withdraw()
        _install(root, python, stamp.torch, step)
        stamp.complete()
    print(f'The environment is ready after {time.time() - started:.0f} s', flush=True)
    return python


class _Stamp:
    """What .venv was completed with, and the torch that was asked for by hand, if any."""

    def __init__(self, root: Path, venv: Path) -> None:
        self.root = root
        self.path = venv / 'ddsa-stamp.json'
        asked = os.environ.get(TORCH_VARIABLE)
        self.torch = self._read().get('torch', '') if asked is None else asked.strip()

    def _read(self) -> dict:
        try:
            return dict(json.loads(self.path.read_text('utf-8')))
        except (OSError, ValueError, TypeError):
            return {}

    def fits(self) -> bool:
        return self._read().get('complete') == fingerprint(self.root, self.torch)

    def withdraw(self) -> None:
        """From here on .venv is neither what it was nor what it shall be; the torch of before stays noted."""
        self._write(self._read().get('torch', ''), None)

    def complete(self) -> None:
        self._write(self.torch, fingerprint(self.root, self.torch))

    def _write(self, torch: str, complete: object) -> None:
        part = self.path.with_suffix('.part')
        part.write_text(json.dumps({'torch': torch, 'complete': complete}), 'utf-8')
        os.replace(str(part), str(self.path))


class _Stepper:
    """Runs the steps: a line on the screen, the output in the log, an InstallError on failure."""

    def __init__(self, log) -> None:
        self.log = log
        # settings that would send pip's work elsewhere, or make it see packages that are not in .venv
        astray = ('PYTHONPATH', 'PYTHONHOME', '__PYVENV_LAUNCHER__', 'PIP_TARGET', 'PIP_PREFIX', 'PIP_ROOT')
        self.environment = {name: value for name, value in os.environ.items() if name not in astray}
        self.environment.update(PIP_USER='0', PIP_REQUIRE_VIRTUALENV='1', PIP_DISABLE_PIP_VERSION_CHECK='1')
        self.environment.update(PYTHONIOENCODING='utf-8')

    def __call__(self, title: str, command: list, note: str = '', **environment: str) -> None:
        print(f'{title}{note}', flush=True)
        self.log.write(f'\n== {title}\n')
        self.log.flush()
        environment = dict(self.environment, **environment)
        status, output = run_logged([str(part) for part in command], self.log, environment)
        if status == 0:
            return
        tail = ''.join(f'    {line[:200]}\n' for line in output.strip().splitlines()[-12:])
        advice = remedy(output)
        if status in (-signal.SIGTERM, -9, 137):
            advice = 'It was killed from outside, perhaps for want of memory. Run the command again.'
        where = f'exit status {status}; all of the output is in {self.log.name}'
        raise InstallError(f'{tail}Failed: {title} ({where})\n{advice}')

    def works(self, command: list) -> bool:
        return run_logged([str(part) for part in command], self.log, self.environment)[0] == 0


def _version() -> str:
    """Packages compiled for another one of these do not load."""
    return sys.implementation.cache_tag


def _version_of(python: Path) -> str:
    """The same of another Python, '' where it does not run."""
    command = [str(python), '-c', 'import sys; print(sys.implementation.cache_tag)']
    try:
        return subprocess.check_output(command, stderr=subprocess.DEVNULL).decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return ''


def _make_venv(venv: Path, python: Path, step: _Stepper) -> None:
    """A .venv with the running version of Python, its pip perhaps still missing."""
    found = _version_of(python)
    if found == _version():
        return
    problem = f'it holds {found or "no Python that runs"}, and this is {_version()}'
    ours = (venv / 'install.log').read_text('utf-8', 'replace').startswith(HEADER)
    content = [path for path in venv.iterdir() if path.name != 'install.log']
    if content and not ours:
        raise InstallError(
            f'{venv} was made by somebody else and cannot be used: {problem}. '
            'Rename or remove it and run the command again.'
        )
    if content:
        print('Remaking .venv:', problem, flush=True)
    for path in content:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(str(path))
        else:
            path.unlink()
    title = 'Making .venv for Python {}.{}.{}'.format(*sys.version_info)
    # pip is a step of its own: venv keeps to itself why it failed
    make = [sys.executable, '-m', 'venv', '--without-pip', venv]
    step(title, make, ' (what the steps print goes to .venv/install.log)')


def _drop_half_installed(venv: Path) -> None:
    """Forget the packages that pip was killed over, which it would take for installed.

    It goes by METADATA, which is unpacked with the other files; INSTALLER is written after them all.
    """
    for pattern in ('lib/python*/site-packages/*.dist-info', 'Lib/site-packages/*.dist-info'):
        for info in venv.glob(pattern):
            if not (info / 'INSTALLER').exists():
                shutil.rmtree(str(info), ignore_errors=True)


def _install(root: Path, python: Path, torch: str, step: _Stepper) -> None:
    wanted = read_requirements(root / 'scripts' / 'requirements.txt')
    packaging = [line for line in wanted if project_name(line) in PACKAGING]
    torches = [torch, 'torchvision'] if torch else [line for line in wanted if project_name(line) in TORCH]
    after = [line for line in wanted if project_name(line) in AFTER_TORCH]
    others = [line for line in wanted if project_name(line) not in PACKAGING + TORCH + AFTER_TORCH]
    pip = [python, '-m', 'pip', 'install', '--no-input', '--progress-bar', 'off']
    alone = [*pip, '--no-deps', '--no-build-isolation']  # needs nothing that is not there already

    if not step.works([python, '-m', 'pip', '--version']):
        step('Installing the pip of this Python', [python, '-m', 'ensurepip', '--upgrade', '--default-pip'])
    step('Installing ' + ', '.join(packaging), [*pip, *packaging])
    step(f'Installing {len(others)} packages', [*pip, *others])
    size = f' (first time only, may download {TORCH_GIGABYTES} GB)'
    step('Installing ' + ', '.join(torches), [*pip, *torches], size)
    with tempfile.TemporaryDirectory() as folder:
        install_basicsr(step, python, folder)
    with tempfile.TemporaryDirectory() as folder:
        step(f'Downloading {BRISQUE}', [python, '-m', 'pip', 'download', '--no-deps', '--dest', folder, BRISQUE])
        for wheel in Path(folder).glob('brisque-*.whl'):
            _unpack_models(wheel, python)
    step('Installing ' + ', '.join(after), [*alone, *after])
    step('Installing ddsa_arch as it lies in this folder', [*alone, '--editable', root])
    step('Checking that the packages load', [python, '-I', '-c', 'import ' + ', '.join(COMPILED)])


def _unpack_models(wheel: Path, python: Path) -> None:
    """Put the files of BRISQUE's model where its package would have them."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.check_output([str(python), '-c', code]).decode().strip()
    with zipfile.ZipFile(str(wheel)) as archive:
        names = [name for name in archive.namelist() if name.startswith('brisque/models/')]
        archive.extractall(packages, names)


def _lock(log) -> None:
    """One installation at a time. A pip that outlives its killed parent holds the lock on: the open log."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print('Waiting for another run that is installing into .venv', flush=True)
        fcntl.flock(log, fcntl.LOCK_EX)
    except OSError:
        pass  # a file system without locks
