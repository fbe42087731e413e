"""Faults on a live graph, the fast ones of `faults.py`: what the node does, what it says, and when
it is well again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import faults
import pytest
from failing_node import HANGING
from faults import Fault, Live, live
from graph import box_detection, detections
from mobile_sam_ros.msg import Prompt
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter

from mobile_sam_ros.executor import SteadyExecutor
from mobile_sam_ros.frames import Waiting
from mobile_sam_ros.prompts import PromptStore
from mobile_sam_ros.throttle import Throttle
from mobile_sam_ros.worker import Worker


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("faults") / "log", "failing_node.py") as found:
        yield found


@pytest.mark.parametrize("fault", faults.FAST, ids=lambda fault: fault.__name__)
def test_a_fault_is_said_and_over(fault: Fault, at: Live) -> None:
    fault(at)


def test_a_process_that_hangs_ends_and_says_where(tmp_path: Path) -> None:
    """As one did in Fast DDS: with the interpreter's lock, so that nothing else runs."""
    with live(tmp_path / "log", "failing_node.py") as at:
        changed = Parameter("hang_timeout", value=2.0).to_parameter_msg()
        answer = at.graph.call(
            SetParameters, "/sam/set_parameters", SetParameters.Request(parameters=[changed])
        )
        assert answer.results[0].successful
        at.go_on(4.0)  # it does not end while it works
        stamp = time.time_ns()
        at.graph.images.publish(faults.cornered(HANGING)(0, stamp))
        at.graph.detections.publish(detections(stamp, box_detection(at.box, "any")))
        begin = time.monotonic()
        assert at.node.process.wait(20) == 1
        assert 1.0 < time.monotonic() - begin < 10.0
        assert "in encode" in at.node.log.read_text()


def test_a_callback_that_raises_loses_its_message() -> None:
    said: list[str] = []
    context = Context()
    context.init(domain_id=int(os.environ["ROS_DOMAIN_ID"]))
    node = Node("raising", context=context)
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise RuntimeError("not thought of")

    node.create_timer(0.01, fail)
    executor = SteadyExecutor(said.append, context)
    executor.add_node(node)
    while len(calls) < 3:
        executor.spin_once(1.0)
    assert len(said) == 3 and "RuntimeError: not thought of" in said[0]
    context.shutdown()


def test_a_job_that_raises_leaves_the_worker_to_the_others() -> None:
    ended = Event()
    worker: Worker[int] = Worker()
    worker.serve(lambda job: 1 // job).put_order(0)
    worker.serve(lambda job: ended.set()).put_order(1)
    assert ended.wait(10)


def test_messages_wait_for_their_image_but_not_forever() -> None:
    waiting: Waiting[str] = Waiting(capacity=3, patience=0.0)
    assert [waiting.put(name, stamp) for name, stamp in (("a", 10), ("b", 20), ("c", 0))] == [
        [],
        [],
        [],
    ]
    assert waiting.put("d", 30) == ["a"]
    assert waiting.take(21, slop=1) == ["b", "c"]
    assert waiting.take(21, slop=1) == []
    waiting.put("e", 0)
    assert waiting.overdue() == ["d"]
    assert waiting.take(1, slop=0) == ["e"]


def test_prompts_do_not_pile_up() -> None:
    store = PromptStore()
    for number in range(100):
        store.keep([Prompt(id=f"{number}")], most=5)
    assert [prompt.id for prompt in store.standing()] == ["95", "96", "97", "98", "99"]
    assert store.keep([Prompt(id="96", class_id="new")], most=5) == []
    assert len(store.standing()) == 5


def test_a_flood_of_different_problems_is_cut_off() -> None:
    said: list[str] = []
    complain = Throttle(said.append, period=1000)
    for number in range(5000):
        complain("problem " + "x" * number)
    assert len(said) < 30 and "more than 20 different problems" in said[-1]
    assert max(len(text) for text in said) < 5000
