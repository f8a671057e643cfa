"""Option files are data: nothing in them, in what they inherit or in the environment is run or taken for YAML."""

import pytest

from ddsa_arch.errors import InputError
from ddsa_arch.options import reading
from ddsa_arch.options.reading import parse, read_options
from ddsa_arch.runners.cli import main

RAN = 'RAN'  # a file that would be made


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text, name='options.yml'):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode('utf-8'))
        return path

    return write


@pytest.mark.parametrize(
    'text',
    [
        "imports: ['{{$NOPE:''}}', ' , !!python/object/apply:os.system [\"touch RAN\"] ] #']\n",
        'name: !!python/object/apply:os.system ["touch RAN"]\n',
        "name: '{{$NOPE:!!python/object/apply:os.system [\"touch RAN\"]}}'\n",
        'name: "{{ fileBasename }}"\n',
        "name: '{{_base_.name}}'\n",
        "name: '{{$NOPE}}'\n",
        'x: &a [*a]\n',
        'x: &a {b: *a}\n',
        'a: &a [1,1,1,1,1,1,1,1,1]\n' + ''.join(
            f'{c}: &{c} [{",".join([f"*{p}"] * 9)}]\n' for p, c in zip('abcdefg', 'bcdefgh', strict=True)
        ),
        'x: ' + '[' * 40 + ']' * 40 + '\n',
        'x: ' + '[' * 100_000 + '\n',
        '? [a]\n: 1\n',
        'name: 2020-01-01\n',
        '1: 2\n',
        'on: 2\n',
        'a: !!binary aGk=\n',
        'a: !!set {b}\n',
        '\tname: x\n',
        'name: x\x00y\n',
    ],
)  # fmt: skip
def test_what_is_no_plain_data_is_refused_in_one_message(text, write, tmp_path, capsys):
    path = write(text + 'network_g: {type: DDSANet}\n')
    assert main(['options', 'show', str(path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f'error: {path}: ')
    assert 'Traceback' not in message
    assert [p.name for p in tmp_path.iterdir()] == ['options.yml']


@pytest.mark.parametrize(
    'value', ['D:\\Users\\data', "/data/o'brien", '/data/"x"', 'a: b', '{{$A:b}}', '*', '# no', '- x', '(a+)+$', '\\1']
)
def test_variables_hold_any_text(value, write, monkeypatch):
    monkeypatch.setenv('DDSA_DATA', value)
    path = write("a: '{{$DDSA_DATA:datasets}}/set'\nb: ['{{ $DDSA_DATA : x }}{{$NOT_SET:(a+)+$\\1}}']\n")
    monkeypatch.delenv('NOT_SET', raising=False)
    assert read_options(path) == {'a': f'{value}/set', 'b': [f'{value}(a+)+$\\1']}


@pytest.mark.core
def test_files_are_merged_key_by_key(write):
    write('a: {x: 1, y: {z: [1, 2]}}\nb: 5\nc: ~\nd: {e: 1}\n', 'base.yml')
    write('a: {x: 2}\nf: {g: {h: 1}}\n', 'second.yml')
    path = write(
        '_base_: [./base.yml, second.yml]\na: {y: {z: [3], w: 4}}\nb: ~\nc: {now: 1}\n'
        'd: {_delete_: true, k: {_delete_: true}}\n'
    )
    assert read_options(path) == {
        'a': {'x': 2, 'y': {'z': [3], 'w': 4}}, 'b': None, 'c': {'now': 1}, 'd': {'k': {}}, 'f': {'g': {'h': 1}},
    }  # fmt: skip


def test_a_section_that_a_base_has_dropped_can_be_defined_again(write):
    write('train: {scheduler: {type: A, x: 1}}\n', 'first.yml')
    write('_base_: first.yml\ntrain: {scheduler: ~}\n', 'second.yml')
    assert read_options(write('_base_: second.yml\ntrain: {scheduler: {type: B}}\n')) == {
        'train': {'scheduler': {'type': 'B'}}
    }


def test_a_mark_at_the_beginning_is_passed_over(write):
    assert read_options(write('\ufeffname: x\n')) == {'name': 'x'}


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('name: ü\n'.encode('latin-1'), 'its encoding is not UTF-8; save it as UTF-8'),
        (b'x: 1\n' + b'#' * 2**20, 'larger than 1 MiB'),
        (b'_base_: options.yml\n', '_base_ leads back to itself'),
        (b'_base_: ' + b'a' * 300 + b'.yml\n', 'no option file'),
        (b'_base_: "a\\0b.yml"\n', 'holds the control character'),
        (b'_base_: loop.yml\n', 'no option file'),
    ],
)
def test_files_that_cannot_be_read_are_named(text, words, write, tmp_path):
    (tmp_path / 'loop.yml').symlink_to('loop.yml')
    with pytest.raises(InputError, match=words):
        read_options(write(text))


def test_a_long_chain_is_refused(write):
    for i in range(20):
        write(f'_base_: f{i + 1}.yml\n', f'f{i}.yml')
    with pytest.raises(InputError, match='more than 16 files inherit from each other'):
        read_options('f0.yml')


def test_aliases_and_merge_keys_are_plain_data():
    assert parse('a: &a {b: 1}\nc: *a\n', 'here') == {'a': {'b': 1}, 'c': {'b': 1}}
    assert parse('a: &a {b: 1}\nc: {<<: *a, d: 2}\n', 'here') == {'a': {'b': 1}, 'c': {'b': 1, 'd': 2}}
    assert reading.MOST_VALUES > 10_000
