"""Decoupled distillation: pictures, stored embeddings, and a student that learns from them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from small_model import SMALL
from torch import nn
from torch.distributed import run as torchrun

from mobile_sam.checkpoints import WeightsError, load_sam, save_safetensors
from mobile_sam.modeling import Sam
from mobile_sam.pictures import PictureError
from mobile_sam.scenes import draw_scene
from mobile_sam.training import distill, embeddings, experiment, finetune
from mobile_sam.training.batches import Batches, index_at
from mobile_sam.training.distributed import Group
from mobile_sam.training.embeddings import EmbeddingStore, StoreError, embed
from mobile_sam.training.loop import LoopSettings, TrainingError
from mobile_sam.training.teachers import Teacher, load_teacher
from mobile_sam.training.unlabelled import list_pictures

STUDENT = dataclasses.replace(SMALL, encoder_dims=(8, 16, 16, 16), encoder_heads=(1, 1, 1, 1))
ALONE = Group(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with eleven drawn pictures of several sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "below").mkdir()
    for i in range(11):
        scene = draw_scene(np.random.default_rng(i), (48 + i, 64))
        name = folder / ("below" if i % 2 else ".") / f"{i:02}.png"
        cv2.imwrite(str(name), scene.image[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small teacher, random ones."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_safetensors(Sam(SMALL), path)
    return path


@pytest.fixture(scope="module")
def store(
    pictures: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory
) -> EmbeddingStore:
    directory = tmp_path_factory.mktemp("embeddings")
    return embed(load_teacher(str(teacher)), list_pictures(pictures), directory, per_shard=4)


# --- Pictures -------------------------------------------------------------------------------


def test_the_same_pictures_from_folder_list_and_shards(pictures: Path, tmp_path: Path) -> None:
    files = list_pictures(pictures)
    assert len(files) == 11 and len({file.name for file in files}) == 11
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(os.path.relpath(file.path, tmp_path) for file in files) + "\n")
    shard = tmp_path / "shards" / "000.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as archive:
        for file in files:
            archive.add(file.path, file.name)
            archive.add(__file__, f"{file.name}.txt")  # what else a sample of WebDataset has
    for source in (listed, shard, shard.parent):
        for one, other in zip(files, list_pictures(source), strict=True):
            np.testing.assert_array_equal(one.read(), other.read())


def test_what_is_no_source_of_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="none: no such folder"):
        list_pictures(tmp_path / "none")
    with pytest.raises(PictureError, match="has no pictures"):
        list_pictures(tmp_path)
    (tmp_path / "list.txt").write_text("\nmissing.png\n")
    with pytest.raises(PictureError, match="list.txt, line 2: .*missing.png"):
        list_pictures(tmp_path / "list.txt")
    (tmp_path / "bad.tar").write_text("no archive")
    with pytest.raises(PictureError, match="bad.tar: not a .tar file"):
        list_pictures(tmp_path / "bad.tar")


def test_batches_have_every_sample_once_an_epoch_and_go_on_anywhere() -> None:
    def take(batches: Batches, count: int) -> list[list[int]]:
        stream = iter(batches)
        return [next(stream) for _ in range(count)]

    straight = take(Batches(4), 10)
    indices = [index_at(position, 10, seed=3) for batch in straight for position in batch]
    for epoch in range(4):
        assert sorted(indices[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert indices[:10] != indices[10:20]
    assert take(Batches(4, first=6), 4) == straight[6:]
    shared = [take(Batches(4, rank=rank, processes=2), 5) for rank in (0, 1)]
    assert [batch for pair in zip(*shared, strict=True) for batch in pair] == straight


# --- Embeddings -----------------------------------------------------------------------------


def test_a_store_holds_what_the_teacher_says(
    store: EmbeddingStore, teacher: Path, pictures: Path
) -> None:
    assert len(store) == 11 and len(list(store.directory.glob("*.safetensors"))) == 3
    sam = load_sam(teacher)
    for index, file in enumerate(list_pictures(pictures)):
        assert store.names[index] == file.name
        image = torch.from_numpy(file.read()).permute(2, 0, 1)[None]
        wanted = sam.encode(image)[0] if max(image.shape) <= 64 else None
        found = store[index]
        assert found.dtype == torch.float16 and found.shape == (32, 4, 4)
        if wanted is not None:
            torch.testing.assert_close(found.float(), wanted, atol=2e-2, rtol=0)


def test_checksums_are_those_of_sha256sum_and_find_damage(
    pictures: Path, teacher: Path, tmp_path: Path
) -> None:
    store = embed(load_teacher(str(teacher)), list_pictures(pictures), tmp_path, per_shard=4)
    store.verify()
    path = tmp_path / "00001.safetensors"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"{digest}  00001.safetensors\n" in (tmp_path / "SHA256SUMS").read_text()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="00001.safetensors: damaged"):
        store.verify()


def test_interrupted_embedding_goes_on(
    store: EmbeddingStore, pictures: Path, teacher: Path, tmp_path: Path
) -> None:
    whole = load_teacher(str(teacher))
    calls = 0

    class Weary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = whole.encoder

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            if calls == 4:
                raise KeyboardInterrupt
            return self.encoder(pixels)

    files = list_pictures(pictures)
    weary = Teacher(whole.name, whole.image_size, Weary())
    with pytest.raises(KeyboardInterrupt):
        embed(weary, files, tmp_path, per_shard=4, batch=2)
    with pytest.raises(StoreError, match="not finished, 00001.safetensors is missing"):
        EmbeddingStore(tmp_path)
    before = calls
    again = embed(weary, files, tmp_path, per_shard=4, batch=2)
    assert calls - before == 4  # batches of the two shards that were missing
    for index in range(11):
        torch.testing.assert_close(again[index], store[index], atol=1e-2, rtol=0)
    with pytest.raises(StoreError, match="of other pictures"):
        embed(whole, files[:5], tmp_path, per_shard=4)
    with pytest.raises(StoreError, match="the store is of per_shard 4, not 8"):
        embed(whole, files, tmp_path, per_shard=8)


@pytest.mark.slow
def test_teacher_is_upstreams_vit_b(tmp_path: Path) -> None:
    """SAM's ViT-B with random weights, from a checkpoint of SAM's names."""
    oracle = pytest.importorskip("mobilesam_lite.mobile_sam")
    torch.manual_seed(1)
    model = oracle.sam_model_registry["vit_b"]().eval()
    with torch.no_grad():
        for name, parameter in model.image_encoder.named_parameters():
            if "rel_pos" in name or "pos_embed" in name or parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    path = tmp_path / "sam_vit_b.pth"
    torch.save(model.state_dict(), path)
    pixels = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (1, 3, 768, 1024), np.uint8)
    )
    teacher = load_teacher(f"vit_b={path}")
    blocks = zip(teacher.encoder.blocks, model.image_encoder.blocks, strict=True)
    for number, (block, of_oracle) in enumerate(blocks):
        assert block.window_size == of_oracle.window_size, number
        assert torch.equal(block.attn.qkv.weight, of_oracle.attn.qkv.weight), number
    for encoder in (teacher.encoder, model.image_encoder):
        encoder.blocks = encoder.blocks[:3]  # one without windows; all twelve take half a minute
    found = teacher.encode(pixels)
    with torch.inference_mode():
        wanted = model.image_encoder(model.preprocess(pixels.float()))
    assert wanted.std() > 0.1
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    with pytest.raises(WeightsError, match="sam_vit_b.pth: not a checkpoint of SAM's samvit_large"):
        load_teacher(f"vit_l={path}")


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
        *("--config", str(tmp_path / "config.json"), "--decoder-from", str(teacher)),
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
