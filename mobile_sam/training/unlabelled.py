"""Pictures without labels, for distillation: a folder, a list of files, or WebDataset shards."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from mobile_sam.pictures import PictureError
from mobile_sam.predictor import scaled_size

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class PictureFile:
    """Where the bytes of one picture lie.

    Attributes:
        name: unique among the pictures of one source, and the same on every machine.
        path: of the file, or of the archive that it lies in.
        offset: of the first byte.
        size: number of bytes; -1: to the end of the file.
    """

    name: str
    path: Path
    offset: int = 0
    size: int = -1

    def read(self) -> NDArray[np.uint8]:
        """Returns uint8 (H, W, 3), RGB.

        Raises:
            PictureError: damaged, or not an image.
        """
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = np.frombuffer(file.read(self.size), np.uint8)
        try:
            image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
        except cv2.error:  # as where the header has too many pixels
            image = None
        if image is None:
            raise PictureError(f"{self.path}: {self.name} is not an image that can be read")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def list_pictures(source: Path) -> list[PictureFile]:
    """Lists pictures, in an order that is always the same.

    Args:
        source: a folder (all images below it, and those in its .tar files, which is how WebDataset
            lays out its shards), one .tar file, or a .txt file with a path a line, relative to it.

    Raises:
        PictureError: there is nothing there, or a listed file is missing.
    """
    if source.suffix == ".txt" and source.is_file():
        found = _listed(source)
    elif source.suffix == ".tar" and source.is_file():
        found = _in_shards([source], source.parent)
    elif source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.is_file())
        images = [path for path in files if path.suffix.lower() in _SUFFIXES]
        found = [PictureFile(str(path.relative_to(source)), path) for path in images]
        found += _in_shards([path for path in files if path.suffix == ".tar"], source)
    else:
        raise PictureError(f"{source}: no such folder, .tar or .txt file")
    if not found:
        raise PictureError(f"{source}: has no pictures")
    return found


def _listed(source: Path) -> list[PictureFile]:
    found = []
    for number, line in enumerate(source.read_text().splitlines(), 1):
        if line.strip():
            path = source.parent / line.strip()
            if not path.is_file():
                raise PictureError(f"{source}, line {number}: {path}: no such file")
            found.append(PictureFile(line.strip(), path))
    return found


def _in_shards(shards: Sequence[Path], root: Path) -> list[PictureFile]:
    found = []
    for shard in shards:
        try:
            with tarfile.open(shard, "r:") as archive:
                for member in archive:
                    if member.isfile() and Path(member.name).suffix.lower() in _SUFFIXES:
                        name = f"{shard.relative_to(root)}/{member.name}"
                        found.append(PictureFile(name, shard, member.offset_data, member.size))
        except tarfile.TarError as error:
            raise PictureError(f"{shard}: not a .tar file that can be read: {error}") from error
    return found


class SquarePictures(Dataset[Tensor]):
    """Pictures scaled to a longer side of `image_size` and padded: uint8 (3, S, S).

    The padding has the mean of SAM's normalisation as far as bytes go, so that it is the zeros
    that the encoders are used to.
    """

    def __init__(self, files: Sequence[PictureFile], image_size: int) -> None:
        self.files, self.image_size = files, image_size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return square(self.files[index].read(), self.image_size)


# SAM's mean, rounded: a byte cannot be nearer to 0 once it is normalised.
_PADDING = (124, 116, 104)


def square(image: NDArray[np.uint8], image_size: int) -> Tensor:
    """Returns an image, uint8 (H, W, 3), as the encoders see it: uint8 (3, S, S)."""
    height, width = scaled_size(image.shape[:2], image_size)
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    scaled = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)[0]
    result = torch.tensor(_PADDING, dtype=torch.uint8)[:, None, None]
    result = result.repeat(1, image_size, image_size)
    result[:, :height, :width] = scaled
    return result
