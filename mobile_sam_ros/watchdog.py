"""Ends a process in which no Python runs any more.

Code that holds the interpreter's lock and never returns, as Fast DDS once did while it took a
message (https://github.com/eProsima/Fast-DDS/issues/6500 is like it), leaves a node that neither
works nor can be interrupted, and looks alive to all others.
"""

from __future__ import annotations

import faulthandler
from collections.abc import Callable
from threading import Event, Lock, Thread

_SHORTEST = 1.0  # seconds; for less, the lock is held now and then by what is well
_PAUSE = _SHORTEST / 4  # between two signs of life


class Watchdog:
    """As long as the interpreter runs, a thread of it puts the end off."""

    def __init__(self, timeout: Callable[[], float]) -> None:
        """Starts to watch.

        Args:
            timeout: returns the seconds without a sign of life after which the process ends, with
                status 1 and where it was stuck; what is less than 1 counts as 1; 0: never.
        """
        self._timeout = timeout
        self._is_over, self._lock = Event(), Lock()
        Thread(target=self._watch, name="watchdog", daemon=True).start()

    def _watch(self) -> None:
        while not self._is_over.wait(_PAUSE):
            seconds = self._timeout()
            with self._lock:
                if self._is_over.is_set():
                    return
                # It is faulthandler's own thread that ends the process: it needs no lock.
                if seconds > 0:
                    faulthandler.dump_traceback_later(max(seconds, _SHORTEST), exit=True)
                else:
                    faulthandler.cancel_dump_traceback_later()

    def stop(self) -> None:
        """Ends nothing from now on."""
        with self._lock:
            self._is_over.set()
            faulthandler.cancel_dump_traceback_later()
