"""Measurements of bags whose latencies, gaps and overlaps are known, and the pictures of them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from recorded import BEGIN, SCENE, Record, header, log, raw, truth, write_bag

from mobile_sam.segments import Segments, tight_box
from mobile_sam_ros.bags.bag_report import main
from mobile_sam_ros.bags.measuring import Truth, centred_iou, compared, measure
from mobile_sam_ros.bags.source import SourceBag
from mobile_sam_ros.conversions import image_message
from mobile_sam_ros.identity import Identity
from mobile_sam_ros.results import segments_message

IMAGES = 20
LOST = (4, 11)  # images without results
LATENCIES = {i: 50_000_000 + 1_000_000 * i for i in range(IMAGES)}  # nanoseconds


def masks(index: int) -> dict[str, np.ndarray]:
    """Those of the objects, that of the second without its lower half."""
    labels = SCENE.frame(index).labels
    found = {str(label): labels == label for label in (1, 2, 3)}
    rows = np.flatnonzero(found["2"].any(axis=1))
    found["2"][rows[len(rows) // 2] :] = False
    return found


def result(index: int) -> Record:
    """As the node publishes it, and when."""
    found = masks(index)
    boxes = np.array([tight_box(mask) for mask in found.values()])
    crops = tuple(
        mask[y0:y1, x0:x1]
        for mask, (x0, y0, x1, y1) in zip(found.values(), boxes.astype(int), strict=True)
    )
    numbers = np.array([0.9, 0.6, 0.3], np.float32)
    segments = Segments((96, 128), boxes, crops, numbers, numbers / 2, np.zeros((3, 1, 1)))  # type: ignore[arg-type]
    names = [Identity(name) for name in found]
    message = segments_message(header(index), (96, 128), segments, names)
    return log(index) + LATENCIES[index], "/sam/segments", message


def nothing(index: int) -> Record:
    """A result without objects."""
    empty = Segments((96, 128), np.zeros((0, 4), np.float32), (), *np.zeros((3, 0), np.float32))
    return log(index) + LATENCIES[index], "/sam/segments", segments_message(
        header(index), (96, 128), empty, []
    )  # fmt: skip


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    said = [KeyValue(key="frames/dropped/newer", value="2")]
    status = DiagnosticStatus(name="/sam: segmentation", values=said)
    diagnostics = DiagnosticArray(header=header(IMAGES), status=[status])
    records = [make(i) for i in range(IMAGES) for make in (raw, truth)]
    records += [result(i) for i in range(IMAGES - 1) if i not in LOST] + [nothing(IMAGES - 1)]
    records += [(log(IMAGES), "/diagnostics", diagnostics)]
    return write_bag(tmp_path_factory.mktemp("bags") / "run", records)


def test_what_is_measured(bag: Path) -> None:
    with SourceBag(bag) as source:
        found = measure(source, "/image", "/sam/segments", "/truth/labels")
    there = [i for i in range(IMAGES) if i not in LOST]
    assert found.begin == log(0) and len(found.images) == IMAGES
    assert found.latencies() == {
        BEGIN + i * 100_000_000: pytest.approx(LATENCIES[i] / 1e9) for i in there
    }
    stamps = [BEGIN + i * 100_000_000 for i in (*LOST, IMAGES - 1)]
    assert sorted(found.without_masks()) == stamps
    assert sum(found.objects.values()) == 3 * (len(there) - 1)
    own = [mask for mask in found.masks if mask.id == "2"]
    assert [mask.predicted_iou for mask in own] == pytest.approx([0.6] * len(own))
    assert own[0].consistency is None and min(m.consistency or 0 for m in own[1:]) > 0.7
    assert found.truths is not None
    by_label = {k: [t.iou for t in found.truths if t.label == k] for k in (1, 2, 3)}
    assert set(by_label[1][:-1]) == set(by_label[3][:-1]) == {1.0}
    assert 0.3 < min(by_label[2][:-1]) and max(by_label[2]) < 0.7
    assert [ious[-1] for ious in by_label.values()] == [0, 0, 0]  # the image with an empty result
    assert found.counters == {"frames/dropped/newer": "2"} and not found.damaged


def test_the_report_says_it_and_draws_it(bag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(bag), "--image", "/image"]) == 0
    said = capsys.readouterr().out
    rows = {" ".join(line.split()[:-5]): line.split()[-5:] for line in said.splitlines()}
    words = " ".join(said.split())
    assert "20 recorded, 10.0 a second" in words
    assert "2 without results 1 with results, but no mask in them" in words
    assert "2 frames/dropped/newer: images with something to segment that a newer" in words
    p50, p95, p99, most = map(float, said.split("image to masks")[1].split()[:4])
    there = [LATENCIES[i] / 1e6 for i in range(IMAGES) if i not in LOST]
    assert [p50, p95, p99] == pytest.approx(np.percentile(there, (50, 95, 99)), abs=0.06)
    assert most == 69.0
    assert rows["predicted IoU"][0] == "0.600" and rows["predicted IoU"][-1] == "51"
    assert said.index("true object 2, in 18 images") < said.index("true object 1, in 18 images")
    folder = bag.with_name("run_report")
    assert (folder / "report.txt").read_text() in f"{said}\n"
    for name in ("latency.png", "rates.png", "quality.png"):
        picture = cv2.imread(str(folder / name))
        assert picture.shape[1] > 1000 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_a_bag_made_afterwards_has_no_latency_and_perhaps_no_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [raw(0), raw(1), *((log(i), *result(i)[1:]) for i in range(2))]
    bag = write_bag(tmp_path / "run", records)
    assert main([str(bag), "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "none: the masks were made from the bag" in said and "no truth to compare with" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "quality.png",
        "rates.png",
        "report.txt",
    ]


def test_truth_that_cannot_be_compared_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = [SCENE.frame(i).labels for i in range(4)]
    images = [
        image_message(labels[0].astype(np.uint8), "mono8", header(0)),
        image_message(SCENE.frame(1).image, "rgb8", header(1)),
        *(image_message(np.ascontiguousarray(labels[i][::2, ::2]), "16UC1", header(i))
          for i in (2, 3)),
    ]  # fmt: skip
    records = [(log(i), "/truth/labels", image) for i, image in enumerate(images)]
    records += [make(i) for i in range(4) for make in (raw, result)]
    bag = write_bag(tmp_path / "run", records)
    assert main([str(bag), "--image", "/image", "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "     1  /truth/labels: label image has encoding 'rgb8', not one of mono8" in said
    assert "     2  /truth/labels: label image has size 64x48, the masks 128x96" in said
    assert "1.000  true object 1, in 1 images" in said


def test_without_matplotlib_there_is_the_table(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, "mobile_sam_ros.bags.charts", raising=False)
    assert main([str(bag), "--image", "/image", "--output", str(tmp_path / "out")]) == 1
    output = capsys.readouterr()
    assert "Latency in milliseconds" in output.out and "pip install matplotlib" in output.err
    monkeypatch.undo()
    importlib.import_module("mobile_sam_ros.bags.charts")


def test_a_bag_without_masks_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = write_bag(tmp_path / "run", [raw(0)])
    assert main([str(bag)]) == 1
    said = capsys.readouterr().err
    assert "has no topic of type mobile_sam_ros/msg/SegmentArray: give --segments" in said
    assert "/image  sensor_msgs/msg/Image (1)" in said


# --- Small arrays whose answers are plain to see --------------------------------------------


def array(*rows: str) -> np.ndarray:
    return np.array([[cell == "#" for cell in row] for row in rows])


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (array("##", "##"), array("##", "##"), 1.0),
        (array("####"), array("##"), 0.5),
        (array("##", "##"), array("...", ".##", ".##"), 1.0),  # the same, elsewhere in its box
        (array("#"), array("###", "###", "###"), 1 / 9),
        (array("#####"), array("#", "#", "#", "#", "#"), 1 / 9),
        (array("#...#"), array("#.#"), 0.0),
    ],
)
def test_iou_centre_on_centre(one: np.ndarray, other: np.ndarray, expected: float) -> None:
    assert centred_iou(one, other) == pytest.approx(expected)
    assert centred_iou(other, one) == pytest.approx(expected)


def test_each_true_object_has_one_mask_at_most() -> None:
    labels = np.zeros((20, 20), np.uint16)
    labels[:10, :10], labels[10:, :10], labels[:10, 12:] = 1, 2, 3
    whole = labels == 1
    both = labels[:, :10] > 0  # over 1 and 2
    boxes = np.array([[0, 0, 10, 20], [0, 0, 10, 10]], np.float32)
    crops = (both, whole[:10, :10])
    segments = Segments((20, 20), boxes, crops, *np.ones((2, 2), np.float32), np.ones((2, 1, 1)))  # type: ignore[arg-type]
    items = segments_message(header(0), (20, 20), segments, [Identity("a"), Identity("b")]).segments
    # The better mask of 1 is b; a is left for 2, of which it is half; and 3 has none.
    expected = [Truth(7, 1, 1.0), Truth(7, 2, 0.5), Truth(7, 3, 0.0)]
    assert compared(7, labels, items, list(crops)) == expected
