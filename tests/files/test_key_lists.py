import pytest

from ddsa_arch.errors import InputError
from ddsa_arch.files.key_lists import read_keys


@pytest.mark.parametrize(
    ('data', 'keys'),
    [
        (b'a\nb\n', ['a', 'b']),
        (b'b\na', ['b', 'a']),
        (b'\xef\xbb\xbfa\r\nb\r\n', ['a', 'b']),  # as Windows writes it
        (b'# leaked\n\n  a b\t\n   \n  # more\nc#1\n', ['a b', 'c#1']),
        ('雨 3\n'.encode(), ['雨 3']),
        (b'a\nb\na\n', ['a', 'b']),
        ('a\u2028b\x0cc\n'.encode(), ['a\u2028b\x0cc']),  # no ends of lines
        (b'', []),
        (b'# nothing\n', []),
    ],
)
def test_keys_are_the_lines_that_say_something(data, keys, tmp_path):
    (tmp_path / 'list.txt').write_bytes(data)
    assert read_keys(tmp_path / 'list.txt', 'option') == keys


def test_missing_list_is_named_with_option_and_remedy(tmp_path):
    with pytest.raises(InputError) as error:
        read_keys(tmp_path / 'list.txt', 'datasets.train.exclude_keys')
    assert str(error.value).startswith(f'datasets.train.exclude_keys: no file {tmp_path / "list.txt"}; wanted UTF-8')
    assert 'drop the option' in str(error.value)


def test_folder_is_no_list(tmp_path):
    with pytest.raises(InputError, match=r'^option: .* cannot be read'):
        read_keys(tmp_path, 'option')


@pytest.mark.parametrize('encoding', ['utf-16', 'latin-1'])
def test_other_encodings_are_refused(encoding, tmp_path):
    (tmp_path / 'list.txt').write_text('a\nRegenböe\n', encoding=encoding)
    with pytest.raises(InputError, match=r'^option: .*list\.txt is not UTF-8 \(byte \d+\); wanted'):
        read_keys(tmp_path / 'list.txt', 'option')
