"""The training loop: resumable to the bit, watchable, on one or many devices.

A directory holds what a run leaves: `state.pt` (everything to go on with), `weights.safetensors`
(the average of the weights, to use), `shown.png` and TensorBoard's events. Files are written whole
or not at all; a full disk costs the last minutes and the curves, not the run.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.optim.muon import Muon
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from mobile_sam.files import write_whole
from mobile_sam.quoting import in_one_line
from mobile_sam.training.curves import Curves
from mobile_sam.training.distributed import Group

_PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_RANGES = (
    ("steps", 1, math.inf),
    ("rate", 0, math.inf),
    ("warmup", 0, math.inf),
    ("weight_decay", 0, math.inf),
    ("accumulate", 1, math.inf),
    ("average", 0, 1),
    ("clip", 0, math.inf),
    ("seed", 0, math.inf),
    ("freeze_after", 0, math.inf),
    ("save_seconds", 0, math.inf),
)
_BAD_IN_A_ROW = 20
_SMOOTHING = 0.02
_STATE = "state.pt"
WEIGHTS_FILE = "weights.safetensors"
SHOWN_FILE = "shown.png"


class TrainingError(Exception):
    """A training that cannot begin or go on; the message says why."""


@dataclass(frozen=True)
class LoopSettings:
    """How to train.

    Raises:
        ValueError: a value outside of its range; the message names it.
    """

    steps: int
    """Updates of the weights."""
    rate: float = 1e-3
    """Greatest learning rate, after the warm-up; from there half a cosine to 0."""
    warmup: int = 100
    """Steps in which the rate rises."""
    weight_decay: float = 0.01
    accumulate: int = 1
    """Batches a step and process."""
    average: float = 0.999
    """Share of the old average that stays at each step."""
    clip: float = 1.0
    """Greatest norm of the gradient."""
    precision: str = "fp32"
    """fp32, bf16 or fp16: of the forward pass; weights and their average are fp32."""
    seed: int = 0
    optimizer: str = "adamw"
    """adamw, or muon for matrices and kernels with AdamW for all else."""
    freeze_after: float = 1.0
    """Share of the steps after which batch norms keep the statistics that they have."""
    save_seconds: float = 180.0
    """Between two savings."""

    def __post_init__(self) -> None:
        if self.precision not in _PRECISIONS:
            raise ValueError(f"precision {self.precision!r} is none of {', '.join(_PRECISIONS)}")
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f"optimizer {self.optimizer!r} is neither adamw nor muon")
        for name, least, most in _RANGES:
            value = getattr(self, name)
            if not value >= least:
                raise ValueError(f"{name} is {value}, the least is {least}")
            if value > most:
                raise ValueError(f"{name} is {value}, the most is {most}")


def learning_rate(step: int, settings: LoopSettings) -> float:
    """Returns the rate of a step: a linear rise, then half a cosine to nothing."""
    rise = min(1.0, (step + 1) / max(settings.warmup, 1))
    fall = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return settings.rate * rise * fall


def make_optimizer(model: nn.Module, settings: LoopSettings) -> torch.optim.Optimizer:
    """Returns AdamW, or Muon (Jordan et al. 2024), which makes the update of a matrix orthogonal.

    Biases, norms and single vectors do not decay; nor do they have a matrix, and neither have
    depthwise kernels.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [p for p in trained if p.ndim >= 2 and p.shape[0] > 1 and p.shape[1] > 1]
    chosen = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in trained if id(parameter) not in chosen]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.99))
    groups[1]["use_fallback"] = True
    return Muon(groups, lr=settings.rate, momentum=0.95, nesterov=True, betas=(0.9, 0.99))


def freeze_statistics(model: nn.Module) -> None:
    """Makes batch norms use the statistics that they have, as they do after the training.

    Those of a batch of a few pictures are far from those of all pictures, and what was learnt
    with them suffers when the running averages take their place.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def train(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], dict[str, Tensor]],
    batches: Callable[[int], Iterable[Any]],
    settings: LoopSettings,
    run: Mapping[str, object],
    directory: Path,
    group: Group,
    save_weights: Callable[[nn.Module, Path], None],
    show: Callable[[nn.Module, Path], None] | None = None,
) -> nn.Module:
    """Trains, or goes on with what `directory` holds.

    Args:
        model: on the group's device; what does not require gradients stays as it is.
        loss: of a model and a batch; scalars by name, of which `loss` is what falls.
        batches: yields the batches of this process from the given one on, counted over all
            processes and without end.
        settings: the same for all that go on with one run.
        run: what else has to be the same for that, by name: numbers and text, or lists of them.
        directory: of the run.
        group: the processes.
        save_weights: writes a model to a file.
        show: draws a picture, with the average of the weights, to look at meanwhile.

    Returns:
        The average of the weights over the last steps.

    Raises:
        TrainingError: the directory holds another run or a damaged one, or the loss is not finite
            any more.
    """
    torch.manual_seed(settings.seed)
    directory.mkdir(parents=True, exist_ok=True)
    average = AveragedModel(
        model, multi_avg_fn=get_ema_multi_avg_fn(settings.average), use_buffers=True
    )
    optimizer = make_optimizer(model, settings)
    scaler = torch.amp.GradScaler(group.device.type, enabled=settings.precision == "fp16")
    parts = {"model": model, "average": average, "optimizer": optimizer, "scaler": scaler}
    same = {**vars(settings), "processes": group.size, **run}
    del same["save_seconds"]  # says nothing about what is learnt
    step = _resume(directory / _STATE, parts, same, group.device)
    wrapped = group.wrap(model)
    curves = Curves(directory, step) if group.is_first else None
    first = step * settings.accumulate * group.size
    stream = iter(batches(first)) if step < settings.steps else iter(())
    bar = tqdm(
        total=settings.steps,
        initial=step,
        unit="step",
        mininterval=1 if sys.stderr.isatty() else 30,  # a log file is not to be flooded
        disable=not group.is_first,
    )
    saved_at, bad = time.monotonic(), 0
    shown: dict[str, float] = {}

    def save() -> None:
        if not group.is_first:
            return
        state = {name: part.state_dict() for name, part in parts.items()}  # type: ignore[attr-defined]
        state |= {"step": step, "run": same}
        _write(directory / _STATE, lambda path: torch.save(state, path))
        _write(directory / WEIGHTS_FILE, lambda path: save_weights(average.module, path))
        if show is not None:
            _write(directory / SHOWN_FILE, lambda path: show(average.module, path))

    while step < settings.steps:
        for parameters in optimizer.param_groups:
            parameters["lr"] = learning_rate(step, settings)
        if step >= settings.freeze_after * settings.steps:
            freeze_statistics(model)
        buffers = [buffer.clone() for buffer in model.buffers()]
        values = _gradients(wrapped, loss, stream, settings, group, scaler)
        scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        is_good = bool(torch.isfinite(norm))
        if is_good:
            scaler.step(optimizer)
            average.update_parameters(model)
        else:  # batch norms have seen what is not finite: as if it had not been
            for buffer, before in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(before)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        bad = 0 if is_good else bad + 1
        if bad == _BAD_IN_A_ROW:
            raise TrainingError(
                f"step {step}: the gradient has not been finite for {bad} steps; a lower rate than "
                f"{settings.rate:g} may help"
            )
        step += 1
        for name, value in values.items():
            if math.isfinite(value):  # else nothing but that would be shown from here on
                shown[name] = shown.get(name, value) * (1 - _SMOOTHING) + value * _SMOOTHING
        if curves is not None:
            curves.add(values, step)
        bar.set_postfix_str(" ".join(f"{k} {v:.4f}" for k, v in shown.items()), refresh=False)
        bar.update()
        if time.monotonic() - saved_at > settings.save_seconds:
            save()
            saved_at = time.monotonic()
    save()
    bar.close()
    if curves is not None:
        curves.close()
    return average.module


def _gradients(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], dict[str, Tensor]],
    stream: Iterator[Any],
    settings: LoopSettings,
    group: Group,
    scaler: torch.amp.GradScaler,
) -> dict[str, float]:
    """Adds up the gradients of one step; returns the mean of each value over the batches that have
    it."""
    dtype = _PRECISIONS[settings.precision]
    found: dict[str, list[float]] = {}
    for part in range(settings.accumulate):
        is_last = part == settings.accumulate - 1
        # Gradients are exchanged once a step.
        waits = not is_last and hasattr(model, "no_sync")
        with model.no_sync() if waits else nullcontext():  # type: ignore[operator]
            with torch.autocast(group.device.type, dtype, enabled=dtype is not None):
                values = loss(model, next(stream))
            scaler.scale(values["loss"] / settings.accumulate).backward()
        for name, value in values.items():
            found.setdefault(name, []).append(float(value.detach()))
    return {name: sum(each) / len(each) for name, each in found.items()}


def _resume(
    path: Path, parts: dict[str, Any], same: Mapping[str, object], device: torch.device
) -> int:
    """Loads what a run left, and returns the number of its steps."""
    if not path.is_file():
        return 0
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        # Versions before this one kept the settings alone.
        found = state["run"] if "run" in state else {**same, **state["settings"]}
    except Exception as error:  # damaged bytes bring an unpickler to raise anything
        raise TrainingError(
            f"{path}: cannot be read: {_in_short(error)}; if it is damaged, remove it to begin anew"
        ) from error
    for name, value in same.items():
        if found.get(name) != value:
            raise TrainingError(
                f"{path}: is of a run with {name} {found.get(name)!r}, not {value!r}; choose "
                "another directory, or remove this one"
            )
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return state["step"]
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{path}: does not fit this run: {_in_short(error)}; choose another directory, or "
            "remove this one"
        ) from error


def _in_short(error: Exception) -> str:
    return in_one_line(str(error)) or type(error).__name__


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file whole or not at all; a disk that is full is said, and the run goes on."""
    try:
        write_whole(path, write)
    except (OSError, RuntimeError) as error:  # torch.save says RuntimeError
        tqdm.write(f"cannot write {path}: {error}; the training goes on", file=sys.stderr)
