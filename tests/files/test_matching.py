from pathlib import Path

import pytest

from ddsa_arch.errors import InputError
from ddsa_arch.files.matching import pair_files


def pair(inputs, targets, strays=()):
    return pair_files([Path('rain', n) for n in inputs], [Path('clean', n) for n in targets], 'rain', 'clean', strays)


def test_files_are_paired_by_stem_in_natural_order():
    found = pair(['b-10.png', 'b-2.png', '雨 im Süden.webp'], ['b-2.jpg', '雨 im Süden.png', 'b-10.jpg'])
    assert list(found.inputs) == list(found.targets) == ['b-2', 'b-10', '雨 im Süden']
    assert found.targets['b-10'] == Path('clean/b-10.jpg')
    assert (found.problems, found.passed_over) == ([], [])


def test_every_file_without_a_place_is_named_at_once():
    found = pair(
        ['1.png', '2.png', '2.jpg', '3.png', '4.5.png', 'Thumbs.db', '.hidden'],
        ['1.png', '2.png', '4.5.png', 'extra.png', 'notes.txt'],
    )
    assert list(found.inputs) == ['1']
    assert found.passed_over == ['rain/Thumbs.db', 'clean/notes.txt']
    assert [text.split(';')[0] for text in found.problems] == [
        'rain: two images of one name, 2.jpg and 2.png',
        'rain: 3.png has no partner in clean',
        'clean: extra.png has no partner in rain',
        "'4.5' cannot be the key of an LMDB",
    ]


def test_stray_is_passed_over_on_one_side_or_both():
    found = pair(['1.png', '926_10(1).jpg'], ['1.png'], strays=('926_10(1)',))
    assert (list(found.inputs), found.problems, found.passed_over) == (['1'], [], ['rain/926_10(1).jpg'])


@pytest.mark.parametrize('stem', ['norain-1.5', '  ', '雨' * 167, 'two\nlines', 'two\x85lines', 'latin-\udce9'])
def test_name_that_cannot_be_a_key_is_named_with_the_rule(stem):
    found = pair([f'{stem}.png', 'a.png'], [f'{stem}.png', 'a.png'])
    assert list(found.inputs) == ['a']
    assert found.problems == [
        f'{stem!r} cannot be the key of an LMDB; rename both images of the pair '
        '(no dot before the suffix, not blank, one line of UTF-8 of at most 500 bytes)'
    ]


def test_longest_name_that_lmdb_takes_is_a_key():
    assert list(pair(['n' * 500 + '.png'], ['n' * 500 + '.png']).inputs) == ['n' * 500]


def test_sides_that_no_rule_pairs_are_one_message():
    with pytest.raises(InputError) as error:
        pair([f'rain-{i}.png' for i in range(9)], [f'norain-{i}.png' for i in range(11, 19)])
    assert str(error.value) == (
        'no image of rain has a partner in clean: they hold names such as rain-0 and norain-11, and pairs match by '
        "stem; rename one side, or say where the names differ: --input 'DIR/rain-*.png' --target 'DIR/norain-*.png'"
    )


def test_side_without_images_is_named():
    with pytest.raises(InputError, match=r'clean: no image \(looked for \.bmp, '):
        pair(['a.png'], ['a.txt'])
