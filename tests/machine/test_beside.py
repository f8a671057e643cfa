import threading

import pytest

from ddsa_arch.machine.beside import doing_behind, reading_ahead


def test_items_are_made_ahead_in_their_order():
    made, asked = [], threading.Event()

    def items():
        for i in range(5):
            made.append(i)
            if i == 2:
                asked.set()
            yield i

    with reading_ahead(items(), 3) as ahead:
        assert asked.wait(10)
        assert list(ahead) == [0, 1, 2, 3, 4]
    assert made == [0, 1, 2, 3, 4]


def test_an_error_in_the_making_comes_where_the_item_is_asked_for():
    def items():
        yield 1
        raise KeyError('broken')

    with reading_ahead(items(), 2) as ahead:
        assert next(ahead) == 1
        with pytest.raises(KeyError, match='broken'):
            next(ahead)


def test_no_more_is_made_once_the_block_has_ended():
    made = []
    with reading_ahead((made.append(i) or i for i in range(1000)), 2) as ahead:
        next(ahead)
    assert len(made) <= 4


def test_calls_are_done_in_order_and_few_wait():
    done, go = [], threading.Event()

    def slow(number):
        assert go.wait(10)
        done.append(number)

    with doing_behind(2) as behind:
        behind(slow, 1)
        behind(slow, 2)
        go.set()
        for number in range(3, 20):
            behind(slow, number)
    assert done == list(range(1, 20))


def test_an_error_in_a_call_ends_the_block():
    done = []

    def work():
        with doing_behind(1) as behind:
            behind(lambda: 1 / 0)
            behind(done.append, 1)
            behind(done.append, 2)

    with pytest.raises(ZeroDivisionError):
        work()
    assert 2 not in done
