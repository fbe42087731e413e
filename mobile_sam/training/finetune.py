"""Trains encoder, decoder or both on masks: procedural scenes, COCO JSON or label images.

SAM's losses (`losses`), its prompts with jitter, and its corrective clicks; for the encoder also
the affinities of all pixels (`affinity`).

    python -m mobile_sam.training.finetune coco:instances.json:images RUN \\
        --start-from mobile_sam --train decoder --steps 5000
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from mobile_sam.checkpoints import WeightsError, load_sam, save_safetensors
from mobile_sam.modeling import DEMO, Sam, SamConfig
from mobile_sam.overlay import label_image, overlay_image
from mobile_sam.predictor import Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.segments import tight_box
from mobile_sam.training.affinity import AffinityHead, affinity_loss
from mobile_sam.training.batches import Batches, load
from mobile_sam.training.clicks import random_clicks
from mobile_sam.training.distributed import Group, join
from mobile_sam.training.examples import (
    EXAMPLES_FORMS,
    Example,
    Examples,
    ExamplesError,
    SceneExamples,
    first_examples,
    open_examples,
)
from mobile_sam.training.loop import LoopSettings, TrainingError, train
from mobile_sam.training.losses import sam_loss
from mobile_sam.training.options import add_loop_options, at_least, loop_settings
from mobile_sam.training.samples import PromptSamples, Samples, collate

_LANDSCAPE = 0.4  # of the scenes
_AFFINITY = 0.5  # where all pixels are labelled
_SHOWN = 6
_SHOWN_WIDTH = 320


class Prompted(nn.Module):
    """A model with its losses on a batch, so that several processes can share one."""

    def __init__(self, sam: Sam, clicks: int, affinity_weight: float) -> None:
        """Corrects each mask with `clicks` clicks, one after the other."""
        super().__init__()
        self.sam = sam
        self.affinity = AffinityHead(sam.config.embedding_dim) if affinity_weight else None
        self.clicks, self.affinity_weight = clicks, affinity_weight

    def forward(self, batch: Samples) -> dict[str, Tensor]:
        """Returns loss, and mean IoU with a clear prompt, with one point, and after all clicks."""
        device = self.sam.device
        on = {f.name: getattr(batch, f.name).to(device) for f in dataclasses.fields(batch)}
        embedding = self.sam.encode(on["pixels"])
        each = len(on["labels"]) // len(on["pixels"])
        of_prompts = embedding.repeat_interleave(each, dim=0)
        points, labels, masks, has_mask, ambiguous = (
            on[name] for name in ("points", "labels", "mask_logits", "has_mask", "ambiguous")
        )
        # Of the batch itself: a training that goes on makes the same clicks.
        generator = torch.Generator().manual_seed(int(batch.pixels.sum()))
        losses, values = [], {}
        for turn in range(1 + self.clicks):
            logits, iou = self.sam.decode(of_prompts, points, labels, masks, has_mask)
            logits, iou = logits.float(), iou.float()
            loss, measured = sam_loss(logits, iou, on["targets"], ambiguous)
            losses.append(loss)
            if turn == 0:
                values["box"] = measured[~ambiguous, 0].mean()
                values["point"] = measured[ambiguous, 1:].amax(dim=1).mean()
            if turn == self.clicks:
                values["clicks" if turn else "all"] = measured[:, 0].mean()
                break
            chosen = torch.where(ambiguous, 1 + iou[:, 1:].argmax(dim=1), 0)
            one = logits[torch.arange(len(logits), device=device), chosen].detach()
            click, label = random_clicks(one, on["targets"], self.sam.config.image_size, generator)
            points, labels = torch.cat([points, click], dim=1), torch.cat([labels, label], dim=1)
            masks, has_mask = one[:, None], torch.ones_like(has_mask)
            ambiguous = torch.zeros_like(ambiguous)
        total = torch.stack(losses).mean()
        if self.affinity is not None:
            same = self.affinity(embedding).float()
            total = total + self.affinity_weight * affinity_loss(same, on["scene_labels"])
        return {"loss": total, **{k: v for k, v in values.items() if torch.isfinite(v)}}


def finetune(
    sam: Sam,
    sources: Sequence[Examples],
    settings: LoopSettings,
    directory: Path,
    group: Group,
    pictures: int,
    prompts: int,
    clicks: int = 0,
    affinity_weight: float = 0.0,
    workers: int = 0,
) -> Sam:
    """Trains what requires gradients of `sam`, which is on the group's device.

    Args:
        sam: returned with the average weights.
        sources: examples to train on, taken of each in turn.
        settings: of the loop.
        directory: of the run.
        group: the processes.
        pictures: a batch and process.
        prompts: a picture.
        clicks: with which each mask is corrected.
        affinity_weight: of the affinities in the loss; 0 for a fixed encoder.
        workers: processes that make samples.

    Raises:
        TrainingError: see `loop.train`.
        ExamplesError: an example cannot be read.
    """
    torch.manual_seed(settings.seed)
    module = Prompted(sam, clicks, affinity_weight).to(group.device)
    samples = PromptSamples(sources, sam.config, prompts, settings.seed)
    each = -(-_SHOWN // len(sources))
    shown = [example for source in sources for example in first_examples(source, each)]

    def batches(first: int) -> Iterator[Samples]:
        order = Batches(pictures, first, group.rank, group.size)
        return load(samples, order, workers, collate, expected=(ExamplesError, OSError))

    def save(average: nn.Module, path: Path) -> None:
        save_safetensors(average.sam, path)  # type: ignore[arg-type]

    def show(average: nn.Module, path: Path) -> None:
        _draw(average.sam, shown, path)  # type: ignore[arg-type]

    def loss(model: nn.Module, batch: Samples) -> dict[str, Tensor]:
        return model(batch)

    run = {
        "pictures": pictures,
        "prompts": prompts,
        "clicks": clicks,
        "affinity": affinity_weight,
        "trained": [name for name, part in sam.named_children() if _is_trained(part)],
        "examples": [source.count for source in sources],
        **dataclasses.asdict(sam.config),
    }
    average = train(module, loss, batches, settings, run, directory, group, save, show)
    sam.load_state_dict(average.sam.state_dict())  # type: ignore[union-attr]
    return sam


def _is_trained(part: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters())


def _draw(sam: Sam, examples: Sequence[Example], path: Path) -> None:
    """Draws what the model makes of the boxes in a few examples, side by side."""
    was_training = sam.training
    predictor = Predictor(sam.eval())
    tiles = []
    for example in examples:
        prompts = [Prompt(box=tight_box(mask)) for mask in example.masks]
        segments = predictor.decode(predictor.encode(example.image), prompts)
        labels = label_image(segments.crops, segments.boxes, segments.image_size)
        overlay = overlay_image(example.image, labels, 0.5)
        size = (_SHOWN_WIDTH, round(overlay.shape[0] * _SHOWN_WIDTH / overlay.shape[1]))
        tiles.append(cv2.resize(overlay, size, interpolation=cv2.INTER_AREA))
    sam.train(was_training)
    height = max(tile.shape[0] for tile in tiles)
    padded = [np.pad(t, ((0, height - t.shape[0]), (0, 0), (0, 0))) for t in tiles]
    if not cv2.imwrite(str(path), np.concatenate(padded, axis=1)[..., ::-1]):
        raise OSError("OpenCV cannot write it")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mobile_sam.training.finetune",
        description="Trains a model on masks. If it is interrupted, the same command goes on. "
        "Under torchrun, on all its processes.",
    )
    parser.add_argument(
        "data", nargs="+", help=f"{EXAMPLES_FORMS}; of several, examples are taken in turn"
    )
    parser.add_argument("directory", type=Path, metavar="RUN", help="where to")
    parser.add_argument("--start-from", metavar="WEIGHTS", help="weights to start from")
    parser.add_argument(
        "--config", type=Path, metavar="JSON", help="sizes of a model to begin anew (the demo's)"
    )
    parser.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="side of its input, if not as it was"
    )
    parser.add_argument("--train", choices=("both", "encoder", "decoder"), default="both")
    parser.add_argument("--pictures", type=at_least(1), default=3, help="a batch (%(default)s)")
    parser.add_argument("--prompts", type=at_least(1), default=5, help="a picture (%(default)s)")
    parser.add_argument("--clicks", type=at_least(0), default=0, help="that correct (%(default)s)")
    parser.add_argument(
        "--affinity",
        type=float,
        metavar="WEIGHT",
        help=f"of what tells all pixels of a picture apart ({_AFFINITY} if all data are scenes; "
        "else 0, as pixels without a label may be other objects)",
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--workers", type=at_least(0), default=1, help="that make samples (%(default)s)"
    )
    add_loop_options(parser)
    options = parser.parse_args(arguments)
    group = None
    try:
        settings = loop_settings(options)
        torch.manual_seed(settings.seed)
        if options.start_from:
            sam = load_sam(options.start_from)
        else:
            sam = Sam(SamConfig.from_json(options.config.read_text()) if options.config else DEMO)
        if options.image_size is not None:
            sam = resized(sam, options.image_size)
        size = sam.config.image_size
        # Scenes are held out from the evaluation by their first number.
        sources = [
            open_examples(text, (1, settings.seed), (size, size), _LANDSCAPE)
            for text in options.data
        ]
        group = join(options.device)
        _choose(sam.to(group.device), options.train)
        finetune(
            sam,
            sources,
            settings,
            options.directory,
            group,
            options.pictures,
            options.prompts,
            options.clicks,
            _affinity_weight(options, sources),
            options.workers,
        )
        if group.is_first:
            print(f"{options.directory / 'weights.safetensors'}: the model")
    except (WeightsError, ExamplesError, TrainingError, ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    finally:
        if group is not None:
            group.close()
    return 0


def resized(sam: Sam, image_size: int) -> Sam:
    """Returns a model of the same weights, which do not depend on it, with another size of input.

    Raises:
        ValueError: no size that the architecture can have.
    """
    other = Sam(dataclasses.replace(sam.config, image_size=image_size))
    other.load_state_dict(sam.state_dict())
    return other


def _affinity_weight(options: argparse.Namespace, sources: Sequence[Examples]) -> float:
    """Returns the weight of the affinities in the loss: what was asked for, or what fits the data.

    An encoder that is not trained has nothing to learn from them.
    """
    if options.train == "decoder":
        return 0.0
    if options.affinity is not None:
        return options.affinity
    return _AFFINITY if all(isinstance(source, SceneExamples) for source in sources) else 0.0


def _choose(sam: Sam, what: str) -> None:
    """Lets the chosen parts learn; batch norms of a fixed encoder keep their statistics."""
    sam.train()
    sam.image_encoder.requires_grad_(what != "decoder").train(what != "decoder")
    for part in (sam.prompt_encoder, sam.mask_decoder):
        part.requires_grad_(what != "encoder")


if __name__ == "__main__":
    sys.exit(main())
