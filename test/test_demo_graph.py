"""The demo's processes on real DDS: what is recorded, how it ends, what is said when it fails."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mobile_sam.scenes import MovingScene
from mobile_sam_ros.bags.definitions import add_type
from mobile_sam_ros.conversions import image_message
from mobile_sam_ros.demo import run
from mobile_sam_ros.demo.boxes import label_boxes, labels_from_image
from mobile_sam_ros.demo.monitor import Monitor
from mobile_sam_ros.demo.processes import ChildDied, children
from mobile_sam_ros.demo.recording import DETECTIONS, IMAGE, TRUTH, messages, read_recording

SEED, OBJECTS, FRAMES = 3, 3, 12


def alive(text: str) -> list[str]:
    """Command lines of the processes that have `text` in theirs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if text in words:
            found.append(words)
    return found


# --- Recorder -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bag of camera and detector, without the node."""
    folder = tmp_path_factory.mktemp("recorded")
    with children(folder, os.environ) as group:
        group.start("recorder", "mobile_sam_ros.demo.recorder", run.ros_arguments(bag=folder / "b"))
        group.start(
            "detector",
            "mobile_sam_ros.demo.detector",
            run.ros_arguments(method="truth", latency=0.02, wait_for_subscribers=2),
        )
        group.start(
            "camera",
            "mobile_sam_ros.demo.camera",
            # Image: the recorder. Truth: the recorder, the detector. Info: the recorder, we.
            run.ros_arguments(
                seed=SEED,
                objects=OBJECTS,
                width=160,
                height=120,
                rate=20.0,
                frames=FRAMES,
                wait_for_subscribers=5,
            ),
        )
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        monitor = Monitor()
        executor = SingleThreadedExecutor()
        executor.add_node(monitor)
        while not (group.finished("camera") and monitor.frames_detected == FRAMES):
            group.check(may_finish="camera")
            executor.spin_once(timeout_sec=0.1)
        rclpy.try_shutdown()
        group.end("detector")
        group.end("recorder")
    return folder / "b"


def test_everything_is_in_the_bag(bag: Path) -> None:
    recording = read_recording(bag)
    assert (bag / "metadata.yaml").exists() and len(list(bag.glob("*.mcap"))) == 1
    for topic in (IMAGE, TRUTH, DETECTIONS, "/camera_info"):
        assert recording.counts[topic] == FRAMES, topic
    stamps = set(recording.arrivals[IMAGE])
    assert stamps == set(recording.arrivals[TRUTH]) == set(recording.arrivals[DETECTIONS])
    assert all(arrival > stamp for stamp, arrival in recording.arrivals[DETECTIONS].items())


def test_images_and_truth_are_those_of_the_scene_and_detections_fit_them(bag: Path) -> None:
    scene = MovingScene(SEED, (120, 160), OBJECTS)
    index = {IMAGE: 0, TRUTH: 0, DETECTIONS: 0}
    for topic, _, message in messages(bag, tuple(index)):
        expected = scene.frame(index[topic])
        index[topic] += 1
        assert message.header.frame_id == "camera"
        if topic == IMAGE:
            pixels = message.data.reshape(120, 160, 3)
            np.testing.assert_array_equal(pixels, expected.image)
        elif topic == TRUTH:
            np.testing.assert_array_equal(labels_from_image(message), expected.labels)
        else:
            boxes = label_boxes(expected.labels, min_area=150)
            assert [d.id for d in message.detections] == [str(label) for label in boxes]
            for detection, box in zip(message.detections, boxes.values(), strict=True):
                centre = detection.bbox.center.position
                size = (detection.bbox.size_x, detection.bbox.size_y)
                assert [centre.x - size[0] / 2, centre.y - size[1] / 2, *size] == pytest.approx(
                    [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                )
    assert set(index.values()) == {FRAMES}


def test_detections_are_as_late_as_they_are_told_to(bag: Path) -> None:
    arrivals = read_recording(bag).arrivals[DETECTIONS]
    assert min(arrival - stamp for stamp, arrival in arrivals.items()) >= 20_000_000


def test_the_bag_explains_its_types_and_offers_its_qos(bag: Path) -> None:
    with AnyReader([bag]) as reader:
        types = reader.typestore.fielddefs
        images = next(c for c in reader.connections if c.topic == IMAGE)
    assert {"sensor_msgs/msg/Image", "vision_msgs/msg/BoundingBox2D"} <= set(types)
    assert images.ext.offered_qos_profiles[0].reliability.name == "RELIABLE"


def test_a_full_disk_ends_the_recorder_with_a_word_and_keeps_what_there_is(
    tmp_path: Path, ros: None
) -> None:
    limit = 3 << 20
    log = tmp_path / "log"
    with log.open("w") as file:
        recorder = subprocess.Popen(
            [sys.executable, "-m", "mobile_sam_ros.demo.recorder"]
            + run.ros_arguments(bag=tmp_path / "b"),
            stdout=file,
            stderr=subprocess.STDOUT,
            # As if there were no more room on the disk.
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )
    node = rclpy.create_node("camera")
    publisher = node.create_publisher(Image, IMAGE, 10)
    noise = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    message = image_message(noise, "rgb8", Header())
    end = time.monotonic() + 60
    while recorder.poll() is None and time.monotonic() < end:
        publisher.publish(message)
        time.sleep(0.05)
    recorder.kill()
    node.destroy_node()
    said = log.read_text()
    assert recorder.wait() == 1 and len(said.splitlines()) == 1
    assert "not complete" in said and "File too large" in said
    assert (tmp_path / "b/b.mcap").stat().st_size > limit - (2 << 20)


def test_our_own_types_are_defined_with_the_hash_that_ros_has(ros: None) -> None:
    from mobile_sam_ros.msg import SegmentArray

    store = get_typestore(Stores.EMPTY)
    add_type(store, "mobile_sam_ros/msg/SegmentArray")
    definition, _ = store.generate_msgdef("mobile_sam_ros/msg/SegmentArray", ros_version=2)
    assert "MSG: mobile_sam_ros/Segment\n" in definition and "float32 predicted_iou" in definition
    node = rclpy.create_node("publisher_of_segments")
    node.create_publisher(SegmentArray, "some_segments", 1)
    info = node.get_publishers_info_by_topic("/some_segments")
    assert str(info[0].topic_type_hash) == store.hash_rihs01("mobile_sam_ros/msg/SegmentArray")
    node.destroy_node()


# --- Processes ------------------------------------------------------------------------------


@contextmanager
def module(folder: Path, name: str, text: str) -> Iterator[str]:
    """A Python module in `folder`, by its name."""
    (folder / f"{name}.py").write_text(text)
    os.environ["PYTHONPATH"] = f"{folder}:{os.environ.get('PYTHONPATH', '')}"
    yield name
    os.environ["PYTHONPATH"] = os.environ["PYTHONPATH"].split(":", 1)[1]


def test_a_child_that_fails_is_named_with_its_last_words(tmp_path: Path) -> None:
    text = "import sys\nprint('cannot go on')\nsys.exit(3)\n"
    with module(tmp_path, "failing", text) as name, children(tmp_path, os.environ) as group:
        group.start("some node", name)
        with pytest.raises(
            ChildDied, match=r"(?s)some node ended with exit status 3.*cannot go on"
        ):
            while True:
                group.check()


def test_a_stubborn_child_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobile_sam_ros.demo.processes.GRACE_SECONDS", 0.2)
    text = (
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('up', flush=True)\n"
        "while True:\n    signal.pause()\n"
    )
    with module(tmp_path, "stubborn", text) as name, children(tmp_path, os.environ) as group:
        group.start("some node", name)
        while "up" not in (tmp_path / "some node.log").read_text():
            group.check()
        with pytest.raises(ChildDied, match="some node did not end within 0.2 s and was killed"):
            group.end()
    assert not alive("demo.child stubborn")


def test_children_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    # The reading end of this pipe sees its end when the last process that holds it is gone.
    reading, writing = os.pipe()
    (tmp_path / "waiting.py").write_text(
        "import os, signal\nos.write(int(os.environ['PIPE']), b'up')\nsignal.pause()\n"
    )
    (tmp_path / "parent.py").write_text(
        "import os, signal, subprocess, sys\n"
        "command = [sys.executable, '-m', 'mobile_sam_ros.demo.child', 'waiting']\n"
        "subprocess.Popen(command, pass_fds=[int(os.environ['PIPE'])])\nsignal.pause()\n"
    )
    path = f"{tmp_path}:{os.getcwd()}:{os.environ.get('PYTHONPATH', '')}"
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"],
        env=os.environ | {"PIPE": str(writing), "PYTHONPATH": path},
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    assert os.read(reading, 2) == b"up"
    parent.kill()
    parent.wait()
    assert os.read(reading, 1) == b""
    os.close(reading)


# --- The whole ------------------------------------------------------------------------------

COMMAND = [sys.executable, "-m", "mobile_sam_ros.demo.run"]


@pytest.mark.parametrize("kind", ["missing.avi", "text.avi", "folder"])
def test_a_bad_video_is_refused_before_anything_starts(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "text.avi":
        path.write_text("no video")
    elif kind == "folder":
        path.mkdir()
    output = tmp_path / "output"
    done = subprocess.run(
        [*COMMAND, "--video", path, "--output", output], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert f"demo: {path}: " in done.stderr
    assert not output.exists()


def test_demo_from_end_to_end(tmp_path: Path) -> None:
    output = tmp_path / "output"
    done = subprocess.run(
        [*COMMAND, "--frames", "30", "--output", output],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not alive(str(output))
    recording = read_recording(output / "bag")
    assert recording.counts[IMAGE] == 30
    segmented = recording.objects
    assert segmented and set(segmented) <= set(recording.arrivals[IMAGE])
    assert recording.overlaps is not None and len(recording.overlaps) >= len(segmented)
    assert int(recording.statistics["frames/received"]) > 0
    assert recording.counts["/diagnostics"] > 0
    # Said in the report, and found again here.
    assert re.search(rf"^ +{len(segmented)}  out, segmented", done.stdout, re.MULTILINE)
    for name in ("strip.png", "overlay_1.png"):
        assert cv2.imread(str(output / name)) is not None


def test_interrupting_the_demo_ends_everything(tmp_path: Path) -> None:
    output = tmp_path / "output"
    demo = subprocess.Popen(
        [*COMMAND, "--frames", "100000", "--output", output],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("frame "):
            break
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate(timeout=20)
    assert demo.returncode == 130
    assert "interrupted" in errors
    assert not alive(str(output))
    assert (output / "bag" / "metadata.yaml").exists()  # complete up to there


def test_a_node_that_dies_ends_the_demo(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--weights", "no_such_weights", "--output", tmp_path / "output"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1
    assert "demo: preparation ended with exit status 1" in done.stderr
    assert "no_such_weights" in done.stderr
    assert not alive(str(tmp_path / "output"))


def test_the_demo_imports_no_torch() -> None:
    modules = ("camera", "detector", "recorder", "run")
    text = "; ".join(f"import mobile_sam_ros.demo.{name}" for name in modules)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {text}; sys.exit('torch' in sys.modules)"]
    )
    assert done.returncode == 0
