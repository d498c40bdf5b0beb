"""Results computed ahead of time: each once, none waited for that had not begun, errors not kept."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from zflib.explore.ahead import Ahead


def wait_for(ahead: Ahead, *key):
    """What was prepared for the key, once it is there."""
    while (found := ahead.ready(*key)) is None:
        threading.Event().wait(0.005)
    return found


def test_what_was_prepared_is_not_computed_again():
    calls = []
    ahead = Ahead(lambda a, b: calls.append((a, b)) or a * b)
    ahead.prepare([(2, 3), (4, 5)])
    assert wait_for(ahead, 4, 5) == 20 and ahead(2, 3) == 6 and ahead(4, 5) == 20 and ahead(1, 1) == 1
    assert ahead(1, 1) == 1 and sorted(calls) == [(1, 1), (2, 3), (4, 5)]


def test_nobody_waits_for_what_has_not_begun():
    go_on, begun = threading.Event(), threading.Event()

    def make(number):
        if number == 0:
            begun.set()
            assert go_on.wait(20)
        return number, threading.get_ident()

    ahead = Ahead(make)
    ahead.prepare([(0,), (1,), (2,)])
    assert begun.wait(20)
    assert ahead(1) == (1, threading.get_ident())  # in this thread, while the other is still busy
    ahead.prepare([(3,)])
    assert ahead.ready(2) is None and ahead.ready(0) is None
    go_on.set()
    assert wait_for(ahead, 3)[0] == 3 and ahead.ready(2) is None and ahead(0)[0] == 0


def test_an_error_is_raised_and_not_kept():
    fails = [True, True]
    ahead = Ahead(lambda n: 1 // n if fails and fails.pop() else "well")
    with pytest.raises(ZeroDivisionError):
        ahead(0)
    ahead.prepare([(0,)])
    with pytest.raises(ZeroDivisionError):
        wait_for(ahead, 0)
    assert ahead(0) == "well"


def test_only_so_many_results_are_kept():
    calls = []
    ahead = Ahead(lambda n: calls.append(n) or n, kept=2)
    for number in (1, 2, 3, 3, 2, 1):
        assert ahead(number) == number
    assert calls == [1, 2, 3, 1]


def test_who_waits_is_called_when_the_rest_is_ready():
    go_on, told = threading.Event(), threading.Event()
    ahead = Ahead(lambda n: go_on.wait(20) and n)
    ahead.prepare([(1,)])
    assert ahead.waiting([(1,)], told.set) and not told.is_set()
    go_on.set()
    assert told.wait(20) and ahead(1) == 1 and not ahead.waiting([(1,)], told.clear)


def test_many_threads_get_the_same():
    ahead = Ahead(lambda n: [n])
    ahead.prepare((n,) for n in range(20))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: ahead(n % 20), range(200)))
    assert all(one is ahead(n % 20) for n, one in enumerate(found))
