"""Which image a stamp means, which job is done next, and what is said how often."""

from __future__ import annotations

from threading import Event
from time import monotonic, sleep
from weakref import ref

import pytest
from sensor_msgs.msg import Image

from mobile_sam_ros.frames import Frame, FrameRing
from mobile_sam_ros.models import Models
from mobile_sam_ros.parameters import Parameters
from mobile_sam_ros.throttle import Throttle
from mobile_sam_ros.worker import Mailbox, Worker


def frame(stamp: int) -> Frame:
    """An image with a stamp in nanoseconds."""
    message = Image()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
    return Frame(message)


@pytest.fixture
def ring() -> FrameRing:
    """A ring of three that has seen four."""
    ring = FrameRing(3)
    for stamp in (100, 200, 300, 400):
        ring.add(frame(stamp))
    return ring


@pytest.mark.parametrize(
    ("stamp", "slop", "found"),
    [(300, 0, 300), (310, 0, None), (310, 10, 300), (360, 50, 400), (100, 0, None)],
)
def test_frames_are_found_by_stamp(
    ring: FrameRing, stamp: int, slop: int, found: int | None
) -> None:
    result = ring.find(stamp, slop)
    assert (result and result.stamp) == found


def test_only_newer_frames_may_come(ring: FrameRing) -> None:
    assert ring.may_come(401) and not ring.may_come(250)
    assert FrameRing(3).may_come(250)


def test_forgets_all_when_time_is_set_back(ring: FrameRing) -> None:
    ring.add(frame(5))
    assert ring.find(400, 0) is None
    assert ring.newest() is not None and ring.may_come(6)


def test_of_equal_stamps_the_last_one_counts(ring: FrameRing) -> None:
    again = frame(300)
    ring.add(again)
    assert ring.find(300, 0) is again


def test_newest_replaces_and_orders_come_first() -> None:
    mailbox: Mailbox[str] = Mailbox()
    assert mailbox.put_newest("old") is None
    assert mailbox.put_newest("new") == "old"
    assert mailbox.put_order("first") is None
    mailbox.put_order("second")
    mailbox.put_request("asked")
    assert [mailbox.take() for _ in range(4)] == ["asked", "first", "second", "new"]
    mailbox.put_request("asked")
    mailbox.put_order("told")
    assert mailbox.close() == ["asked", "told"]
    assert mailbox.take() is None and mailbox.take_request() is None


def test_streams_take_turns() -> None:
    """However often there is something new on one of them."""
    mailbox: Mailbox[str] = Mailbox()
    taken = []
    for number in range(3):
        for stream in ("images", "detections", "images", "detections", "images"):
            mailbox.put_newest(f"{stream} {number}", stream)
        taken.append(mailbox.take())
    assert taken == ["images 0", "detections 1", "images 2"]


def test_orders_do_not_pile_up() -> None:
    mailbox: Mailbox[int] = Mailbox()
    lost = [mailbox.put_order(number) for number in range(40)]
    kept = 40 - sum(number is not None for number in lost)
    assert kept < 40 and mailbox.take() == 40 - kept


def test_orders_that_wait_can_be_changed() -> None:
    mailbox: Mailbox[int] = Mailbox()
    mailbox.put_newest(10)
    for number in (1, 2):
        mailbox.put_order(number)
    mailbox.put_request(5)
    mailbox.change_orders(lambda number: -number)
    assert [mailbox.take() for _ in range(5)] == [5, -1, -2, 10, None]


def test_worker_stops_in_time_even_if_its_job_lasts() -> None:
    begun, go_on = Event(), Event()

    def perform(job: int) -> None:
        begun.set()
        go_on.wait(30)

    worker: Worker[int] = Worker()
    mailbox = worker.serve(perform)
    mailbox.put_newest(1)
    assert begun.wait(10)
    mailbox.put_order(2)
    begin = monotonic()
    assert worker.leave(mailbox, 0.01) == [2]  # for those who wait for it
    assert monotonic() - begin < 5
    assert mailbox.put_order(3) == 3
    go_on.set()


def test_worker_goes_from_mailbox_to_mailbox() -> None:
    """However much comes to one of them."""
    done: list[str] = []
    begun, go_on, ended = Event(), Event(), Event()

    def perform(job: str) -> None:
        begun.set()
        go_on.wait(30)
        done.append(job)
        if len(done) == 6:
            ended.set()

    worker: Worker[str] = Worker()
    busy, quiet = worker.serve(perform), worker.serve(perform)
    busy.put_order("busy 1")
    assert begun.wait(10)
    for number in (2, 3, 4):
        busy.put_order(f"busy {number}")
    quiet.put_newest("quiet")
    busy.put_request("asked")
    go_on.set()
    assert ended.wait(10)
    assert done == ["busy 1", "asked", "quiet", "busy 2", "busy 3", "busy 4"]


def test_worker_forgets_who_left() -> None:
    """So that a model nobody uses gives its memory back."""
    done: list[int] = []
    worker: Worker[int] = Worker()
    gone, here = worker.serve(done.append), worker.serve(done.append)
    gone.put_order(1)
    while done != [1]:
        sleep(0.01)
    assert worker.leave(gone, 5) == []
    gone.put_newest(2)
    here.put_newest(3)
    while len(done) < 2:
        sleep(0.01)
    assert done == [1, 3]


def test_a_model_is_loaded_once_while_it_is_used() -> None:
    models = Models()
    one, same = models.load(Parameters()), models.load(Parameters())
    assert one is same
    assert models.load(Parameters(encode_padding=True)) is not one
    there = ref(one)
    del one, same
    assert there() is None


def test_alike_messages_are_said_once_and_others_at_once() -> None:
    said: list[str] = []
    complain = Throttle(said.append, period=1000)
    for text in ("image has 5 bytes", "image has 6 bytes", "box is nan", "box is empty"):
        complain(text)
    assert said == ["image has 5 bytes", "box is nan", "box is empty"]


def test_messages_are_said_again_after_a_while() -> None:
    said: list[str] = []
    complain = Throttle(said.append, period=0)
    complain("bad")
    complain("bad")
    assert said == ["bad", "bad"]
