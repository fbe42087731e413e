"""The node process under a stream of anything: it lives, and the next good image gets its mask.

With ROS 2's checks of message fields on, as they always are on Humble.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import strategies as some
from effort import cases
from geometry_msgs.msg import Point, PointStamped
from graph import (
    RELIABLE,
    Peer,
    Process,
    box_detection,
    detections,
    header,
    object_box,
    object_mask,
    peer,
    pixels,
    running,
    scene_image,
    stamps,
)
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from mobile_sam_ros.msg import Prompt, PromptArray, PromptPoint
from mobile_sam_ros.srv import Segment, SegmentEverything
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from std_srvs.srv import Trigger

from mobile_sam_ros.parameters import Parameters

# What a node may be told without being finalized, or created anew.
TRANSITIONS = [0, 1, 2, 3, 4, 9, 10, 60, 90, 255]
CHANGEABLE = ("max_objects", "min_score", "classes", "match_slop", "box_padding", "overlay_alpha",
              "track_detections", "max_image_pixels", "detections_width")  # fmt: skip


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    log = tmp_path_factory.mktemp("fuzz") / "sam.log"
    strict = {"ROS_PYTHON_CHECK_FIELDS": "1", "PYTHONFAULTHANDLER": "1"}
    with running(log, stale_after=0.0, everything_points_per_side=2, environ=strict) as process:
        yield process
        assert process.process.poll() is None, log.read_text()


@pytest.fixture(scope="module")
def graph(node: Process) -> Iterator[Peer]:
    with peer(node) as other:
        other.sent = set()
        other.listen("segments")
        other.listen("mask")
        other.clicks = other.create_publisher(PointStamped, "clicked_point", RELIABLE)
        other.mouse = other.create_publisher(Point, "image_mouse_left", RELIABLE)
        other.stands(other.images, other.detections, other.prompts, other.clicks, other.mouse)
        yield other


@st.composite
def values(draw: st.DrawFn) -> ParameterValue:
    """A parameter's value of any type."""
    kind = draw(st.integers(0, 9))
    value = ParameterValue(type=kind)
    value.bool_value = draw(st.booleans())
    value.integer_value = draw(st.integers(-3, 100) | st.integers(-(2**63), 2**63 - 1))
    value.double_value = draw(st.floats(0, 1) | some.doubles)
    value.string_value = draw(some.text)
    return value


@st.composite
def requests(draw: st.DrawFn) -> tuple[Any, str, Any]:
    """Type, name and request of a service."""
    kind = draw(st.sampled_from(["set", "set", "change", "segment", "everything", "clear"]))
    if kind == "set":
        names = st.sampled_from([*CHANGEABLE, "weights", "use_sim_time"]) | some.text
        names = names.filter(lambda name: name != "use_sim_time")
        parameters = [
            Parameter(name=draw(names), value=draw(values()))
            for _ in range(draw(st.integers(1, 3)))
        ]
        return SetParameters, "set_parameters", SetParameters.Request(parameters=parameters)
    if kind == "change":
        transition = Transition(id=draw(st.sampled_from(TRANSITIONS)))
        transition.label = draw(st.sampled_from(["", "", "", "nonsense", "activate"]))
        return ChangeState, "change_state", ChangeState.Request(transition=transition)
    if kind == "segment":
        request = Segment.Request(image=draw(some.images()))
        request.prompts = draw(st.lists(some.prompts(), max_size=3))
        return Segment, "segment", request
    if kind == "everything":
        image = draw(some.images())
        return SegmentEverything, "segment_everything", SegmentEverything.Request(image=image)
    return Trigger, "clear_prompts", Trigger.Request()


def points() -> st.SearchStrategy[Point]:
    return st.builds(Point, x=some.coordinates, y=some.coordinates, z=some.doubles)


STREAM = st.lists(
    st.one_of(
        some.images().map(lambda m: ("images", m)),
        some.detection_arrays().map(lambda m: ("detections", m)),
        some.prompt_arrays().map(lambda m: ("prompts", m)),
        points().map(lambda m: ("clicks", PointStamped(point=m))),
        points().map(lambda m: ("mouse", m)),
        requests().map(lambda r: ("call", r)),
    ),
    min_size=10,
    max_size=30,
)


def recover(graph: Peer) -> None:
    """Undoes what was asked for, so that the next good image is to be served."""

    def state() -> int:
        return graph.call(GetState, "/sam/get_state", GetState.Request()).current_state.id

    for here, transition in (
        (State.PRIMARY_STATE_UNCONFIGURED, Transition.TRANSITION_CONFIGURE),
        (State.PRIMARY_STATE_INACTIVE, Transition.TRANSITION_ACTIVATE),
    ):
        if state() == here:
            request = ChangeState.Request(transition=Transition(id=transition))
            assert graph.call(ChangeState, "/sam/change_state", request).success
    defaults = Parameters()
    request = SetParameters.Request()
    for name in CHANGEABLE:
        default = getattr(defaults, name)
        kinds = {bool: (1, "bool"), int: (2, "integer"), float: (3, "double"), str: (4, "string")}
        number, kind = kinds[type(default)]
        value = ParameterValue(type=number, **{f"{kind}_value": default})
        request.parameters.append(Parameter(name=name, value=value))
    answer = graph.call(SetParameters, "/sam/set_parameters", request)
    assert all(result.successful for result in answer.results), answer
    graph.call(Trigger, "/sam/clear_prompts", Trigger.Request())


def served(graph: Peer) -> None:
    """The next good image gets its mask."""
    kept, masks = graph.received["segments"], graph.received["mask"]
    kept.clear()
    masks.clear()
    graph.stands(graph.images, graph.detections)
    stamp = stamps()
    graph.sent.add(divmod(stamp, 10**9))
    graph.images.publish(scene_image(0, stamp))
    graph.detections.publish(detections(stamp, box_detection(object_box(0), "good")))

    def good() -> list[Any]:
        return [m for m in masks if m.header.stamp == header(stamp).stamp]

    graph.wait(good, "the good image")
    # Clicks that were on their way may be served with it, in a message of their own.
    graph.wait(lambda: "good" in [s.id for m in kept for s in m.segments], "its segments")
    wanted = object_mask(0)
    overlaps = [
        np.count_nonzero(found & wanted) / np.count_nonzero(found | wanted)
        for found in (pixels(message) > 0 for message in good())
    ]
    assert max(overlaps) > 0.6
    kept.clear()


def test_messages_that_rclpy_cannot_read(graph: Peer, node: Process) -> None:
    """The checks refuse the largest float32, and rclpy raises while it takes the message: without
    care its callback group is locked from then on, and the node is deaf."""
    point = PromptPoint(label=1)
    point._x = float(np.finfo(np.float32).max)  # past the checks here, which others do not have
    for _ in range(3):
        graph.prompts.publish(PromptArray(prompts=[Prompt(id="far", points=[point])]))
        graph.ask(Segment, "/sam/segment", Segment.Request(prompts=[Prompt(points=[point])]))
    graph.wait(lambda: node.said("/prompts: a message that cannot be read"), "the complaint")
    graph.wait(lambda: node.said("/sam/segment: a message that cannot be read"), "the other one")
    recover(graph)
    served(graph)


@pytest.mark.timeout(3600)
@settings(max_examples=cases(5), phases=[Phase.generate])
@given(stream=STREAM)
def test_lives_and_serves(stream: list[tuple[str, Any]], graph: Peer, node: Process) -> None:
    for kind, message in stream:
        if kind == "call":
            service, name, request = message
            answer = graph.ask(service, f"/sam/{name}", request)
            # One that rclpy cannot read, as below, has no answer.
            unread = node.said(f"/sam/{name}: a message that cannot be read")
            if not unread:
                graph.wait(
                    lambda a=answer, n=name: a.done() or node.said(f"/sam/{n}: a message that"),
                    f"an answer of {name}",
                )
            else:
                graph.spin_for(0.2)
            continue
        if kind == "images":
            graph.sent.add((message.header.stamp.sec, message.header.stamp.nanosec))
        getattr(graph, kind).publish(message)
    recover(graph)
    for message in graph.received["segments"]:  # of what was sent, and of nothing else
        stamp = (message.header.stamp.sec, message.header.stamp.nanosec)
        assert stamp in graph.sent, stamp
    served(graph)
    assert "Traceback" not in node.log.read_text(), node.log.read_text()
