import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from helpers import write_noise

from ddsa_arch.errors import InputError
from ddsa_arch.files.images import encode_image
from ddsa_arch.runners.data_lmdb import make_lmdb

STEMS = ['r-1', 'r-2', 'r-3', 'r-10']  # in natural order
TYPES = ['PairedRainDataset', 'RenderedRainDataset']


@pytest.fixture
def folder(tmp_path):
    """Four pairs in ``input`` and ``target``, and the list ``out.txt`` of r-2 and r-10."""
    for i, stem in enumerate(STEMS):
        write_noise(tmp_path / 'input' / f'{stem}.png', i, 20, 24)
        write_noise(tmp_path / 'target' / f'{stem}.png', 9 + i, 20, 24)
    (tmp_path / 'out.txt').write_text('# both leaked\nr-10\nr-2\n', encoding='utf-8')
    return tmp_path


def dataset(folder, kind='PairedRainDataset', phase='train', suffix='', **more):
    opt = {'name': 'some', 'type': kind, 'phase': phase, 'scale': 1, 'gt_size': 16}
    opt |= {'dataroot_lq': str(folder / f'input{suffix}'), 'dataroot_gt': str(folder / f'target{suffix}')}
    return build_dataset(opt | {'exclude_keys': str(folder / 'out.txt')} | more)


def refusal(folder, **more):
    with pytest.raises(InputError) as error:
        dataset(folder, **more)
    return str(error.value)


@pytest.mark.parametrize('kind', TYPES)
@pytest.mark.parametrize('suffix', ['', '.lmdb'])
def test_listed_images_are_left_out(suffix, kind, folder):
    if suffix:
        make_lmdb(folder / 'input', folder / 'target', folder)
    left = dataset(folder, kind, 'val', suffix)
    assert len(left) == 2
    whole = dataset(folder, kind, 'val', suffix, exclude_keys=None)
    assert len(whole) == 4
    for item, index in ((left[0], 0), (left[1], 2)):
        assert item['gt_path'] == whole[index]['gt_path']
        assert torch.equal(item['gt'], whole[index]['gt'])


@pytest.mark.parametrize('kind', TYPES)
def test_a_run_over_the_set_never_meets_an_excluded_image(kind, folder):
    drawn = dataset(folder, kind)
    seen = {drawn[code]['gt_path'] for code in range(2, 42)}
    assert seen == {str(folder / 'target' / f'{stem}.png') for stem in ('r-1', 'r-3')}


def test_a_set_without_targets_has_its_list_too(folder):
    left = dataset(folder, phase='test', dataroot_gt=None)
    assert [item['lq_path'] for item in left] == [str(folder / 'input' / f'{s}.png') for s in ('r-1', 'r-3')]


def test_streak_layers_of_a_listed_name_stay(folder):
    """The list is about photos: of two layers with listed names one is drawn all the same."""
    for stem in ('r-2', 'r-10'):
        (folder / 'streaks').mkdir(exist_ok=True)
        white = np.full((20, 24, 3), 255, np.uint8)
        (folder / 'streaks' / f'{stem}.png').write_bytes(encode_image(white))
    left = dataset(folder, 'RenderedRainDataset', dataroot_streaks=str(folder / 'streaks'))
    assert len(left) == 2
    assert (left[2]['lq'] == 1).all()


def test_an_empty_list_excludes_nothing(folder):
    (folder / 'out.txt').write_text('# all is well\n', encoding='utf-8')
    assert len(dataset(folder)) == 4


@pytest.mark.parametrize('value', [None, ''])
def test_the_option_may_be_left_empty(value, folder):
    assert len(dataset(folder, exclude_keys=value)) == 4


def test_a_relative_list_lies_where_the_command_runs_as_data_roots_do(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert len(dataset(folder, exclude_keys='out.txt', dataroot_lq='input', dataroot_gt='target')) == 2


def test_what_is_wrong_with_an_excluded_pair_does_not_count(folder):
    (folder / 'input' / 'r-2.png').unlink()
    write_noise(folder / 'target' / 'r-10.png', 0, 21, 24)
    left = dataset(folder, phase='val')
    assert [item['lq_path'] for item in left] == [str(folder / 'input' / f'{s}.png') for s in ('r-1', 'r-3')]


@pytest.mark.parametrize('side', ['input', 'target'])
def test_what_is_wrong_with_the_others_counts_as_before(side, folder):
    write_noise(folder / side / 'r-1.png', 0, 21, 24)
    assert 'have unequal sizes: r-1 (24 x ' in refusal(folder)
    (folder / side / 'r-1.png').unlink()
    assert 'no partner' in refusal(folder)


# What a user can do wrong


@pytest.mark.parametrize('kind', TYPES)
def test_a_missing_list_is_named(kind, folder):
    message = refusal(folder, kind=kind, exclude_keys=str(folder / 'absent.txt'))
    assert message.startswith(f'datasets.train.exclude_keys: no file {folder / "absent.txt"}; wanted UTF-8 text')


@pytest.mark.parametrize('kind', TYPES)
def test_a_key_that_the_set_does_not_have_is_named_with_the_nearest(kind, folder):
    (folder / 'out.txt').write_text('r-2\nr-10.png\n', encoding='utf-8')
    roots = {'PairedRainDataset': f'{folder / "input"} and {folder / "target"}'}.get(kind, f'{folder / "target"}')
    assert refusal(folder, kind=kind) == (
        f'datasets.train.exclude_keys: 1 of 2 keys in {folder / "out.txt"} are not in {roots}: r-10.png; '
        "give the list that was made for this set, or mend these lines; did you mean 'r-10'?"
    )


def test_of_many_unknown_keys_a_few_are_named_and_not_the_whole_set(folder):
    (folder / 'out.txt').write_text('\n'.join(f'zebra_{i}' for i in range(9)), encoding='utf-8')
    message = refusal(folder)
    assert 'zebra_0, zebra_1, zebra_2, zebra_3, zebra_4 and 4 more; give' in message
    assert 'zebra_5' not in message
    assert 'r-1' not in message.replace(str(folder), '')


@pytest.mark.parametrize('kind', TYPES)
def test_a_list_of_all_images_is_refused(kind, folder):
    (folder / 'out.txt').write_text('\n'.join(STEMS), encoding='utf-8')
    message = refusal(folder, kind=kind)
    assert message.startswith(f'datasets.train.exclude_keys: {folder / "out.txt"} excludes all 4 images of ')
    assert message.endswith('; remove the keys that shall stay in')
