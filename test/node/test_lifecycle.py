"""The managed node: its states over the standard services, and what it holds in each."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from graph import (
    Peer,
    box_detection,
    detections,
    header,
    object_box,
    peer,
    running,
    scene_image,
    stamps,
)
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from painter import painter
from rclpy.lifecycle import TransitionCallbackReturn

from mobile_sam.checkpoints import save_safetensors
from mobile_sam.modeling import MOBILE_SAM, Sam
from mobile_sam_ros.models import Models
from mobile_sam_ros.sam_node import SamNode
from mobile_sam_ros.worker import Worker

INPUTS = ("/image", "/detections", "/prompts", "/clicked_point")


def change(graph: Peer, transition: int) -> bool:
    """Asks for a transition; returns whether it succeeded."""
    request = ChangeState.Request(transition=Transition(id=transition))
    return bool(graph.call(ChangeState, "/sam/change_state", request).success)


def state(graph: Peer) -> int:
    return graph.call(GetState, "/sam/get_state", GetState.Request()).current_state.id


def serves(graph: Peer) -> None:
    """An image with a box comes back with a mask."""
    kept = graph.received["segments"]
    graph.stands(graph.images, graph.detections)
    stamp = stamps()
    graph.images.publish(scene_image(0, stamp))
    graph.detections.publish(detections(stamp, box_detection(object_box(0))))
    graph.wait(lambda: [m for m in kept if m.header.stamp == header(stamp).stamp], "segments")


def memory(pid: int) -> float:
    """Returns what a process has allocated and touched, in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    wanted = ("Anonymous:", "Swap:")  # what is put aside by the kernel counts as well
    return sum(int(line.split()[1]) for line in lines if line.startswith(wanted)) / 1024


def test_listens_only_while_it_is_active(tmp_path: Path) -> None:
    with running(tmp_path / "log", autostart="false", stale_after=0.0) as node, peer(node) as graph:
        graph.listen("segments")
        assert state(graph) == State.PRIMARY_STATE_UNCONFIGURED
        assert change(graph, Transition.TRANSITION_CONFIGURE)
        assert state(graph) == State.PRIMARY_STATE_INACTIVE
        assert not any(graph.count_subscribers(name) for name in INPUTS)
        for _ in range(2):
            assert change(graph, Transition.TRANSITION_ACTIVATE)
            serves(graph)
            assert all(graph.count_subscribers(name) for name in INPUTS)
            assert change(graph, Transition.TRANSITION_DEACTIVATE)
            graph.wait(
                lambda: not any(graph.count_subscribers(name) for name in INPUTS), "no inputs"
            )
        assert change(graph, Transition.TRANSITION_CLEANUP)
        assert state(graph) == State.PRIMARY_STATE_UNCONFIGURED
        graph.wait(lambda: not graph.count_publishers("/sam/segments"), "no outputs")
        assert change(graph, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
        assert state(graph) == State.PRIMARY_STATE_FINALIZED


def test_cleaning_up_gives_the_models_memory_back(tmp_path: Path) -> None:
    weights = tmp_path / "large.safetensors"
    torch.manual_seed(0)
    save_safetensors(Sam(MOBILE_SAM), weights)
    megabytes = weights.stat().st_size / 2**20
    with running(tmp_path / "log", autostart="false", weights=str(weights)) as node:
        with peer(node) as graph:
            before = None
            for _ in range(3):  # what the first time loads besides stays
                assert change(graph, Transition.TRANSITION_CONFIGURE)
                configured = memory(node.process.pid)
                assert change(graph, Transition.TRANSITION_CLEANUP)
                time.sleep(0.5)
                if before is not None:
                    assert memory(node.process.pid) < before + 0.25 * megabytes
                before = memory(node.process.pid)
                assert configured - before > 0.6 * megabytes


def test_a_model_that_cannot_be_had_leaves_the_node_as_it_was(tmp_path: Path) -> None:
    weights = tmp_path / "later.safetensors"
    with running(
        tmp_path / "log", autostart="false", weights=str(weights), stale_after=0.0
    ) as node, peer(node) as graph:  # fmt: skip
        graph.listen("segments")
        assert not change(graph, Transition.TRANSITION_CONFIGURE)
        assert state(graph) == State.PRIMARY_STATE_UNCONFIGURED
        assert node.said("later.safetensors")
        torch.manual_seed(0)
        save_safetensors(Sam(MOBILE_SAM), weights)
        assert change(graph, Transition.TRANSITION_CONFIGURE)
        assert state(graph) == State.PRIMARY_STATE_INACTIVE


def test_an_active_node_can_be_shut_down(tmp_path: Path) -> None:
    with running(tmp_path / "log", stale_after=0.0) as node, peer(node) as graph:
        graph.stands(graph.images)
        assert change(graph, Transition.TRANSITION_ACTIVE_SHUTDOWN)
        assert state(graph) == State.PRIMARY_STATE_FINALIZED
        graph.wait(lambda: not any(graph.count_subscribers(name) for name in INPUTS), "no inputs")
        graph.wait(lambda: not graph.count_publishers("/sam/segments"), "no outputs")


@pytest.fixture
def node(ros: None) -> Iterator[SamNode]:
    """The node in this process, not configured yet."""
    node = SamNode(Models(), Worker(), ("--ros-args", "-p", "weights:=demo"))
    yield node
    node.close()
    node.destroy_node()


def label(node: SamNode) -> str:
    return node._state_machine.current_state[1]


def test_what_nobody_expects_is_said_and_all_can_begin_anew(
    node: SamNode, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """rclpy is silent about what a transition raises."""

    def fails(*arguments: Any, **named: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal instruction was encountered")

    with monkeypatch.context() as broken:
        broken.setattr(node._models, "load", fails)
        assert node.trigger_configure() == TransitionCallbackReturn.ERROR
    said = capfd.readouterr().err
    assert "on_configure failed" in said and "an illegal instruction" in said
    assert label(node) == "unconfigured"

    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    listened, outputs = node.create_subscription, node.count_publishers("/sam/segments")
    assert outputs == 1
    with monkeypatch.context() as broken:
        broken.setattr(  # of five, the third one
            node,
            "create_subscription",
            lambda kind, name, *more, **named: (fails if name == "prompts" else listened)(
                kind, name, *more, **named
            ),
        )
        assert node.trigger_activate() == TransitionCallbackReturn.ERROR
    assert "on_activate failed" in capfd.readouterr().err
    assert label(node) == "unconfigured"
    assert not any(node.count_subscribers(name) for name in INPUTS)
    assert not node.count_publishers("/sam/segments")

    assert node.start() and label(node) == "active"
    assert all(node.count_subscribers(name) for name in INPUTS)


def test_memory_is_flat_over_many_lives(node: SamNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configured, activated, deactivated, cleaned up, and so on."""
    monkeypatch.setattr(node._models, "load", lambda _: painter())
    used, threads = [], []
    for _ in range(3):
        for _ in range(6):
            for transition in ("configure", "activate", "deactivate", "cleanup"):
                trigger = getattr(node, f"trigger_{transition}")
                assert trigger() == TransitionCallbackReturn.SUCCESS
        gc.collect()
        used.append(memory(os.getpid()))
        threads.append(len(os.listdir("/proc/self/task")))
    assert used[-1] - used[0] < 2.0 and threads[-1] == threads[0], (used, threads)
