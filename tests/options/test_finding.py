"""Option files that come with the package, found by name from anywhere."""

import pytest

from ddsa_arch.errors import InputError
from ddsa_arch.options.finding import copy_shipped, find_shipped, shipped_names
from ddsa_arch.options.loading import load_options
from ddsa_arch.options.reading import read_options
from ddsa_arch.runners.cli import main


@pytest.mark.parametrize(
    ('name', 'kind', 'found'),
    [
        ('DDSANet_Rain13K', None, 'train/DDSANet_Rain13K'),
        ('DDSANet_benchmarks', None, 'test/DDSANet_benchmarks'),
        ('train/DDSANet_Rain13K', 'test', 'train/DDSANet_Rain13K'),
        ('equal_budget/Restormer', None, 'train/equal_budget/Restormer'),
        ('quickstart', 'train', 'train/quickstart'),
        ('quickstart', 'test', 'test/quickstart'),
    ],
)
def test_a_name_finds_its_file_from_any_directory(name, kind, found, repository, workplace):
    assert find_shipped(name, kind) == repository / 'options' / f'{found}.yml'


def test_options_load_by_name(workplace):
    assert load_options('quickstart', True)['train']['total_iter'] > 0
    assert 'train' not in load_options('quickstart', False)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('DDSANet_Rain13k', "no option file 'DDSANet_Rain13k'; did you mean 'DDSANet_Rain13K'"),
        ('quickstart', "'quickstart' names two option files: train/quickstart and test/quickstart"),
        ('nothing/like/it', '`ddsa options list`'),
    ],
)
def test_a_name_that_finds_nothing_or_two_files_is_refused(name, message, workplace):
    with pytest.raises(InputError, match=message):
        read_options(name)


def test_a_file_of_ones_own_comes_before_a_name(workplace):
    (workplace / 'quickstart').write_text('name: mine')
    with pytest.raises(InputError, match='no option file quickstart'):  # it has no suffix
        read_options('quickstart')
    (workplace / 'mine.yml').write_text('_base_: DDSANet_Rain13K\nname: mine')
    assert read_options('mine.yml')['name'] == 'mine'
    assert read_options('mine.yml')['network_g'] == read_options('DDSANet_Rain13K')['network_g']


def test_a_base_that_is_no_name_is_told_with_its_file(workplace):
    (workplace / 'mine.yml').write_text('_base_: DDSANet_Rain14K\nname: mine')
    with pytest.raises(InputError, match=r"mine\.yml: _base_: no option file 'DDSANet_Rain14K'; did you mean"):
        read_options('mine.yml')


@pytest.mark.parametrize('name', sorted(shipped_names()))
def test_a_copy_says_what_the_file_says(name, workplace):
    assert read_options(copy_shipped(name)) == read_options(name)


def test_a_copy_takes_the_place_of_no_file(workplace, capsys):
    assert main(['options', 'copy', 'DDSANet_Rain13K']) == 0
    assert capsys.readouterr().out == 'DDSANet_Rain13K.yml\n'
    assert main(['options', 'copy', 'DDSANet_Rain13K']) == 2
    assert 'DDSANet_Rain13K.yml is there already' in capsys.readouterr().err


def test_the_list_can_be_searched(capsys):
    assert main(['options', 'list', 'equal', 'restormer']) == 0
    assert capsys.readouterr().out.split('  ')[0] == 'train/equal_budget/Restormer'
    assert main(['options', 'list', 'no such words']) == 1
