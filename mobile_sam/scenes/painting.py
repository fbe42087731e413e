"""Puts objects on a canvas: skin (texture and relief), shadow, outline, and the label."""

import cv2
import numpy as np
from numpy.typing import NDArray

from mobile_sam.scenes.textures import (
    OBJECT_FIELDS,
    Image,
    colourise,
    palette,
    random_field,
)

Window = tuple[slice, slice]


def random_skin(
    rng: np.random.Generator,
    height: int,
    width: int,
    behind_rgb: NDArray[np.float64],
    contrast: float,
) -> Image:
    """Return what covers an object, uint8 RGB (height, width, 3).

    Its mean differs from `behind_rgb` (float64 (3,), 0 to 255) by about `contrast` levels, summed
    over the channels, or more: of a few palettes, the first that does, or else the best.
    """
    field = random_field(rng, height, width, OBJECT_FIELDS)
    best, best_distance = None, -1.0
    for _ in range(4):
        skin = colourise(field, palette(rng, rng.choice((0.15, 0.4, 1.0))))
        distance = float(np.abs(np.array(cv2.mean(skin)[:3]) - behind_rgb).sum())
        if distance > best_distance:
            best, best_distance = skin, distance
        if distance >= contrast:
            break
    assert best is not None
    return _relief(rng, best)


def _relief(rng: np.random.Generator, skin: Image) -> Image:
    """Return `skin` with shading across it, and now and then a specular highlight."""
    height, width = skin.shape[:2]
    if rng.random() < 0.5:
        corners = rng.uniform(0.5, 1.2, (2, 2)).astype(np.float32)
        gain = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
        skin = cv2.multiply(skin, cv2.merge([gain, gain, gain]), dtype=cv2.CV_8U).astype(
            np.uint8, copy=False
        )
    if rng.random() < 0.25:
        size = max(2, int(min(height, width) * rng.uniform(0.06, 0.2)))
        glow = np.zeros((height, width), np.uint8)
        where = (int(rng.uniform(0.25, 0.75) * width), int(rng.uniform(0.2, 0.6) * height))
        cv2.circle(glow, where, size, (int(rng.integers(80, 220)),), -1)
        glow = cv2.blur(glow, (size, size)).astype(np.uint8, copy=False)
        skin = cv2.add(skin, cv2.merge([glow, glow, glow])).astype(np.uint8, copy=False)
    return skin


def shade(
    skin: Image, mask: Image, light_xy: tuple[float, float], strength: float, shine: float
) -> Image:
    """Return `skin` as it looks on something round.

    Args:
        skin: uint8 RGB (H, W, 3).
        mask: uint8 (H, W), the object's coverage; it is taken to be highest where its edge is far.
        light_xy: where the light comes from, in the picture; its length is 1.
        strength: share of the brightness that turned sides gain or lose.
        shine: levels of the highlight where the surface faces the light most.
    """
    bulge = max(1.0, 0.12 * min(mask.shape))
    height = cv2.GaussianBlur(mask, (0, 0), bulge, borderType=cv2.BORDER_REPLICATE)
    across = cv2.Sobel(height, cv2.CV_32F, 1, 0)
    down = cv2.Sobel(height, cv2.CV_32F, 0, 1)
    facing = -(across * light_xy[0] + down * light_xy[1])
    facing /= max(float(np.abs(facing).max()), 1.0)
    gain = 1 + strength * facing
    lit = skin * gain[..., None] + shine * np.clip(facing, 0, 1)[..., None] ** 4
    return np.clip(lit, 0, 255).astype(np.uint8)


def outline(skin: Image, mask: Image, thickness: int, colour: NDArray[np.float64]) -> Image:
    """Return `skin` with the rim of `mask` (uint8, same H x W) painted in `colour`."""
    size = 2 * thickness + 1
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    inner = cv2.erode(padded, np.ones((size, size), np.uint8))[1:-1, 1:-1]
    painted = skin.copy()
    painted[inner < 128] = colour
    return painted


def cast_shadow(
    canvas: Image,
    mask: Image,
    window: Window,
    offset_xy: tuple[int, int],
    strength: float,
    blur: int | None = None,
) -> None:
    """Darken `canvas` in place under the soft shadow of an object.

    `mask` is the object's coverage in `window`; the shadow lies `offset_xy` pixels off it, and its
    edge is as wide as `blur` pixels to either side, or as it is off.
    """
    reach = max(1, abs(offset_xy[0]), abs(offset_xy[1])) if blur is None else blur
    soft = 2 * reach + 1
    rows, columns = window
    top, left = rows.start + offset_xy[1] - soft, columns.start + offset_xy[0] - soft
    shadow = cv2.copyMakeBorder(mask, soft, soft, soft, soft, cv2.BORDER_CONSTANT, value=(0,))
    shadow = cv2.blur(shadow, (soft, soft))
    height, width = shadow.shape
    first_row, first_column = max(top, 0), max(left, 0)
    last_row, last_column = min(top + height, canvas.shape[0]), min(left + width, canvas.shape[1])
    if last_row <= first_row or last_column <= first_column:
        return
    part = shadow[first_row - top : last_row - top, first_column - left : last_column - left]
    gain = cv2.convertScaleAbs(part, alpha=-strength, beta=255)
    area = canvas[first_row:last_row, first_column:last_column]
    area[:] = cv2.multiply(area, cv2.merge([gain, gain, gain]), scale=1 / 255)


def put_object(
    canvas: Image,
    labels: NDArray[np.uint16],
    window: Window,
    mask: Image,
    skin: Image,
    label: int,
) -> None:
    """Blend `skin` over `canvas` by `mask`, and write `label` where the mask is at least half."""
    # OpenCV 4 takes one number for a scalar whose other channels are 0.
    alpha = cv2.multiply(cv2.merge([mask, mask, mask]), np.full(4, 1 / 255), dtype=cv2.CV_32F)
    area = canvas[window]
    difference = cv2.subtract(skin, area, dtype=cv2.CV_32F)
    area[:] = cv2.add(area, cv2.multiply(difference, alpha), dtype=cv2.CV_8U)
    labels[window][mask >= 128] = label
