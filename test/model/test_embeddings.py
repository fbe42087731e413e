"""Stage one of distillation: pictures, batches of them, and what a teacher says, stored."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from small_model import SMALL
from torch import nn

from mobile_sam.checkpoints import WeightsError, load_sam, save_safetensors
from mobile_sam.modeling import Sam
from mobile_sam.pictures import PictureError
from mobile_sam.training import embeddings
from mobile_sam.training.batches import Batches, index_at
from mobile_sam.training.distill import Lessons, distill
from mobile_sam.training.distributed import Group
from mobile_sam.training.embeddings import EmbeddingStore, StoreError, embed
from mobile_sam.training.loop import LoopSettings
from mobile_sam.training.teachers import load_teacher
from mobile_sam.training.unlabelled import list_pictures

ALONE = Group(0, 1, torch.device("cpu"))


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
    with pytest.raises(StoreError, match="00001.safetensors: damaged, .* makes it anew"):
        store.verify()
    with pytest.raises(StoreError, match="not finished, 00001.safetensors is missing"):
        EmbeddingStore(tmp_path)
    (tmp_path / "00002.safetensors").unlink()
    with pytest.raises(StoreError, match="00002.safetensors: cannot be read: No such file"):
        store.verify()
    # A shard that is there and empty, as after a loss of power, is none.
    (tmp_path / "00000.safetensors").write_bytes(b"")
    with pytest.raises(StoreError, match="not finished, 00000.safetensors is missing"):
        EmbeddingStore(tmp_path)
    with (tmp_path / "SHA256SUMS").open("a") as file:
        file.write("0123")  # cut off
    embed(load_teacher(str(teacher)), list_pictures(pictures), tmp_path, per_shard=4).verify()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    lines = (tmp_path / "SHA256SUMS").read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == [f"0000{i}.safetensors" for i in range(3)]


def test_a_teacher_is_known_by_its_weights_wherever_they_lie(
    pictures: Path, teacher: Path, tmp_path: Path
) -> None:
    files = list_pictures(pictures)[:2]
    moved = shutil.copy(teacher, tmp_path / "moved.safetensors")
    embed(load_teacher(str(teacher)), files, tmp_path / "store")
    assert embed(load_teacher(str(moved)), files, tmp_path / "store").teacher == str(teacher)
    save_safetensors(Sam(SMALL), moved)
    with pytest.raises(StoreError, match=f"of another teacher, the weights of '{teacher}' then"):
        embed(load_teacher(str(moved)), files, tmp_path / "store")
    path = tmp_path / "store/embeddings.json"  # as older versions wrote it
    description = json.loads(path.read_text())
    del description["encoder_sha256"]
    path.write_text(json.dumps(description))
    embed(load_teacher(str(teacher)), files, tmp_path / "store")
    with pytest.raises(StoreError, match=f"of teacher '{teacher}', not '{moved}'"):
        embed(load_teacher(str(moved)), files, tmp_path / "store")


def test_pictures_that_cannot_be_read_are_noted_and_left_out(
    pictures: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, directory = tmp_path / "pictures", tmp_path / "store"
    shutil.copytree(pictures, folder)
    names = [file.name for file in list_pictures(folder)]
    whole = (folder / names[1]).read_bytes()
    for name in (names[1], names[6]):
        (folder / name).write_bytes(whole[: len(whole) // 8])
    huge = b"P6\n%d 65000\n255\n" % 65000  # more pixels than OpenCV takes
    (folder / "huge.ppm").write_bytes(huge)
    bad = [names[1], names[6], "huge.ppm"]
    options = ["--teacher", str(teacher), "--per-shard", "4", "--workers", "0", "--device", "cpu"]
    assert embeddings.main([str(folder), str(directory), *options]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("9 embeddings of") and "without 3 that could not be" in said.out
    assert all(f"{name} is not an image that can be read; left out" in said.err for name in bad)
    noted = (directory / "unreadable.txt").read_text().splitlines()
    assert noted == sorted(bad)
    store = EmbeddingStore(directory)
    assert store.unreadable == set(bad)
    for name, embedding in zip(store.names, store, strict=False):
        assert bool(embedding.any()) == (name not in bad), name
    lessons = Lessons(folder, store, SMALL.image_size)
    assert len(lessons) == 9 and all(lessons[position][1].any() for position in range(9))
    distill(Sam(SMALL).train(), lessons, LoopSettings(steps=3), tmp_path / "run", ALONE, batch=4)
    # Made again, nothing is noted twice; and what is whole now is noted no more.
    shard = "00000.safetensors"
    (directory / shard).unlink()
    assert embeddings.main([str(folder), str(directory), *options]) == 0
    assert (directory / "unreadable.txt").read_text().splitlines() == noted
    (directory / shard).unlink()
    (folder / names[1]).write_bytes(whole)
    assert embeddings.main([str(folder), str(directory), *options]) == 0
    assert EmbeddingStore(directory).unreadable == set(bad[1:])
    for file in list_pictures(folder):
        file.path.write_bytes(b"nothing")
    assert embeddings.main([str(folder), str(tmp_path / "none"), *options]) == 1
    assert "none: none of its 12 pictures could be read" in capsys.readouterr().err


def test_interrupted_embedding_goes_on(
    store: EmbeddingStore, pictures: Path, teacher: Path, tmp_path: Path
) -> None:
    whole = load_teacher(str(teacher))
    calls = 0

    def interrupted(encoder: nn.Module, arguments: tuple) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt

    files = list_pictures(pictures)
    whole.encoder.register_forward_pre_hook(interrupted)
    with pytest.raises(KeyboardInterrupt):
        embed(whole, files, tmp_path, per_shard=4, batch=2)
    with pytest.raises(StoreError, match="not finished, 00001.safetensors is missing"):
        EmbeddingStore(tmp_path)
    before = calls
    again = embed(whole, files, tmp_path, per_shard=4, batch=2)
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
