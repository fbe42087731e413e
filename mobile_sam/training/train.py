"""Trains the demonstration weights on procedural scenes: `python -m mobile_sam.training.train`.

First on small scenes, where a step is cheap, then on scenes of the model's own size; one learning
rate schedule over both. What runs is resumable: a checkpoint with everything is written every few
minutes, and the same command goes on from it.
"""

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from mobile_sam.checkpoints import save_safetensors
from mobile_sam.modeling import DEMO, Sam
from mobile_sam.training.losses import sam_loss
from mobile_sam.training.samples import Samples, SceneSamples

_SAVE_EVERY_SECONDS = 180


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of the training, in which all scenes have one size."""

    image_size: int
    steps: int
    scenes: int
    """Scenes a step."""
    prompts: int
    """Prompts a scene."""


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Returns the rate at `step` of `steps`: a linear rise, then half a cosine to nearly 0."""
    rise = min(1.0, (step + 1) / warmup)
    return peak * rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def make_optimizer(model: Sam, decay: float) -> torch.optim.AdamW:
    """Returns AdamW that lets biases, norms, tables of biases and embeddings be."""
    matrices = [p for n, p in model.named_parameters() if p.ndim >= 2 and "embed" not in n
                and "token" not in n and "attention_biases" not in n]  # fmt: skip
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.99))


def train_step(model: Sam, batch: Samples, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Returns loss, and mean IoU with a box (or other clear prompt) and with one point."""
    on = {f.name: getattr(batch, f.name).to(device) for f in dataclasses.fields(batch)}
    embedding = model.encode(on["pixels"])
    prompts = len(on["labels"]) // len(on["pixels"])
    logits, predicted = model.decode(
        embedding.repeat_interleave(prompts, dim=0),
        on["points"],
        on["labels"],
        on["mask_logits"],
        on["has_mask"],
    )
    loss, iou = sam_loss(logits, predicted, on["targets"], on["ambiguous"])
    clear = iou[~on["ambiguous"], 0].mean()
    best_of_three = iou[on["ambiguous"], 1:].amax(dim=1).mean()
    return loss, clear, best_of_three


def train(phases: Sequence[Phase], output: Path, arguments: argparse.Namespace) -> Sam:
    """Trains the demo model and returns the average of its weights over the last steps."""
    torch.manual_seed(arguments.seed)
    device = torch.device(arguments.device)
    model = Sam(DEMO).to(device).to(memory_format=torch.channels_last)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.998), use_buffers=True)
    optimizer = make_optimizer(model, arguments.weight_decay)
    steps = sum(phase.steps for phase in phases)
    state = output.with_suffix(".state.pt")
    start = 0
    if state.exists():
        saved = torch.load(state, map_location=device, weights_only=True)
        start = saved["step"]
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
    elif arguments.start:
        earlier = torch.load(arguments.start, map_location=device, weights_only=True)
        average.load_state_dict(earlier["average"])
        model.load_state_dict(average.module.state_dict())

    def save(step: int) -> None:
        partial = state.with_suffix(".partial")
        torch.save(
            {
                "step": step,
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
            },
            partial,
        )
        partial.replace(state)

    bar = tqdm(total=steps, initial=start, unit="step", mininterval=10, file=sys.stdout)
    step, saved_at, shown = 0, time.monotonic(), None
    for number, phase in enumerate(phases):
        if step + phase.steps <= start:
            step += phase.steps
            continue
        config = dataclasses.replace(DEMO, image_size=phase.image_size)
        for sam in (model, average.module):
            sam.config = config
            sam.prompt_encoder.embedding_size = config.embedding_size  # type: ignore[union-attr]
        seed = hash((arguments.seed, number, start))
        samples = SceneSamples(config, abs(seed), phase.scenes, phase.prompts)
        loader = DataLoader(samples, batch_size=None, num_workers=arguments.workers)
        batches = iter(loader)
        end = step + phase.steps
        for now_at in range(max(step, start), end):
            rate = learning_rate(now_at, steps, arguments.rate, warmup=200)
            for group in optimizer.param_groups:
                group["lr"] = rate
            values = train_step(model, next(batches), device)
            optimizer.zero_grad(set_to_none=True)
            values[0].backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            average.update_parameters(model)
            now = torch.stack([value.detach() for value in values]).nan_to_num(0.5).cpu()
            shown = now if shown is None else torch.lerp(shown, now, 0.02)
            loss, clear, point = shown.tolist()
            bar.set_postfix_str(f"{phase.image_size} px, loss {loss:.3f}, mIoU box {clear:.3f} "
                                f"point {point:.3f}", refresh=False)  # fmt: skip
            bar.update()
            if time.monotonic() - saved_at > _SAVE_EVERY_SECONDS:
                save(now_at + 1)
                saved_at = time.monotonic()
        step = end
    save(steps)
    bar.close()
    return average.module  # type: ignore[return-value]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("demo.safetensors"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small-steps", type=int, default=4000, help="steps at half the size")
    parser.add_argument("--steps", type=int, default=700, help="steps at the full size")
    parser.add_argument("--scenes", type=int, default=6, help="scenes a step")
    parser.add_argument("--prompts", type=int, default=4, help="prompts a scene")
    parser.add_argument("--rate", type=float, default=1.2e-3, help="greatest learning rate")
    parser.add_argument("--weight-decay", type=float, default=0.02)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="state of another run to start from")
    options = parser.parse_args(arguments)
    phases = [
        Phase(DEMO.image_size // 2, options.small_steps, options.scenes, options.prompts),
        Phase(DEMO.image_size, options.steps, options.scenes, options.prompts),
    ]
    model = train(phases, options.output, options)
    save_safetensors(model, options.output)
    print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
