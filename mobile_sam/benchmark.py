"""How fast a model runs here, by each way there is to run it, and which way to take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mobile_sam.backends import Backend
from mobile_sam.backends.pytorch import TorchSam
from mobile_sam.modeling import Sam
from mobile_sam.predictor import Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.scenes import MovingScene
from mobile_sam.segments import Segments, tight_box

SIZES = {"640x480": (480, 640), "1280x720": (720, 1280)}
_OBJECTS = 8
_SEED = 7
_LEAST_AGREEMENT = 0.98


@dataclass(frozen=True)
class Way:
    """One way to run a model: arguments of `load_backend`."""

    backend: str
    device: str
    precision: str
    encode_padding: bool = False

    def __str__(self) -> str:
        padding = ", padding too" if self.encode_padding else ""
        return f"{self.backend}, {self.device}, {self.precision}{padding}"


@dataclass(frozen=True)
class Result:
    """What was measured of one way, all in milliseconds.

    Attributes:
        way: which.
        first_ms: until the first picture was encoded, after the model was made ready for its size.
        encode_ms: median, by the picture's size, of `SIZES`.
        decode_ms: median, of 8 boxes in a picture of 640x480, with their masks.
        agreement: mean IoU of these masks with those of PyTorch in fp32 with padding.
    """

    way: Way
    first_ms: float
    encode_ms: Mapping[str, float]
    decode_ms: float
    agreement: float


def ways() -> list[Way]:
    """Returns the ways there are on this machine; the first one is the reference."""
    found = [Way("torch", "cpu", "fp32", True), Way("torch", "cpu", "fp32")]
    found.append(Way("torch", "cpu", "bf16"))
    try:
        from mobile_sam.backends.openvino_models import precisions
    except ImportError:
        pass
    else:
        found += [Way("openvino", "cpu", precision) for precision in precisions()]
    if torch.cuda.is_available():
        found += [Way("torch", "cuda", precision) for precision in ("fp32", "bf16", "fp16")]
    return found


def make_backend(sam: Sam, way: Way) -> Backend:
    """Makes a backend of a model that is loaded already; on a GPU, of a copy."""
    if way.backend == "openvino":
        from mobile_sam.backends.openvino import OpenVinoSam

        return OpenVinoSam(sam, way.precision, way.encode_padding)
    if way.device != "cpu":
        copy = Sam(sam.config).eval()
        copy.load_state_dict(sam.state_dict())
        sam = copy.to(way.device)
    return TorchSam(sam, way.precision, way.encode_padding)


def interleaved_medians(
    runs: Mapping[str, Callable[[], object]], repeats: int, warm_ups: int = 1
) -> dict[str, float]:
    """Returns the median time of each run, in milliseconds.

    They are measured in turn, so that what else the machine does hits all of them.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(warm_ups + repeats):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if number >= warm_ups:
                times[name].append(1000 * (time.perf_counter() - begin))
    return {name: statistics.median(kept) for name, kept in times.items()}


def finished(device: str) -> None:
    """Waits for what runs on a device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def measure(
    sam: Sam,
    repeats: int,
    tell: Callable[[str], None] = lambda text: None,
    chosen: Sequence[Way] | None = None,
) -> list[Result]:
    """Measures a model, which is on the CPU, by each way in turn.

    Args:
        sam: in evaluation mode.
        repeats: of each measurement.
        tell: is told what is at work.
        chosen: ways, the first one the reference; None: all of `ways()`.
    """
    scenes = {name: MovingScene(_SEED, size, _OBJECTS).frame(0) for name, size in SIZES.items()}
    first = next(iter(scenes.values()))
    labels = first.labels
    prompts = [Prompt(box=tight_box(labels == i)) for i in np.unique(labels) if i]
    images = {name: scene.image for name, scene in scenes.items()}
    results: list[Result] = []
    wanted: Segments | None = None
    for way in chosen or ways():
        tell(str(way))
        predictor = Predictor(make_backend(sam, way))

        def encode(image: NDArray[np.uint8], by: Predictor = predictor) -> None:
            by.encode(image)
            finished(by.device)

        begin = time.perf_counter()
        predictor.prepare(first.image.shape[:2])
        encode(first.image)
        first_ms = 1000 * (time.perf_counter() - begin)
        for size in SIZES.values():
            predictor.prepare(size)
        times = interleaved_medians(
            {name: lambda i=image: encode(i) for name, image in images.items()},  # type: ignore[misc]
            repeats,
        )
        embedding = predictor.encode(first.image)
        segments = predictor.decode(embedding, prompts)
        decode = interleaved_medians(
            {"decode": lambda by=predictor, e=embedding: by.decode(e, prompts)},  # type: ignore[misc]
            repeats,
        )
        wanted = wanted or segments
        agreement = mean_iou(segments, wanted)
        results.append(Result(way, first_ms, times, decode["decode"], agreement))
    return results


def mean_iou(found: Segments, wanted: Segments) -> float:
    """Returns the mean IoU of masks with those of the same objects; 1 where both are empty."""
    union = (found.masks | wanted.masks).sum((1, 2))
    overlap = (found.masks & wanted.masks).sum((1, 2))
    return float(np.where(union > 0, overlap / np.maximum(union, 1), 1.0).mean())


def recommended(results: Sequence[Result]) -> Result:
    """Returns the fastest way whose masks are those of the reference, or nearly (IoU 0.98)."""
    trusted = [result for result in results if result.agreement >= _LEAST_AGREEMENT]
    return min(trusted, key=lambda r: next(iter(r.encode_ms.values())) + r.decode_ms)


def table(results: Sequence[Result]) -> str:
    """Returns the results as Markdown."""
    sizes = list(results[0].encode_ms)
    lines = [
        "| way | first picture, ms | "
        + " | ".join(f"encode {size}, ms" for size in sizes)
        + f" | decode {_OBJECTS} boxes, ms | masks agree |",
        "|---" * (len(sizes) + 4) + "|",
    ]
    for result in results:
        times = [result.first_ms, *result.encode_ms.values(), result.decode_ms]
        numbers = " | ".join(f"{value:.1f}" for value in times)
        lines.append(f"| {result.way} | {numbers} | {result.agreement:.3f} |")
    return "\n".join(lines)


def machine() -> str:
    """Names the machine: processor and threads, and the GPU if there is one.

    With the processor's family and model: what is rented is often named by its maker alone.
    """
    try:
        with open("/proc/cpuinfo") as file:
            pairs = [line.split(":", 1) for line in file if ":" in line]
    except OSError:
        pairs = []
    about = {name.strip(): value.strip() for name, value in pairs}
    name = about.get("model name", "CPU")
    if "cpu family" in about:
        name += f" (family {about['cpu family']}, model {about.get('model')})"
    text = f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return f"{text}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else text
