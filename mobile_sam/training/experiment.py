"""Decoupled against coupled distillation, at a scale that a laptop does in minutes.

The claim of MobileSAM (Zhang et al. 2023, arXiv:2306.14289, section 3.2): a small encoder learns
faster from a teacher's embeddings than from masks through the decoder. Here the teacher is a model
trained on procedural scenes, the student's encoder is narrower, and both ways get the same
pictures and the same time; stage one of the decoupled way counts.

    python -m mobile_sam.training.experiment RUN --minutes 10
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from mobile_sam.checkpoints import WeightsError, load_sam
from mobile_sam.modeling import Sam, SamConfig
from mobile_sam.predictor import Predictor
from mobile_sam.training.distill import Lessons, distill
from mobile_sam.training.distributed import Group, join
from mobile_sam.training.embeddings import embed
from mobile_sam.training.evaluate import evaluate
from mobile_sam.training.examples import LabelExamples, SceneExamples, first_examples
from mobile_sam.training.finetune import finetune
from mobile_sam.training.loop import LoopSettings, TrainingError
from mobile_sam.training.options import at_least
from mobile_sam.training.teachers import load_teacher
from mobile_sam.training.unlabelled import list_pictures

_SCENES_SEED = (2, 0)  # neither of a training nor held out
_HELD_OUT = 0x5EED
_TRIAL_STEPS = (6, 18)
_SHOWN_PROMPTS = ("box", "one point, best of three")


def narrower(config: SamConfig) -> SamConfig:
    """Returns a configuration whose encoder has three eighths of the channels: about a quarter of
    the size, as the neck stays as wide as the embedding."""
    return dataclasses.replace(
        config,
        encoder_dims=tuple(dim * 3 // 8 for dim in config.encoder_dims),
        encoder_heads=tuple(max(1, heads // 2) for heads in config.encoder_heads),
    )


def make_student(teacher: Sam, seed: int) -> Sam:
    """Returns a student with a random encoder and the teacher's decoder."""
    torch.manual_seed(seed)
    student = Sam(narrower(teacher.config))
    student.prompt_encoder.load_state_dict(teacher.prompt_encoder.state_dict())
    student.mask_decoder.load_state_dict(teacher.mask_decoder.state_dict())
    return student.train()


def write_scenes(folder: Path, count: int, side: int) -> None:
    """Writes scenes and their label images."""
    examples = SceneExamples(_SCENES_SEED, (side, side))
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(count), unit="scene", disable=None):
        example = examples.get(number)
        labels = np.zeros((side, side), np.uint8)
        for value, mask in enumerate(example.masks, 1):
            labels[mask] = value
        cv2.imwrite(str(folder / f"images/{number:05}.png"), example.image[..., ::-1])
        cv2.imwrite(str(folder / f"labels/{number:05}.png"), labels)


def clock(device: torch.device) -> float:
    """Returns seconds of work: on a CPU those that this process got, whatever else is running."""
    if device.type == "cpu":
        return time.process_time() / torch.get_num_threads()
    return time.monotonic()


def in_time(
    run: Callable[[LoopSettings, Path], Sam], seconds: float, device: torch.device, directory: Path
) -> Sam:
    """Trains for about so many seconds of `clock`: the length of a step is found by two trials,
    because what a run begins and ends with would count as well in one."""
    times = [clock(device)]
    for steps in _TRIAL_STEPS:
        run(LoopSettings(steps=steps), directory / f"trial_{steps}")
        times.append(clock(device))
    first, second = np.diff(times)
    step = max(second - first, 1e-3) / (_TRIAL_STEPS[1] - _TRIAL_STEPS[0])
    steps = max(1, int(seconds / step))
    settings = LoopSettings(
        steps=steps, rate=2e-3, warmup=min(50, steps // 5), average=0.98, freeze_after=0.7
    )
    return run(settings, directory / "run")


def experiment(
    directory: Path, weights: str, minutes: float, scenes: int, held_out: int, group: Group
) -> str:
    """Runs all of it and returns the result as a Markdown table."""
    shutil.rmtree(directory, ignore_errors=True)
    teacher = load_sam(weights, str(group.device))
    side = teacher.config.image_size
    write_scenes(directory / "scenes", scenes, side)
    images = directory / "scenes/images"
    begin = clock(group.device)
    store = embed(
        load_teacher(weights, str(group.device)), list_pictures(images), directory / "embeddings"
    )
    stage_one = clock(group.device) - begin
    lessons = Lessons(images, store, side)
    examples = LabelExamples(images, directory / "scenes/labels")

    def decoupled(settings: LoopSettings, run: Path) -> Sam:
        student = make_student(teacher, settings.seed).to(group.device).requires_grad_(False)
        student.image_encoder.requires_grad_(True)
        return distill(student, lessons, settings, run, group, batch=4)

    def coupled(settings: LoopSettings, run: Path) -> Sam:
        student = make_student(teacher, settings.seed).to(group.device)
        return finetune(student, [examples], settings, run, group, pictures=2, prompts=5)

    seconds = 60 * minutes
    models = {"teacher": (teacher, 0.0)}
    for name, run, share in (
        ("decoupled", decoupled, max(seconds - stage_one, 1)),
        ("coupled", coupled, seconds),
    ):
        models[name] = in_time(run, share, group.device, directory / name), seconds
    rows = [
        "| model | encoder, M parameters | training, min | " + " | ".join(_SHOWN_PROMPTS) + " |",
        "|---" * (3 + len(_SHOWN_PROMPTS)) + "|",
    ]
    for name, (model, spent) in models.items():
        parameters = sum(p.numel() for p in model.image_encoder.parameters()) / 1e6
        predictor = Predictor(model.eval().requires_grad_(False))
        held = first_examples(SceneExamples((_HELD_OUT,), (side, side)), held_out)
        iou = evaluate(predictor, held).iou
        means = " | ".join(f"{np.nanmean(iou[prompt]):.3f}" for prompt in _SHOWN_PROMPTS)
        spent_text = f"{spent / 60:g}" if spent else ""
        rows.append(f"| {name} | {parameters:.2f} | {spent_text} | {means} |")
    note = (
        f"\n{scenes} pictures, {held_out} held out; stage one took {stage_one:.0f} s of the time."
    )
    return "\n".join(rows) + "\n" + note


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mobile_sam.training.experiment",
        description="Distils a narrower student decoupled and coupled, with the same pictures and "
        "time, and prints what both reach on held-out scenes.",
    )
    parser.add_argument("directory", type=Path, metavar="RUN", help="emptied first")
    parser.add_argument("--teacher", default="demo", help="name or path (%(default)s)")
    parser.add_argument("--minutes", type=float, default=10, help="for each way (%(default)s)")
    parser.add_argument(
        "--scenes", type=at_least(1), default=1500, help="to learn from (%(default)s)"
    )
    parser.add_argument("--held-out", type=at_least(1), default=100, help="scenes (%(default)s)")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    try:
        group = join(options.device)
        result = experiment(
            options.directory,
            options.teacher,
            options.minutes,
            options.scenes,
            options.held_out,
            group,
        )
    except (WeightsError, TrainingError, ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    print(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
