"""What light and a camera do to a picture. Images are uint8 RGB (H, W, 3) throughout."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from mobile_sam.scenes.textures import Image

_NOISE_UNIT = 32
# Drawing normal numbers for each image would cost more than drawing the image: they are drawn
# once, and an image takes a stretch of them that begins at a random place.
_NOISE = np.clip(
    np.random.default_rng(0).standard_normal(1 << 20, dtype=np.float32) * _NOISE_UNIT, -127, 127
).astype(np.int8)


def add_noise(rng: np.random.Generator, image: Image, sigma: float) -> Image:
    """Return `image` with normal noise of standard deviation `sigma` (in levels)."""
    start = int(rng.integers(_NOISE.size))
    grain = np.resize(
        np.roll(_NOISE, -start)
        if start + image.size > _NOISE.size
        else _NOISE[start : start + image.size],
        image.shape,
    )
    noisy = cv2.addWeighted(image, 1, grain, sigma / _NOISE_UNIT, 0, dtype=cv2.CV_8U)
    return noisy.astype(np.uint8, copy=False)


def light(rng: np.random.Generator, image: Image) -> Image:
    """Return `image` under light that is stronger on one side, or under a soft spot."""
    height, width = image.shape[:2]
    grid = rng.uniform(0.45, 1.15, (2, 2) if rng.random() < 0.6 else (4, 4)).astype(np.float32)
    gain = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    lit = cv2.multiply(image, cv2.merge([gain, gain, gain]), dtype=cv2.CV_8U)
    return lit.astype(np.uint8, copy=False)


def motion_blur(rng: np.random.Generator, image: Image, lengths: tuple[int, ...] = (3, 5)) -> Image:
    """Return `image` smeared along a line as long as one of `lengths` (odd, in pixels)."""
    length = int(rng.choice(lengths))
    angle = rng.uniform(0, np.pi)
    kernel = np.zeros((length, length), np.float32)
    half = length // 2
    end = (round(half * np.cos(angle)), round(half * np.sin(angle)))
    cv2.line(kernel, (half - end[0], half - end[1]), (half + end[0], half + end[1]), (1.0,))
    return cv2.filter2D(image, -1, kernel / kernel.sum()).astype(np.uint8, copy=False)


def defocus(image: Image, radius: float) -> Image:
    """Return `image` out of focus: each point becomes a disc of `radius` pixels."""
    reach = int(np.ceil(radius))
    across = np.arange(-reach, reach + 1, dtype=np.float32)
    distance = np.hypot(across[:, None], across[None])
    disc = np.clip(np.float32(radius + 0.5) - distance, 0, 1)
    blurred = cv2.filter2D(image, -1, disc / disc.sum(), borderType=cv2.BORDER_REFLECT)
    return blurred.astype(np.uint8, copy=False)


def jpeg(rng: np.random.Generator, image: Image, worst: int) -> Image:
    """Return `image` as it comes out of a JPEG file of a quality from `worst` to good."""
    quality = int(rng.integers(worst, 95))
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)  # type: ignore[arg-type]


def colour_jitter(rng: np.random.Generator, image: Image) -> Image:
    """Return `image` with another exposure, contrast and white balance."""
    gamma, contrast = np.exp(rng.uniform(-0.4, 0.4)), rng.uniform(0.6, 1.2)
    gains = rng.uniform(0.85, 1.15, 3)
    levels = ((np.arange(256) / 255) ** gamma - 0.5) * contrast + 0.5 + rng.uniform(-0.1, 0.1)
    table = np.clip(levels[:, None] * gains * 255, 0, 255).astype(np.uint8)
    return cv2.LUT(image, table[None]).astype(np.uint8, copy=False)


def _soften(rng: np.random.Generator, image: Image) -> Image:
    blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.2))
    return blurred.astype(np.uint8, copy=False)


def _smear_far(rng: np.random.Generator, image: Image) -> Image:
    scale = min(image.shape[:2]) / 256
    return motion_blur(rng, image, tuple(2 * round(n * scale) + 1 for n in (1, 2, 3, 5)))


def _misfocus(rng: np.random.Generator, image: Image) -> Image:
    return defocus(image, rng.uniform(0.5, 3) * min(image.shape[:2]) / 256)


@dataclass(frozen=True)
class Conditions:
    """How pictures are taken; shares are of the pictures.

    jittered: share with other colours.
    blurs: kinds of blur, and up to which share of the pictures each goes.
    noisy, sigma: share with noise, and how its standard deviation (in levels) is drawn.
    compressed, worst_jpeg: share that were JPEG files, and their least quality.
    """

    jittered: float
    blurs: tuple[tuple[float, Callable[[np.random.Generator, Image], Image]], ...]
    noisy: float
    sigma: Callable[[np.random.Generator], float]
    compressed: float
    worst_jpeg: int


MILD = Conditions(
    0.4, ((0.3, _soften), (0.4, motion_blur)), 0.6, lambda rng: rng.uniform(1, 10), 0.3, 40
)
# As a robot's camera takes them in passing.
HARSH = Conditions(
    0.6,
    ((0.15, _misfocus), (0.3, _smear_far), (0.5, _soften)),
    0.7,
    lambda rng: float(np.exp(rng.uniform(0, np.log(20)))),
    0.4,
    20,
)


def photograph(rng: np.random.Generator, image: Image, conditions: Conditions = MILD) -> Image:
    """Return `image` with a random choice of light, blur, noise, jitter and compression."""
    if rng.random() < 0.5:
        image = light(rng, image)
    if rng.random() < conditions.jittered:
        image = colour_jitter(rng, image)
    chance = rng.random()
    blur = next((blur for share, blur in conditions.blurs if chance < share), None)
    if blur is not None:
        image = blur(rng, image)
    if rng.random() < conditions.noisy:
        image = add_noise(rng, image, conditions.sigma(rng))
    if rng.random() < conditions.compressed:
        image = jpeg(rng, image, conditions.worst_jpeg)
    return image
