"""Trains the demonstration weights on procedural scenes: `python -m mobile_sam.training.train`.

First on small scenes, where a step is cheap, then on scenes of the model's own size, each for as
many minutes as it is given: the learning rate falls with the time that is left, whatever a step
takes. What runs is resumable: a checkpoint with everything is written every few minutes, and the
same command goes on from it.
"""

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from timm.optim.muon import Muon
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from mobile_sam.checkpoints import load_sam, save_safetensors
from mobile_sam.modeling import DEMO, Sam, SamConfig
from mobile_sam.training.affinity import AffinityHead, affinity_loss
from mobile_sam.training.losses import sam_loss
from mobile_sam.training.samples import Samples, SceneSamples

_SAVE_EVERY_SECONDS = 180
_WARMUP_STEPS = 200
_AFFINITY_WEIGHT = 0.5
_FREEZE_AFTER = 0.7  # of the time, with the statistics of batch norms as they are then


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of the training, in which all scenes have one size."""

    image_size: int
    minutes: float
    scenes: int
    """Scenes a step."""
    prompts: int
    """Prompts a scene."""


def learning_rate(step: int, progress: float, peak: float) -> float:
    """Returns the rate at a step: a linear rise, then half a cosine over `progress` (0 to 1)."""
    rise = min(1.0, (step + 1) / _WARMUP_STEPS)
    return peak * rise * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def make_optimizer(model: nn.Module, decay: float) -> torch.optim.Optimizer:
    """Returns Muon for matrices and kernels, AdamW for all else.

    Muon (Jordan et al. 2024) makes the update of a matrix orthogonal; biases, norms, embeddings,
    tables of biases and depthwise kernels have no matrix, and what reads the embedding for the
    training only is left to AdamW as well.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim >= 2 and parameter.shape[1] > 1
        special = (
            "embed.weight", "embeddings", "iou_token", "mask_tokens", "attention_biases", "affinity"
        )  # fmt: skip
        chosen = is_matrix and not any(word in name for word in special)
        (matrices if chosen else others).append(parameter)
    groups = [
        {"params": matrices, "weight_decay": decay},
        {"params": others, "weight_decay": 0.0, "use_fallback": True},
    ]
    return Muon(groups, momentum=0.95, nesterov=True, betas=(0.9, 0.99))


def freeze_statistics(model: nn.Module) -> None:
    """Makes batch norms use the statistics that they have, as they do after the training.

    Those of a batch of a few pictures are far from those of all pictures, and what was learnt
    with them suffers when the running averages take their place.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def train_step(
    model: Sam, affinity: AffinityHead, batch: Samples, device: torch.device
) -> tuple[Tensor, ...]:
    """Returns loss, and mean IoU with a box (or other clear prompt) and with one point."""
    on = {f.name: getattr(batch, f.name).to(device) for f in dataclasses.fields(batch)}
    prompts = len(on["labels"]) // len(on["pixels"])
    with torch.autocast(device.type, torch.bfloat16):
        embedding = model.encode(on["pixels"])
        logits, predicted = model.decode(
            embedding.repeat_interleave(prompts, dim=0),
            on["points"],
            on["labels"],
            on["mask_logits"],
            on["has_mask"],
        )
        same_object = affinity(embedding)
    loss, iou = sam_loss(logits.float(), predicted.float(), on["targets"], on["ambiguous"])
    loss = loss + _AFFINITY_WEIGHT * affinity_loss(same_object.float(), on["scene_labels"])
    clear = iou[~on["ambiguous"], 0].mean()
    best_of_three = iou[on["ambiguous"], 1:].amax(dim=1).mean()
    return loss, clear, best_of_three


def train(phases: Sequence[Phase], output: Path, arguments: argparse.Namespace) -> Sam:
    """Trains the demo model and returns the average of its weights over the last steps."""
    torch.manual_seed(arguments.seed)
    device = torch.device(arguments.device)
    model = Sam(DEMO).to(device).to(memory_format=torch.channels_last)
    affinity = AffinityHead(DEMO.embedding_dim).to(device)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.998), use_buffers=True)
    both = nn.ModuleDict({"model": model, "affinity": affinity})
    optimizer = make_optimizer(both, arguments.weight_decay)
    total = sum(phase.minutes for phase in phases)
    state = output.with_suffix(".state.pt")
    step, minutes = 0, 0.0
    if state.exists():
        saved = torch.load(state, map_location=device, weights_only=True)
        step, minutes = saved["step"], saved["minutes"]
        both.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
    elif arguments.start:
        model.load_state_dict(load_sam(str(arguments.start)).state_dict())
        average.module.load_state_dict(model.state_dict())

    def save() -> None:
        partial = state.with_suffix(".partial")
        torch.save(
            {
                "step": step,
                "minutes": minutes,
                "model": both.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
            },
            partial,
        )
        partial.replace(state)

    layout = "{l_bar}{bar}| {n:.1f}/{total:.1f} min{postfix}"
    bar = tqdm(total=total, initial=minutes, mininterval=10, file=sys.stdout, bar_format=layout)
    saved_at, shown = time.monotonic(), None
    end = 0.0
    for number, phase in enumerate(phases):
        end += phase.minutes
        if minutes >= end:
            continue
        config = dataclasses.replace(DEMO, image_size=phase.image_size)
        _resize(model, config)
        samples = SceneSamples(config, (arguments.seed, number, step), phase.scenes, phase.prompts)
        batches = iter(DataLoader(samples, batch_size=None, num_workers=arguments.workers))
        while minutes < end:
            began = time.monotonic()
            rate = learning_rate(step, minutes / total, arguments.rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            if arguments.start or minutes > _FREEZE_AFTER * total:
                freeze_statistics(model)
            values = train_step(model, affinity, next(batches), device)
            optimizer.zero_grad(set_to_none=True)
            values[0].backward()
            torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
            optimizer.step()
            average.update_parameters(model)
            now = torch.stack([value.detach() for value in values]).nan_to_num(0.5).cpu()
            shown = now if shown is None else torch.lerp(shown, now, 0.02)
            loss, clear, point = shown.tolist()
            step += 1
            spent = (time.monotonic() - began) / 60
            minutes += spent
            bar.set_postfix_str(f"step {step}, {phase.image_size} px, loss {loss:.3f}, mIoU box "
                                f"{clear:.3f} point {point:.3f}", refresh=False)  # fmt: skip
            bar.update(spent)
            if time.monotonic() - saved_at > _SAVE_EVERY_SECONDS:
                save()
                saved_at = time.monotonic()
    save()
    bar.close()
    return average.module  # type: ignore[return-value]


def _resize(model: Sam, config: SamConfig) -> None:
    """Makes the model take pictures of the size in `config`, which differs in nothing else."""
    model.config = config
    model.prompt_encoder.embedding_size = config.embedding_size


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("demo.safetensors"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small-minutes", type=float, default=60, help="with half the size")
    parser.add_argument("--minutes", type=float, default=120, help="with the full size")
    parser.add_argument("--scenes", type=int, default=3, help="scenes a step")
    parser.add_argument("--prompts", type=int, default=5, help="prompts a scene")
    parser.add_argument("--rate", type=float, default=5e-4, help="greatest learning rate")
    parser.add_argument("--weight-decay", type=float, default=0.02)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--start",
        type=Path,
        help="weights to start from; the statistics of their batch norms stay as they are",
    )
    options = parser.parse_args(arguments)
    phases = [
        Phase(DEMO.image_size // 2, options.small_minutes, options.scenes, options.prompts),
        Phase(DEMO.image_size, options.minutes, options.scenes, options.prompts),
    ]
    model = train(phases, options.output, options)
    save_safetensors(model, options.output)
    print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
