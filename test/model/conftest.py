"""Pictures, a small teacher, and what it says of them: for all tests of distillation."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from small_model import SMALL

from mobile_sam.checkpoints import save_safetensors
from mobile_sam.modeling import Sam
from mobile_sam.scenes import draw_scene
from mobile_sam.training.embeddings import EmbeddingStore, embed
from mobile_sam.training.teachers import load_teacher
from mobile_sam.training.unlabelled import list_pictures


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with eleven drawn pictures of several sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "below").mkdir()
    for i in range(11):
        scene = draw_scene(np.random.default_rng(i), (48 + i, 64))
        name = folder / ("below" if i % 2 else ".") / f"{i:02}.png"
        cv2.imwrite(str(name), scene.image[..., ::-1])
    return folder


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small teacher, random ones."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_safetensors(Sam(SMALL), path)
    return path


@pytest.fixture(scope="session")
def store(
    pictures: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory
) -> EmbeddingStore:
    """What the teacher says of the pictures, in three shards."""
    directory = tmp_path_factory.mktemp("embeddings")
    return embed(load_teacher(str(teacher)), list_pictures(pictures), directory, per_shard=4)
