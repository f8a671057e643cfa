"""Option files: check every key and name, and fill in the defaults."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY

from ddsa_arch.errors import InputError, did_you_mean, shortened, shown
from ddsa_arch.options.parts import check_part, not_registered
from ddsa_arch.options.reading import WHOLE_NUMBERS, parse, read_options
from ddsa_arch.options.schema import DATASET, NOT_WORDS, OF_LOADERS, OPTIONS, REQUIRED, Key, Named, Part, Section

NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?')
LOADER_KEYS = (
    'name', 'batch_size_per_gpu', 'num_worker_per_gpu', 'dataset_enlarge_ratio', 'persistent_workers', 'pin_memory'
)  # fmt: skip
PATH_SIGNS = ('/', '\\')
LONGEST_WORD = 100  # bytes of a name; those of files add a time, a process and suffixes, and disks take 255
LONGEST_NUMBER = 50  # letters
LONGEST_PART = 255  # bytes between two slashes
TAKEN_SETS = ('summary', 'average', 'results')  # of files and rows beside those of the sets
TAKEN_SCORES = ('image', 'images', 'seconds', 'note', 'set', 'iteration')  # columns of the tables
TAKEN_LOSSES = ('pix', 'percep', 'style')  # of pixel_opt and perceptual_opt, in logs
YAML_SWITCHES = {False: 'off', True: 'on'}  # YAML 1.1 reads these words as truth values
MAY_BE_EMPTY = ('path', 'suffix', 'val', 'resume_state')  # read by BasicSR with [], so they must be there


def force(options: dict[str, Any], entries: Sequence[str]) -> None:
    """Apply ``--force_yml`` entries such as ``train:ema_decay=0.999`` in place; the value is read as YAML.

    Dots between the keys serve as well, ``train.ema_decay=0.999``, as messages write them.

    Raises:
        InputError: an entry without ``=``, or a path that leads through something that is no section.
    """
    for entry in entries:
        keys, equals, text = entry.partition('=')
        if not equals:
            raise InputError(f'--force_yml {shortened(entry)}: wanted SECTION:KEY=VALUE, such as train:ema_decay=0.999')
        section = options
        *parents, last = (key.strip() for key in keys.split(':' if ':' in keys else '.'))
        for key in parents:
            if isinstance(section, dict) and section.get(key) is None:
                section[key] = {}
            section = section[key] if isinstance(section, dict) else None
        if not isinstance(section, dict):
            raise InputError(f'--force_yml {shortened(entry)}: {":".join(parents)} is no section')
        section[last] = parse(text.strip().removeprefix('!!float ').strip(), f'--force_yml {shortened(entry)}')


def to_yaml(options: Mapping[str, Any]) -> str:
    """Options as plain YAML, in their order."""
    return yaml.safe_dump(dict(options), sort_keys=False, allow_unicode=True, width=120)


# --- checking ----------------------------------------------------------------------------------------------


def load_options(path: str | Path, is_train: bool, force_yml: Sequence[str] = ()) -> dict[str, Any]:
    """An option file, resolved, checked and complete: what BasicSR's pipelines take, less the run's own paths.

    Args:
        path: a YAML file, or the name of one that comes with the package; ``_base_`` names files it inherits from,
            ``{{$NAME:default}}`` an environment variable.
        is_train: whether a ``train`` section and a training set must be there.
        force_yml: see ``force``.

    Raises:
        InputError: naming the file and the key: unknown (with the nearest known), missing, or of a wrong type.
    """
    options = read_options(path, 'train' if is_train else 'test')
    force(options, force_yml)
    try:
        if is_train:
            _check_kind(options)
        import_modules(options.get('imports'))
        checked = _check_section(_as_mixture(coerce_numbers(options)), OPTIONS, '', is_train)
        _check_names(checked)
        _check_datasets(checked.get('datasets', {}), is_train)
        if is_train and not ('pixel_opt' in checked['train'] or 'perceptual_opt' in checked['train']):
            raise InputError(f'train.pixel_opt is missing: {OPTIONS["train"]["pixel_opt"].doc}')
        if checked['model_type'] not in MODEL_REGISTRY:
            raise InputError(not_registered('model_type', 'model', checked['model_type'], MODEL_REGISTRY.keys()))
    except InputError as error:
        raise InputError(f'{path}: {error}') from None
    return checked


def _as_mixture(options: dict[str, Any]) -> dict[str, Any]:
    """Write a list of training sets as a MixtureDataset; what is for loaders stands in the first of the sets."""
    datasets = options.get('datasets')
    if not isinstance(datasets, dict):
        return options
    train = datasets.get('train')
    sets = train if isinstance(train, list) else train.get('sets') if isinstance(train, dict) else None
    if not isinstance(sets, list):
        return options
    named = {}
    for place, entry in enumerate(sets):
        if not isinstance(entry, dict) or not isinstance(entry.get('name'), str):
            raise InputError(f'datasets.train: set {place + 1} of the list has no name; wanted `- name: NAME`')
        if entry['name'] in named:
            raise InputError(f'datasets.train: two sets have the name {entry["name"]!r}')
        named[entry['name']] = {k: v for k, v in entry.items() if k not in OF_LOADERS}
    first = sets[0] if isinstance(train, list) and sets else {}
    of_loaders = {k: v for k, v in first.items() if k in (*OF_LOADERS, 'gt_size') and k != 'name'}
    mixture = {'name': 'mixture', 'type': 'MixtureDataset', **of_loaders, **(train if isinstance(train, dict) else {})}
    return {**options, 'datasets': {**datasets, 'train': {**mixture, 'sets': named}}}


def is_of_training(options: Mapping[str, Any]) -> bool:
    """Whether an option file is that of a training: one of test sets is not, whatever it inherits."""
    phases = _phases(options)
    return 'train' in phases or ('train' in options and 'test' not in phases)


def _phases(options: Mapping[str, Any]) -> set[str]:
    datasets = options.get('datasets')
    return {str(phase).split('_')[0] for phase in datasets} if isinstance(datasets, Mapping) else set()


def _check_kind(options: Mapping[str, Any]) -> None:
    """Tell who gives the file of a test to the training which command takes it."""
    if 'test' in _phases(options) and not is_of_training(options):
        raise InputError('datasets.train is missing: this is the option file of a test; `ddsa test -opt FILE` takes it')


def check_network(network_g: Any) -> dict[str, Any]:
    """A ``network_g`` section, checked by itself.

    Raises:
        InputError: unknown network or argument.
    """
    return check_part(coerce_numbers(network_g), OPTIONS['network_g'], 'network_g')


def import_modules(names: Any) -> None:
    """Import the user's own modules, which may lie in the current directory.

    Raises:
        InputError: one cannot be imported.
    """
    names = [names] if isinstance(names, str) else names or []
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise InputError(f'imports: {shown(names)}, wanted a list of names of modules')
    if names and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    for name in names:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:  # whatever the user's module does wrong
            raise InputError(f'imports: {name} cannot be imported: {type(error).__name__}: {error}') from error


def coerce_numbers(value: Any) -> Any:
    """Turn strings that write a number in exponent form, such as ``1e-4``, into that number, at any depth.

    YAML 1.1 leaves them strings: it wants ``1.0e-4``.
    """
    if isinstance(value, Mapping):
        return {k: coerce_numbers(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [coerce_numbers(v) for v in value]
    if isinstance(value, str) and 'e' in value.lower() and NUMBER.fullmatch(value):
        return float(value) if len(value) <= LONGEST_NUMBER else value
    return value


def _check_section(given: Any, section: Section, where: str, is_train: bool) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise InputError(f'{where}: {shown(given)} is no section of "key: value" lines')
    unknown = [k for k in given if k not in section]
    if unknown:
        name = str(unknown[0])
        raise InputError(f'unknown key {_join(where, shortened(name))}{did_you_mean(name, section)}')
    checked = {}
    for name, wanted in section.items():
        place = _join(where, name)
        if name == 'train' and not is_train:
            continue
        if isinstance(wanted, Key):
            checked[name] = _check_value(given.get(name), wanted, place)
        elif isinstance(wanted, Part):
            checked[name] = check_part(given.get(name), wanted, place)
        elif isinstance(wanted, Named):
            checked[name] = _check_named(given.get(name), wanted, place, is_train)
        elif where or given.get(name) is not None or name in ('path', 'val', 'logger', 'train'):
            inner = given.get(name)
            checked[name] = _check_section({} if inner is None else inner, wanted, place, is_train)
    return {k: v for k, v in checked.items() if v not in (None, {}) or k in MAY_BE_EMPTY}


def _check_value(value: Any, key: Key, place: str) -> Any:
    if value is None:
        if key.default is REQUIRED:
            raise InputError(f'{place} is missing: {key.doc}')
        return key.default
    if isinstance(value, bool) and bool not in key.kinds and YAML_SWITCHES[value] in key.choices:
        value = YAML_SWITCHES[value]
    if float in key.kinds and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if int in key.kinds and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, key.kinds) or (isinstance(value, bool) and bool not in key.kinds):
        kinds = ' or '.join(k.__name__ for k in key.kinds)
        hint = f'; {NOT_WORDS}' if isinstance(value, bool) and str in key.kinds else ''
        raise InputError(f'{place}: {shown(value)} is {type(value).__name__}, wanted {kinds}{hint}. {key.doc}')
    has_choices = key.choices and (isinstance(value, str) or str not in key.kinds)
    if has_choices and value not in key.choices:
        raise InputError(f'{place}: {shown(value)}, wanted {" or ".join(map(repr, key.choices))}. {key.doc}')
    problem = key.range.problem(value)
    if problem:
        raise InputError(f'{place}: {shown(value)} {problem}. {key.doc}')
    if isinstance(value, int) and abs(value) >= WHOLE_NUMBERS:
        raise InputError(f'{place}: {value:g} is beyond 2**63. {key.doc}')
    if isinstance(value, str):
        _check_text(value, key, place)
    return value


def _check_text(text: str, key: Key, place: str) -> None:
    """A word becomes the name of a file; any other text may be a path."""
    if not text.strip() and not key.word:
        raise InputError(f'{place}: {text!r} is empty; write ~ for none. {key.doc}')
    if not key.word:
        longest = max(len(part.encode()) for part in text.split('/'))
        if longest > LONGEST_PART:
            raise InputError(f'{place}: {shown(text)}: {longest} bytes are no name that a disk takes. {key.doc}')
        return
    if text.strip('. ') == '' or any(sign in text for sign in PATH_SIGNS):
        raise InputError(f'{place}: {shown(text)} cannot name a folder; leave out {" and ".join(PATH_SIGNS)}')
    if not text.isprintable() or text != text.strip():
        raise InputError(
            f'{place}: {shown(text)} cannot name a folder; leave out spaces at its ends and what cannot be printed'
        )
    if len(text.encode()) > LONGEST_WORD:
        raise InputError(
            f'{place}: {shown(text)} has {len(text.encode())} bytes, wanted at most {LONGEST_WORD}; '
            'choose a shorter name'
        )


def _check_named(given: Any, named: Named, place: str, is_train: bool) -> dict[str, Any]:
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise InputError(f'{place}: {shown(given)} is no section. {named.doc}')
    checked = {}
    for name, entry in given.items():
        if not re.fullmatch(named.pattern, str(name)):
            raise InputError(f'unknown key {place}.{shortened(name)}. {named.doc}')
        inner = _join(place, name)
        if entry is None:  # dropped: what a file inherits need not be used
            continue
        if isinstance(named.content, Part):
            checked[name] = check_part(entry, named.content, inner)
        elif _is_ours(entry):
            checked[name] = _check_section(entry, named.content, inner, is_train)
        else:  # a data set of another package takes keys of its own beside those of the loaders
            loading = {key: DATASET[key] for key in LOADER_KEYS}
            given_loading = {key: entry[key] for key in loading if key in entry}
            checked[name] = {**entry, **_check_section(given_loading, loading, inner, is_train)}
    return checked


def _is_ours(dataset: Any) -> bool:
    name = dataset.get('type', DATASET['type'].default) if isinstance(dataset, Mapping) else None
    known = isinstance(name, str) and name in DATASET_REGISTRY
    return not known or DATASET_REGISTRY.get(name).__module__.startswith('ddsa_arch.')


def _check_names(options: dict[str, Any]) -> None:
    """Names that would take the place of others in files and tables."""
    for phase, dataset in options.get('datasets', {}).items():
        if dataset['name'].lower() in TAKEN_SETS:
            raise InputError(f'datasets.{phase}.name: {dataset["name"]!r} is a name of other results; choose another')
    named: list[tuple[str, tuple[str, ...], Any]] = [
        (f'val.{key}', TAKEN_SCORES, options['val'].get(key)) for key in ('metrics', 'metrics_without_target')
    ]
    named.append(('train.losses', TAKEN_LOSSES, options.get('train', {}).get('losses')))
    for place, taken, section in named:
        for name in section or {}:
            if name in taken or (taken == TAKEN_SCORES and name.endswith('_counted')):
                raise InputError(f'{place}.{name}: {name!r} is a column of other figures; choose another name')


def _check_datasets(datasets: dict[str, dict[str, Any]], is_train: bool) -> None:
    for phase, dataset in datasets.items():
        if dataset['type'] not in DATASET_REGISTRY:
            place = f'datasets.{phase}.type'
            raise InputError(not_registered(place, 'data set', dataset['type'], DATASET_REGISTRY.keys()))
    names = [d['name'] for d in datasets.values()]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InputError(f'datasets: two sets have the name {twice[0]!r}; results are filed by it')
    if is_train:
        if 'train' not in datasets:
            raise InputError('datasets.train is missing: the images to train on')
        others = [p for p in datasets if p != 'train' and not p.startswith('val')]
        if others:
            raise InputError(f'datasets.{others[0]}: training takes train and val sets; test sets go to ddsa test')
    elif not datasets:
        raise InputError('datasets is missing: the sets to test on, as test_1, test_2 ...')


def _join(where: str, name: Any) -> str:
    return f'{where}.{name}' if where else str(name)
