"""Bags of all distributions and storages, and what is said of those that are not as they should."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from rclpy.serialization import serialize_message
from recorded import (
    BEGIN,
    SCENE,
    SECOND,
    SIZE_HW,
    Record,
    boxes,
    header,
    jpeg,
    log,
    of_topic,
    pixels,
    raw,
    read_bag,
    split_bag,
    type_name,
    write_bag,
)
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from std_msgs.msg import Header, String

from mobile_sam_ros.bags.segment_bag import main
from mobile_sam_ros.bags.source import BagError, SourceBag
from mobile_sam_ros.conversions import image_message

DETECTIONS = ("--detections", "/detections")
BOX = ("--box", "20,20,60,60")


def segment(bag: Path, *arguments: object) -> int:
    """Runs the command as it is run by hand."""
    return main([str(bag), "--weights", "demo", "--backend", "torch", *map(str, arguments)])


def humble_bag(path: Path, records: list[Record]) -> Path:
    """Writes a bag as rosbag2 of Humble does (sqlite3, version 5), without any of rosbags."""
    path.mkdir()
    with closing(sqlite3.connect(path / f"{path.name}_0.db3")) as database:
        database.executescript(
            "CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);"
            "CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER NOT NULL,"
            " metadata TEXT NOT NULL);"
            "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,"
            " serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL);"
            "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL,"
            " timestamp INTEGER NOT NULL, data BLOB NOT NULL);"
            "CREATE INDEX timestamp_idx ON messages (timestamp ASC);"
            "INSERT INTO schema VALUES (3, 'humble');"
        )
        topics: dict[str, tuple[int, str]] = {}
        for time, topic, message in sorted(records, key=lambda record: record[0]):
            if topic not in topics:
                name = "other_msgs/msg/Other" if topic == "/other" else type_name(message)
                topics[topic] = (len(topics) + 1, name)
                row = (*topics[topic], topic)
                database.execute("INSERT INTO topics VALUES (?, ?3, ?2, 'cdr', '')", row)
            row = (topics[topic][0], time, serialize_message(message))
            database.execute(
                "INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", row
            )
        database.commit()
    times = [record[0] for record in records]
    span = {
        "duration": {"nanoseconds": max(times) - min(times)},
        "starting_time": {"nanoseconds_since_epoch": min(times)},
        "message_count": len(records),
    }
    file = f"{path.name}_0.db3"
    information = span | {
        "version": 5,
        "storage_identifier": "sqlite3",
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": topic,
                    "type": name,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": "",
                },
                "message_count": sum(record[1] == topic for record in records),
            }
            for topic, (_, name) in topics.items()
        ],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [file],
        "files": [span | {"path": file}],
    }
    text = yaml.safe_dump({"rosbag2_bagfile_information": information})
    (path / "metadata.yaml").write_text(text)
    return path


def test_a_bag_of_humble_with_a_type_that_nobody_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = (log(0), "/other", String(data="what is this"))
    bag = humble_bag(tmp_path / "run", [*(f(i) for i in range(2) for f in (raw, boxes)), other])
    assert segment(bag, *DETECTIONS) == 0
    said = capsys.readouterr().err
    assert "/other: no definition of other_msgs/msg/Other is installed" in said
    with AnyReader([tmp_path / "run_segmented"]) as reader:  # by the definitions in the bag
        assert reader.topics["/sam/segments"].msgcount == 2
        images = [c for c in reader.connections if c.topic == "/image"]
        (first, *_) = reader.messages(images)
        image: Any = reader.deserialize(first[2], "sensor_msgs/msg/Image")
        np.testing.assert_array_equal(pixels(image), SCENE.frame(0).image)
        (unknown,) = reader.messages([c for c in reader.connections if c.topic == "/other"])
        assert unknown[2] == serialize_message(other[2])


def compressed_bag(path: Path, mode: CompressionMode, storage: StoragePlugin) -> Path:
    """A bag of two images, compressed as a whole or each message."""
    store = get_typestore(Stores.LATEST)
    writer = Writer(path, version=9, storage_plugin=storage)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=store)
        for time, _, message in (raw(0), raw(1)):
            writer.write(connection, time, serialize_message(message))
    return path


@pytest.mark.parametrize("storage", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_bags(tmp_path: Path, mode: CompressionMode, storage: StoragePlugin) -> None:
    bag = compressed_bag(tmp_path / "run", mode, storage)
    assert segment(bag, *BOX, "--outputs", "labels") == 0
    assert len(of_topic(tmp_path / "run_segmented", "/sam/labels")) == 2


def test_the_new_bag_may_be_stored_otherwise_and_compressed(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "run", [raw(0), raw(1)])
    options = ["--storage", "sqlite3", "--compression", "zstd", "--prefix", "front/sam"]
    assert segment(bag, *BOX, *options, "--output", tmp_path / "new") == 0
    information = yaml.safe_load((tmp_path / "new/metadata.yaml").read_text())
    information = information["rosbag2_bagfile_information"]
    assert information["compression_mode"].upper() == "MESSAGE"
    with closing(sqlite3.connect(tmp_path / "new/new.db3")) as database:
        rows = database.execute(
            "SELECT name, data FROM messages JOIN topics ON topics.id = topic_id ORDER BY "
            "messages.id"
        ).fetchall()
    name, data = rows[0]
    assert name == "/image" and data[:4] == b"\x28\xb5\x2f\xfd"
    assert of_topic(tmp_path / "new", "/image")[0].data == of_topic(bag, "/image")[0].data
    assert {name for name, _ in rows} >= {"/front/sam/mask", "/front/sam/segments"}


def test_one_file_without_its_metadata(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "run", [jpeg(0), jpeg(1)])
    assert segment(bag / "run.mcap", *BOX, "--output", tmp_path / "new") == 0
    assert len(of_topic(tmp_path / "new", "/sam/mask")) == 2


def test_images_of_another_size_amid_the_bag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = image_message(SCENE.frame(1).image[::2, ::2], "rgb8", header(1))
    records = [raw(0), (log(1), "/image", small), raw(2)]
    bag = write_bag(tmp_path / "run", [*records, boxes(0), boxes(2)])
    video = tmp_path / "video.avi"
    assert segment(bag, *DETECTIONS, "--video", video) == 0
    sizes = [(r.message.height, r.message.width)
             for r in of_topic(tmp_path / "run_segmented", "/sam/mask")]  # fmt: skip
    assert sizes == [SIZE_HW, (SIZE_HW[0] // 2, SIZE_HW[1] // 2), SIZE_HW]
    capture = cv2.VideoCapture(str(video))
    assert [capture.read()[0] for _ in range(4)] == [True, True, True, False]


IDL = """module somebody_msgs { module msg {
  struct Reading { @verbatim (language="comment", text="degrees") double value; string<8> unit; };
}; };"""


def test_types_that_are_defined_in_idl(tmp_path: Path) -> None:
    """As those of packages with .idl files are: copied as they are, and known from then on."""
    name, separator = "somebody_msgs/msg/Reading", "=" * 80
    store = get_typestore(Stores.LATEST)
    store.register(get_types_from_idl(IDL))
    data = store.serialize_cdr(store.types[name](36.6, "C"), name)
    with Writer(tmp_path / "run", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        image = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=store)
        definition = f"{separator}\nIDL: somebody_msgs/msg/Reading\n{IDL}"
        digest = store.hash_rihs01(name)
        reading = writer.add_connection("/reading", name, msgdef=definition, rihs01=digest)
        writer.write(image, log(0), serialize_message(raw(0)[2]))
        writer.write(reading, log(0), data)
    for bag in (tmp_path / "run", tmp_path / "run/run.mcap"):  # which has no digest of it
        output = tmp_path / f"new{bag.suffix}"
        assert segment(bag, *BOX, "--outputs", "mask", "--output", output) == 0
        (read,) = of_topic(output, "/reading")
        assert (read.message.value, read.message.unit) == (36.6, "C")


# --- Several files ---------------------------------------------------------------------------


def test_a_clock_that_was_set_back_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between two files; in one of them messages are sorted by it."""
    parts = [[make(i) for i in part for make in (raw, boxes)] for part in ((50, 51), (0, 1))]
    bag = split_bag(tmp_path / "run", *parts)
    assert segment(bag, *DETECTIONS) == 1
    said = capsys.readouterr().err
    assert f"{bag}: topic /image: run_1.mcap begins 5.135 s before the end of the file" in said
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert segment(bag / "run_1.mcap", *DETECTIONS, "--output", tmp_path / "new") == 0
    assert len(of_topic(tmp_path / "new", "/sam/segments")) == 2


def test_what_is_kept_for_who_comes_later_may_be_told_again(tmp_path: Path) -> None:
    told = (log(0), "/told", String(data="for ever"))
    with SourceBag(split_bag(tmp_path / "run", [told, raw(0), raw(50)], [told, raw(51)])) as source:
        source.check_order("/image")
        with pytest.raises(BagError, match="topic /told: run_1.mcap begins 5.000 s before"):
            source.check_order("/image", "/told")


def test_no_room_to_unpack_is_no_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*files: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    bag = compressed_bag(tmp_path / "run", CompressionMode.FILE, StoragePlugin.MCAP)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    assert segment(bag, *BOX) == 1
    said = capsys.readouterr().err
    assert "No space left on device; compressed files are unpacked into" in said
    assert "set TMPDIR" in said and "recover" not in said


# --- Other versions of types ----------------------------------------------------------------


def test_outputs_are_not_given_another_version_of_their_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bag has one definition of each."""
    store, name = get_typestore(Stores.LATEST), "mobile_sam_ros/msg/SegmentArray"
    store.register(get_types_from_msg("std_msgs/Header header\nuint8[] first", name))
    bag = tmp_path / "run"
    with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        writer.add_connection("/front/sam/segments", name, typestore=store)
        image = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=store)
        writer.write(image, log(0), serialize_message(raw(0)[2]))
    assert segment(bag, *BOX) == 1
    said = capsys.readouterr().err
    assert f"topic /front/sam/segments was recorded with another version of {name}, and" in said
    assert "leave it out with --prefix /front/sam --replace, or choose --outputs without" in said
    assert not list(tmp_path.glob("run_*"))
    for number, options in enumerate((["--outputs", "mask"], ["--prefix", "/front/sam"])):
        output = tmp_path / f"new{number}"
        assert segment(bag, *BOX, *options, "--replace", "--output", output) == 0
    (read,) = of_topic(tmp_path / "new1", "/front/sam/segments")
    assert [item.id for item in read.message.segments] == ["prompt_1"]


# --- Other detectors ------------------------------------------------------------------------

BOXES_DEFINITION = "std_msgs/Header header\nmy_msgs/Box[] found\n" + "=" * 80 + "\n"
BOXES_DEFINITION += "MSG: my_msgs/Box\nfloat32[4] ltrb\nfloat32 left\nfloat32 top\nfloat32 right\n"
BOXES_DEFINITION += "float32 bottom\nstring name\n"


def test_boxes_in_messages_that_only_the_bag_defines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = get_typestore(Stores.LATEST)
    store.register(get_types_from_msg(BOXES_DEFINITION, "my_msgs/msg/Boxes"))
    box_type, boxes_type = store.types["my_msgs/msg/Box"], store.types["my_msgs/msg/Boxes"]
    stamp = store.types["builtin_interfaces/msg/Time"](*divmod(BEGIN, SECOND))
    head = store.types["std_msgs/msg/Header"](stamp, "camera")
    found = box_type(np.zeros(4, np.float32), 20.0, 20.0, 60.0, 70.0, "cup")
    data = store.serialize_cdr(boxes_type(head, [found]), "my_msgs/msg/Boxes")
    with Writer(tmp_path / "run", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic, name, content in (
            ("/image", "sensor_msgs/msg/Image", serialize_message(raw(0)[2])),
            ("/found", "my_msgs/msg/Boxes", data),
        ):
            connection = writer.add_connection(topic, name, typestore=store)
            writer.write(connection, log(0), content)
    bag, found_ = tmp_path / "run", ["--detections", "/found", "--detections-fields"]
    layout = "items=found x_min=left y_min=top x_max=right y_max=bottom class=name"
    assert segment(bag, *found_, layout.replace("left", "west")) == 1
    said = capsys.readouterr().err
    assert "topic /found: detections_fields: x_min=west: my_msgs/msg/Box has no such" in said
    assert segment(bag, *found_[:2]) == 1
    assert "the layout of my_msgs/msg/Boxes is not known" in capsys.readouterr().err
    assert segment(bag, *found_, layout) == 0
    (read,) = of_topic(tmp_path / "run_segmented", "/sam/segments")
    assert [(item.id, item.class_id) for item in read.message.segments] == [("detection_0", "cup")]


# --- What is wrong --------------------------------------------------------------------------


def test_what_cannot_be_read_is_said_and_counted_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = image_message(SCENE.frame(1).image, "rgb8", header(1))
    short.height *= 2
    unknown = image_message(SCENE.frame(2).image, "rgb8", header(2))
    unknown.encoding = "smell8"
    records: list[Record] = [raw(0), boxes(0), raw(4), boxes(4)]
    records += [(log(1), "/image", short), (log(2), "/image", unknown)]
    records += [(log(3), "/image", b"\0\1\0\0nothing like an image")]
    outside = boxes(4)
    outside[2].detections[0].bbox.center.position.x = 999.0
    bag = write_bag(tmp_path / "run", [*records[:3], outside, *records[4:]])
    assert segment(bag, *DETECTIONS, "--coco", tmp_path / "coco.json") == 1
    said = capsys.readouterr().err
    assert "/image: image of encoding rgb8 has 36864 bytes of data, but height 192" in said
    assert "/image: image has encoding 'smell8'" in said
    assert "/image: not a sensor_msgs/msg/Image" in said
    assert "/detections: detection '1': bbox with center (999" in said
    assert "3 images could not be read" in said
    new = tmp_path / "run_segmented"
    assert len(of_topic_raw(new, "/image")) == 5  # also those
    segments = of_topic_raw(new, "/sam/segments")
    assert segments == [log(0), log(4)]


def of_topic_raw(path: Path, topic: str) -> list[int]:
    """Log times of a topic, whatever its messages are."""
    with AnyReader([path]) as reader:
        wanted = [c for c in reader.connections if c.topic == topic]
        return [time for _, time, _ in reader.messages(wanted)]


def test_a_damaged_jpeg(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    time, topic, message = jpeg(1)
    del message.data[20:]
    bag = write_bag(tmp_path / "run", [jpeg(0), (time, topic, message)])
    assert segment(bag, *BOX) == 1
    assert "/image/compressed: compressed image of format 'jpeg'" in capsys.readouterr().err
    assert len(of_topic(tmp_path / "run_segmented", "/sam/mask")) == 1


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bag with two cameras, one detector and results of a node."""
    folder = tmp_path_factory.mktemp("good")
    records = [f(i) for i in range(2) for f in (raw, boxes)]
    records += [jpeg(0, "/other/compressed"), (log(0), "/sam/mask", raw(0)[2])]
    return write_bag(folder / "run", records)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--image", "/imgae", *BOX], "no topic /imgae; it has\n  /detections "),
        (["--image", "/imgae", *BOX], "  /other/compressed  sensor_msgs/msg/CompressedImage (1)"),
        (["--image", "/detections", *BOX], "topic /detections has type vision_msgs/msg/Detection2"),
        ([*BOX], "has several topics of type sensor_msgs/msg/Image or sens"),
        (["--image", "/image"], "nothing to segment: give --detections, --box"),
        (["--image", "/image", "--detections", "/image"], "the layout of sensor_msgs/msg/Image"),
        (["--image", "/image", "--everything", *BOX], "--everything needs no prompts"),
        (["--image", "/image", "--track-detections", *BOX], "--track-detections needs --detec"),
        (["--image", "/image", *BOX], "has /sam/mask already: choose another --prefix, or leave"),
        (["--image", "/image", *BOX, "--start", "9"], "--start is 9: "),
        (["--image", "/image", *BOX, "--start", "0.1", "--end", "0.05"], "--end 0.05 is not after"),
        (["--image", "/image", "--box", "1,1,9,9@7"], "prompt '1,1,9,9@7': "),
        (["--image", "/image", *BOX, "--depth", "/depth"], "--depth and --camera-info need each"),
        (["--image", "/image", *BOX, "--outputs", "points"], "points and detections_3d need --d"),
        (["--image", "/image", *BOX, "--prefix", "/a", "--weights", "none.pt"], "none.pt"),
        (
            ["--image", "/image", "--prefix", "/a", "--box", "cup=200,20,300,60"],
            "prompt 'cup': box [200.0, 20.0, 300.0, 60.0] lies outside of the image of 128x96",
        ),
        (
            ["--image", "/image", "--prefix", "/a", "--point", "5,96"],
            "prompt 'prompt_1': point [5.0, 96.0] lies outside of the image of 128x96",
        ),
    ],
)
def test_what_is_asked_for_and_cannot_be_done(
    good: Path,
    tmp_path: Path,
    arguments: list[str],
    text: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert segment(good, *arguments, "--output", tmp_path / "new") == 1
    said = capsys.readouterr().err
    assert "segment-bag: " in said and text in said
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--box", "1,2,3"], "'1,2,3' is not X_MIN,Y_MIN,X_MAX,Y_MAX"),
        (["--box", "a=1,2,3,4@5@6"], "'a=1,2,3,4@5@6' is not [NAME=]...[@SECONDS]"),
        (["--min-score", "2"], "'2' is no number from 0 to 1"),
        (["--outputs", "mask,video"], "'video' is none of label_info, mask, labels"),
        (["--video", "out.gif"], "out.gif: a video's name ends in .mp4, .mov, .mkv, .avi"),
        (["--detections-size", "640"], "'640' is not WIDTHxHEIGHT"),
        (["--end", "inf"], "'inf' is no number from 0 on"),
        (["--max-objects", "0"], "'0' is no number from 1 on"),
    ],
)
def test_what_the_command_line_says_wrong(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bag", *arguments])
    assert ended.value.code == 2
    assert text in " ".join(capsys.readouterr().err.split())


def test_old_results_are_replaced_if_that_is_wanted(good: Path, tmp_path: Path) -> None:
    output = tmp_path / "new"
    options = [*DETECTIONS, "--replace", "--classes", "cup", "--max-objects", 1]
    assert segment(good, "--image", "/image", *options, "--output", output) == 0
    masks = [read.message for read in read_bag(output) if read.topic == "/sam/mask"]
    assert [mask.encoding for mask in masks] == ["mono8", "mono8"]
    for read in of_topic(output, "/sam/segments"):
        assert [(item.id, item.class_id) for item in read.message.segments] == [("3", "cup")]


@pytest.mark.parametrize("end", [b"", b"\x89MCAP0\r\n"], ids=["cut", "cut with an end"])
def test_a_bag_whose_recorder_was_killed(
    good: Path, tmp_path: Path, end: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = shutil.copytree(good, tmp_path / "cut")
    (bag / "run.mcap").write_bytes((good / "run.mcap").read_bytes()[:5000] + end)
    assert segment(bag, *DETECTIONS, "--image", "/image") == 1
    said = capsys.readouterr().err
    assert f"{bag}: " in said and "mcap recover" in said
    (bag / "metadata.yaml").unlink()
    assert segment(bag, *DETECTIONS, "--image", "/image") == 1
    assert "ros2 bag reindex" in capsys.readouterr().err
    assert segment(tmp_path / "none", *DETECTIONS) == 1
    assert f"{tmp_path}/none: no such bag" in capsys.readouterr().err


def test_a_bag_that_is_damaged_in_its_middle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 900, 3), np.uint8)
    images = [(log(i), "/image", image_message(noise, "rgb8", header(i))) for i in range(3)]
    bag = compressed_chunks(tmp_path / "run", images)
    file = bag / "run.mcap"
    content = bytearray(file.read_bytes())
    second = content.index(b"\x28\xb5\x2f\xfd", content.index(b"\x28\xb5\x2f\xfd") + 1)
    content[second : second + 16] = bytes(16)
    file.write_bytes(content)
    assert segment(bag, *BOX) == 1
    said = capsys.readouterr().err
    assert f"{bag}: damaged after 0.000 s: " in said
    assert not (tmp_path / "run_segmented").exists()


def compressed_chunks(path: Path, records: list[Record]) -> Path:
    """A bag as `ros2 bag record` compresses MCAP: a chunk for each of these images."""
    store = get_typestore(Stores.LATEST)
    writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=store)
        for time, _, message in records:
            writer.write(connection, time, serialize_message(message))
    return path


def test_header_is_of_the_image_even_without_a_stamp(tmp_path: Path) -> None:
    """Detections without one go to the newest image; outputs keep the header as it is."""
    time, _, image = raw(0)
    image.header = Header(frame_id="left")
    found = boxes(0)
    found[2].header = Header()
    bag = write_bag(tmp_path / "run", [(time, "/image", image), found])
    assert segment(bag, *DETECTIONS) == 0
    (read,) = of_topic(tmp_path / "run_segmented", "/sam/segments")
    assert read.message.header.frame_id == "left" and read.message.header.stamp.sec == 0
    assert len(read.message.segments) == 3
