"""Faults on a live graph, the fast ones of `faults.py`: what the node does, what it says, and when
it is well again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from threading import Event

import faults
import pytest
from faults import Fault, Live, live
from mobile_sam_ros.msg import Prompt
from rclpy.context import Context
from rclpy.node import Node

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
