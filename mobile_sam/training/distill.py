"""Stage two of decoupled distillation: a student encoder learns a teacher's stored embeddings.

Zhang et al. 2023 (MobileSAM, arXiv:2306.14289), section 3.2: mean squared error between the
embeddings, no prompts, no masks. The teacher's decoder then fits the student as it is.

    python -m mobile_sam.training.distill PICTURES EMBEDDINGS RUN --steps 50000
    torchrun --nproc-per-node 8 -m mobile_sam.training.distill …
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from mobile_sam.checkpoints import WeightsError, load_sam, save_safetensors
from mobile_sam.modeling import Sam, SamConfig
from mobile_sam.modeling.sam import normalised
from mobile_sam.pictures import PictureError
from mobile_sam.quoting import in_one_line
from mobile_sam.training.batches import Batches, index_at, load
from mobile_sam.training.distributed import Group, join
from mobile_sam.training.embeddings import EmbeddingStore, StoreError
from mobile_sam.training.loop import LoopSettings, TrainingError, train
from mobile_sam.training.options import add_loop_options, at_least, loop_settings
from mobile_sam.training.teachers import load_decoder
from mobile_sam.training.unlabelled import SquarePictures, list_pictures


class Lessons(Dataset[tuple[Tensor, Tensor]]):
    """Pictures as the student sees them, uint8 (3, S, S), and what the teacher says of them,
    float16 (C, e, e)."""

    def __init__(self, source: Path, store: EmbeddingStore, image_size: int, seed: int = 0) -> None:
        """Joins pictures and embeddings by the pictures' names, in an order of each epoch's own;
        without those that the teacher could not read.

        Raises:
            PictureError: there are no pictures, or the store has one that is not among them.
        """
        files = {file.name: file for file in list_pictures(source)}
        self._rows = [i for i, name in enumerate(store.names) if name not in store.unreadable]
        names = [store.names[row] for row in self._rows]
        missing = [name for name in names if name not in files]
        if missing:
            raise PictureError(f"{source}: has no {missing[0]}, of which there is an embedding")
        self._pictures = SquarePictures([files[name] for name in names], image_size)
        self._store, self._seed = store, seed

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        index = index_at(position, len(self), self._seed)
        return self._pictures[index], self._store[self._rows[index]]


class Student(nn.Module):
    """An image encoder that takes pixels of 0 to 255."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.image_encoder = sam.image_encoder
        self.image_size = sam.config.image_size

    def forward(self, pixels: Tensor) -> Tensor:
        return self.image_encoder(normalised(pixels, (self.image_size, self.image_size)))


def distillation_loss(student: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Returns the mean squared error, and the share of the teacher's variance that it is.

    A teacher's embedding with more or fewer cells than the student's is scaled to it: a student
    may have another input size.
    """
    pixels, wanted = batch
    device = next(student.parameters()).device
    found = student(pixels.to(device)).float()
    wanted = wanted.to(device).float()
    if wanted.shape[1] != found.shape[1]:
        raise TrainingError(
            f"the teacher's embedding has {wanted.shape[1]} channels, the student's "
            f"{found.shape[1]}: give the student the same embedding_dim"
        )
    if wanted.shape[-2:] != found.shape[-2:]:
        size = found.shape[-2:]
        wanted = F.interpolate(wanted, size, mode="bilinear", antialias=True)
    loss = F.mse_loss(found, wanted)
    return {"loss": loss, "unexplained": loss / wanted.var().clamp(min=1e-8)}


def distill(
    student: Sam,
    lessons: Lessons,
    settings: LoopSettings,
    directory: Path,
    group: Group,
    batch: int,
    workers: int = 0,
) -> Sam:
    """Trains the image encoder of `student`, on the group's device; returns it with the average
    weights.

    Raises:
        TrainingError: see `loop.train`.
        PictureError, StoreError, OSError: a picture or its embedding cannot be read.
    """
    module = Student(student)
    run = {"batch": batch, "pictures": len(lessons), **dataclasses.asdict(student.config)}

    def batches(first: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = Batches(batch, first, group.rank, group.size)
        expected = (PictureError, StoreError, OSError)
        return load(lessons, order, workers, expected=expected)

    def with_encoder(encoder: nn.Module) -> Sam:
        student.image_encoder.load_state_dict(encoder.image_encoder.state_dict())  # type: ignore[union-attr]
        return student

    def save(average: nn.Module, path: Path) -> None:
        # The weights in training must not change: only the names of the average's are ours.
        state = {f"image_encoder.{k}": v for k, v in average.image_encoder.state_dict().items()}  # type: ignore[union-attr]
        save_safetensors(student, path, state={**student.state_dict(), **state})

    return with_encoder(
        train(module, distillation_loss, batches, settings, run, directory, group, save)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mobile_sam.training.distill",
        description="Stage two of distillation: trains an image encoder on stored embeddings. If "
        "it is interrupted, the same command goes on. Under torchrun, on all its processes.",
    )
    parser.add_argument("pictures", type=Path, help="those that were embedded")
    parser.add_argument("embeddings", type=Path, help="directory of stage one")
    parser.add_argument("directory", type=Path, metavar="RUN", help="where to")
    parser.add_argument(
        "--decoder-from",
        metavar="WEIGHTS",
        help="whose prompt encoder and mask decoder the student gets, in the forms of a teacher "
        "(the store's teacher; with --start-from, those of its weights)",
    )
    parser.add_argument(
        "--config", type=Path, metavar="JSON", help="the student's sizes (MobileSAM's)"
    )
    parser.add_argument(
        "--start-from", metavar="WEIGHTS", help="weights that the student starts from"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--batch", type=at_least(1), default=8, help="pictures a process (%(default)s)"
    )
    parser.add_argument("--workers", type=at_least(0), default=2, help="that read (%(default)s)")
    add_loop_options(parser)
    options = parser.parse_args(arguments)
    group = None
    try:
        settings = loop_settings(options)
        torch.manual_seed(settings.seed)
        store = EmbeddingStore(options.embeddings)
        student = _student(options, store)
        lessons = Lessons(options.pictures, store, student.config.image_size, settings.seed)
        group = join(options.device)
        distill(
            student.to(group.device),
            lessons,
            settings,
            options.directory,
            group,
            options.batch,
            options.workers,
        )
        if group.is_first:
            print(f"{options.directory / 'weights.safetensors'}: the student")
    except (WeightsError, PictureError, StoreError, TrainingError, ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    finally:
        if group is not None:
            group.close()
    return 0


def _student(options: argparse.Namespace, store: EmbeddingStore) -> Sam:
    """Returns the model to train, with gradients for its image encoder alone."""
    if options.start_from:
        student = load_sam(options.start_from)
    elif options.config:
        student = Sam(SamConfig.from_json(options.config.read_text()))
    else:
        student = Sam(SamConfig())
    if options.decoder_from:
        _give_decoder(student, options.decoder_from)
    elif not options.start_from:
        try:
            _give_decoder(student, store.teacher)
        except (WeightsError, OSError) as error:
            raise WeightsError(
                f"the decoder of {options.embeddings}'s teacher: {error}; give --decoder-from"
            ) from error
    student.train().requires_grad_(False)
    student.image_encoder.requires_grad_(True)
    return student


def _give_decoder(student: Sam, name: str) -> None:
    """Loads the prompt encoder and mask decoder of a teacher.

    Raises:
        WeightsError: they cannot be had, or do not fit the student.
    """
    state = load_decoder(name)
    for part in ("prompt_encoder", "mask_decoder"):
        of_part = {n.removeprefix(f"{part}."): t for n, t in state.items() if n.startswith(part)}
        try:
            getattr(student, part).load_state_dict(of_part)
        except RuntimeError as error:
            _, _, cause = str(error).partition("\n")
            raise WeightsError(f"{name}: {part} does not fit: {in_one_line(cause)}") from error


if __name__ == "__main__":
    sys.exit(main())
