"""When the panel's node listens, and how many images it keeps."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from graph import header
from rclpy.executors import SingleThreadedExecutor

from mobile_sam_ros.frames import Frame
from mobile_sam_ros.panel.images import Images
from mobile_sam_ros.panel.panel_node import PanelNode


class Held(SingleThreadedExecutor):
    """Leaves the tasks to the test."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[Callable[[], Any]] = []

    def create_task(self, callback: Any, *args: Any, **kwargs: Any) -> Any:
        """Keeps a task."""
        self.tasks.append(callback)


@pytest.mark.parametrize("newest_first", [False, True])
def test_it_listens_as_was_wanted_last(participant: None, newest_first: bool) -> None:
    """In whichever order rclpy runs the tasks."""
    node, executor = PanelNode(lambda: None), Held()
    executor.add_node(node)
    executor.tasks.clear()
    try:
        for wanted in ([True, False, True], [True, False], [False, True], [True]):
            for watched in wanted:
                node.watch(watched)
            tasks, executor.tasks = executor.tasks, []
            for task in reversed(tasks) if newest_first else tasks:
                task()
            topics = [subscription.topic_name for subscription in node.subscriptions]
            assert topics.count("/sam/segments") == wanted[-1], wanted
    finally:
        executor.shutdown()
        node.destroy_node()


@pytest.mark.parametrize(("megabytes", "kept"), [(0, 60), (4, 32), (50, 4)])
def test_images_are_kept_by_number_and_by_bytes(megabytes: int, kept: int) -> None:
    data = bytes(megabytes << 20)  # the same for all, but counted for each
    images = Images()
    for i in range(100):
        images.add(Frame(SimpleNamespace(header=header(1000 + i), data=data)))
    assert [images.find(1000 + i, 0) is not None for i in range(100)] == [
        i >= 100 - kept for i in range(100)
    ]
