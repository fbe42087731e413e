"""Textures: a scalar field (uint8, H x W), coloured by a palette (uint8, 256 x 1 x 3).

Fields that look irregular are sums of small random grids scaled up, so that they cost a few
`cv2.resize` calls however large they are.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Plane = NDArray[np.float32]
Field = Callable[[np.random.Generator, int, int], Plane]

_LEVELS = np.linspace(0, 1, 256)


def random_colour(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return one RGB colour, float64 (3,), 0 to 255, vivid, pale, dark or grey."""
    grey = rng.uniform(10, 245)
    vivid = rng.uniform(0, 255, 3)
    return np.clip(grey + (vivid - vivid.mean()) * rng.choice((0.1, 0.5, 1.2)), 0, 255)


def palette(rng: np.random.Generator, spread: float) -> Image:
    """Return a colour table, uint8 (256, 1, 3): a base colour and others up to `spread` away."""
    stops = int(rng.integers(2, 5))
    base = random_colour(rng)
    colours = base + (np.stack([random_colour(rng) for _ in range(stops)]) - base) * spread
    positions = np.sort(rng.uniform(0, 1, stops))
    positions[0], positions[-1] = 0, 1
    table = [np.interp(_LEVELS, positions, colours[:, channel]) for channel in range(3)]
    return np.clip(np.stack(table, axis=-1), 0, 255).astype(np.uint8)[:, None]


def noise(
    rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 4
) -> Plane:
    """Return multi-octave value noise, float32 (height, width) in 0 to 1.

    `cell` is the size in pixels of the coarsest grain; each octave halves size and strength.
    """
    total = np.full((height, width), 0.5, np.float32)
    weight = 0.4
    for _ in range(octaves):
        rows = int(np.ceil(height / cell)) + 2
        columns = int(np.ceil(width / cell)) + 2
        grid = rng.random((rows, columns), dtype=np.float32) - np.float32(0.5)
        how = cv2.INTER_CUBIC if cell > 12 else cv2.INTER_LINEAR
        layer = cv2.resize(grid, (width, height), interpolation=how)
        cv2.scaleAdd(layer, weight * 1.6, total, total)
        weight *= 0.6
        cell /= 2
        if cell < 1.5:
            break
    return np.clip(total, 0, 1)


def _axis(rng: np.random.Generator, height: int, width: int) -> tuple[Plane, Plane]:
    """Return the pixel coordinates in a randomly rotated frame, float32 (height, width) each."""
    angle = rng.uniform(0, 2 * np.pi)
    rows = np.arange(height, dtype=np.float32)[:, None]
    columns = np.arange(width, dtype=np.float32)[None]
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return columns * cosine + rows * sine, rows * cosine - columns * sine


def _flat(rng: np.random.Generator, height: int, width: int) -> Plane:
    return np.full((height, width), rng.uniform(0, 1), np.float32)


def _gradient(rng: np.random.Generator, height: int, width: int) -> Plane:
    along, _ = _axis(rng, height, width)
    low, high = float(along.min()), float(along.max())
    return (along - low) / max(high - low, 1.0)


def _radial(rng: np.random.Generator, height: int, width: int) -> Plane:
    rows = np.arange(height, dtype=np.float32)[:, None] / height - rng.uniform(0.1, 0.9)
    columns = np.arange(width, dtype=np.float32)[None] / width - rng.uniform(0.1, 0.9)
    distance = np.sqrt(rows * rows + columns * columns, dtype=np.float32)
    return np.minimum(distance * np.float32(1.2), 1)


def _clouds(rng: np.random.Generator, height: int, width: int) -> Plane:
    return noise(rng, height, width, rng.uniform(0.1, 0.7) * max(height, width), 5)


def _grain(rng: np.random.Generator, height: int, width: int) -> Plane:
    return noise(rng, height, width, rng.uniform(3, 16), 3)


def _patches(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Camouflage: clouds cut into a few levels."""
    levels = int(rng.integers(2, 6))
    clouds = noise(rng, height, width, rng.uniform(0.1, 0.4) * max(height, width), 3)
    return np.minimum(np.floor(clouds * (levels + 1)) / np.float32(levels), 1)


def _stripes(rng: np.random.Generator, height: int, width: int) -> Plane:
    along, _ = _axis(rng, height, width)
    period = rng.uniform(4, 40)
    if rng.random() < 0.4:  # bend them: wood, cloth, water
        along = along + noise(rng, height, width, rng.uniform(30, 120), 2) * np.float32(
            rng.uniform(10, 60)
        )
    wave = np.sin(along * np.float32(2 * np.pi / period))
    sharpness = np.float32(rng.choice((0.5, 1.5, 4.0)))
    return np.clip(wave * sharpness + np.float32(0.5), 0, 1)


def _cells(rng: np.random.Generator, height: int, width: int) -> tuple[Plane, Plane]:
    """Return the coordinates in a rotated grid whose cells have size 1."""
    across, down = _axis(rng, height, width)
    scale = np.float32(1 / rng.uniform(5, 36))
    return across * scale + np.float32(100), down * scale + np.float32(100)


def _checker(rng: np.random.Generator, height: int, width: int) -> Plane:
    across, down = _cells(rng, height, width)
    return ((across.astype(np.int32) ^ down.astype(np.int32)) & 1).astype(np.float32)


def _dots(rng: np.random.Generator, height: int, width: int) -> Plane:
    across, down = _cells(rng, height, width)
    across -= np.floor(across) + np.float32(0.5)
    down -= np.floor(down) + np.float32(0.5)
    distance = across * across + down * down
    return np.clip((np.float32(rng.uniform(0.04, 0.16)) - distance) * np.float32(20), 0, 1)


def _tiles(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Squares with joints between them, each of its own tone."""
    across, down = _cells(rng, height, width)
    column, row = np.floor(across), np.floor(down)
    tone = ((column * np.float32(37) + row * np.float32(61)) % np.float32(17)) / np.float32(34)
    joint = np.minimum(across - column, down - row) < np.float32(rng.uniform(0.05, 0.2))
    return np.where(joint, np.float32(1), tone)


OBJECT_FIELDS: tuple[Field, ...] = (
    _flat, _flat, _flat, _gradient, _gradient, _radial, _clouds, _grain, _patches, _stripes,
    _checker, _dots, _tiles,
)  # fmt: skip
BACKGROUND_FIELDS: tuple[Field, ...] = (
    _flat, _gradient, _radial, _clouds, _clouds, _clouds, _grain, _patches, _stripes, _checker,
    _dots, _tiles,
)  # fmt: skip


def random_field(
    rng: np.random.Generator, height: int, width: int, fields: tuple[Field, ...]
) -> Image:
    """Return a field of one of the kinds `fields`, uint8 (height, width), often with grain."""
    values = fields[rng.integers(len(fields))](rng, height, width)
    if rng.random() < 0.4:
        fine = noise(rng, height, width, rng.uniform(3, 60), 3)
        strength = np.float32(rng.uniform(0.05, 0.35))
        values = values * (1 - strength) + fine * strength
    return cv2.convertScaleAbs(values, alpha=255).astype(np.uint8, copy=False)


def colourise(field: Image, table: Image) -> Image:
    """Return `field` (uint8, H x W) through the colour table `table`: uint8 RGB (H, W, 3)."""
    return cv2.applyColorMap(field, table).astype(np.uint8, copy=False)


def background(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a background, uint8 RGB (height, width, 3): one texture, or two that meet."""
    spread = rng.choice((0.2, 0.5, 1.0))
    canvas = colourise(random_field(rng, height, width, BACKGROUND_FIELDS), palette(rng, spread))
    if rng.random() < 0.3:  # floor and wall, land and sky: a second texture below a line
        horizon = int(rng.uniform(0.2, 0.8) * height)
        field = random_field(rng, height - horizon, width, BACKGROUND_FIELDS)
        canvas[horizon:] = colourise(field, palette(rng, spread))
    return canvas


def photograph_patch(
    rng: np.random.Generator, photographs: Sequence[Image], height: int, width: int
) -> Image:
    """Return a piece of one of `photographs` (uint8 RGB), turned, scaled and often recoloured:
    uint8 RGB (height, width, 3). Beyond its edges a photograph is mirrored."""
    photograph = photographs[int(rng.integers(len(photographs)))]
    rows, columns = photograph.shape[:2]
    # Pixels of the patch for one of the photograph; at least half of it is seen.
    scale = max(height / rows, width / columns) * np.exp(rng.uniform(-np.log(2), np.log(6)))
    angle = rng.normal(0, 10) if rng.random() < 0.5 else rng.uniform(0, 360)
    centre = (rng.uniform(0, columns), rng.uniform(0, rows))
    matrix = cv2.getRotationMatrix2D(centre, angle, scale).astype(np.float64)
    matrix[:, 2] += (width / 2 - centre[0], height / 2 - centre[1])
    patch = cv2.warpAffine(
        photograph, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    if rng.random() < 0.5:
        patch = patch[..., rng.permutation(3)]
    if rng.random() < 0.5:
        levels = np.arange(256)[:, None] * rng.uniform(0.4, 1.4, 3) + rng.uniform(-40, 40, 3)
        patch = cv2.LUT(np.ascontiguousarray(patch), np.clip(levels, 0, 255).astype(np.uint8)[None])
    return np.ascontiguousarray(patch, np.uint8)
