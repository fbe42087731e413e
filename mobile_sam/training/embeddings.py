"""A teacher's embeddings on disk: computed once, learnt from as often as one likes.

That is what makes distillation "decoupled" cheap (Zhang et al. 2023, arXiv:2306.14289, section
3.2): the large encoder runs once over each picture. A directory holds

- `embeddings.json`: teacher, sizes, and the names of all pictures in their order;
- `00000.safetensors` and so on: float16 (K, C, e, e), named `embeddings`, for the next K pictures;
- `unreadable.txt`: the names of pictures that could not be read, whose embeddings are zeros;
- `SHA256SUMS`: one line a finished shard, as `sha256sum --check` reads it.

A shard is written whole, what of it is unreadable after that, and its line last: whatever is
interrupted goes on with the first shard that has no line, or is not there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from mobile_sam.checkpoints import WeightsError, write_tensors
from mobile_sam.files import write_whole
from mobile_sam.pictures import PictureError
from mobile_sam.training.batches import load
from mobile_sam.training.options import at_least
from mobile_sam.training.teachers import Teacher, load_teacher
from mobile_sam.training.unlabelled import PictureFile, SquarePictures, list_pictures

_DESCRIPTION = "embeddings.json"
_SUMS = "SHA256SUMS"
_UNREADABLE = "unreadable.txt"
_END = ".safetensors"
_CHUNK = 1 << 20


class StoreError(Exception):
    """A store that cannot be used; the message names file and cause."""


class EmbeddingStore:
    """The embeddings of a directory, for reading.

    Attributes:
        directory: where they lie.
        teacher: what made them, as it was asked for.
        image_size: side of its input, in pixels.
        names: of all pictures, in the order of their embeddings.
        unreadable: those of them that could not be read; their embeddings say nothing.
        per_shard: pictures a shard.
    """

    def __init__(self, directory: Path) -> None:
        """Opens a store that is complete.

        Raises:
            StoreError: it is missing, damaged or not finished, or has not one picture that could be
                read.
        """
        self.directory = directory
        description = read_description(directory)
        self.teacher: str = description["teacher"]
        self.image_size: int = description["image_size"]
        self.names: list[str] = description["pictures"]
        self.per_shard: int = description["per_shard"]
        finished = finished_shards(directory)
        missing = [s for s in shard_names(len(self.names), self.per_shard) if s not in finished]
        if missing:
            raise StoreError(
                f"{directory}: not finished, {missing[0]} is missing; run the same command again"
            )
        self.unreadable = frozenset(_read_lines(directory / _UNREADABLE))
        if self.unreadable.issuperset(self.names):
            raise StoreError(f"{directory}: none of its {len(self)} pictures could be read")

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
        """Reads all shards and compares their checksums. Those that are not whole lose their lines,
        so that `embed` makes them again.

        Raises:
            StoreError: one differs or cannot be read; the message names it.
        """
        sums = read_sums(self.directory)
        bad = {}
        for name, wanted in sums.items():
            try:
                if sha256(self.directory / name) != wanted:
                    bad[name] = f"damaged, its SHA-256 is not {wanted}"
            except OSError as error:
                bad[name] = f"cannot be read: {error.strerror}"
        if bad:
            _write_sums(self.directory, {n: s for n, s in sums.items() if n not in bad})
            name, cause = next(iter(bad.items()))
            more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
            raise StoreError(
                f"{self.directory / name}: {cause}{more}; run the same command again, which makes "
                "it anew"
            )


def shard_names(pictures: int, per_shard: int) -> list[str]:
    """Returns the names of the shards that so many pictures make."""
    return [f"{i:05}{_END}" for i in range(-(-pictures // per_shard))]


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
    """Returns the checksums of all shards that were finished, by name."""
    lines = _read_lines(directory / _SUMS)
    # A line that was cut off belongs to a shard that is made again.
    return {line[66:]: line[:64] for line in lines if line[64:66] == "  " and line.endswith(_END)}


def finished_shards(directory: Path) -> dict[str, str]:
    """Returns the checksums of the shards that were finished and are there, by name."""

    def is_there(path: Path) -> bool:
        return path.is_file() and path.stat().st_size > 0

    sums = read_sums(directory)
    return {name: digest for name, digest in sums.items() if is_there(directory / name)}


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

    Pictures that cannot be read are said, and noted in the store.

    Raises:
        StoreError: the directory holds the embeddings of another teacher or of other pictures, or
            none of the pictures can be read.
    """
    directory.mkdir(parents=True, exist_ok=True)
    names = [file.name for file in files]
    description = {
        "teacher": teacher.name,
        "encoder_sha256": teacher.fingerprint,
        "image_size": teacher.image_size,
        "per_shard": per_shard,
        "pictures": names,
    }
    path = directory / _DESCRIPTION
    if not path.exists():
        write_whole(path, lambda partial: partial.write_text(json.dumps(description)))
    _compare(path, read_description(directory), description)
    device = next(teacher.encoder.parameters()).device
    finished = finished_shards(directory)
    missing = {
        name: list(range(number * per_shard, min((number + 1) * per_shard, len(files))))
        for number, name in enumerate(shard_names(len(files), per_shard))
        if name not in finished
    }
    if missing:
        _write_sums(directory, finished)  # what was cut off or is gone has no line any more
    chunks = {
        name: [rows[i : i + batch] for i in range(0, len(rows), batch)]
        for name, rows in missing.items()
    }
    left = sum(len(rows) for rows in missing.values())
    bar = tqdm(total=len(files), initial=len(files) - left, unit="picture", disable=None)
    pictures = _ReadablePictures(files, teacher.image_size)
    stream = load(pictures, [rows for part in chunks.values() for rows in part], workers)
    for name, part in chunks.items():
        embeddings, causes = [], []
        for _ in part:
            pixels, wrong = next(stream)
            embeddings.append(teacher.encode(pixels.to(device)).half().cpu())
            causes += wrong
            bar.update(len(pixels))
        of_shard = [names[row] for row in missing[name]]
        _finish_shard(directory, name, torch.cat(embeddings), of_shard, causes)
    bar.close()
    return EmbeddingStore(directory)


class _ReadablePictures(Dataset[tuple[Tensor, str]]):
    """Pictures as of `SquarePictures`, and what is wrong with each; a black one for that."""

    def __init__(self, files: Sequence[PictureFile], image_size: int) -> None:
        self._pictures = SquarePictures(files, image_size)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        try:
            return self._pictures[index], ""
        except (PictureError, OSError) as error:
            side = self._pictures.image_size
            return torch.zeros(3, side, side, dtype=torch.uint8), str(error)


def _compare(path: Path, found: dict, wanted: dict) -> None:
    """Raises a StoreError where a store is not the one that is wanted."""
    # Stores of older versions know their teacher only by what was typed.
    passed_over = "teacher" if "encoder_sha256" in found else "encoder_sha256"
    for key, value in wanted.items():
        if key == passed_over or found[key] == value:
            continue
        what = {
            "pictures": "other pictures",
            "encoder_sha256": f"another teacher, the weights of {found['teacher']!r} then",
        }.get(key, f"{key} {found[key]!r}, not {value!r}")
        raise StoreError(f"{path}: the store is of {what}; choose another directory")


def _finish_shard(
    directory: Path, name: str, embeddings: Tensor, pictures: Sequence[str], causes: Sequence[str]
) -> None:
    """Writes a shard, what of its pictures is unreadable (those with a cause), and its line."""
    unreadable = set(_read_lines(directory / _UNREADABLE)).difference(pictures)
    for row, cause in enumerate(causes):
        if cause:
            tqdm.write(f"{cause}; left out", file=sys.stderr)
            unreadable.add(pictures[row])
            embeddings[row] = 0
    tensors = {"embeddings": embeddings.contiguous()}
    write_whole(directory / name, lambda partial: write_tensors(tensors, partial))
    if unreadable or (directory / _UNREADABLE).exists():
        _write_lines(directory / _UNREADABLE, sorted(unreadable))
    with (directory / _SUMS).open("a") as file:
        file.write(f"{sha256(directory / name)}  {name}\n")
        file.flush()
        os.fsync(file.fileno())


def _write_sums(directory: Path, sums: Mapping[str, str]) -> None:
    _write_lines(directory / _SUMS, [f"{digest}  {name}" for name, digest in sums.items()])


# Names of files may have bytes that are no text.
_TEXT: dict[str, str] = {"encoding": "utf-8", "errors": "surrogateescape"}


def _read_lines(path: Path) -> list[str]:
    """Returns the lines of a file, none if it is not there."""
    return path.read_text(**_TEXT).split("\n")[:-1] if path.is_file() else []


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    write_whole(path, lambda partial: partial.write_text(text, **_TEXT))


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
    parser.add_argument(
        "--batch", type=at_least(1), default=4, help="pictures at once (%(default)s)"
    )
    parser.add_argument(
        "--per-shard", type=at_least(1), default=256, help="pictures a file (%(default)s)"
    )
    parser.add_argument("--workers", type=at_least(0), default=2, help="that read (%(default)s)")
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
    bad = len(store.unreadable)
    without = f", without {bad} that could not be read ({_UNREADABLE})" if bad else ""
    print(f"{len(store) - bad} embeddings of {store.teacher} in {store.directory}{without}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
