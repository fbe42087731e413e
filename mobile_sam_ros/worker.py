"""One thread that does the newest work first, and a mailbox that never grows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition, Thread
from typing import Generic, TypeVar

Job = TypeVar("Job")
_ORDERS = 16


class Mailbox(Generic[Job]):
    """Where jobs wait: of a stream only the newest, of orders all (a few).

    A stream's jobs replace each other: by the time the worker is free, an older image is stale.
    An order was asked for once (a click, a one-shot prompt) and would be missed.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._newest: Job | None = None
        self._orders: deque[Job] = deque()
        self._closed = False

    def put_newest(self, job: Job) -> Job | None:
        """Leaves a job of the stream; returns the one that it replaced, if any."""
        with self._changed:
            replaced, self._newest = self._newest, job
            self._changed.notify()
        return replaced

    def put_order(self, job: Job) -> Job | None:
        """Leaves an order; returns the oldest one if there were too many, or this one if the
        mailbox is closed."""
        with self._changed:
            if self._closed:
                return job
            self._orders.append(job)
            lost = self._orders.popleft() if len(self._orders) > _ORDERS else None
            self._changed.notify()
        return lost

    def take(self) -> Job | None:
        """Waits for a job and returns it; None once the mailbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._orders or self._newest is not None)
            if self._closed:
                return None
            if self._orders:
                return self._orders.popleft()
            job, self._newest = self._newest, None
            return job

    def close(self) -> list[Job]:
        """Ends all waiting; returns the orders that nobody will take any more."""
        with self._changed:
            self._closed = True
            left = list(self._orders)
            self._orders.clear()
            self._changed.notify_all()
        return left


class Worker(Generic[Job]):
    """The thread. All calls of the model come from here: torch likes one thread best."""

    def __init__(self, mailbox: Mailbox[Job], perform: Callable[[Job], None]) -> None:
        """Starts a thread that calls `perform`, which must not raise, with each job."""
        self._mailbox = mailbox
        self._perform = perform
        # A daemon: a model call that lasts must not hold up the end of the process.
        self._thread = Thread(target=self._run, name="segmentation", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (job := self._mailbox.take()) is not None:
            self._perform(job)

    def stop(self, timeout: float) -> list[Job]:
        """Takes no more jobs, and gives the one at work `timeout` seconds to end; returns the
        orders that are left."""
        left = self._mailbox.close()
        self._thread.join(timeout)
        return left
