"""The node as its users see it: a process, topics, and what comes back."""

import signal
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest
from geometry_msgs.msg import Point, PointStamped
from graph import (
    RELIABLE,
    SCENE,
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
from mobile_sam_ros.msg import Prompt, PromptArray, PromptPoint
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger

from mobile_sam_ros.conversions import image_message

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One node for all tests that leave it as it was; bad input is part of that."""
    log = tmp_path_factory.mktemp("node") / "sam.log"
    with running(log, stale_after=0.0, backend="auto") as process:
        yield process
        assert process.process.poll() is None, log.read_text()


@pytest.fixture
def graph(node: Process) -> Iterator[Peer]:
    """A peer of that node."""
    with peer(node) as other:
        yield other
        other.call(Trigger, "/sam/clear_prompts", Trigger.Request())


def serve(graph: Peer, output: list, index: int = 0) -> None:
    """The node serves a good image with a good box."""
    stamp = stamps()
    graph.images.publish(scene_image(index, stamp))
    graph.detections.publish(detections(stamp, box_detection(object_box(index), "good")))
    graph.wait(
        lambda: [m for m in output if header(stamp).stamp == m.header.stamp], "the good image"
    )


def test_a_detection_becomes_a_mask(graph: Peer) -> None:
    kept = {
        name: graph.listen(name) for name in ("mask", "labels", "overlay", "segments", "detections")
    }
    graph.stands()
    stamp = stamps()
    box = object_box(3)
    graph.images.publish(scene_image(3, stamp, "camera_optical"))
    # What leaves the frame_id out is believed.
    graph.detections.publish(detections(stamp, box_detection(box, "it", 0.7), frame_id=""))
    graph.wait(lambda: all(kept.values()), "all outputs")
    for messages in kept.values():
        assert messages[0].header == header(stamp, "camera_optical")

    segment = kept["segments"][0].segments[0]
    assert (segment.id, segment.class_id, segment.label) == ("it", "thing", 1)
    assert segment.score == pytest.approx(0.7)
    mask, labels = pixels(kept["mask"][0]), pixels(kept["labels"][0])
    assert kept["mask"][0].encoding == "mono8" and set(np.unique(mask)) <= {0, 255}
    assert kept["labels"][0].encoding == "16UC1"
    assert ((mask > 0) == (labels == 1)).all()
    wanted = object_mask(3)
    overlap = (wanted & (mask > 0)).sum() / (wanted | (mask > 0)).sum()
    assert overlap > 0.6
    roi = segment.roi
    part = mask[roi.y_offset : roi.y_offset + roi.height, roi.x_offset : roi.x_offset + roi.width]
    assert (pixels(segment.mask) == part).all() and (mask > 0).sum() == (part > 0).sum()
    assert segment.area == (part > 0).sum()
    tight = kept["detections"][0].detections[0]
    assert tight.bbox.size_x == roi.width and tight.id == "it"
    assert tight.bbox.center.position.x == roi.x_offset + roi.width / 2
    overlay = pixels(kept["overlay"][0])
    changed = (overlay != SCENE().frame(3).image).any(axis=2)
    assert changed[mask > 0].mean() > 0.9 and not changed[mask == 0].any()


def test_detections_go_to_the_image_of_their_stamp(graph: Peer) -> None:
    """Not to the newest one: three images later, the detector's answer comes."""
    kept = graph.listen("overlay")
    graph.stands()
    first = stamps()
    for i in range(4):
        graph.images.publish(scene_image(20 * i, first + i))
        graph.spin_for(0.05)
    graph.detections.publish(detections(first, box_detection(object_box(0))))
    message = graph.wait(lambda: kept, "an overlay")[0]
    assert message.header.stamp == header(first).stamp
    outside = pixels(message)[:, :20]
    assert (outside == SCENE().frame(0).image[:, :20]).mean() > 0.9


def test_images_that_come_while_the_node_is_busy_are_kept(graph: Peer, node: Process) -> None:
    """The detector may have been given any of them."""
    kept = graph.listen("segments")
    graph.stands()
    serve(graph, kept)
    first = stamps()
    node.process.send_signal(signal.SIGSTOP)
    for i in range(4):
        graph.images.publish(scene_image(20 * i, first + i))
        graph.spin_for(0.1)
    node.process.send_signal(signal.SIGCONT)
    graph.detections.publish(detections(first, box_detection(object_box(0))))
    graph.wait(
        lambda: [m for m in kept if m.header.stamp == header(first).stamp], "the first image"
    )


def test_detections_before_their_image_wait_for_it(graph: Peer) -> None:
    kept = graph.listen("segments")
    graph.stands()
    stamp = stamps()
    graph.detections.publish(detections(stamp, box_detection(object_box(1))))
    graph.spin_for(0.3)
    assert not kept
    graph.images.publish(scene_image(1, stamp))
    assert graph.wait(lambda: kept, "segments")[0].header.stamp == header(stamp).stamp


def test_detections_without_their_image_are_said(graph: Peer, node: Process) -> None:
    kept = graph.listen("segments")
    graph.stands()
    serve(graph, kept)
    graph.detections.publish(detections(5 * SECOND, box_detection((1, 1, 9, 9))))
    graph.wait(lambda: node.said("/detections: no image has stamp 5.000000000"), "the complaint")
    graph.wait(lambda: graph.number("detections/unmatched"), "the count")
    assert len(kept) == 1


def test_detections_of_another_camera_are_refused(graph: Peer, node: Process) -> None:
    """Cameras that are triggered together have images of equal stamps."""
    kept = graph.listen("segments")
    graph.stands()
    stamp = stamps()
    graph.images.publish(scene_image(0, stamp, "left"))
    graph.detections.publish(
        detections(stamp, box_detection(object_box(0), "wrong"), frame_id="right")
    )
    graph.wait(lambda: node.said("/detections: frame_id 'right' is not that of"), "the complaint")
    graph.detections.publish(
        detections(stamp, box_detection(object_box(0), "good"), frame_id="left")
    )
    graph.wait(lambda: kept, "segments")
    assert [s.id for message in kept for s in message.segments] == ["good"]
    graph.wait(lambda: graph.number("detections/other_frame_id"), "the count")


def test_no_objects_give_empty_outputs(graph: Peer) -> None:
    kept, masks = graph.listen("segments"), graph.listen("mask")
    graph.stands()
    stamp = stamps()
    graph.images.publish(scene_image(0, stamp))
    graph.detections.publish(detections(stamp))
    graph.wait(lambda: kept and masks, "outputs")
    assert not kept[0].segments and not pixels(masks[0]).any()
    assert (kept[0].height, kept[0].width) == (240, 320)


def test_an_image_without_detections_or_prompts_is_not_segmented(graph: Peer) -> None:
    kept = graph.listen("mask")
    graph.stands()
    for i in range(3):
        graph.images.publish(scene_image(i, stamps()))
    graph.spin_for(1.0)
    assert not kept


def test_prompts_once_and_until_cleared(graph: Peer) -> None:
    kept = graph.listen("segments")
    graph.stands()
    box = [float(v) for v in object_box(0)]
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    point = PromptPoint(x=x, y=y, label=PromptPoint.FOREGROUND)
    once = stamps()
    graph.images.publish(scene_image(0, once))
    prompt = PromptArray(header=header(once), mode=PromptArray.ONCE)
    prompt.prompts = [Prompt(id="box", box=box), Prompt(id="point", class_id="c", points=[point])]
    graph.prompts.publish(prompt)
    graph.wait(lambda: kept, "the answer")
    assert [(s.id, s.class_id) for s in kept[0].segments] == [("box", ""), ("point", "c")]
    graph.images.publish(scene_image(0, stamps()))
    graph.spin_for(0.7)
    assert len(kept) == 1

    mask = image_message(
        ((SCENE().frame(0).labels > 0) * np.uint8(255)).astype(np.uint8), "mono8", header(0)
    )
    standing = PromptArray(mode=PromptArray.UNTIL_CLEARED, prompts=[Prompt(box=box, mask=mask)])
    graph.prompts.publish(standing)
    graph.wait(lambda: len(kept) == 2, "the newest image with the standing prompt")
    for i in range(3):
        stamp = stamps()
        graph.images.publish(scene_image(i, stamp))
        graph.wait(lambda s=stamp: kept[-1].header.stamp == header(s).stamp, "the next image")
        assert len(kept[-1].segments) == 1
    assert "1 prompts" in graph.call(Trigger, "/sam/clear_prompts", Trigger.Request()).message
    count = len(kept)
    graph.images.publish(scene_image(0, stamps()))
    graph.spin_for(0.7)
    assert len(kept) == count


@pytest.mark.parametrize("kind", ["PointStamped", "Point"])
def test_a_click_selects(kind: str, graph: Peer) -> None:
    """On `clicked_point`, and as an image viewer sends it."""
    kept = graph.listen("segments")
    stamped = kind == "PointStamped"
    clicks = graph.create_publisher(
        PointStamped if stamped else Point,
        "clicked_point" if stamped else "image_mouse_left",
        RELIABLE,
    )
    graph.stands(graph.images, clicks)
    box = object_box(0)
    at = Point(x=float(box[0] + box[2]) / 2, y=float(box[1] + box[3]) / 2)
    clicks.publish(PointStamped(point=at) if stamped else at)
    graph.spin_for(0.2)
    graph.images.publish(scene_image(0, stamps()))
    assert graph.wait(lambda: kept, "segments")[0].segments[0].id == "click"


def bad_images() -> dict[str, tuple[Image, str]]:
    """Images that cannot be used, and what the log says of each."""
    result = {}
    image = Image(header=header(0), height=0, width=0, encoding="rgb8")
    result["zero size"] = (image, "image of size 0x0 has no pixels")
    image = scene_image(0, 0)
    image.encoding = "klingon8"
    result["unknown encoding"] = (image, "encoding 'klingon8'")
    image = scene_image(0, 0)
    image.step = 5000
    result["step larger than the data"] = (image, "height 240 times step 5000 is 1200000")
    image = scene_image(0, 0)
    image.step = 10
    result["step smaller than a row"] = (image, "has step 10, but 320 pixels of rgb8 are 960 bytes")
    image = scene_image(0, 0)
    image.encoding = "bgr8"
    image.data = image.data[:1000]
    result["truncated data"] = (image, "encoding bgr8 has 1000 bytes of data")
    return result


@pytest.mark.parametrize("name", bad_images())
def test_a_bad_image_is_said_once_and_the_next_one_served(
    name: str, graph: Peer, node: Process
) -> None:
    kept = graph.listen("segments")
    graph.stands()
    image, complaint = bad_images()[name]
    bad = node.said(complaint)
    bad_stamps = []
    for _ in range(3):
        stamp = stamps()
        bad_stamps.append(header(stamp).stamp)
        image.header = header(stamp)
        graph.images.publish(image)
        graph.detections.publish(detections(stamp, box_detection((10, 10, 50, 50))))
        graph.spin_for(0.1)
    graph.wait(lambda: node.said(complaint) == bad + 1, f"one complaint: {complaint}")
    assert node.said("/image: image") > 0
    serve(graph, kept)
    assert node.said(complaint) == bad + 1
    assert not [message for message in kept if message.header.stamp in bad_stamps]


def test_boxes_that_cannot_be_used_do_not_harm_the_others(graph: Peer, node: Process) -> None:
    kept = graph.listen("segments")
    graph.stands()
    nan = box_detection((1, 1, 9, 9), "nan")
    nan.bbox.center.position.x = float("nan")
    stamp = stamps()
    box = object_box(0)
    graph.images.publish(scene_image(0, stamp))
    graph.detections.publish(
        detections(
            stamp,
            nan,
            box_detection((400, 10, 500, 50), "outside"),
            box_detection((30, 30, 30, 60), "flat"),
            box_detection((-50, -50, 80, 90), "partly"),
            box_detection(box, "good"),
        )
    )
    graph.wait(lambda: kept, "segments")
    assert [segment.id for segment in kept[0].segments] == ["partly", "good"]
    for name in ("nan", "outside", "flat"):
        assert node.said(f"/detections: detection '{name}': bbox with center") == 1


def test_prompts_that_cannot_be_used_are_said(graph: Peer, node: Process) -> None:
    kept = graph.listen("segments")
    graph.stands()
    stamp = stamps()
    graph.images.publish(scene_image(0, stamp))
    outside = PromptPoint(x=999.0, y=3.0, label=PromptPoint.FOREGROUND)
    odd = PromptPoint(x=9.0, y=3.0, label=7)
    graph.prompts.publish(
        PromptArray(
            header=header(stamp),
            prompts=[
                Prompt(id="empty"),
                Prompt(id="outside", points=[outside]),
                Prompt(id="odd", points=[odd]),
                Prompt(id="short", box=[1.0, 2.0, 3.0]),
                Prompt(id="turned", box=[50.0, 50.0, 20.0, 20.0]),
                Prompt(id="good", box=[float(v) for v in object_box(0)]),
            ],
        )
    )
    graph.wait(lambda: kept, "segments")
    assert [segment.id for segment in kept[0].segments] == ["good"]
    for name, text in {
        "empty": "needs a box, points or mask",
        "outside": "point (999, 3) lies outside",
        "odd": "labels [7]",
        "short": "box has 3 numbers",
        "turned": "has no inside",
    }.items():
        assert node.said(f"prompt '{name}'") == 1 and node.said(text), name


def test_padded_rows_and_other_encodings(graph: Peer) -> None:
    """The same picture in several encodings gives the same mask."""
    kept = graph.listen("mask")
    graph.stands()
    rgb = SCENE().frame(0).image
    wide = np.zeros((240, 340, 3), np.uint8)
    wide[:, :320] = rgb
    padded = image_message(wide, "rgb8", header(0))
    padded.width = 320
    variants = {
        "rgb8": image_message(rgb, "rgb8", header(0)),
        "bgr8": image_message(rgb[..., ::-1], "bgr8", header(0)),
        "rgba8": image_message(np.dstack([rgb, rgb[..., 0]]), "rgba8", header(0)),
        "padded": padded,
    }
    masks = {}
    for name, image in variants.items():
        image.header = header(stamps())
        graph.images.publish(image)
        graph.detections.publish(detections(time_of(image), box_detection(object_box(0))))
        graph.wait(lambda i=image: kept and kept[-1].header.stamp == i.header.stamp, name)
        masks[name] = pixels(kept[-1])
    for name, mask in masks.items():
        assert (mask == masks["rgb8"]).all(), name


def time_of(image: Image) -> int:
    return image.header.stamp.sec * SECOND + image.header.stamp.nanosec


def test_nothing_is_computed_for_nobody(graph: Peer) -> None:
    graph.stands()
    graph.wait(graph.values, "diagnostics")
    segmented, unused = graph.number("frames/segmented"), graph.number("frames/dropped/unused")
    stamp = stamps()
    graph.images.publish(scene_image(0, stamp))
    graph.detections.publish(detections(stamp, box_detection(object_box(0))))
    graph.wait(lambda: graph.number("frames/dropped/unused") == unused + 1, "the count")
    assert graph.number("frames/segmented") == segmented


def test_stale_images_are_dropped_and_the_newest_served(tmp_path: Path) -> None:
    """A burst: the node does a few, the last one among them, and counts the rest."""
    with running(tmp_path / "log") as node, peer(node) as graph:
        kept = graph.listen("segments")
        graph.stands()
        serve(graph, kept)
        first = stamps()
        box = object_box(0)
        for i in range(20):
            graph.images.publish(scene_image(0, first + i))
            graph.detections.publish(detections(first + i, box_detection(box)))
        last = header(first + 19).stamp
        graph.wait(lambda: kept[-1].header.stamp == last, "the last image")
        order = [m.header.stamp.sec * SECOND + m.header.stamp.nanosec for m in kept]
        assert order == sorted(order)
        # DDS keeps five images: what it replaced before the node took it is none of those that the
        # node counts.
        graph.wait(lambda: graph.number("frames/segmented") == len(kept), "every result is counted")
        dropped = graph.number("frames/dropped/newer")
        assert 0 < dropped <= graph.number("frames/received") - len(kept) <= 21
        assert node.process.poll() is None


@pytest.mark.parametrize(
    ("number", "times"),
    # Twice is what Ctrl-C comes to below `ros2 launch`.
    [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 1)],
)
def test_ends_within_two_seconds_during_inference(number: int, times: int, tmp_path: Path) -> None:
    with running(tmp_path / "log") as node, peer(node) as graph:
        kept = graph.listen("segments")
        graph.stands()
        serve(graph, kept)
        for i in range(40):  # more work than fits in two seconds, still going on
            stamp = stamps()
            graph.images.publish(scene_image(i, stamp))
            graph.detections.publish(detections(stamp, box_detection(object_box(0))))
        status, seconds = node.end(number, times)
        log = node.log.read_text()
        assert status == 0, log
        assert seconds < 2.0
        assert "Traceback" not in log
        # DDS would miss a node that does not take leave only after 20 s.
        begin = monotonic()
        while {"sam", "_sam_services"} & set(graph.get_node_names()):
            assert monotonic() - begin < 5, graph.get_node_names()
            sleep(0.05)


def test_silence_is_explained(tmp_path: Path) -> None:
    with running(
        tmp_path / "log", remaps={"image": "camera/image_rect"}, silence_warning=2.0
    ) as node:
        with peer(node) as graph:
            graph.stands(graph.detections)
            graph.wait(lambda: node.said("no image on /camera/image_rect for 2 s"), "the warning")
            assert node.said("nobody publishes it") == 1
            status = graph.wait(
                lambda: [
                    s
                    for m in graph.received["/diagnostics"]
                    for s in m.status
                    if s.message == "no images"
                ],
                "diagnostics that say so",
            )[0]
            assert status.level == b"\x01"


def test_compressed_images(tmp_path: Path) -> None:
    import cv2

    with running(tmp_path / "log", image_transport="compressed") as node, peer(node) as graph:
        images = graph.create_publisher(CompressedImage, "image/compressed", RELIABLE)
        kept = graph.listen("mask")
        graph.stands(images, graph.detections)
        good, bad = stamps(), stamps()
        png = cv2.imencode(".png", SCENE().frame(0).image[..., ::-1])[1].tobytes()
        images.publish(CompressedImage(header=header(bad), format="jpeg", data=b"no picture"))
        graph.detections.publish(detections(bad, box_detection(object_box(0))))
        graph.wait(lambda: node.said("compressed image of format 'jpeg' with 10 bytes"), "that")
        images.publish(CompressedImage(header=header(good), format="png", data=png))
        graph.detections.publish(detections(good, box_detection(object_box(0))))
        graph.wait(lambda: kept, "a mask")
        assert pixels(kept[0]).any()


@pytest.mark.parametrize(
    ("parameter", "value", "text"),
    [
        ("weights", "/nowhere/x.pt", "/nowhere/x.pt: no such file"),
        ("weights", "nonsense", "no weights of the name 'nonsense'"),
        ("device", "warp:0", "device 'warp:0' cannot be used"),
        ("image_transport", "pigeon", "parameter image_transport: 'pigeon' is none of raw"),
        ("overlay_alpha", "1.5", "overlay_alpha"),
    ],
)
def test_what_is_wrong_at_start_is_said(
    parameter: str, value: str, text: str, tmp_path: Path
) -> None:
    with running(tmp_path / "log", **{parameter: value}) as node:
        assert node.process.wait(30) == 1
        log = node.log.read_text()
        assert text in log
        assert "Traceback" not in log
