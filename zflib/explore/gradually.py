"""What takes long to measure: shown as far as it is known, measured on in a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

PAUSE = 0.2  # seconds in which nothing else is asked for before work begins: a drag needs the processor itself


class Gradually:
    """`known(key)` gives the best result so far, or None, and begins to measure better ones in the background.

    `results(key)` yields ever better ones; `arrived()` is called after each. Only the key asked for last is worked on:
    of another one the rest is left, until it is asked for again. Calls may come from any thread.
    """

    def __init__(self, results: Callable[..., Iterable], arrived: Callable):
        self._results, self._arrived = results, arrived
        self._known, self._wanted, self._whole = {}, None, set()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="gradually")

    def at_once(self, key):
        """The last result, measured now, while the caller waits."""
        for result in self._results(key):
            self._known[key] = result
        self._whole.add(key)
        return self._known[key]

    def __call__(self, key):
        if self._wanted != key:
            self._wanted = key
            if key not in self._whole:
                self._worker.submit(self._measure, key)
        return self._known.get(key)

    def _measure(self, key) -> None:
        time.sleep(PAUSE)
        if self._wanted != key or key in self._whole:
            return
        for result in self._results(key):
            self._known[key] = result
            if self._wanted != key:
                return
            self._arrived()
        self._whole.add(key)

    def wait(self) -> None:
        """Return when nothing is measured any more."""
        self._worker.submit(int).result()
