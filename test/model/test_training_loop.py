"""The training loop around any model: full disks, bad steps, what a run goes on with."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mobile_sam.training.distributed import Group
from mobile_sam.training.loop import LoopSettings, TrainingError, train

ALONE = Group(0, 1, torch.device("cpu"))
SETTINGS = LoopSettings(steps=4, warmup=0, average=0.5)
CHECKOUT = Path(__file__).parents[2]


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))


def batches(first: int) -> Iterator[Tensor]:
    while True:
        yield torch.randn(5, 3, generator=torch.Generator().manual_seed(first))
        first += 1


def squares(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    return {"loss": (model(batch) ** 2).mean()}


def run(directory: Path, **changes: Any) -> nn.Module:
    """Trains; `changes` are other arguments of `train`."""
    arguments = {
        "model": small_model(),
        "loss": squares,
        "batches": batches,
        "settings": SETTINGS,
        "run": {"pictures": 5},
        "directory": directory,
        "group": ALONE,
        "save_weights": lambda model, path: path.write_text("weights"),
    }
    return train(**{**arguments, **changes})


# --- Bad steps and values -------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_step_that_is_not_finite_leaves_nothing_behind(precision: str, tmp_path: Path) -> None:
    buffers: list[dict[str, Tensor]] = []
    averages: list[dict[str, Tensor]] = []

    def infinite_once(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        buffers.append({name: buffer.clone() for name, buffer in model.named_buffers()})
        factor = torch.inf if len(buffers) == 3 else 1
        return {"loss": (model(batch * factor) ** 2).mean()}

    def keep(average: nn.Module, path: Path) -> None:
        averages.append({name: tensor.clone() for name, tensor in average.state_dict().items()})
        path.touch()

    settings = dataclasses.replace(SETTINGS, steps=8, precision=precision, save_seconds=0)
    run(tmp_path, loss=infinite_once, settings=settings, save_weights=keep)
    assert len(buffers) == 8 and len(averages) == 9
    for name, before in buffers[2].items():
        assert torch.equal(buffers[3][name], before), name
        assert before.isfinite().all() and not torch.equal(before, buffers[1][name]), name
    for name, before in averages[1].items():
        assert torch.equal(averages[2][name], before), name
    weight = "2.weight"
    assert not torch.equal(averages[-1][weight], averages[2][weight])
    assert all(tensor.isfinite().all() for tensor in averages[-1].values())


def test_curves_have_the_mean_of_the_batches_that_have_a_value(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    calls = 0

    def sometimes(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        rare = {"rare": torch.tensor(0.75)} if calls % 2 else {}
        return {**squares(model, batch), **rare}

    settings = dataclasses.replace(SETTINGS, accumulate=2)
    run(tmp_path, loss=sometimes, settings=settings)
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("rare")] == [(i, 0.75) for i in range(1, 5)]
    assert len(events.Scalars("loss")) == 4


# --- Going on -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": {"pictures": 6}}, "a run with pictures 5, not 6; choose another"),
        ({"run": {"pictures": 5, "prompts": 2}}, "a run with prompts None, not 2"),
        ({"group": Group(0, 2, torch.device("cpu"))}, "a run with processes 1, not 2"),
        ({"settings": dataclasses.replace(SETTINGS, clip=2.0)}, "a run with clip 1.0, not 2.0"),
        ({"model": nn.Linear(3, 1)}, "state.pt: does not fit this run: .*; choose another"),
    ],
)
def test_another_run_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(TrainingError, match=message):
        run(tmp_path, **changes)
    run(tmp_path, settings=dataclasses.replace(SETTINGS, save_seconds=9))  # may be another


def test_a_run_of_an_older_version_goes_on(tmp_path: Path) -> None:
    run(tmp_path)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    del state["run"]
    torch.save({**state, "settings": vars(SETTINGS)}, tmp_path / "state.pt")
    run(tmp_path)
    with pytest.raises(TrainingError, match="a run with clip 1.0, not 2.0"):
        run(tmp_path, settings=dataclasses.replace(SETTINGS, clip=2.0))


@pytest.mark.parametrize("length", [0, 40, 1000])
def test_a_damaged_state_is_named(length: int, tmp_path: Path) -> None:
    run(tmp_path)
    path = tmp_path / "state.pt"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(TrainingError, match="state.pt: cannot be read: .*, remove it") as caught:
        run(tmp_path)
    assert "\n" not in str(caught.value)


def test_settings_outside_of_their_range() -> None:
    for name, value in (("average", 1.5), ("seed", -1), ("clip", -0.1), ("rate", float("nan"))):
        with pytest.raises(ValueError, match=f"{name} is {value}, the (least|most) is"):
            LoopSettings(**{"steps": 1, name: value})


# --- Full disks -----------------------------------------------------------------------------

# No file may get longer than the limit: writing fails as on a full disk, everywhere at once.
ON_A_FULL_DISK = """
import json, resource, sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from small_model import SMALL
from torch import nn

from mobile_sam.checkpoints import save_safetensors, write_tensors
from mobile_sam.cli import main
from mobile_sam.coco import CocoWriter
from mobile_sam.modeling import Sam
from mobile_sam.segments import no_segments
from mobile_sam.training import embeddings
from mobile_sam.training.distributed import Group
from mobile_sam.training.loop import LoopSettings, train

@contextmanager
def full_disk(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))

root = Path(sys.argv[1])
save = lambda model, path: write_tensors(model.state_dict(), path)

def go_on(steps):
    model = nn.Linear(100, 100)
    loss = lambda model, batch: {"loss": model(batch).square().mean()}
    settings = LoopSettings(steps=steps, save_seconds=0)
    alone = Group(0, 1, torch.device("cpu"))
    ones = lambda first: iter(lambda: torch.ones(2, 100), None)
    train(model, loss, ones, settings, {}, root / "run", alone, save)

with full_disk(400):
    go_on(10)
assert [path.name[:6] for path in (root / "run").iterdir()] == ["events"]
print("--", file=sys.stderr)
go_on(10)
assert {"state.pt", "weights.safetensors"} < {path.name for path in (root / "run").iterdir()}

save_safetensors(Sam(SMALL), root / "small.safetensors")
with full_disk(20_000):
    assert main(["shrink", str(root / "small.safetensors"), str(root / "x.safetensors")]) == 1
    store = [str(root / "pictures"), str(root / "store"), "--teacher", sys.argv[2]]
    assert embeddings.main([*store, "--workers", "0", "--device", "cpu"]) == 1
assert not (root / "x.safetensors").exists()
assert [path.name for path in (root / "store").iterdir()] == ["embeddings.json", "SHA256SUMS"]
print("--", file=sys.stderr)
assert embeddings.main([*store, "--workers", "0", "--device", "cpu", "--verify"]) == 0

coco, count = CocoWriter(), 0
with full_disk(1000):
    try:
        while True:
            coco.add(f"{count}.png", no_segments((3, 4), 8))
            count += 1
    except OSError as error:
        assert "File too large" in str(error)
coco.add("last.png", no_segments((3, 4), 8))
coco.save(root / "segments.json")
images = json.loads((root / "segments.json").read_text())["images"]
assert [image["file_name"] for image in images[-2:]] == [f"{count - 1}.png", "last.png"]
assert len(images) == count + 1 > 5
"""


def test_a_full_disk_ends_no_training_and_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for i in range(20):
        cv2.imwrite(str(tmp_path / f"pictures/{i}.png"), np.full((8, 8, 3), i, np.uint8))
    teacher = tmp_path / "small.safetensors"
    done = subprocess.run(
        # -B: Python would cut its own files off as well.
        [sys.executable, "-B", "-c", ON_A_FULL_DISK, str(tmp_path), str(teacher)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'test'}"},
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    full, after, last = done.stderr.split("--\n")
    assert full.count("no more curves: cannot write ") == 1
    assert full.count(f"cannot write {tmp_path}/run/state.pt: ") == 11
    assert full.count(f"cannot write {tmp_path}/run/weights.safetensors: ") == 11
    said = [line for line in after.splitlines() if line.startswith(("mobile-sam", "python"))]
    assert said[0].startswith(f"mobile-sam: {tmp_path}/x.safetensors: cannot be written: ")
    assert said[1].startswith("python -m mobile_sam.training.embeddings: ")
    assert "00000.safetensors: cannot be written: " in said[1] and len(said) == 2
    assert "cannot" not in last
    assert json.loads((tmp_path / "store/embeddings.json").read_text())["image_size"] == 64
