"""A teacher's embeddings on disk: computed once, learnt from as often as one likes.

That is what makes distillation "decoupled" cheap (Zhang et al. 2023, arXiv:2306.14289, section
3.2): the large encoder runs once over each picture. A directory holds

- `embeddings.json`: teacher, sizes, and the names of all pictures in their order;
- `00000.safetensors` and so on: float16 (K, C, e, e), named `embeddings`, for the next K pictures;
- `SHA256SUMS`: one line a finished shard, as `sha256sum --check` reads it.

A shard is written under another name and renamed, and its line added after that: whatever is
interrupted goes on with the first shard that has no line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from mobile_sam.checkpoints import WeightsError
from mobile_sam.pictures import PictureError
from mobile_sam.training.batches import load
from mobile_sam.training.teachers import Teacher, load_teacher
from mobile_sam.training.unlabelled import PictureFile, SquarePictures, list_pictures

_DESCRIPTION = "embeddings.json"
_SUMS = "SHA256SUMS"
_CHUNK = 1 << 20


class StoreError(Exception):
    """A store that cannot be used; the message names file and cause."""


class EmbeddingStore:
    """The embeddings of a directory, for reading."""

    def __init__(self, directory: Path) -> None:
        """Opens a store that is complete.

        Raises:
            StoreError: it is missing, damaged or not finished.
        """
        self.directory = directory
        description = read_description(directory)
        self.teacher: str = description["teacher"]
        self.image_size: int = description["image_size"]
        self.names: list[str] = description["pictures"]
        self.per_shard: int = description["per_shard"]
        finished = read_sums(directory)
        missing = [s for s in shard_names(len(self.names), self.per_shard) if s not in finished]
        if missing:
            raise StoreError(
                f"{directory}: not finished, {missing[0]} is missing; run the same command again"
            )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        """Returns one embedding, float16 (C, e, e), without reading the rest of its shard."""
        shard, row = divmod(index, self.per_shard)
        path = self.directory / shard_names(len(self.names), self.per_shard)[shard]
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_slice("embeddings")[row]
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error

    def verify(self) -> None:
        """Reads all shards and compares their checksums.

        Raises:
            StoreError: one differs; the message names it.
        """
        for name, wanted in read_sums(self.directory).items():
            if sha256(self.directory / name) != wanted:
                raise StoreError(f"{self.directory / name}: damaged, its SHA-256 is not {wanted}")


def shard_names(pictures: int, per_shard: int) -> list[str]:
    """Returns the names of the shards that so many pictures make."""
    return [f"{i:05}.safetensors" for i in range(-(-pictures // per_shard))]


def sha256(path: Path) -> str:
    """Returns the checksum of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_description(directory: Path) -> dict:
    """Returns what `embeddings.json` says.

    Raises:
        StoreError: it is missing, or not of this form.
    """
    path = directory / _DESCRIPTION
    try:
        description = json.loads(path.read_text())
        missing = {"teacher", "image_size", "per_shard", "pictures"} - set(description)
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
    if missing:
        raise StoreError(f"{path}: has no {sorted(missing)[0]!r}")
    return description


def read_sums(directory: Path) -> dict[str, str]:
    """Returns the checksums of the finished shards, by name."""
    path = directory / _SUMS
    lines = path.read_text().splitlines() if path.is_file() else []
    # A line that was cut off belongs to a shard that is made again.
    return {line[66:]: line[:64] for line in lines if len(line) == 66 + len("00000.safetensors")}


def embed(
    teacher: Teacher,
    files: Sequence[PictureFile],
    directory: Path,
    per_shard: int = 256,
    batch: int = 4,
    workers: int = 0,
) -> EmbeddingStore:
    """Runs a teacher over pictures and stores what it says, or goes on with that.

    Args:
        teacher: on the device it shall run on.
        files: the pictures.
        directory: where to; made if it is not there.
        per_shard: pictures a shard.
        batch: pictures at once.
        workers: processes that read pictures.

    Raises:
        StoreError: the directory holds the embeddings of another teacher or of other pictures.
        PictureError: a picture cannot be read.
    """
    directory.mkdir(parents=True, exist_ok=True)
    description = {
        "teacher": teacher.name,
        "image_size": teacher.image_size,
        "per_shard": per_shard,
        "pictures": [file.name for file in files],
    }
    path = directory / _DESCRIPTION
    if not path.exists():
        _write(path, json.dumps(description))
    found = read_description(directory)
    for key, value in description.items():
        if found[key] != value:
            what = "other pictures" if key == "pictures" else f"{key} {found[key]!r}, not {value!r}"
            raise StoreError(f"{path}: the store is of {what}; choose another directory")
    pictures = SquarePictures(files, teacher.image_size)
    device = next(teacher.encoder.parameters()).device
    finished = read_sums(directory)
    missing = {
        name: list(range(number * per_shard, min((number + 1) * per_shard, len(files))))
        for number, name in enumerate(shard_names(len(files), per_shard))
        if name not in finished
    }
    chunks = {
        name: [rows[i : i + batch] for i in range(0, len(rows), batch)]
        for name, rows in missing.items()
    }
    left = sum(len(rows) for rows in missing.values())
    bar = tqdm(total=len(files), initial=len(files) - left, unit="picture", disable=None)
    stream = load(pictures, [rows for part in chunks.values() for rows in part], workers)
    for name, part in chunks.items():
        embeddings = []
        for _ in part:
            pixels = next(stream)
            embeddings.append(teacher.encode(pixels.to(device)).half().cpu())
            bar.update(len(pixels))
        _finish_shard(directory, name, torch.cat(embeddings))
    bar.close()
    return EmbeddingStore(directory)


def _finish_shard(directory: Path, name: str, embeddings: Tensor) -> None:
    partial = directory / f"{name}.partial"
    save_file({"embeddings": embeddings.contiguous()}, partial)
    digest = sha256(partial)
    partial.replace(directory / name)
    with (directory / _SUMS).open("a") as file:
        file.write(f"{digest}  {name}\n")
        file.flush()
        os.fsync(file.fileno())


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m mobile_sam.training.embeddings`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mobile_sam.training.embeddings",
        description="Stage one of distillation: stores a teacher's embeddings of pictures. If it "
        "is interrupted, the same command goes on.",
    )
    parser.add_argument("pictures", type=Path, help="a folder, a .tar shard, or a .txt list")
    parser.add_argument("directory", type=Path, metavar="DIR", help="where to")
    parser.add_argument(
        "--teacher",
        required=True,
        help="vit_b=PATH, vit_l=PATH or vit_h=PATH of an official SAM checkpoint, or weights of "
        "this package by name or path",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=4, help="pictures at once (%(default)s)")
    parser.add_argument("--per-shard", type=int, default=256, help="pictures a file (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="that read (%(default)s)")
    parser.add_argument("--verify", action="store_true", help="check all checksums at the end")
    options = parser.parse_args(arguments)
    try:
        store = embed(
            load_teacher(options.teacher, options.device),
            list_pictures(options.pictures),
            options.directory,
            options.per_shard,
            options.batch,
            options.workers,
        )
        if options.verify:
            store.verify()
    except (WeightsError, PictureError, StoreError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    print(f"{len(store)} embeddings of {store.teacher} in {options.directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
