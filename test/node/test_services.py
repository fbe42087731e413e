"""Services, everything on a timer, label names and the compressed overlay, on a real graph."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from graph import (
    SCENE,
    Peer,
    Process,
    box_detection,
    detections,
    peer,
    pixels,
    running,
    scene_image,
    stamps,
)
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from mobile_sam_ros.msg import Prompt, PromptArray, PromptPoint, SegmentArray
from mobile_sam_ros.srv import Segment, SegmentEverything
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from vision_msgs.msg import LabelInfo

from mobile_sam.segments import tight_box

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    log = tmp_path_factory.mktemp("services") / "sam.log"
    settings = {"everything_points_per_side": 4, "everything_min_predicted_iou": 0.3}
    with running(log, stale_after=0.0, everything_min_stability=0.3, **settings) as process:
        yield process
        assert process.process.poll() is None, log.read_text()


@pytest.fixture
def graph(node: Process) -> Iterator[Peer]:
    with peer(node) as other:
        other.stands(other.images)  # active
        yield other


def box_prompt(label: int, index: int = 0, name: str = "") -> Prompt:
    box = tight_box(SCENE().frame(index).labels == label)
    return Prompt(id=name, class_id="toy", box=box.tolist())


def whole_mask(segments: SegmentArray, index: int) -> np.ndarray:
    segment = segments.segments[index]
    mask, roi = np.zeros((segments.height, segments.width), bool), segment.roi
    rows = slice(roi.y_offset, roi.y_offset + roi.height)
    columns = slice(roi.x_offset, roi.x_offset + roi.width)
    mask[rows, columns] = pixels(segment.mask).reshape(roi.height, roi.width) > 0
    return mask


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def test_without_an_image_the_answer_says_so(graph: Peer) -> None:
    """First of all: nothing has come yet."""
    for kind, name in ((Segment, "segment"), (SegmentEverything, "segment_everything")):
        response = graph.call(kind, f"/sam/{name}", kind.Request())
        assert not response.success
        assert response.message == "no image has come on /image, and the request has none"


def test_segment_an_image_of_the_request(graph: Peer) -> None:
    point = PromptPoint(x=0.0, y=0.0, label=PromptPoint.FOREGROUND)
    box = tight_box(SCENE().frame(0).labels == 3)
    point.x, point.y = float(box[::2].mean()), float(box[1::2].mean())
    request = Segment.Request(image=scene_image(0, 12_000_000_034, "hand"))
    request.prompts = [box_prompt(3, name="mine"), Prompt(points=[point])]
    response = graph.call(Segment, "/sam/segment", request)
    assert response.success and response.message == ""
    segments = response.segments
    assert segments.header == request.image.header
    assert [s.id for s in segments.segments] == ["mine", "prompt_1"]
    assert segments.segments[0].class_id == "toy"
    truth = SCENE().frame(0).labels == 3
    assert all(iou(whole_mask(segments, i), truth) > 0.6 for i in (0, 1))


def test_a_request_comes_before_all_that_waits(graph: Peer) -> None:
    kept = graph.listen("segments")
    graph.stands(graph.images, graph.prompts)
    names = [f"once_{i}" for i in range(8)]
    images = [scene_image(i, (50 + i) * 10**9) for i in range(4)]  # as many as DDS keeps at once
    for image in images:
        graph.images.publish(image)
    for i, name in enumerate(names):  # each on another image than the one before it
        prompts = [box_prompt(3, i % 4, name)]
        graph.prompts.publish(PromptArray(header=images[i % 4].header, prompts=prompts))
    request = Segment.Request(image=scene_image(0, 5), prompts=[box_prompt(3)])
    assert graph.call(Segment, "/sam/segment", request).success
    before = len(kept)
    graph.wait(lambda: len(kept) == len(names), "all that was asked for once")
    assert sorted(s.id for message in kept for s in message.segments) == names
    assert before < len(names) / 2


def test_bad_requests_are_answered_and_the_next_is_served(graph: Peer) -> None:
    good = scene_image(0, 5)
    for image, prompts, text in (
        (good, [], "the request has no prompts"),
        (good, [Prompt(box=[1.0, 2.0])], "box has 2 numbers"),
        (good, [Prompt(box=[900.0, 900.0, 950.0, 950.0])], "lies outside of the image"),
        (Image(height=4, width=4, encoding="rgb8", step=12), [box_prompt(1)], "0"),
        (Image(height=1, width=1, encoding="sixteen", step=1), [box_prompt(1)], "sixteen"),
    ):
        response = graph.call(
            Segment, "/sam/segment", Segment.Request(image=image, prompts=prompts)
        )
        assert not response.success and text in response.message
    mixed = Segment.Request(image=good, prompts=[Prompt(id="bad", box=[1.0]), box_prompt(3)])
    response = graph.call(Segment, "/sam/segment", mixed)
    assert response.success and len(response.segments.segments) == 1
    assert "'bad': box has 1 numbers" in response.message


def test_everything_in_the_newest_image_while_streaming(graph: Peer) -> None:
    kept = graph.listen("segments")
    graph.stands()
    future, newest = None, 0
    for index in range(60):
        newest = (index + 1) * 1_000_000_000
        graph.images.publish(scene_image(index % 5, newest))
        graph.detections.publish(
            detections(newest, box_detection(tuple(tight_box(SCENE().frame(0).labels == 3))))
        )
        if future is None and kept:  # images of this stream have come, so that one is the newest
            request = SegmentEverything.Request()
            future = graph.ask(SegmentEverything, "/sam/segment_everything", request)
        graph.spin_for(0.05)
        if future is not None and future.done() and len(kept) > 5:
            break
    assert future is not None
    graph.wait(future.done, "an answer while images come")
    response = future.result()
    assert response.success and len(response.segments.segments) >= 2
    assert 0 < response.segments.header.stamp.sec * 1_000_000_000 <= newest
    names = [s.id for s in response.segments.segments]
    assert names == [f"everything_{i + 1}" for i in range(len(names))]
    scores = [s.predicted_iou for s in response.segments.segments]
    assert scores == sorted(scores, reverse=True)
    assert len(kept) > 1  # the stream went on


def test_label_names_and_the_compressed_overlay(graph: Peer) -> None:
    overlays, raw = graph.listen("overlay/compressed"), graph.listen("overlay")
    labels = graph.listen("labels")
    graph.stands()
    stamp = 900_000_000_000
    graph.images.publish(scene_image(3, stamp))
    boxes = [tuple(tight_box(SCENE().frame(3).labels == i)) for i in (2, 3)]
    graph.detections.publish(detections(stamp, *(box_detection(box) for box in boxes)))
    graph.wait(lambda: overlays and raw and labels, "the outputs")
    # Only now: who comes late hears it as well.
    infos = graph.listen("label_info", LabelInfo, LATCHED)
    graph.wait(lambda: infos, "the label names")
    assert [(c.class_id, c.class_name) for c in infos[-1].class_map] == [(1, "thing"), (2, "thing")]
    assert infos[-1].header == labels[-1].header
    assert set(np.unique(pixels(labels[-1]))) == {0, 1, 2}
    assert overlays[-1].header == raw[-1].header and "jpeg" in overlays[-1].format
    decoded = cv2.imdecode(np.frombuffer(overlays[-1].data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decoded.astype(int) - pixels(raw[-1])).mean() < 8


def test_everything_on_a_timer(tmp_path: Path) -> None:
    settings = {"everything_points_per_side": 3, "everything_min_predicted_iou": 0.3}
    with (
        running(
            tmp_path / "log",
            everything_period=0.5,
            everything_min_stability=0.3,
            stale_after=0.0,
            **settings,
        ) as node,
        peer(node) as graph,
    ):
        kept = graph.listen("segments")
        graph.stands(graph.images)
        begin = time.monotonic()
        for index in range(200):
            graph.images.publish(scene_image(0, (index + 1) * 100_000_000))
            graph.spin_for(0.1)
            if len(kept) >= 3:
                break
        assert len(kept) >= 3 and time.monotonic() - begin > 1  # two periods
        assert all(s.id.startswith("everything_") for s in kept[0].segments)
        assert len(kept[0].segments) >= 1


def test_everything_that_takes_longer_than_its_period_leaves_time_for_the_rest(
    tmp_path: Path,
) -> None:
    settings = {"everything_points_per_side": 16, "everything_min_predicted_iou": 0.3}
    with (
        running(tmp_path / "log", everything_period=0.01, stale_after=0.0, **settings) as node,
        peer(node) as graph,
    ):
        kept = graph.listen("segments")
        graph.stands(graph.images, graph.prompts)
        graph.prompts.publish(PromptArray(mode=1, prompts=[box_prompt(3, name="mine")]))

        def both() -> bool:
            graph.images.publish(scene_image(0, stamps()))
            graph.spin_for(0.05)
            names = [s.id for message in kept for s in message.segments]
            return names.count("mine") >= 3 and any(n.startswith("everything") for n in names)

        graph.wait(both, "masks of either kind")


def test_an_inactive_node_says_so(tmp_path: Path) -> None:
    with running(tmp_path / "log", autostart="false") as node, peer(node) as graph:
        request = Segment.Request(image=scene_image(0, 1), prompts=[box_prompt(3)])
        response = graph.call(Segment, "/sam/segment", request)
        assert not response.success and response.message == "the node is not active"
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            change = ChangeState.Request(transition=Transition(id=transition))
            assert graph.call(ChangeState, "/sam/change_state", change).success
        assert graph.call(Segment, "/sam/segment", request).success
        newest = Segment.Request(prompts=[box_prompt(3)])
        graph.stands(graph.images)
        graph.images.publish(scene_image(0, 1))
        graph.wait(lambda: graph.call(Segment, "/sam/segment", newest).success, "its image")
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            change = ChangeState.Request(transition=Transition(id=transition))
            assert graph.call(ChangeState, "/sam/change_state", change).success
        response = graph.call(Segment, "/sam/segment", newest)  # what was seen then is no answer
        assert not response.success and response.message.startswith("no image has come on /image")
        assert "_sam_services" in graph.get_node_names()
