"""A bag of the procedural scene, segmented: what is in the new one, and how good it is."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from mobile_sam_ros.msg import Segment, SegmentArray
from rclpy.serialization import deserialize_message, serialize_message
from recorded import (
    BEGIN,
    NAMES,
    PERIOD,
    SCENE,
    SIZE_HW,
    boxes,
    header,
    jpeg,
    log,
    of_topic,
    pixels,
    raw,
    read_bag,
    truth,
    write_bag,
)
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import Reader, StoragePlugin

from mobile_sam.training.evaluate import mask_iou
from mobile_sam_ros.bags.segment_bag import main
from mobile_sam_ros.demo.recording import overlaps

IMAGES = 6
OUTPUTS = ["label_info", "mask", "labels", "overlay/compressed", "segments", "detections"]


def segment(bag: Path, *arguments: object) -> int:
    """Runs the command as it is run by hand."""
    return main([str(bag), "--weights", "demo", "--backend", "torch", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bag `run` and all that is made of it."""
    folder = tmp_path_factory.mktemp("bags")
    bag = write_bag(
        folder / "run", [make(i) for i in range(IMAGES) for make in (raw, boxes, truth)]
    )
    exports = ["--coco", folder / "coco.json", "--images", folder / "images"]
    arguments = ["--detections", "/detections", *exports, "--video", folder / "video.mp4"]
    assert segment(bag, "--image", "/image", *arguments) == 0
    return folder


@pytest.fixture(scope="module")
def new(folder: Path) -> Path:
    return folder / "run_segmented"


def test_nothing_else_is_left(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {"run", "run_segmented", "coco.json", "images", "video.mp4"}


def test_everything_of_the_old_bag_is_in_the_new_one(folder: Path, new: Path) -> None:
    old = [(read.topic, read.log, read.data) for read in read_bag(folder / "run")]
    kept = [(r.topic, r.log, r.data) for r in read_bag(new) if not r.topic.startswith("/sam/")]
    assert kept == old and len(old) == 3 * IMAGES


def test_outputs_follow_their_image_at_its_time_with_its_header(new: Path) -> None:
    reads = list(read_bag(new))
    for index in range(IMAGES):
        at = next(i for i, r in enumerate(reads) if (r.topic, r.log) == ("/image", log(index)))
        names = OUTPUTS if index == 0 else OUTPUTS[1:]  # nothing new is said of the labels
        following = reads[at + 1 : at + 1 + len(names)]
        assert [read.topic for read in following] == [f"/sam/{name}" for name in names]
        for read in following:
            assert read.log == log(index)
            stamp = read.message.header.stamp
            assert stamp.sec * 10**9 + stamp.nanosec == BEGIN + index * PERIOD
            assert read.message.header.frame_id == "camera"


def test_masks_are_as_good_as_they_should_be(new: Path) -> None:
    found = []
    for index, read in enumerate(of_topic(new, "/sam/segments")):
        names = [segment.id for segment in read.message.segments]
        found += overlaps(index, names, read.message.segments, SCENE.frame(index).labels)
    assert len(found) == 3 * IMAGES
    assert np.mean([overlap.iou for overlap in found]) > 0.85


def test_outputs_agree_with_each_other(new: Path) -> None:
    topics = ["/sam/mask", "/sam/labels", "/sam/segments", "/sam/detections"]
    (info,) = of_topic(new, "/sam/label_info")
    named = {item.class_id: item.class_name for item in info.message.class_map}
    assert named == NAMES
    for mask, labels, segments, found in zip(
        *(of_topic(new, topic) for topic in topics), strict=True
    ):
        values = pixels(labels.message)
        assert (mask.message.encoding, labels.message.encoding) == ("mono8", "16UC1")
        np.testing.assert_array_equal(pixels(mask.message), np.where(values > 0, 255, 0))
        for item, box in zip(segments.message.segments, found.message.detections, strict=True):
            assert (item.class_id, item.id) == (NAMES[int(item.id)], box.id)
            assert item.score == pytest.approx(0.5 + int(item.id) / 10)
            roi = item.roi
            window = values[roi.y_offset :, roi.x_offset :][: roi.height, : roi.width]
            shown = pixels(item.mask).reshape(roi.height, roi.width) > 0
            assert shown.sum() == item.area
            # Where objects overlap, the label image shows the smaller one.
            assert shown[window == item.label].all()
            assert box.bbox.center.position.x == roi.x_offset + roi.width / 2
            assert box.bbox.size_y == roi.height


def test_the_overlay_shows_the_image_where_there_is_nothing(new: Path) -> None:
    overlay = of_topic(new, "/sam/overlay/compressed")[3].message
    bgr = cv2.imdecode(overlay.data, cv2.IMREAD_COLOR)
    free = pixels(of_topic(new, "/sam/labels")[3].message) == 0
    free = cv2.erode(free.astype(np.uint8), np.ones((17, 17), np.uint8)) > 0
    difference = np.abs(bgr[..., ::-1].astype(int) - SCENE.frame(3).image)[free]
    assert bgr.shape[:2] == SIZE_HW and difference.mean() < 12  # JPEG, of noise


def test_rclpy_reads_what_was_written(new: Path) -> None:
    read = of_topic(new, "/sam/segments")[2]
    message = deserialize_message(read.data, SegmentArray)
    assert message.header == header(2)
    assert [item.id for item in message.segments] == ["1", "2", "3"]
    assert message.segments[0].state == Segment.NOT_TRACKED
    first = read.message.segments[0]
    assert bytes(message.segments[0].mask.data) == first.mask.data.tobytes()
    assert len(serialize_message(message)) == len(read.data)


def test_players_find_what_they_need(new: Path) -> None:
    information = yaml.safe_load((new / "metadata.yaml").read_text())
    information = information["rosbag2_bagfile_information"]
    assert information["version"] == 8  # the newest one that Humble reads
    assert information["relative_file_paths"] == ["run_segmented.mcap"]
    topics = {
        item["topic_metadata"]["name"]: (item["topic_metadata"], item["message_count"])
        for item in information["topics_with_message_count"]
    }
    assert topics["/sam/mask"][1] == IMAGES and topics["/sam/label_info"][1] == 1
    assert sum(count for _, count in topics.values()) == information["message_count"]
    (profile,) = yaml.safe_load(topics["/sam/label_info"][0]["offered_qos_profiles"])
    assert (profile["durability"], profile["reliability"], profile["depth"]) == (1, 1, 1)
    with Reader(new) as reader:
        qos = {c.topic: c.ext.offered_qos_profiles for c in reader.connections}  # type: ignore[union-attr]
        definitions = {c.msgtype: c.msgdef.data for c in reader.connections}
    assert qos["/sam/label_info"][0].durability is QosDurability.TRANSIENT_LOCAL
    assert qos["/sam/mask"][0].durability is QosDurability.VOLATILE
    assert qos["/sam/mask"][0].reliability is QosReliability.RELIABLE
    assert "MSG: mobile_sam_ros/Segment\n" in definitions["mobile_sam_ros/msg/SegmentArray"]
    assert "string class_name" in definitions["vision_msgs/msg/LabelInfo"]


def test_the_same_bag_gives_the_same_bytes(folder: Path, new: Path, tmp_path: Path) -> None:
    output = tmp_path / "run_segmented"
    assert segment(folder / "run", "--detections", "/detections", "--image", "/image",
                   "--output", output) == 0  # fmt: skip
    for file in new.iterdir():
        assert (output / file.name).read_bytes() == file.read_bytes()


def test_coco_has_the_masks(folder: Path, new: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco").COCO(str(folder / "coco.json"))
    assert {item["name"] for item in coco.cats.values()} == {"cup", "plate"}
    assert len(coco.anns) == 3 * IMAGES
    for index, read in enumerate(of_topic(new, "/sam/segments")):
        image = coco.imgs[index + 1]
        written = cv2.imread(str(folder / "images" / image["file_name"]))
        np.testing.assert_array_equal(written[..., ::-1], SCENE.frame(index).image)
        annotations = coco.imgToAnns[index + 1]
        assert [item["track_id"] for item in annotations] == ["1", "2", "3"]
        for annotation, item in zip(annotations, read.message.segments, strict=True):
            whole = coco.annToMask(annotation)
            roi = item.roi
            crop = whole[roi.y_offset :, roi.x_offset :][: roi.height, : roi.width]
            np.testing.assert_array_equal(crop * 255, pixels(item.mask))
            assert whole.sum() == annotation["area"] == item.area
            assert coco.cats[annotation["category_id"]]["name"] == item.class_id


def test_the_video_has_every_image_at_the_cameras_rate(folder: Path) -> None:
    video = cv2.VideoCapture(str(folder / "video.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10, rel=1e-3)
    frames = []
    while True:
        success, frame = video.read()
        if not success:
            break
        frames.append(frame[..., ::-1])
    assert len(frames) == IMAGES
    for index, frame in enumerate(frames):
        free = SCENE.frame(index).labels == 0
        assert np.abs(frame.astype(int) - SCENE.frame(index).image)[free].mean() < 20


def test_boxes_of_another_camera_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cameras that are triggered together have equal stamps."""
    found = [boxes(0), boxes(1)]
    for _, _, message in found:
        message.header.frame_id = "rear"
    bag = write_bag(tmp_path / "run", [raw(0), raw(1), *found, boxes(1, only=(1,))])
    for options, counts in ((["--match-frame-id"], [0, 1]), (["--no-match-frame-id"], [3, 4])):
        output = tmp_path / options[0]
        assert segment(bag, "--detections", "/detections", *options, "--output", output) == 0
        said = capsys.readouterr().err
        assert ("is this another camera's? If not, give --no-match-frame-id (2 times)" in said) is (
            counts[0] == 0
        )
        read = of_topic(output, "/sam/segments")
        assert [len(item.message.segments) for item in read] == counts


# --- Other ways to say what to segment ------------------------------------------------------


def mask_of(item: object) -> np.ndarray:
    whole = np.zeros(SIZE_HW, bool)
    roi, crop = item.roi, item.mask  # type: ignore[attr-defined]
    window = (slice(roi.y_offset, roi.y_offset + roi.height),
              slice(roi.x_offset, roi.x_offset + roi.width))  # fmt: skip
    whole[window] = crop.data.reshape(crop.height, crop.width) > 0
    return whole


def box_text(index: int, label: int) -> str:
    rows, columns = np.nonzero(SCENE.frame(index).labels == label)
    return f"{columns.min()},{rows.min()},{columns.max() + 1},{rows.max() + 1}"


def test_prompts_are_followed_from_their_time_on(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "run", [jpeg(i) for i in range(IMAGES)], StoragePlugin.SQLITE3)
    point = ",".join(map(str, np.argwhere(SCENE.frame(3).labels == 2).mean(0)[::-1].round()))
    prompts = ["--box", f"big={box_text(0, 1)}", "--point", f"late={point}@0.3"]
    assert segment(bag, *prompts, "--output", tmp_path / "new") == 0
    assert (tmp_path / "new/new.db3").is_file()  # stored as the old one
    ious: dict[str, list[float]] = {"big": [], "late": []}
    for index, read in enumerate(of_topic(tmp_path / "new", "/sam/segments")):
        items = read.message.segments
        assert [item.id for item in items] == ["big", "late"][: 1 if index < 3 else 2]
        for item, label in zip(items, (1, 2), strict=False):
            assert item.class_id == item.id and item.state == Segment.ACTIVE
            assert item.age == index - (3 if item.id == "late" else 0)
            ious[item.id].append(mask_iou(mask_of(item), SCENE.frame(index).labels == label))
    assert np.mean(ious["big"]) > 0.8 and np.mean(ious["late"]) > 0.7


def test_detections_now_and_then_are_followed(tmp_path: Path) -> None:
    records = [raw(i) for i in range(IMAGES)] + [boxes(1, only=(1, 2))]
    bag = write_bag(tmp_path / "run", records)
    found = ["--detections", "/detections", "--track-detections"]
    assert segment(bag, *found, "--output", tmp_path / "new") == 0
    counts = [len(read.message.segments) for read in of_topic(tmp_path / "new", "/sam/segments")]
    assert counts == [0] + [2] * (IMAGES - 1)
    last = of_topic(tmp_path / "new", "/sam/segments")[-1].message.segments
    assert {item.id: item.class_id for item in last} == {"1": "cup", "2": "plate"}
    labels = SCENE.frame(IMAGES - 1).labels
    assert all(mask_iou(mask_of(item), labels == int(item.id)) > 0.7 for item in last)


def test_everything_in_a_part_of_the_bag(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "run", [raw(i) for i in range(IMAGES)])
    settings = ["--points-per-side", 6, "--least-predicted-iou", 0.7, "--least-stability", 0.7]
    part = ["--start", 0.2, "--end", 0.4, "--outputs", "segments,labels"]
    coco = tmp_path / "coco.json"
    assert segment(bag, "--everything", *settings, *part, "--coco", coco) == 0
    new = tmp_path / "run_segmented"
    assert [r.log for r in of_topic(new, "/sam/segments")] == [log(2), log(3)]
    assert {r.topic for r in read_bag(new)} == {"/image", "/sam/segments", "/sam/labels"}
    assert len(of_topic(new, "/image")) == IMAGES
    first = of_topic(new, "/sam/segments")[0].message.segments
    best = [max(mask_iou(mask_of(s), SCENE.frame(2).labels == k) for s in first) for k in (1, 2, 3)]
    assert min(best) > 0.6
    assert [item["name"] for item in json.loads(coco.read_text())["categories"]] == ["object"]
