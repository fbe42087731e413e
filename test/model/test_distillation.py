"""Stage two of distillation: a student that learns what a teacher's embeddings say."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from small_model import SMALL
from torch import nn
from torch.distributed import run as torchrun

from mobile_sam.checkpoints import WeightsError, load_sam, save_safetensors
from mobile_sam.modeling import Sam
from mobile_sam.training import distill, embeddings, experiment, finetune
from mobile_sam.training.distributed import Group
from mobile_sam.training.embeddings import EmbeddingStore
from mobile_sam.training.loop import LoopSettings, TrainingError
from mobile_sam.training.teachers import load_decoder

STUDENT = dataclasses.replace(SMALL, encoder_dims=(8, 16, 16, 16), encoder_heads=(1, 1, 1, 1))
ALONE = Group(0, 1, torch.device("cpu"))


# --- The student ----------------------------------------------------------------------------


def student() -> Sam:
    torch.manual_seed(5)
    sam = Sam(STUDENT).train().requires_grad_(False)
    sam.image_encoder.requires_grad_(True)
    return sam


def run(
    store: EmbeddingStore, pictures: Path, directory: Path, settings: LoopSettings
) -> dict[str, torch.Tensor]:
    sam = student()
    lessons = distill.Lessons(pictures, store, STUDENT.image_size)
    return distill.distill(sam, lessons, settings, directory, ALONE, batch=4).state_dict()


def test_a_student_learns_and_its_decoder_stays(
    store: EmbeddingStore, pictures: Path, tmp_path: Path
) -> None:
    before = student().state_dict()
    settings = LoopSettings(steps=60, rate=1e-2, warmup=5, average=0.8)
    after = run(store, pictures, tmp_path, settings)
    lessons = distill.Lessons(pictures, store, 64)
    pairs = [lessons[position] for position in range(11)]
    pixels, wanted = (torch.stack(column) for column in zip(*pairs, strict=True))
    errors = []
    for state in (before, after):
        sam = Sam(STUDENT).eval().requires_grad_(False)
        sam.load_state_dict(state)
        errors.append(float(((sam.encode(pixels) - wanted.float()) ** 2).mean()))
    assert errors[1] < 0.5 * errors[0]
    for name in before:
        if not name.startswith("image_encoder."):
            assert torch.equal(before[name], after[name]), name
    saved = load_sam(tmp_path / "weights.safetensors")
    assert saved.config == STUDENT
    for name, tensor in saved.state_dict().items():
        assert torch.equal(tensor, after[name]), name
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_going_on_is_the_same_to_the_bit(
    store: EmbeddingStore,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = LoopSettings(steps=9, warmup=2, accumulate=2, average=0.5, save_seconds=0)
    straight = run(store, pictures, tmp_path / "straight", settings)
    count, loss = 0, distill.distillation_loss

    def fails_once(*arguments: object) -> dict[str, torch.Tensor]:
        nonlocal count
        count += 1
        if count == 10:  # in the middle of the fifth step
            raise KeyboardInterrupt
        return loss(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(distill, "distillation_loss", fails_once)
    with pytest.raises(KeyboardInterrupt):
        run(store, pictures, tmp_path / "broken", settings)
    again = run(store, pictures, tmp_path / "broken", settings)
    assert count == 2 * 9 + 2
    for name, tensor in straight.items():
        assert torch.equal(tensor, again[name]), name
    with pytest.raises(TrainingError, match="a run with rate 0.001, not 0.01"):
        run(store, pictures, tmp_path / "broken", dataclasses.replace(settings, rate=0.01))


def test_a_full_disk_does_not_end_a_run(
    store: EmbeddingStore,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real: Callable = torch.save
    count = 0

    def full(state: object, path: Path) -> None:
        nonlocal count
        count += 1
        if count == 2:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(state, path)

    monkeypatch.setattr(torch, "save", full)
    run(store, pictures, tmp_path, LoopSettings(steps=3, save_seconds=0))
    assert "cannot write" in capsys.readouterr().err
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 3
    assert not list(tmp_path.glob("partial-*"))


def test_a_gradient_that_is_not_finite_ends_with_advice(
    store: EmbeddingStore, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: nn.Module, batch: tuple) -> dict[str, torch.Tensor]:
        return {"loss": sum(p.sum() for p in model.parameters()) * float("nan")}

    monkeypatch.setattr(distill, "distillation_loss", broken)
    with pytest.raises(TrainingError, match="not been finite for 20 steps; a lower rate"):
        run(store, pictures, tmp_path, LoopSettings(steps=50))


def test_teacher_and_student_of_other_sizes(
    store: EmbeddingStore, pictures: Path, tmp_path: Path
) -> None:
    larger = dataclasses.replace(STUDENT, image_size=128)
    lessons = distill.Lessons(pictures, store, 128)
    settings = LoopSettings(steps=1, average=0.0)
    result = distill.distill(
        Sam(larger).train(), lessons, settings, tmp_path / "one", ALONE, batch=2
    )
    assert result.config.embedding_size == 8
    other = dataclasses.replace(STUDENT, embedding_dim=64)
    with pytest.raises(TrainingError, match="has 32 channels, the student's 64"):
        distill.distill(
            Sam(other), distill.Lessons(pictures, store, 64), settings, tmp_path / "two", ALONE, 2
        )


def decoder_of(sam: Sam) -> dict[str, torch.Tensor]:
    return {n: t for n, t in sam.state_dict().items() if not n.startswith("image_encoder.")}


def test_the_decoder_is_the_teachers_unless_another_is_asked_for(
    store: EmbeddingStore,
    pictures: Path,
    teacher: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    official, start, config = (tmp_path / name for name in ("vit_b.pth", "start.safetensors", "c"))
    of_official = decoder_of(Sam(SMALL))
    others = {"image_encoder.pos_embed": torch.zeros(1), "pixel_mean": torch.zeros(3)}
    torch.save({**of_official, **others}, official)
    begun = student()
    save_safetensors(begun, start)
    config.write_text(STUDENT.to_json())

    def decoder(*options: object, embedded: Path = store.directory) -> dict[str, torch.Tensor]:
        run = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        common = ["--steps", 1, "--batch", 2, "--workers", 0, "--device", "cpu"]
        assert distill.main([str(a) for a in (pictures, embedded, run, *common, *options)]) == 0
        return decoder_of(load_sam(run / "weights.safetensors"))

    for found, wanted in (
        (decoder("--config", config), decoder_of(load_sam(teacher))),
        (decoder("--config", config, "--decoder-from", f"vit_b={official}"), of_official),
        (decoder("--start-from", start), decoder_of(begun)),
        (decoder("--start-from", start, "--decoder-from", f"vit_b={official}"), of_official),
    ):
        assert found.keys() == wanted.keys()
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.items())
    elsewhere = shutil.copytree(store.directory, tmp_path / "store")
    text = (elsewhere / "embeddings.json").read_text()
    (elsewhere / "embeddings.json").write_text(text.replace(str(teacher), "vit_h=gone.pth"))
    command = [
        str(pictures),
        str(elsewhere),
        str(tmp_path / "x"),
        "--steps",
        "1",
        "--device",
        "cpu",
    ]
    assert distill.main(command) == 1
    assert "teacher: gone.pth: no such file; give --decoder-from" in capsys.readouterr().err
    assert distill.main([*command, "--decoder-from", str(teacher)]) == 1
    assert "prompt_encoder does not fit: " in capsys.readouterr().err
    official.write_bytes(official.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="vit_b.pth: not a checkpoint of SAM's samvit_base"):
        load_decoder(f"vit_b={official}")


@pytest.mark.parametrize("option", ["--batch=0", "--workers=-1", "--batch=two"])
def test_numbers_that_are_none_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (distill, embeddings):
        with pytest.raises(SystemExit, match="2"):
            command.main(["a", "b", option])
        said = capsys.readouterr().err
        assert f"argument {option.split('=')[0]}: " in said
        assert "is less than" in said or "'two' is no whole number" in said


@pytest.mark.slow
def test_both_commands_the_second_in_two_processes(
    pictures: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored, run_directory = tmp_path / "embeddings", tmp_path / "run"
    common = [str(pictures), str(stored)]
    assert embeddings.main([*common, "--teacher", str(teacher), "--verify", "--workers", "1"]) == 0
    assert "11 embeddings" in capsys.readouterr().out
    (tmp_path / "config.json").write_text(STUDENT.to_json())
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "mobile_sam.training.distill", *common, str(run_directory)),
        *("--config", str(tmp_path / "config.json")),
        *("--steps", "4", "--batch", "2", "--workers", "0", "--device", "cpu"),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    state = torch.load(run_directory / "state.pt", weights_only=True)
    assert state["step"] == 4
    trained = load_sam(run_directory / "weights.safetensors")
    decoder = load_sam(teacher).mask_decoder.state_dict()
    for name, tensor in trained.mask_decoder.state_dict().items():
        assert torch.equal(tensor, decoder[name]), name
    assert json.loads(trained.config.to_json())["image_size"] == 64
    assert distill.main([*common, "none", "--steps", "0"]) == 1
    assert "steps is 0, the least is 1" in capsys.readouterr().err


@pytest.mark.parametrize("command", [distill, finetune])
def test_torchrun_leaves_every_option_to_the_command(
    command: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    options = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)) - {"--help"}
    assert {"--start-from", "--steps", "--precision"} <= options
    for option in options:  # torchrun wants no beginning of its own options, wherever they stand
        given = torchrun.parse_args(["-m", command.__name__, "run/", option, "1"])
        assert given.training_script_args == ["run/", option, "1"], option


@pytest.mark.slow
def test_the_experiment_ends_with_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--minutes", "0.02", "--scenes", "6", "--held-out", "1", "--device", "cpu"]
    assert experiment.main([str(tmp_path / "run"), *options]) == 0
    printed = capsys.readouterr().out
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("| ")]
    assert [row[0].strip() for row in rows] == ["model", "teacher", "decoupled", "coupled"]
    sizes = [float(row[1]) for row in rows[1:]]
    assert sizes[1] == sizes[2] < 0.3 * sizes[0]
    assert float(rows[1][3]) > 0.5  # the teacher's box
