"""Single random scenes as a robot's camera may see them: harder to segment than those of `still`.

A floor and a wall in perspective, or something seen from above; on it up to forty things, from
three pixels to the whole picture, near ones before far ones, each with its shadow and its shading
from one light; some covered with what is behind them. Surfaces are drawn, or taken from
photographs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mobile_sam.scenes import camera, painting, shapes, textures
from mobile_sam.scenes.household import HOUSEHOLD
from mobile_sam.scenes.still import Scene
from mobile_sam.scenes.textures import Image

# What is seen of less than this is part of the background.
_LEAST_PIXELS = 9
_LEAST_SHARE = 0.2
_MOST_THINGS = 40
_CAMOUFLAGED = 0.08
_LARGEST_TEXTURE = 512
_MAKERS = (*shapes.MAKERS, *HOUSEHOLD)


@dataclass(frozen=True)
class _Setting:
    """Where things are.

    horizon: the row, in pixels, in which the floor would end if it had no end: a thing that stands
        with its lowest point in row v is (v - horizon) high per camera height. None: seen from
        above, where nothing stands.
    floor: the row in which the floor begins.
    light_xy: where the light comes from, in the picture; its length is 1.
    shadow: how dark shadows are, 0 to 1.
    """

    horizon: float | None
    floor: int
    light_xy: tuple[float, float]
    shadow: float


@dataclass(frozen=True, eq=False)
class _Thing:
    """A shape, and the map from its frame to pixels, float32 (2, 3)."""

    shape: shapes.Shape
    transform: NDArray[np.float32]
    radius: float
    lowest: float


def draw_robot_scene(
    rng: np.random.Generator,
    size_hw: tuple[int, int] = (256, 256),
    photographs: Sequence[Image] = (),
) -> Scene:
    """Draw a random scene of `size_hw` pixels.

    `photographs` (uint8 RGB, any size) are what half of the surfaces are made of. Few things are
    more likely than many. Labels are 1 to n without gaps, what lies in front has a higher one; what
    is hidden by more than four fifths, or is smaller than 9 pixels, has none.
    """
    height, width = size_hw
    angle = rng.uniform(0, 2 * np.pi)
    horizon = rng.uniform(-0.3, 0.45) * height if rng.random() < 0.6 else None
    setting = _Setting(
        horizon,
        0 if horizon is None else round(max(horizon + rng.uniform(0.03, 0.25) * height, 0)),
        (float(np.cos(angle)), float(np.sin(angle))),
        rng.uniform(0.3, 0.7) if rng.random() < 0.75 else 0.0,
    )
    canvas = _surroundings(rng, setting, size_hw, photographs)
    labels = np.zeros(size_hw, np.uint16)
    count = round(np.exp(rng.uniform(0, np.log(_MOST_THINGS))))
    things = sorted(
        (_place(rng, setting, size_hw, count) for _ in range(count)),
        key=lambda thing: -thing.radius if setting.horizon is None else thing.lowest,
    )
    blurred_before = int(rng.integers(1, count + 1)) if rng.random() < 0.15 else 0
    full_areas = [0]
    for number, thing in enumerate(things, start=1):
        if number == blurred_before:  # the camera looks at what is near
            canvas = camera.defocus(canvas, rng.uniform(0.5, 3) * min(size_hw) / 256)
        full_areas.append(_put(rng, setting, canvas, labels, thing, number, photographs))
    return Scene(
        camera.photograph(rng, canvas, camera.HARSH), _visible(labels, np.array(full_areas))
    )


def _surface(
    rng: np.random.Generator, height: int, width: int, photographs: Sequence[Image]
) -> Image:
    """Return a texture, uint8 RGB (height, width, 3), of a photograph or drawn."""
    if photographs and rng.random() < 0.5:
        return textures.photograph_patch(rng, photographs, height, width)
    return textures.background(rng, height, width)


def _surroundings(
    rng: np.random.Generator,
    setting: _Setting,
    size_hw: tuple[int, int],
    photographs: Sequence[Image],
) -> Image:
    """Return wall and floor, or what is seen from above, uint8 RGB."""
    height, width = size_hw
    canvas = _surface(rng, height, width, photographs)
    if setting.horizon is None:
        return canvas
    side = min(max(size_hw), _LARGEST_TEXTURE)
    texture = _surface(rng, side, side, photographs)
    # A pixel (u, v) sees the floor at X = (u - centre) / (v - horizon), Z = focal / (v - horizon)
    # in camera heights: a homography.
    focal = rng.uniform(0.6, 1.4) * width
    seen = np.array([[1, 0, -width / 2], [0, 0, focal], [0, 1, -setting.horizon]], np.float64)
    turn = rng.uniform(0, 2 * np.pi)
    tile = side * np.exp(rng.uniform(np.log(0.1), np.log(1)))  # pixels for a camera height
    cosine, sine = np.cos(turn) * tile, np.sin(turn) * tile
    laid = np.array([[cosine, -sine, side / 2], [sine, cosine, side / 2], [0, 0, 1]])
    floor = cv2.warpPerspective(
        texture,
        laid @ seen,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )[setting.floor :].astype(np.float32)
    # Far away, where one pixel sees much of the floor, it has the mean colour of the floor.
    rows = np.arange(setting.floor, height) - setting.horizon
    near = np.clip(rows / (0.12 * height), 0, 1)[:, None, None]
    mean = np.array(cv2.mean(texture)[:3])
    canvas[setting.floor :] = (floor * near + mean * (1 - near)).astype(np.uint8)
    if setting.shadow:  # where floor and wall meet, little light comes
        dark = np.exp(-np.abs(np.arange(height) - setting.floor) / (0.03 * height))
        canvas = (canvas * (1 - 0.5 * setting.shadow * dark)[:, None, None]).astype(np.uint8)
    return canvas


def _place(
    rng: np.random.Generator, setting: _Setting, size_hw: tuple[int, int], count: int
) -> _Thing:
    """Return a thing that stands on the floor, or lies anywhere if it is seen from above."""
    height, width = size_hw
    side = min(size_hw)
    shape = shapes.random_shape(rng, _MAKERS)
    squeeze = rng.uniform(0.6, 1)
    if setting.horizon is None:
        largest = 0.6 * side if count > 1 else side
        radius = np.exp(rng.uniform(np.log(2.0), np.log(largest)))
        centre = (rng.uniform(0, width), rng.uniform(0, height))
        transform = shapes.pose(centre, radius, rng.uniform(0, 2 * np.pi), squeeze)
        return _Thing(shape, transform, radius, centre[1])
    # Some stand below the picture, and are seen in part; many are far, few near.
    lowest = rng.uniform(setting.floor, 1.2 * height)
    tall = np.exp(rng.uniform(np.log(0.08), np.log(0.7)))  # of a camera height
    radius = float(np.clip(tall * (lowest - setting.horizon), 2.0, side))
    transform = shapes.pose((rng.uniform(0, width), 0), radius, rng.normal(0, 0.1), squeeze)
    rows = [(c @ transform[1, :2]).max() for part in shape for c in part]
    transform[1, 2] = lowest - max(rows)
    return _Thing(shape, transform, radius, lowest)


def _put(
    rng: np.random.Generator,
    setting: _Setting,
    canvas: Image,
    labels: NDArray[np.uint16],
    thing: _Thing,
    label: int,
    photographs: Sequence[Image],
) -> int:
    """Draw a thing and its shadow; return how many pixels it has before others cover it."""
    height, width = labels.shape
    found = shapes.draw_mask(thing.shape, thing.transform, height, width)
    if found is None:
        return 0
    window, mask = found
    skin = _skin(rng, canvas, window, mask, photographs)
    if rng.random() < 0.7:
        shine = rng.uniform(40, 200) if rng.random() < 0.3 else 0.0
        skin = painting.shade(skin, mask, setting.light_xy, rng.uniform(0.1, 0.6), shine)
    if setting.shadow:
        _cast(setting, canvas, thing)
    painting.put_object(canvas, labels, window, mask, skin, label)
    return int(np.count_nonzero(mask >= 128))


def _skin(
    rng: np.random.Generator,
    canvas: Image,
    window: painting.Window,
    mask: Image,
    photographs: Sequence[Image],
) -> Image:
    """Return what covers a thing, uint8 RGB of the window's size."""
    height, width = mask.shape
    if rng.random() < _CAMOUFLAGED:  # only light and shadow tell it from what is behind it
        return (canvas[window][::-1, ::-1] * rng.uniform(0.7, 0.95)).astype(np.uint8)
    if photographs and rng.random() < 0.5:
        return textures.photograph_patch(rng, photographs, height, width)
    behind = np.array(cv2.mean(canvas[window], mask)[:3])
    return painting.random_skin(rng, height, width, behind, rng.uniform(30, 200))


def _cast(setting: _Setting, canvas: Image, thing: _Thing) -> None:
    """Darken what lies in the shadow of a thing."""
    away = (-setting.light_xy[0], -setting.light_xy[1])
    blur = max(1, round(0.06 * thing.radius))
    if setting.horizon is None:
        distance = 0.15 * thing.radius
        offset = (away[0] * distance, away[1] * distance)
        thrown = np.array([[1, 0, offset[0]], [0, 1, offset[1]]])
    else:
        # What is h above the floor throws its shadow to the side, and before or behind the thing
        # by less, as the floor is seen at a low angle.
        along, down = 0.9 * away[0], 0.35 * away[1]
        thrown = np.array(
            [[1, -along, along * thing.lowest], [0, -down, (1 + down) * thing.lowest]]
        )
    transform = thrown @ np.vstack([thing.transform, [0, 0, 1]])
    height, width = canvas.shape[:2]
    found = shapes.draw_mask(thing.shape, transform.astype(np.float32), height, width)
    if found is not None:
        window, mask = found
        painting.cast_shadow(canvas, mask, window, (0, 0), setting.shadow, blur)


def _visible(labels: NDArray[np.uint16], full_areas: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Return labels without those of which too little is seen, numbered anew."""
    seen = np.bincount(labels.ravel(), minlength=len(full_areas))
    stays = (seen >= _LEAST_PIXELS) & (seen >= _LEAST_SHARE * full_areas)
    stays[0] = False
    return np.where(stays, np.cumsum(stays), 0).astype(np.uint16)[labels]
