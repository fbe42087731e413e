"""Random interleavings of images, detections, prompts, parameters, services and transitions, with
the worker anywhere in between: what comes out is what a simple sequential model says.

All of it is the node's own code but what costs time: the model paints (`painter.py`), the outputs
are kept instead of published, and the worker's thread waits before each job until it is told.
"""

from __future__ import annotations

import gc
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from effort import cases
from graph import box_detection, detections, header
from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from mobile_sam_ros.msg import Prompt, PromptArray
from painter import SIDE, painter
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.logging import LoggingSeverity
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from mobile_sam_ros import sam_node
from mobile_sam_ros.conversions import image_message
from mobile_sam_ros.frames import Frame
from mobile_sam_ros.models import Models
from mobile_sam_ros.segmentation import Job
from mobile_sam_ros.worker import Worker

SUCCESS = TransitionCallbackReturn.SUCCESS
RING, EARLY, ORDERS = 3, 16, 16
_PATIENCE = 10.0
# Hypothesis keeps a record of each case, which it searches for the next: what it draws at a time.
_AT_A_TIME = 250
_CASES = cases(60)

Box = tuple[int, int, int, int]
sides = st.tuples(st.integers(0, SIDE - 1), st.integers(1, 20))
BOXES = st.tuples(sides, sides).map(
    lambda s: (s[0][0], s[1][0], min(s[0][0] + s[0][1], SIDE), min(s[1][0] + s[1][1], SIDE))
)
BAD_BOXES = st.sampled_from([(70, 70, 90, 90), (5, 5, 5, 9)])
NAMES = st.sampled_from("abcdef")
FOUND = st.lists(st.tuples(NAMES, BOXES | BAD_BOXES, st.sampled_from([0.2, 0.6, 0.9])), max_size=5)
STAMPS = st.integers(1, 4)


@dataclass(frozen=True)
class Output:
    """What was published: of which image, by stamp and by its grey; and which objects where."""

    stamp: int
    grey: int
    objects: tuple[tuple[str, Box], ...]


class ToldWorker(Worker[Job]):
    """Takes a job and ends it when it is told to. The thread is the real one."""

    def __init__(self) -> None:
        self._may_take = self._may_end = self._may_leave = False
        self.has_job = False
        super().__init__()

    def _run(self) -> None:
        with suppress(SystemExit):
            super()._run()

    def _next(self) -> Any:
        if self._may_leave:
            raise SystemExit  # of the thread
        found = super()._next() if self._may_take else None
        if found is not None:
            self._may_take = False
        return found

    def serve(self, perform: Callable[[Job], None]) -> Any:
        def told(job: Job) -> None:
            self._tell(has_job=True)
            self._wait_for(lambda: self._may_end)
            perform(job)
            self._tell(has_job=False, _may_end=False)

        return super().serve(told)

    def take(self) -> None:
        """Takes the next job, of which there must be one."""
        self._tell(_may_take=True)
        self._wait_for(lambda: self.has_job)

    def end(self) -> None:
        """Does it."""
        self._tell(_may_end=True)
        self._wait_for(lambda: not self.has_job)

    def leave_for_good(self) -> None:
        """Ends the thread, which a process has one of, and this test thousands."""
        self._tell(_may_leave=True)

    def _tell(self, **changes: bool) -> None:
        with self._changed:
            vars(self).update(changes)
            self._changed.notify_all()

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, _PATIENCE)


class PaintingModels(Models):
    """Has a model without weights."""

    def load(self, values: Any) -> Any:
        return painter()


class KeptOutputs:
    """Keeps what would be published."""

    published: list[Output] = []

    def __init__(self, node: Any) -> None:
        pass

    def wanted(self) -> set[str]:
        return {"segments"}

    def destroy(self) -> None:
        pass

    def publish(
        self, wanted: Any, head: Any, image: Any, segments: Any, names: Any, *_: Any
    ) -> None:
        stamp = head.stamp.sec * 10**9 + head.stamp.nanosec
        boxes = [tuple(int(v) for v in box) for box in segments.boxes]
        objects = tuple((name.id, box) for name, box in zip(names, boxes, strict=True))
        greys = {round(float(iou) * 255) for iou in segments.predicted_iou} or {int(image[0, 0, 0])}
        assert greys == {int(image[0, 0, 0])}, "decoded on another image's embedding"
        KeptOutputs.published.append(Output(stamp, greys.pop(), objects))


class NoServices:
    """Of the services only what they do is asked here, not how they wait."""

    def __init__(self, *_: Any) -> None:
        pass

    def close(self) -> None:
        pass


# --- The sequential model -------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Shot:
    """An image."""

    stamp: int
    grey: int


@dataclass(frozen=True, eq=False)
class Task:
    """A job: boxes with scores, and prompts."""

    shot: Shot
    found: tuple[tuple[str, Box, float], ...] = ()
    prompts: tuple[tuple[str, Box], ...] = ()
    reply: list[Any] | None = None


class Expected:
    """What the node has to do, one event after the other."""

    def __init__(self, keeps_detector: bool) -> None:
        self.keeps_detector = keeps_detector
        self.shots: list[Shot] = []
        self.standing: dict[str, Box] = {}
        self.early: list[tuple[int, str, Any]] = []
        self.requests: deque[Task] = deque()
        self.orders: deque[Task] = deque()
        self.newest: Task | None = None
        self.is_active = False
        self.detector_came = False
        self.most, self.least_score = 64, 0.0
        self.unmatched = 0
        self.numbers = 0

    def standing_now(self) -> tuple[tuple[str, Box], ...]:
        return tuple(self.standing.items())

    def image(self, shot: Shot) -> None:
        if self.shots and shot.stamp < min(s.stamp for s in self.shots):
            self.shots.clear()
        self.shots = [*self.shots, shot][-RING:]
        due = [item for item in self.early if item[0] in (0, shot.stamp)]
        self.early = [item for item in self.early if item not in due]
        for _, kind, content in due:
            self.serve(kind, content, shot)
        runs = self.detector_came and self.keeps_detector
        if self.standing and not runs:
            self.put_newest(Task(shot, prompts=self.standing_now()))

    def about(self, stamp: int, kind: str, content: Any) -> None:
        fitting = [s for s in self.shots if s.stamp == stamp] if stamp else self.shots
        if fitting:
            self.serve(kind, content, fitting[-1])
        elif not self.shots or stamp > self.shots[-1].stamp:
            self.early.append((stamp, kind, content))
            for lost in self.early[:-EARLY]:
                self.unmatched += lost[1] == "detections"
            self.early = self.early[-EARLY:]
        else:
            self.unmatched += kind == "detections"

    def serve(self, kind: str, content: Any, shot: Shot) -> None:
        if kind == "detections":
            self.detector_came = True
            self.put_newest(Task(shot, content, self.standing_now()))
        elif kind == "stand":
            self.put_newest(Task(shot, prompts=self.standing_now()))
        else:
            self.put_order(Task(shot, prompts=content))

    def put_newest(self, task: Task) -> None:
        if self.is_active:
            self.newest = task

    def put_order(self, task: Task) -> None:
        if self.is_active:
            self.orders.append(task)
            if len(self.orders) > ORDERS:
                self.orders.popleft()

    def put_request(self, task: Task) -> None:
        self.requests.append(task)
        if not self.is_active or len(self.requests) > ORDERS:
            self.refuse(self.requests.popleft())

    def refuse(self, task: Task) -> None:
        assert task.reply is not None
        task.reply.append(None)

    def take(self) -> Task | None:
        for waiting in (self.requests, self.orders):
            if waiting:
                return waiting.popleft()
        task, self.newest = self.newest, None
        return task

    def deactivate(self) -> None:
        self.is_active = False
        for task in self.requests:
            self.refuse(task)
        self.requests.clear()
        self.orders.clear()
        self.newest = None
        self.shots.clear()  # they would be old when it goes on
        self.early.clear()

    def objects(self, task: Task) -> tuple[tuple[str, Box], ...]:
        scored = [(n, b, s) for n, b, s in task.found if s >= self.least_score]
        scored += [(name, box, 1.0) for name, box in task.prompts]
        good = [item for item in scored if item[1][2] <= SIDE and item[1][2] > item[1][0]]
        best = sorted(range(len(good)), key=lambda i: -good[i][2])[: self.most]
        return tuple(good[i][:2] for i in sorted(best))


class Interleaving(RuleBasedStateMachine):
    """One node, and the model beside it."""

    def __init__(self) -> None:
        super().__init__()
        KeptOutputs.published.clear()
        self.worker = ToldWorker()
        ring = ["--ros-args", "-p", f"frame_buffer:={RING}", "-p", "stale_after:=0.0"]
        self.node = sam_node.SamNode(PaintingModels(), self.worker, ring)
        self.node.get_logger().set_level(LoggingSeverity.FATAL)
        self.expected = Expected(keeps_detector=bool(sam_node._DETECTOR_SECONDS))
        self.grey = 0
        self.at_work: Task | None = None
        self.is_stopped = False  # the job at work is of a node that was deactivated since
        self.wanted: list[Output] = []
        self.replies: list[tuple[list[Any], list[Any]]] = []
        assert self.node.trigger_configure() == SUCCESS
        self.activate()

    # --- Inputs

    @rule(stamp=STAMPS)
    def image(self, stamp: int) -> None:
        self.grey = self.grey % 250 + 1
        pixels = np.full((SIDE, SIDE, 3), self.grey, np.uint8)
        self.node._on_image(image_message(pixels, "rgb8", header(stamp)))
        self.expected.image(Shot(stamp, self.grey))

    @rule(stamp=STAMPS, found=FOUND)
    def image_with_detections(self, stamp: int, found: list[tuple[str, Box, float]]) -> None:
        self.image(stamp)
        self.detect(stamp, found)

    @rule(stamp=st.just(0) | STAMPS, found=FOUND)
    def detect(self, stamp: int, found: list[tuple[str, Box, float]]) -> None:
        boxes = [box_detection(box, name, score) for name, box, score in found]
        self.node._on_detections(detections(stamp, *boxes))
        self.expected.about(stamp, "detections", tuple(found))

    @rule(
        stamp=st.just(0) | STAMPS,
        stands=st.booleans(),
        shown=st.lists(st.tuples(NAMES | st.just(""), BOXES | BAD_BOXES), max_size=3),
    )
    def prompt(self, stamp: int, stands: bool, shown: list[tuple[str, Box]]) -> None:
        mode = PromptArray.UNTIL_CLEARED if stands else PromptArray.ONCE
        prompts = [Prompt(id=name, box=[float(v) for v in box]) for name, box in shown]
        self.node._on_prompts(PromptArray(header=header(stamp), mode=mode, prompts=prompts))
        named = []
        for name, box in shown:
            if not name:
                self.expected.numbers += 1
                name = f"prompt_{self.expected.numbers}"
            named.append((name, box))
        if stands:
            self.expected.standing |= dict(named)
            too_many = len(self.expected.standing) - self.expected.most
            for name in list(self.expected.standing)[: max(0, too_many)]:
                del self.expected.standing[name]
        self.expected.about(stamp, "stand" if stands else "once", tuple(named))

    @rule()
    def clear(self) -> None:
        self.node._clear_prompts(Trigger.Request(), Trigger.Response())
        self.expected.standing.clear()

    @precondition(lambda self: len(self.expected.orders) < 2 or self.grey % 5 == 0)
    @rule(box=BOXES)
    def ask(self, box: Box) -> None:
        """A service: about an image of its own."""
        self.grey = self.grey % 250 + 1
        pixels = np.full((SIDE, SIDE, 3), self.grey, np.uint8)
        frame = Frame(image_message(pixels, "rgb8", header(99)))
        found: list[Any] = []
        prompts = [Prompt(id="asked", box=[float(v) for v in box])]

        def reply(segments: Any, why_not: str) -> None:
            found.append(None if segments is None else self.read(segments))

        self.node._submit(Job(frame, prompts=prompts, reply=reply))
        wanted: list[Any] = []
        self.replies.append((found, wanted))
        task = Task(Shot(99, self.grey), prompts=(("asked", box),), reply=wanted)
        self.expected.put_request(task)

    @staticmethod
    def read(message: Any) -> Output:
        """An answer as an output."""
        rois = [s.roi for s in message.segments]
        boxes = [(r.x_offset, r.y_offset, r.x_offset + r.width, r.y_offset + r.height)
                 for r in rois]  # fmt: skip
        greys = {round(s.predicted_iou * 255) for s in message.segments}
        names = [s.id for s in message.segments]
        stamp = message.header.stamp
        return Output(
            stamp.sec * 10**9 + stamp.nanosec, greys.pop(), tuple(zip(names, boxes, strict=True))
        )

    @rule(most=st.sampled_from([1, 3, 64]), score=st.sampled_from([0.0, 0.5, 0.8]))
    def change(self, most: int, score: float) -> None:
        changes = [Parameter("max_objects", value=most), Parameter("min_score", value=score)]
        assert all(r.successful for r in self.node.set_parameters(changes))
        self.expected.most, self.expected.least_score = most, score

    # --- Life

    def activate(self) -> None:
        assert self.node.trigger_activate() == SUCCESS
        self.expected.is_active = True

    @precondition(lambda self: self.expected.is_active)
    @rule(cleans=st.booleans(), before=st.sampled_from([True, True, False]))
    def stop(self, cleans: bool, before: bool) -> None:
        """Best of all while something is at work."""
        if before:
            self.image_with_detections(4, [("a", (1, 1, 9, 9), 0.9)])
            if self.at_work is None:
                self.take()
        assert self.node.trigger_deactivate() == SUCCESS
        self.expected.deactivate()
        self.is_stopped = self.at_work is not None
        if cleans:
            assert self.node.trigger_cleanup() == SUCCESS
            assert self.node.trigger_configure() == SUCCESS

    @precondition(lambda self: not self.expected.is_active)
    @rule()
    def go_on(self) -> None:
        self.activate()

    # --- The worker

    @precondition(lambda self: self.at_work is None)
    @rule()
    def take(self) -> None:
        """Takes what is next, if there is anything."""
        self.at_work = self.expected.take()
        if self.at_work is not None:
            self.worker.take()

    @precondition(lambda self: self.at_work is not None)
    @rule()
    def end(self) -> None:
        """Does what was taken: by the parameters of now, and for nobody if the node was stopped."""
        task, self.at_work = self.at_work, None
        assert task is not None
        found = Output(task.shot.stamp, task.shot.grey, self.expected.objects(task))
        if task.reply is not None:
            task.reply.append(found)
        elif not self.is_stopped:
            self.wanted.append(found)
        self.is_stopped = False
        self.worker.end()
        assert KeptOutputs.published == self.wanted

    @rule(jobs=st.integers(1, 3))
    def work(self, jobs: int) -> None:
        """Ends what is at work, and does more."""
        for _ in range(jobs):
            if self.at_work is None:
                self.take()
            if self.at_work is not None:
                self.end()

    def teardown(self) -> None:
        self.work(2 * ORDERS + 3)
        for found, wanted in self.replies:
            assert found == wanted and len(found) == 1, "each request is answered, once"
        values = self.node._statistics.values()
        assert values["frames/segmented"] == str(len(self.wanted))
        assert values["detections/unmatched"] == str(self.expected.unmatched)
        assert values["frames/dropped/failed"] == values["frames/dropped/bad"] == "0"
        self.node.close()
        self.node.destroy_node()
        self.worker.leave_for_good()


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(max(1, _CASES // _AT_A_TIME)))
@pytest.mark.parametrize("detector_seconds", [0.0, 1e9], ids=["images_between", "detector_runs"])
def test_interleavings(
    detector_seconds: float, part: int, participant: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sam_node, "_DETECTOR_SECONDS", detector_seconds)
    monkeypatch.setattr(sam_node, "_STOP_SECONDS", 0.001)
    monkeypatch.setattr(sam_node, "Outputs", KeptOutputs)
    monkeypatch.setattr(sam_node, "Services", NoServices)
    monkeypatch.setattr(sam_node, "free_unused", lambda: None)
    how = settings(max_examples=min(_CASES, _AT_A_TIME), stateful_step_count=40)
    threads = threading.active_count()
    run_state_machine_as_test(seed(part)(Interleaving), settings=how)
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing) in (sam_node.SamNode, Frame)]
    assert threading.active_count() <= threads + 1, "the last one may not have ended yet"
