"""The commands on the page about bags, one after the other, on a bag with its topics."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from recorded import boxes, raw, write_bag
from rosbags.rosbag2 import Reader

from mobile_sam.training.examples import open_examples
from mobile_sam_ros.bags import bag_report, segment_bag

PAGE = Path(__file__).parents[2] / "docs/bags.md"
IMAGE, DETECTIONS = "/camera/color/image_raw", "/yolo/detections"


def commands() -> list[list[str]]:
    """Those in the blocks of a console."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    text = "".join(blocks).replace("\\\n", " ")
    return [shlex.split(line.removeprefix("$ ")) for line in text.splitlines()]


def test_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    records = [make(i, topic) for i in range(3) for make, topic in
               ((raw, IMAGE), (boxes, DETECTIONS))]  # fmt: skip
    write_bag(tmp_path / "run1", records)
    found = commands()
    assert [command[0] for command in found] == ["segment-bag"] * 6 + ["bag-report"]
    for name, *arguments in found:
        if name == "segment-bag":
            how = ["--weights", "demo", "--backend", "torch"]
            assert segment_bag.main([*arguments, *how]) == 0, arguments
        else:
            assert bag_report.main(arguments) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        *("run1", "run1_segmented", "run1_by_hand", "run1_followed", "run1_everything"),
        *("run1_labels", "run1_exported", "run1_segmented_report"),
        *("masks.json", "pictures", "overlays.mp4"),
    }
    with Reader(tmp_path / "run1_labels") as reader:
        topics = set(reader.topics) - {IMAGE, DETECTIONS}
    assert topics == {f"/offline/sam/{n}" for n in ("label_info", "labels", "overlay", "segments")}
    # What training takes.
    examples = open_examples("coco:masks.json:pictures", (0,), (96, 128))
    assert examples.count == 3
    assert len(examples.get(2).masks) == 3
