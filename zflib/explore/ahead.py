"""What a panel will probably show next, computed while the learner looks at what it shows now."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

KEPT = 64  # results


class Ahead:
    """A function whose results are kept, and computed in a thread of its own for arguments that will come next.

    `ahead(*key)` is make(*key); `ahead.prepare(keys)` computes these in the background, one after the other, and
    forgets what it was told to prepare before and had not begun. Calls may come from any thread.
    """

    def __init__(self, make: Callable, *, kept: int = KEPT):
        self._make, self._kept, self._lock = make, kept, threading.Lock()
        self._results: dict[tuple, Future] = {}  # the oldest first
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="ahead")

    def __call__(self, *key):
        with self._lock:
            known = self._results.get(key)
            if mine := known is None or known.cancel() or _failed(known):  # not begun: no waiting for its turn
                known = self._results[key] = Future()
                known.set_running_or_notify_cancel()
                self._forget()
        if mine:
            self._run(known, key)
        return known.result()

    def prepare(self, keys: Iterable[tuple]) -> None:
        """Begin with these in the background; those known already cost nothing."""
        with self._lock:
            self._results = {key: future for key, future in self._results.items() if not future.cancel()}
            for key in keys:
                if key not in self._results:
                    self._results[key] = self._worker.submit(self._make, *key)
            self._forget()

    def waiting(self, keys: Iterable[tuple], then: Callable[[], None]) -> bool:
        """Whether one of these is still being prepared; each that is calls `then` when it is ready."""
        with self._lock:
            known = [self._results[key] for key in keys if key in self._results]
        late = [future for future in known if not future.done()]
        for future in late:
            future.add_done_callback(lambda ready: ready.cancelled() or then())
        return bool(late)

    def ready(self, *key):
        """make(*key) if that is known by now, else None."""
        with self._lock:
            known = self._results.get(key)
        return known.result() if known and known.done() else None

    def _run(self, future: Future, key: tuple) -> None:
        try:
            future.set_result(self._make(*key))
        except BaseException as error:
            self._results.pop(key, None)  # it may work the next time
            future.set_exception(error)

    def _forget(self) -> None:
        for key in list(self._results)[: max(0, len(self._results) - self._kept)]:
            del self._results[key]


def _failed(future: Future) -> bool:
    return future.done() and future.exception() is not None
