"""Layouts of published sets, made of small files."""

import os
from pathlib import Path

import numpy as np
import pytest

from ddsa_arch.errors import InputError
from ddsa_arch.files.halves import HalfImage, guess_clean_half
from ddsa_arch.files.images import decode_image, encode_image
from ddsa_arch.files.one_folder import pair_halves
from ddsa_arch.files.pair_lists import pair_list
from ddsa_arch.files.pair_sources import find_pairs, images_of


def noise(seed, height=8, width=10):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def put(folder, *names, **size):
    for i, name in enumerate(names):
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(noise(i, **size), path.suffix))
    return Path(folder)


def found(pairs):
    """What is paired, by key: the two files and the key of the clean one."""
    return {
        key: (str(file.name), pairs.target_of(key), str(pairs.targets[pairs.target_of(key)].name))
        for key, file in pairs.inputs.items()
    }


@pytest.mark.parametrize(
    ('rainy', 'clean', 'key'),
    [
        (
            ['rain-001.png', 'rain-002.png', 'rain-010.png'],
            ['norain-001.png', 'norain-002.png', 'norain-010.png'],
            '001',
        ),
        (
            ['norain-1x2.png', 'norain-2x2.png', 'norain-12x2.png'],
            ['norain-1.png', 'norain-2.png', 'norain-12.png'],
            '1',
        ),
        (['1x2.png', '2x2.png'], ['1.png', '2.png'], '1'),
        (['000.png', '001.png'], ['000gt.png', '001gt.png'], '000'),
        (['001.png', '002.png'], ['img-1.png', 'img-2.png'], '001'),
        (['car_in.png', 'cat_in.png'], ['car_out.png', 'cat_out.png'], 'car'),
        (['rain-007.png'], ['norain-007.png'], '007'),
    ],
)
def test_text_that_a_side_shares_is_taken_off(rainy, clean, key, tmp_path):
    pairs = find_pairs(put(tmp_path / 'a', *rainy), put(tmp_path / 'b', *clean))
    assert (pairs.rule, pairs.problems) == ('common', [])
    assert next(iter(pairs.inputs)) == key
    assert [(a, b) for a, _, b in found(pairs).values()] == list(zip(rainy, clean, strict=True))


def test_numbers_are_not_cut_and_not_confused(tmp_path):
    rainy, clean = put(tmp_path / 'a', 'r-101.png', 'r-201.png'), put(tmp_path / 'b', 'c-1.png', 'c-2.png')
    with pytest.raises(InputError, match='pairs match by stem'):
        find_pairs(rainy, clean)


def test_shared_numbers_that_differ_are_a_doubt(tmp_path):
    rainy, clean = put(tmp_path / 'a', 'cam1_5.png', 'cam1_6.png'), put(tmp_path / 'b', 'cam2_5.png', 'cam2_6.png')
    with pytest.raises(InputError, match=r'but the numbers in .* differ: --match common'):
        find_pairs(rainy, clean)
    assert list(find_pairs(rainy, clean, 'common').inputs) == ['5', '6']


def test_many_rainy_images_have_one_clean_one(tmp_path):
    rainy = put(tmp_path / 'a', *(f'{i}_{j}.jpg' for i in (901, 902) for j in (1, 2, 14)))
    pairs = find_pairs(rainy, put(tmp_path / 'b', '901.jpg', '902.jpg'))
    assert (pairs.rule, list(pairs.targets), pairs.target_of('902_14')) == ('many_to_one', ['901', '902'], '902')
    assert list(pairs.inputs) == ['901_1', '901_2', '901_14', '902_1', '902_2', '902_14']


def test_incomplete_set_is_refused_and_the_nearest_rule_named(tmp_path):
    rainy = put(tmp_path / 'a', '901_1.jpg', '901_2.jpg', '903_1.jpg')
    clean = put(tmp_path / 'b', '901.jpg')
    with pytest.raises(InputError, match=r'--match many_to_one .* would pair 2 of 3 and leave over 903_1'):
        find_pairs(rainy, clean)
    pairs = find_pairs(rainy, clean, 'many_to_one')
    assert len(pairs.inputs) == 2
    assert [text.split(';')[0] for text in pairs.problems] == [f'{rainy}: 903_1.jpg has no partner in {clean}']


def test_few_equal_names_are_no_reason_to_guess_another_rule(tmp_path):
    rainy = put(tmp_path / 'a', '1_1.png', '1_2.png', '1.png', '2_1.png')
    pairs = find_pairs(rainy, put(tmp_path / 'b', '1.png', '2.png'))
    assert (pairs.rule, list(pairs.inputs), len(pairs.problems)) == ('stem', ['1'], 4)


def test_scene_with_one_clean_image(tmp_path):
    """As GT-RAIN; one of its scenes has a clean image for each rainy one."""
    names = [f'A_0-0/A_0-0-Webcam-{kind}.png' for kind in ('C-000', 'R-000', 'R-001', 'R-002')]
    names += [f'B_1-2/B_1-2-Webcam-{kind}.png' for kind in ('C-000', 'C-001', 'R-000', 'R-001')]
    root = put(tmp_path / 'set', *names)
    pairs = find_pairs(f'{root}/**/*-R-*.png', f'{root}/**/*-C-*.png', 'many_to_one')
    assert pairs.problems == []
    assert {key: (target, file) for key, (_, target, file) in found(pairs).items()} == {
        'A_0-0_000': ('A_0-0', 'A_0-0-Webcam-C-000.png'),
        'A_0-0_001': ('A_0-0', 'A_0-0-Webcam-C-000.png'),
        'A_0-0_002': ('A_0-0', 'A_0-0-Webcam-C-000.png'),
        'B_1-2__B_1-2-Webcam-C-000_000': ('B_1-2__B_1-2-Webcam-C-000', 'B_1-2-Webcam-C-000.png'),
        'B_1-2__B_1-2-Webcam-C-001_001': ('B_1-2__B_1-2-Webcam-C-001', 'B_1-2-Webcam-C-001.png'),
    }


def test_pattern_pairs_what_the_star_stands_for(tmp_path):
    names = ['rain-1.png', 'rain-2.png', 'norain-1.jpg', 'norain-2.jpg', 'other-1.png']
    root = put(tmp_path / 'set', *names)
    pairs = find_pairs(f'{root}/rain-*.png', f'{root}/norain-*')
    assert found(pairs) == {'1': ('rain-1.png', '1', 'norain-1.jpg'), '2': ('rain-2.png', '2', 'norain-2.jpg')}
    put(root, 'rain-3.png')
    assert 'rain-3.png has no partner' in find_pairs(f'{root}/rain-*', f'{root}/norain-*').problems[0]
    with pytest.raises(InputError, match='into both or into none'):
        find_pairs(f'{root}/rain-*', root)


def test_both_sides_in_one_folder_are_told_by_words(tmp_path):
    kinds = ('rain', 'norain', 'rainstreak', 'rainregion')
    root = put(tmp_path / 'RainTrainH', *(f'{kind}-{i}.png' for kind in kinds for i in (1, 2, 10)))
    pairs = find_pairs(root)
    assert [(a, b) for a, _, b in found(pairs).values()] == [(f'rain-{i}.png', f'norain-{i}.png') for i in (1, 2, 10)]
    assert sorted(pairs.passed_over) == [f'{root}: 3 images {k}-#, no side of a pair' for k in sorted(kinds[2:])]
    assert pairs.told.startswith('rain-# are rainy, norain-# clean; ')


@pytest.mark.parametrize(
    'names', [['rain-1.png', 'norain-1.png', 'a-1.png'], ['1.png', '2.png'], ['norain-1.png', 'norain-1x2.png']]
)
def test_one_folder_in_doubt_is_refused_and_says_how(names, tmp_path):
    root = put(tmp_path / 'set', *names)
    with pytest.raises(InputError, match=r"--input 'DIR/rain-\*\.png' --target 'DIR/norain-\*\.png'"):
        find_pairs(root, root)


def test_nested_folders_make_keys_without_a_slash(tmp_path):
    names = ['a/001.png', 'a/002.png', 'b/001.png', 'b/c/001.png']
    pairs = find_pairs(put(tmp_path / 'input', *names), put(tmp_path / 'target', *names))
    assert list(pairs.inputs) == ['a__001', 'a__002', 'b__001', 'b__c__001']
    assert pairs.rule == 'stem'
    assert list(images_of(tmp_path / 'input', 'x')) == list(pairs.inputs)


def test_two_paths_of_one_key_are_named(tmp_path):
    names = ['a/b__1.png', 'a__b/1.png']
    pairs = find_pairs(put(tmp_path / 'input', *names), put(tmp_path / 'target', *names))
    assert len(pairs.inputs) == 1
    assert "would both have the key 'a__b__1'" in pairs.problems[0]


def test_links_are_followed_once_and_circles_named(tmp_path):
    names = ['a/1.png', 'a/2.png']
    rainy, clean = put(tmp_path / 'input', *names), put(tmp_path / 'target', *names)
    os.symlink(rainy, rainy / 'a' / 'again')
    pairs = find_pairs(rainy, clean)
    assert list(pairs.inputs) == ['a__1', 'a__2']
    assert pairs.passed_over == [f'{rainy}/a/again: a link to a folder that was gone through already']
    os.symlink(clean / 'a' / '1.png', clean / 'a' / '3.png')
    os.symlink(rainy / 'a' / '1.png', rainy / 'a' / '3.png')
    assert list(find_pairs(rainy, clean).inputs) == ['a__1', 'a__2', 'a__3']


# halves


def halved(folder, count, clean='left', width=64):
    """Files of a smooth half, and of the same with bright streaks."""
    folder.mkdir(parents=True)
    ramp = np.repeat(np.linspace(40, 160, width // 2).astype(np.uint8)[None, :, None], 3, 2).repeat(32, 0)
    for i in range(count):
        rainy = ramp.copy()
        rainy[:, (i % 3) :: 5] = 230
        sides = [ramp, rainy] if clean == 'left' else [rainy, ramp]
        (folder / f'{i}.png').write_bytes(encode_image(np.concatenate(sides, 1), '.png'))
    return folder, ramp


@pytest.mark.parametrize('clean', ['left', 'right'])
def test_clean_half_is_guessed_and_halves_keep_their_pixels(clean, tmp_path):
    folder, ramp = halved(tmp_path / 'h', 5, clean)
    pairs = pair_halves(folder)
    assert pairs.rule == f'{clean}_clean'
    assert 'of 5 images looked at, ' in pairs.told
    assert np.array_equal(decode_image(pairs.targets['3'].read_bytes(), ''), ramp)
    assert not np.array_equal(decode_image(pairs.inputs['3'].read_bytes(), ''), ramp)
    assert len(pairs.inputs['3'].read_bytes()) <= pairs.inputs['3'].byte_size()


def test_halves_that_do_not_agree_are_refused(tmp_path):
    folder, _ = halved(tmp_path / 'h', 3)
    other, _ = halved(tmp_path / 'o', 1, 'right')
    (other / '0.png').rename(folder / '9.png')
    with pytest.raises(InputError, match=r'in doubt: of 4 .*, 3 have .* right and 1 left; tell it with --clean left'):
        guess_clean_half(sorted(folder.iterdir()))
    same = put(tmp_path / 's', *(f'{i}.png' for i in range(4)))
    with pytest.raises(InputError, match='in doubt'):
        pair_halves(same)
    assert pair_halves(same, 'left_clean').rule == 'left_clean'


def test_odd_width_is_named(tmp_path):
    folder = put(tmp_path / 'h', '1.png', width=11)
    with pytest.raises(InputError, match=r'1\.png: 11 x 8 pixels cannot be cut into two equal halves'):
        HalfImage(folder / '1.png', True).read()


# lists


def test_list_shares_clean_images_and_stores_each_once(tmp_path):
    put(tmp_path, 'rw/000/0-1_5.png', 'rw/000/0-2_5.png', 'rw/001/1-1_5.png', 'gt/000/0_5.png', 'gt/001/1_5.png')
    lines = ['./rw/000/0-1_5.png ./gt/000/0_5.png', '', '# a note', '/rw/000/0-2_5.png /gt/000/0_5.png',
             'rw/001/1-1_5.png,gt/001/1_5.png']  # fmt: skip
    (tmp_path / 'real_world.txt').write_text('\n'.join(lines))
    pairs = pair_list(tmp_path / 'real_world.txt')
    assert (pairs.problems, list(pairs.targets)) == ([], ['000__0_5', '001__1_5'])
    assert pairs.partner == {'000__0_5_1': '000__0_5', '000__0_5_2': '000__0_5', '001__1_5_5': '001__1_5'}


def test_list_of_single_pairs_keeps_their_names(tmp_path):
    put(tmp_path / 'root', 'rain/000.png', 'rain/001.png', 'gt/000gt.png', 'gt/001gt.png')
    (tmp_path / 'l.csv').write_text('rain/000.png, gt/000gt.png\nrain/001.png\tgt/001gt.png\n')
    pairs = pair_list(tmp_path / 'l.csv', tmp_path / 'root')
    assert found(pairs) == {'000': ('000.png', '000', '000gt.png'), '001': ('001.png', '001', '001gt.png')}


def test_missing_files_of_a_list_are_named_with_their_line(tmp_path):
    put(tmp_path, 'a.png')
    (tmp_path / 'l.txt').write_text('a.png b.png\n\nc.png a.png\n')
    with pytest.raises(InputError) as error:
        pair_list(tmp_path / 'l.txt')
    assert str(error.value).splitlines()[:3] == [
        f'{tmp_path / "l.txt"}: 2 images are not below {tmp_path}:', '  line 1: b.png', '  line 3: c.png'
    ]  # fmt: skip
    (tmp_path / 'l.txt').write_text('a.png\n')
    with pytest.raises(InputError, match=r'line 1: .* is not two paths'):
        pair_list(tmp_path / 'l.txt')
