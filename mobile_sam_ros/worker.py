"""One thread that does the newest work first, and mailboxes that never grow."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Generic, TypeVar

Job = TypeVar("Job")
_WAITING = 16  # requests, and orders
_LOGGER = logging.getLogger(__name__)


class Mailbox(Generic[Job]):
    """Where jobs wait: requests and orders (a few of each), and of each stream only the newest.

    A stream's jobs replace each other: by the time the worker is free, an older image is stale.
    An order was given once (a click, a one-shot prompt) and would be missed. Of a request somebody
    waits for the answer, so that it comes before all else.
    """

    def __init__(self, changed: Condition | None = None) -> None:
        """Tells `changed` of each new job."""
        self._changed = changed or Condition()
        self._requests: deque[Job] = deque()
        self._orders: deque[Job] = deque()
        self._newest: dict[str, Job] = {}  # by stream; whose turn it is comes first
        self._closed = False

    def put_newest(self, job: Job, stream: str = "") -> Job | None:
        """Leaves a job of a stream; returns the one that it replaced, if any."""
        with self._changed:
            replaced = self._newest.get(stream)
            self._newest[stream] = job
            self._changed.notify_all()
        return replaced

    def put_order(self, job: Job) -> Job | None:
        """Leaves an order; returns the oldest one if there were too many, or this one if the
        mailbox is closed."""
        return self._put(job, self._orders)

    def put_request(self, job: Job) -> Job | None:
        """The same with a request."""
        return self._put(job, self._requests)

    def _put(self, job: Job, queue: deque[Job]) -> Job | None:
        with self._changed:
            if self._closed:
                return job
            queue.append(job)
            lost = queue.popleft() if len(queue) > _WAITING else None
            self._changed.notify_all()
        return lost

    def change_orders(self, change: Callable[[Job], Job]) -> None:
        """Puts something else in the place of each order that waits."""
        with self._changed:
            self._orders = deque(map(change, self._orders))

    def take_request(self) -> Job | None:
        """Returns the next request, None if there is none or the mailbox is closed."""
        with self._changed:
            return self._requests.popleft() if self._requests else None

    def take(self) -> Job | None:
        """Returns the next job, None if there is none or the mailbox is closed."""
        with self._changed:
            if self._closed:
                return None
            for queue in (self._requests, self._orders):
                if queue:
                    return queue.popleft()
            stream = next(iter(self._newest), None)
            return None if stream is None else self._newest.pop(stream)

    def close(self) -> list[Job]:
        """Takes no more jobs; returns the requests and orders that nobody will take."""
        with self._changed:
            self._closed = True
            left = [*self._requests, *self._orders]
            self._requests.clear()
            self._orders.clear()
        return left


@dataclass(frozen=True, eq=False)
class _Desk(Generic[Job]):
    mailbox: Mailbox[Job]
    perform: Callable[[Job], None]


class Worker(Generic[Job]):
    """The thread, which goes from mailbox to mailbox and does one job of each in turn, but requests
    first.

    All calls of the model come from here, those of all cameras: torch likes one thread best.
    """

    def __init__(self) -> None:
        """Starts the thread."""
        self._changed = Condition()
        self._desks: deque[_Desk[Job]] = deque()
        self._at_work: _Desk[Job] | None = None
        # A daemon: a model call that lasts must not hold up the end of the process.
        Thread(target=self._run, name="segmentation", daemon=True).start()

    def serve(self, perform: Callable[[Job], None]) -> Mailbox[Job]:
        """Returns a mailbox; `perform` is called with each of its jobs, and should not raise."""
        mailbox: Mailbox[Job] = Mailbox(self._changed)
        with self._changed:
            self._desks.append(_Desk(mailbox, perform))
        return mailbox

    def leave(self, mailbox: Mailbox[Job], timeout: float) -> list[Job]:
        """Takes no more jobs of a mailbox, and gives the one at work `timeout` seconds to end;
        returns the requests and orders that are left."""
        left = mailbox.close()
        with self._changed:
            self._desks = deque(desk for desk in self._desks if desk.mailbox is not mailbox)
            self._changed.wait_for(
                lambda: self._at_work is None or self._at_work.mailbox is not mailbox, timeout
            )
        return left

    def _run(self) -> None:
        while True:
            with self._changed:
                while (found := self._next()) is None:
                    self._changed.wait()
                desk, job = found
                self._at_work = desk
            try:
                desk.perform(job)
            except Exception:  # the others must not lose the only thread
                _LOGGER.exception("a job failed")
            # Held any longer, they would hold a model that nobody uses any more.
            del found, desk, job
            with self._changed:
                self._at_work = None
                self._changed.notify_all()

    def _next(self) -> tuple[_Desk[Job], Job] | None:
        for desk in self._desks:
            job = desk.mailbox.take_request()
            if job is not None:
                return desk, job
        for _ in range(len(self._desks)):
            desk = self._desks[0]
            self._desks.rotate(-1)
            job = desk.mailbox.take()
            if job is not None:
                return desk, job
        return None
