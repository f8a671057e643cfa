import pytest
from torch._utils import ExceptionWrapper

from ddsa_arch.errors import InputError, clear_message, did_you_mean

NAMES = ['DDSANet', 'DRSformer', 'Restormer']


@pytest.mark.parametrize(
    ('name', 'hint'),
    [
        ('DDSAnet', "; did you mean 'DDSANet'?"),
        ('restormer', "; did you mean 'Restormer'?"),
        ('DRSFORMER', "; did you mean 'DRSformer'?"),
        ('ddsanet', "; did you mean 'DDSANet'?"),
        ('UNet128', '; known: DDSANet, DRSformer, Restormer'),
    ],
)
def test_hint_names_the_nearest_or_all(name, hint):
    assert did_you_mean(name, NAMES) == hint


def test_no_candidates_give_no_hint():
    assert did_you_mean('a', []) == ''


def test_candidates_may_repeat_and_come_in_any_order():
    assert did_you_mean('zzz', ['b', 'a', 'b']) == '; known: a, b'


def test_input_error_is_a_value_error():
    with pytest.raises(ValueError, match=r'^message$'):
        raise InputError('message')


def wrapped(error):
    """The error as a DataLoader raises it again in the main process."""
    try:
        raise error
    except type(error):
        wrapper = ExceptionWrapper(where='in DataLoader worker process 0')
    with pytest.raises(type(error)) as info:
        wrapper.reraise()
    return info.value


def test_message_of_a_worker_is_recovered():
    error = wrapped(InputError('a.png: empty (0 bytes); replace it'))
    assert 'Traceback' in str(error)
    assert clear_message(error) == 'a.png: empty (0 bytes); replace it'


def test_lines_of_a_message_are_kept():
    assert clear_message(wrapped(InputError('2 are broken:\n  a\n  b'))) == '2 are broken:\n  a\n  b'


def test_last_error_of_a_chain_counts():
    def chain():
        try:
            raise InputError('inner')
        except InputError as error:
            raise InputError('outer') from error

    with pytest.raises(InputError) as info:
        chain()
    assert clear_message(wrapped(info.value)) == 'outer'


def test_plain_message_stays_as_it_is():
    assert clear_message(InputError('no folder x')) == 'no folder x'
    assert clear_message(RuntimeError('CUDA: out of memory')) == 'CUDA: out of memory'
