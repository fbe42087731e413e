"""Objects that are followed, on a real graph: by prompts, by clicks, by a detector's boxes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Point
from graph import (
    RELIABLE,
    Peer,
    box_detection,
    detections,
    header,
    peer,
    pixels,
    running,
    stamps,
)
from mobile_sam_ros.msg import Prompt, PromptArray, PromptPoint, Segment, SegmentArray
from mobile_sam_ros.srv import Segment as SegmentService
from std_srvs.srv import Trigger

from mobile_sam.scenes import MovingScene
from mobile_sam.segments import inner_points, tight_box
from mobile_sam.training.evaluate import mask_iou
from mobile_sam_ros.conversions import image_message

SCENE = MovingScene(5, (480, 640), 4)


@pytest.fixture
def graph(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Peer]:
    parameters = {"stale_after": 0.0} | getattr(request, "param", {})
    with running(tmp_path / "log", **parameters) as node, peer(node) as graph:
        graph.listen("segments")
        graph.stands()
        yield graph


def with_parameters(**parameters: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("graph", [parameters], indirect=True)


def truth(index: int, label: int) -> np.ndarray:
    return SCENE.frame(index).labels == label


def middle(index: int, label: int) -> PromptPoint:
    (x, y) = inner_points(truth(index, label), 1)[0].tolist()
    return PromptPoint(x=x, y=y, label=PromptPoint.FOREGROUND)


def box(index: int, label: int) -> tuple[float, ...]:
    return tuple(tight_box(truth(index, label)).tolist())


def show(graph: Peer, index: int, without: Collection[int] = ()) -> int:
    """Publishes an image; returns its stamp."""
    stamp = stamps()
    image = SCENE.frame(index, without).image
    graph.images.publish(image_message(image, "rgb8", header(stamp)))
    return stamp


def result(graph: Peer, stamp: int) -> SegmentArray:
    """Waits for the segments of the image with a stamp."""
    wanted = header(stamp).stamp

    def found() -> SegmentArray | None:
        kept = graph.received["segments"]
        return next((m for m in reversed(kept) if m.header.stamp == wanted), None)

    return graph.wait(found, "segments of the image")


def mask(segment: Segment) -> np.ndarray:
    whole = np.zeros((480, 640), bool)
    roi = segment.roi
    if roi.width:
        rows = slice(roi.y_offset, roi.y_offset + roi.height)
        columns = slice(roi.x_offset, roi.x_offset + roi.width)
        whole[rows, columns] = pixels(segment.mask).reshape(roi.height, roi.width) > 0
    return whole


def assert_on(segment: Segment, index: int, label: int) -> None:
    assert segment.state == Segment.ACTIVE and segment.unseen == 0
    assert 0.3 < segment.confidence <= 1
    assert mask_iou(mask(segment), truth(index, label)) > 0.75


def test_one_object_is_renamed_and_removed_while_the_other_goes_on(graph: Peer) -> None:
    def say(mode: int, **fields: Any) -> None:
        graph.prompts.publish(PromptArray(mode=mode, prompts=[Prompt(**fields)]))

    def names(message: SegmentArray) -> list[tuple[str, str]]:
        return [(segment.id, segment.class_id) for segment in message.segments]

    def shown(index: int, wanted: list[tuple[str, str]]) -> None:
        graph.wait(lambda: names(result(graph, show(graph, index))) == wanted, f"only {wanted}")

    stamp = show(graph, 0)
    prompts = [Prompt(id="mug", class_id="cup", points=[middle(0, 3)])]
    prompts.append(Prompt(id="plum", points=[middle(0, 4)]))
    tracked = PromptArray(header=header(stamp), mode=PromptArray.TRACKED, prompts=prompts)
    graph.prompts.publish(tracked)
    assert names(result(graph, stamp)) == [("mug", "cup"), ("plum", "")]
    say(PromptArray.RENAME, id="plum", class_id="fruit")
    shown(1, [("mug", "cup"), ("plum", "fruit")])
    say(PromptArray.REMOVE, id="mug")
    shown(2, [("plum", "fruit")])
    (plum,) = result(graph, show(graph, 3)).segments
    assert_on(plum, 3, 4)
    say(PromptArray.REMOVE, id="mug")
    process = graph._process
    graph.wait(lambda: process.said("no object with id 'mug' stands or is followed"), "that")

    say(PromptArray.REMOVE, id="plum")
    for name in ("left", "right"):
        say(PromptArray.UNTIL_CLEARED, id=name, points=[middle(4, 4)])
    shown(4, [("left", ""), ("right", "")])
    say(PromptArray.RENAME, id="right", class_id="fruit")
    shown(5, [("left", ""), ("right", "fruit")])
    say(PromptArray.REMOVE, id="left")
    shown(6, [("right", "fruit")])


def test_one_id_is_one_object_however_it_was_shown(graph: Peer) -> None:
    """Followed, then standing, then followed again; and what waits to be followed can be taken
    back."""

    def say(mode: int, stamp: int, index: int, *names: str) -> None:
        prompts = [Prompt(id=name, points=[middle(index, 3)]) for name in names]
        graph.prompts.publish(PromptArray(header=header(stamp), mode=mode, prompts=prompts))

    def states(stamp: int) -> list[tuple[str, int]]:
        return [(segment.id, segment.state) for segment in result(graph, stamp).segments]

    def shown(index: int, wanted: list[tuple[str, int]]) -> None:
        graph.wait(lambda: states(show(graph, index)) == wanted, f"only {wanted}")

    stamp = show(graph, 0)
    say(PromptArray.TRACKED, stamp, 0, "mug")
    assert states(stamp) == [("mug", Segment.ACTIVE)]
    say(PromptArray.UNTIL_CLEARED, stamp, 0, "mug")
    shown(1, [("mug", Segment.NOT_TRACKED)])
    stamp = show(graph, 2)
    say(PromptArray.TRACKED, stamp, 2, "mug")
    graph.wait(lambda: states(stamp) == [("mug", Segment.ACTIVE)], "that it is followed")
    shown(3, [("mug", Segment.ACTIVE)])
    say(PromptArray.UNTIL_CLEARED, 0, 3, "mug")
    shown(3, [("mug", Segment.NOT_TRACKED)])
    request = SegmentService.Request(prompts=[Prompt(id="mug", points=[middle(3, 3)])], track=True)
    assert graph.call(SegmentService, "/sam/segment", request).success
    shown(3, [("mug", Segment.ACTIVE)])

    to_come = stamps() + 10**10
    say(PromptArray.TRACKED, to_come, 4, "plum", "pear")
    say(PromptArray.REMOVE, 0, 4, "plum")
    graph.images.publish(image_message(SCENE.frame(4).image, "rgb8", header(to_come)))
    graph.wait(lambda: "pear" in dict(states(to_come)), "the one that was not taken back")
    assert dict(states(to_come)).keys() == {"mug", "pear"}
    assert not graph._process.said("no object with id")


def test_a_detector_of_whom_nothing_can_be_used_takes_no_image_from_the_rest(graph: Peer) -> None:
    """Its stamps are those of another clock."""
    stamp = show(graph, 0)
    prompts = [Prompt(id="mug", points=[middle(0, 3)])]
    graph.prompts.publish(PromptArray(header=header(stamp), mode=1, prompts=prompts))
    result(graph, stamp)
    for index in range(1, 4):
        graph.detections.publish(detections(10**9 + index, box_detection((10, 10, 60, 60))))
        graph.wait(lambda: graph._process.said("no image has stamp 1.0"), "what is wrong with it")
        (mug,) = result(graph, show(graph, index)).segments
        assert mug.id == "mug"


def test_an_image_that_was_held_for_long_starts_an_object_too(graph: Peer) -> None:
    """By the service, with the image in the request: what has moved since is found again."""
    for index in range(25):  # more than the node keeps
        show(graph, index)
    held = image_message(SCENE.frame(0).image, "rgb8", header(stamps() - 10**10))
    request = SegmentService.Request(image=held, prompts=[Prompt(id="mug", points=[middle(0, 3)])])
    request.track = True
    answer = graph.call(SegmentService, "/sam/segment", request)
    (mug,) = answer.segments.segments
    assert answer.success and mask_iou(mask(mug), truth(0, 3)) > 0.75
    for index in range(25, 45):
        (mug,) = result(graph, show(graph, index)).segments
    assert mug.id == "mug"
    assert_on(mug, 44, 3)


def test_a_point_on_one_image_and_the_mask_follows(graph: Peer) -> None:
    """Until the object is gone, which is said; it is found again, and forgotten when asked."""
    prompts = [Prompt(id="mug", class_id="cup", points=[middle(0, 3)])]
    prompts.append(Prompt(id="plum", points=[middle(0, 4)]))
    stamp = show(graph, 0)
    tracked = PromptArray(header=header(stamp), mode=PromptArray.TRACKED, prompts=prompts)
    graph.prompts.publish(tracked)
    for index in range(20):
        stamp = stamp if index == 0 else show(graph, index)
        mug, plum = result(graph, stamp).segments
        assert (mug.id, mug.class_id, mug.label, mug.age) == ("mug", "cup", 1, index)
        assert_on(mug, index, 3)
        assert_on(plum, index, 4)
    states = []
    for index in range(20, 30):
        mug, plum = result(graph, show(graph, index, without=(3,))).segments
        states.append(mug.state)
        assert mug.area == 0 and mug.roi.width == 0 and mug.confidence == 0
        assert mug.unseen == index - 19
        assert_on(plum, index, 4)
    assert states == [Segment.OCCLUDED] * 4 + [Segment.LOST] * 6
    graph.wait(lambda: graph.number("tracks_lost") == 1, "the diagnostics say so")
    assert graph.number("tracks_active") == 1
    for index in range(30, 35):
        mug, _ = result(graph, show(graph, index)).segments
    assert_on(mug, 34, 3)
    assert "2 prompts" in graph.call(Trigger, "/sam/clear_prompts", Trigger.Request()).message
    count = len(graph.received["segments"])
    show(graph, 35)
    graph.spin_for(0.7)
    assert len(graph.received["segments"]) == count


@with_parameters(track_clicks="true")
def test_a_click_follows_its_object(graph: Peer) -> None:
    """The next click chooses another one."""
    clicks = graph.create_publisher(Point, "image_mouse_left", RELIABLE)
    graph.stands(clicks)
    first = show(graph, 0)
    graph.spin_for(0.2)
    for label in (4, 2):
        at = middle(0, label)
        clicks.publish(Point(x=at.x, y=at.y))
        (segment,) = result(graph, first).segments
        for index in range(1, 4):
            (segment,) = result(graph, show(graph, index)).segments
            assert segment.id == "click"
        assert_on(segment, 3, label)
        first = show(graph, 0)
        result(graph, first)
        graph.received["segments"].clear()


@with_parameters(track_detections="true")
def test_boxes_start_objects_and_every_image_has_them(graph: Peer) -> None:
    """A detector that is slow, late and names nothing; a box of a known object is no new one."""
    earlier = show(graph, 0)
    graph.detections.publish(
        detections(earlier, *(box_detection(box(0, label)) for label in (3, 4)))
    )
    names = [segment.id for segment in result(graph, earlier).segments]
    assert names == ["track_1", "track_2"]
    kept_stamps = {}
    for index in range(1, 6):
        kept_stamps[index] = show(graph, index)
        segments = result(graph, kept_stamps[index]).segments
        assert [segment.id for segment in segments] == names
        for segment, label in zip(segments, (3, 4), strict=True):
            assert_on(segment, index, label)
            assert segment.class_id == "thing"
    # Of an image that has its masks already, with nothing new: it is not published again.
    known = [box_detection(box(5, label)) for label in (3, 4)]
    graph.detections.publish(detections(kept_stamps[5], *known))
    graph.spin_for(0.5)
    assert [m.header.stamp for m in graph.received["segments"]].count(
        header(kept_stamps[5]).stamp
    ) == 1
    # Of an image that is long over, with one more object.
    late = [box_detection(box(2, label), score=0.5) for label in (4, 3, 1)]
    graph.detections.publish(detections(kept_stamps[2], *late))
    graph.spin_for(0.5)
    assert [m.header.stamp for m in graph.received["segments"]].count(
        header(kept_stamps[2]).stamp
    ) == 1
    segments = result(graph, show(graph, 6)).segments
    assert [segment.id for segment in segments] == [*names, "track_3"]
    assert [segment.score for segment in segments] == [0.5] * 3
    for segment, label in zip(segments, (3, 4, 1), strict=True):
        assert_on(segment, 6, label)


@with_parameters(track_detections="true", track_forget_after="0.3", max_objects="2")
def test_detections_with_ids_keep_them_and_lost_ones_make_room(graph: Peer) -> None:
    stamp = show(graph, 0)
    items = [box_detection(box(0, label), f"car {label}", 0.1 * label) for label in (3, 4, 1)]
    graph.detections.publish(detections(stamp, *items))
    assert [s.id for s in result(graph, stamp).segments] == ["car 4", "car 3"]
    graph.wait(lambda: graph._process.said("max_objects is 2"), "what is left out is said")
    for index in range(1, 12):
        segments = result(graph, show(graph, index, without=(3,))).segments
        graph.spin_for(0.06)
    assert [s.id for s in segments] == ["car 4"]
    stamp = show(graph, 12)
    graph.detections.publish(detections(stamp, box_detection(box(12, 1), "car 1")))
    for index in range(13, 40):  # the detections may come after some of these images
        segments = result(graph, show(graph, index)).segments
        if len(segments) > 1:
            break
    assert [s.id for s in segments] == ["car 4", "car 1"]
    assert_on(segments[1], index, 1)


def test_a_new_size_of_images_is_said_and_survived(graph: Peer) -> None:
    stamp = show(graph, 0)
    prompt = PromptArray(header=header(stamp), mode=PromptArray.TRACKED)
    prompt.prompts = [Prompt(id="a", points=[middle(0, 4)])]
    graph.prompts.publish(prompt)
    result(graph, stamp)
    other = stamps()
    image = SCENE.frame(1).image[:240]
    graph.images.publish(image_message(image, "rgb8", header(other)))
    assert not result(graph, other).segments
    graph.wait(lambda: graph._process.said("another size than before"), "it is said")
    again = show(graph, 2)
    prompt.header = header(again)
    prompt.prompts = [Prompt(id="a", points=[middle(2, 4)])]
    graph.prompts.publish(prompt)
    assert_on(result(graph, again).segments[0], 2, 4)
    # Of an image of the other size, too late to be followed.
    late = PromptArray(header=header(other), mode=PromptArray.TRACKED)
    late.prompts = [Prompt(id="b", points=[PromptPoint(x=99.0, y=99.0, label=1)])]
    graph.prompts.publish(late)
    graph.spin_for(0.5)
    segments = result(graph, show(graph, 3)).segments
    assert [segment.id for segment in segments] == ["a"]
    assert_on(segments[0], 3, 4)
