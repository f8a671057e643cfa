"""``ddsa VERB ...``: the command of this package."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ddsa_arch.errors import InputError, clear_message, did_you_mean
from ddsa_arch.files.atomic import full_disk, is_full

VERBS = {
    'train': 'train a network',
    'test': 'score a network on image sets',
    'compare': 'tables, differences and a gallery of several results',
    'benchmark': 'size, cost, speed and memory of networks',
    'derain': 'remove the rain from your own photos and videos',
    'demo': 'a page in the browser: drop a photo, see it before and after',
    'export': 'weights as ONNX, torch.export or safetensors',
    'comfyui': 'put the nodes of this package into a ComfyUI',
    'data': 'image sets: download, prepare, verify, audit, render rain',
    'summary': 'curves and pictures of a training so far',
    'networks': 'the networks of the comparison: size, cost, origin',
    'options': 'show an option file resolved, or all keys',
    'doctor': 'versions, devices, repairs, and what is registered',
}
EXIT_INPUT = 2  # what the user gave cannot be used
EXIT_INTERRUPTED = 130
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)
EXIT_PIPE = 141  # what a shell says of SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; its module has ``main(argv)``.

    Returns:
        The exit code: 0, or 2 after one clear message about the input.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ('-h', '--help'):
        print('usage: ddsa VERB ... (ddsa VERB --help tells more)\n')
        print('\n'.join(f'  {verb:9} {meaning}' for verb, meaning in VERBS.items()))
        return 0 if argv else EXIT_INPUT
    verb, *rest = argv
    if verb not in VERBS:
        print(f'ddsa: no verb {verb!r}{did_you_mean(verb, VERBS)}', file=sys.stderr)
        return EXIT_INPUT
    return run_main(f'ddsa_arch.runners.{verb}', rest)


def run_main(module: str, argv: Sequence[str] | None = None) -> int:
    """Run the ``main`` of a runner; an InputError becomes one message and exit code 2."""
    try:
        return importlib.import_module(module).main(argv)
    except InputError as error:
        print(f'error: {clear_message(error)}', file=sys.stderr)
        return EXIT_INPUT
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except OSError as error:
        told = _refusal_of_the_disk(error)
        if not told:
            raise
        print(f'error: {told}', file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return EXIT_INTERRUPTED


def _refusal_of_the_disk(error: OSError) -> str:
    """Say that a disk is full or refuses to be written; '' for any other error."""
    if is_full(error):
        return full_disk(Path(error.filename).parent if error.filename else Path.cwd())
    return f'{error.filename}: {error.strerror}' if error.filename and error.errno in REFUSED else ''


if __name__ == '__main__':
    sys.exit(main())
