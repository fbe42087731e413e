"""Interrupted in whatever way, the command goes on, does nothing twice, and ends up the same."""

from __future__ import annotations

import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from recorded import SCENE, boxes, log, of_topic, raw, split_bag, write_bag

import mobile_sam
from mobile_sam_ros.bags import segment_bag, segmenting

CHECKOUT = Path(__file__).resolve().parents[2]
IMAGES = 6
# As on a machine without ROS: nothing of it can be imported, and nothing is sourced.
WITHOUT_ROS = """
import runpy, sys
for name in ("rclpy", "sensor_msgs", "std_msgs", "vision_msgs", "mobile_sam_ros.msg", "cv_bridge",
             "builtin_interfaces", "geometry_msgs", "ament_index_python", "rosidl_runtime_py"):
    sys.modules[name] = None
import mobile_sam_ros.bags.bag_report, mobile_sam_ros.bags.charts
sys.argv[0] = "segment-bag"
runpy.run_module("mobile_sam_ros.bags.segment_bag", run_name="__main__")
"""
FIXED = ["--weights", "demo", "--backend", "torch", "--outputs", "segments,labels"]
DETECTIONS = ["--detections", "/detections"]


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a detection that belongs to no image."""
    folder = tmp_path_factory.mktemp("bags")
    records = [make(i) for i in range(IMAGES) for make in (raw, boxes)]
    _, topic, lost = boxes(2)
    lost.header.stamp.nanosec += 1
    return write_bag(folder / "run", [*records, (boxes(2)[0], topic, lost)])


def segment(bag: Path, output: Path, *arguments: str) -> int:
    """Runs the command in this process."""
    fixed = [*FIXED, "--output", str(output)]
    return segment_bag.main([str(bag), *fixed, *arguments])


def start(bag: Path, output: Path, *arguments: str) -> subprocess.Popen[str]:
    """Starts the command in a Python without ROS, from the checkout."""
    environ = {k: v for k, v in os.environ.items() if k not in ("AMENT_PREFIX_PATH", "PYTHONPATH")}
    fixed = [*FIXED, "--output", str(output)]
    return subprocess.Popen(
        [sys.executable, "-c", WITHOUT_ROS, str(bag), *fixed, *arguments],
        cwd=CHECKOUT,
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def wait_for(process: subprocess.Popen[str], done: int) -> None:
    """Waits until the progress bar says that so many images are done, or more: it skips some."""
    assert process.stderr is not None
    text = ""
    while not any(int(n) >= done for n in re.findall(rf" (\d+)/{IMAGES} ", text)):
        character = process.stderr.read(1)
        assert character, f"it ended: {text}"
        text += character


def results(output: Path) -> int:
    """How many images the journal has."""
    partial = output.with_name(f"{output.name}.partial")
    with closing(sqlite3.connect(partial / "journal.sqlite3")) as database:
        return database.execute("SELECT COUNT(*) FROM results").fetchone()[0]


def files(bag: Path) -> dict[str, bytes]:
    """The contents of a bag's files."""
    return {path.suffix: path.read_bytes() for path in bag.iterdir()}


def count_encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes a list that grows with every image that is encoded."""
    encoded: list[int] = []
    encode = mobile_sam.Predictor.encode

    def counting(self: mobile_sam.Predictor, image: np.ndarray) -> mobile_sam.Embedding:
        encoded.append(1)
        return encode(self, image)

    monkeypatch.setattr(mobile_sam.Predictor, "encode", counting)
    return encoded


def test_killed_without_ros_it_goes_on_with_the_same_bytes(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, resumed = tmp_path / "one/new", tmp_path / "two/new"
    for path in (whole, resumed):
        path.parent.mkdir()
    process = start(bag, resumed, *DETECTIONS)
    wait_for(process, 2)
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    assert not resumed.exists()
    before = results(resumed)
    assert 2 <= before < IMAGES
    encoded = count_encoded(monkeypatch)
    assert segment(bag, resumed, *DETECTIONS) == 0
    assert len(encoded) == IMAGES - before
    said = capsys.readouterr().err
    assert said.count("no image has stamp 1700000000.200000001 of its header") == 2
    assert segment(bag, whole, *DETECTIONS) == 0
    assert len(encoded) == 2 * IMAGES - before
    assert files(resumed) == files(whole)
    assert not resumed.with_name("new.partial").exists()


@pytest.mark.parametrize(("room", "is_writing"), [(90_000, False), (300_000, True)])
def test_a_full_disk_is_said_and_it_goes_on_with_the_same_bytes(
    bag: Path, tmp_path: Path, room: int, is_writing: bool
) -> None:
    """Full while the journal is filled, and while the new bag is written."""
    whole, resumed = tmp_path / "one/new", tmp_path / "two/new"
    for path in (whole, resumed):
        path.parent.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        process = start(bag, resumed, *DETECTIONS, "--compression", "none")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in said, said
    assert "segmenting:" in said and ("writing:" in said) is is_writing
    assert re.search("too large|disk|full", said.splitlines()[-1]), said
    assert not resumed.exists()
    assert segment(bag, resumed, *DETECTIONS, "--compression", "none") == 0
    assert segment(bag, whole, *DETECTIONS, "--compression", "none") == 0
    assert files(resumed) == files(whole)


def stop_after(done: int, monkeypatch: pytest.MonkeyPatch, number: int = signal.SIGINT) -> None:
    """Sends this process a signal when so many images are done."""
    add = segmenting.Journal.add

    def adding(self: segmenting.Journal, *arguments: object) -> None:
        add(self, *arguments)  # type: ignore[arg-type]
        if len(self) == done:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(segmenting.Journal, "add", adding)


def box_text(index: int, label: int) -> str:
    rows, columns = np.nonzero(SCENE.frame(index).labels == label)
    return f"{columns.min()},{rows.min()},{columns.max() + 1},{rows.max() + 1}"


def test_what_is_followed_is_followed_on(
    bag: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prompts = ["--box", box_text(0, 1), "--box", f"late={box_text(4, 2)}@0.4"]
    resumed = tmp_path / "two/new"
    resumed.parent.mkdir()
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        assert segment(bag, resumed, *prompts) == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    assert results(resumed) == 3
    encoded = count_encoded(monkeypatch)
    assert segment(bag, resumed, *prompts) == 0
    assert len(encoded) == IMAGES - 3
    whole = tmp_path / "one/new"
    whole.parent.mkdir()
    assert segment(bag, whole, *prompts) == 0
    assert files(resumed) == files(whole)
    last = of_topic(resumed, "/sam/segments")[-1].message.segments
    assert [(item.id, item.age) for item in last] == [("prompt_1", 5), ("late", 1)]


def test_killed_while_it_follows_it_goes_back_to_what_it_kept(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not to the beginning."""

    class Killed(Exception):
        pass

    def segmented_until(done: int) -> None:
        segment_ = segmenting.Segmenter.segment
        calls: list[int] = []

        def segmenting_(self: segmenting.Segmenter, *arguments: object) -> object:
            calls.append(1)
            if len(calls) > done:
                raise Killed
            return segment_(self, *arguments)  # type: ignore[arg-type]

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(segmenting.Segmenter, "segment", segmenting_)
            segment(bag, resumed, *prompts)

    prompts = ["--box", box_text(0, 1), "--end", "0.5"]
    resumed, whole = tmp_path / "two/new", tmp_path / "one/new"
    for path in (whole, resumed):
        path.parent.mkdir()
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        assert segment(bag, resumed, *prompts) == 130  # a checkpoint after two
    segmented_until(2)
    assert results(resumed) == 4
    encoded = count_encoded(monkeypatch)
    assert segment(bag, resumed, *prompts) == 0
    assert len(encoded) == 5 - 2
    assert segment(bag, whole, *prompts) == 0
    assert files(resumed) == files(whole)


def test_interrupted_while_it_writes_it_segments_nothing_again(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "new"

    def interrupted(*arguments: object) -> Sequence[object]:
        os.kill(os.getpid(), signal.SIGINT)
        return ()

    part = ["--end", "0.3", *DETECTIONS]
    with monkeypatch.context() as patch:
        patch.setattr(mobile_sam_results(), "label_names", interrupted)
        assert segment(bag, output, *part) == 130
    assert not output.exists()
    monkeypatch.setattr(segment_bag, "load_predictor", lambda options: pytest.fail("loaded"))
    # What comes of the segments may be asked for otherwise now.
    assert segment(bag, output, *part, "--outputs", "mask", "--storage", "sqlite3") == 0
    assert len(of_topic(output, "/sam/mask")) == 3


def mobile_sam_results() -> object:
    """Where the second pass has the names of labels from."""
    from mobile_sam_ros.bags import assembling

    return assembling


def test_files_that_overlap_a_little_lose_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image is recorded before those of the file before it: it is found by its number."""
    parts = [[make(i) for i in part for make in (raw, boxes)] for part in ((0, 1, 3), (2, 4))]
    split = split_bag(tmp_path / "run", *parts)
    resumed, whole = tmp_path / "two/new", tmp_path / "one/new"
    for path in (whole, resumed):
        path.parent.mkdir()
    for done in (3, 4):
        with monkeypatch.context() as patch:
            stop_after(done, patch)
            assert segment(split, resumed, *DETECTIONS) == 130
    encoded = count_encoded(monkeypatch)
    assert segment(split, resumed, *DETECTIONS) == 0
    assert len(encoded) == 1
    assert segment(split, whole, *DETECTIONS) == 0
    assert files(resumed) == files(whole)
    read = of_topic(resumed, "/sam/segments")
    assert [len(item.message.segments) for item in read] == [3] * 5


def test_what_is_damaged_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = (log(1), "/detections", b"\0\1\0\0no detections")
    records = [make(i) for i in range(3) for make in (raw, boxes)]
    bag, output = write_bag(tmp_path / "run", [*records, damaged]), tmp_path / "new"
    for done in (1, 2):
        with monkeypatch.context() as patch:
            stop_after(done, patch)
            assert segment(bag, output, *DETECTIONS) == 130
    capsys.readouterr()
    assert segment(bag, output, *DETECTIONS) == 0
    said = capsys.readouterr().err
    assert said.count("/detections: not a vision_msgs/msg/Detection2DArray") == 1
    assert "times)" not in said


def test_results_of_too_few_images_are_said(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new"
    with monkeypatch.context() as patch:
        stop_after(1, patch)
        assert segment(bag, output, *DETECTIONS) == 130
    with closing(sqlite3.connect(tmp_path / "new.partial/journal.sqlite3")) as database:
        database.execute("PRAGMA user_version = 1")  # as if it were complete
    assert segment(bag, output, *DETECTIONS) == 1
    said = capsys.readouterr().err
    assert f"{bag}: image 2 is not the one that was segmented: begin anew with --restart" in said


def test_other_settings_are_refused_by_name(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new"
    with monkeypatch.context() as patch:
        stop_after(1, patch, signal.SIGTERM)
        assert segment(bag, output, *DETECTIONS) == 130
    capsys.readouterr()
    assert segment(bag, output, *DETECTIONS, "--min-score", "0.65") == 1
    said = capsys.readouterr().err
    assert "begun with --min-score 0.0, and now it is 0.65" in said and "--restart" in said
    assert segment(bag, output, *DETECTIONS, "--no-match-frame-id") == 1
    assert "with --match-frame-id True, and now it is False" in capsys.readouterr().err
    part = ["--end", "0.2", "--min-score", "0.65", "--restart"]
    assert segment(bag, output, *DETECTIONS, *part) == 0
    segments = of_topic(output, "/sam/segments")
    assert [[item.id for item in read.message.segments] for read in segments] == [["2", "3"]] * 2
    assert segment(bag, output, *DETECTIONS) == 1
    assert f"{output}: is there already" in capsys.readouterr().err


def test_a_wrong_prompt_can_be_corrected(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = ["--end", "0.1", "--box"]
    assert segment(bag, tmp_path / "new", *part, "900,20,990,60") == 1
    assert "lies outside of the image" in capsys.readouterr().err
    assert segment(bag, tmp_path / "new", *part, "20,20,60,60") == 0


def test_two_at_once_are_refused(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new"
    partial = tmp_path / "new.partial"
    partial.mkdir()
    with closing(sqlite3.connect(partial / "journal.sqlite3", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        assert segment(bag, output, *DETECTIONS) == 1
    assert "another process is at work on it" in capsys.readouterr().err


def test_a_folder_of_somebody_elses_is_left_alone(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty one is what a kill at the very beginning leaves."""
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / "notes.txt").write_text("mine")
    assert segment(bag, tmp_path / "out", *DETECTIONS) == 1
    assert f"{partial}: is there, and not of this command" in capsys.readouterr().err
    assert (partial / "notes.txt").read_text() == "mine"
    (partial / "notes.txt").unlink()
    assert segment(bag, tmp_path / "out", *DETECTIONS) == 0
    assert not partial.exists()
