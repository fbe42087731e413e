"""A scene in motion, for the demo camera."""

from collections.abc import Collection
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mobile_sam.scenes import camera, painting, shapes, textures
from mobile_sam.scenes.still import Scene

_SKIN_SIZE = 128
_NOISE_SIGMA = 3.0


@dataclass(frozen=True)
class _Actor:
    """One object: its looks, and its motion in closed form. Units: pixels, radians, frames."""

    shape: shapes.Shape
    skin: textures.Image
    radius: float
    squeeze: float
    start: tuple[float, float]
    speed: tuple[float, float]
    angle: float
    spin: float
    pulse: float

    def transform(self, index: int, size_hw: tuple[int, int]) -> NDArray[np.float32]:
        """Return the map from the shape's frame to pixels at frame `index`."""
        height, width = size_hw
        margin = self.radius * 0.7
        centre = (
            _bounce(self.start[0] + self.speed[0] * index, margin, width - margin),
            _bounce(self.start[1] + self.speed[1] * index, margin, height - margin),
        )
        radius = self.radius * (1 + 0.12 * np.sin(self.pulse * index + self.angle))
        return shapes.pose(centre, radius, self.angle + self.spin * index, self.squeeze)


def _bounce(position: float, low: float, high: float) -> float:
    """Return where something that set out straight is, if it bounces between low and high."""
    length = high - low
    phase = (position - low) % (2 * length)
    return low + min(phase, 2 * length - phase)


class MovingScene:
    """Objects that move, turn and bounce over a background at rest.

    The same seed, size and number of objects give the same frames; object i has label i in all
    of them, and a higher label lies in front. No state: any frame can be asked for.
    """

    def __init__(self, seed: int, size_hw: tuple[int, int] = (480, 640), objects: int = 4) -> None:
        rng = np.random.default_rng(seed)
        self._seed = seed
        self._size_hw = size_hw
        self._background = textures.background(rng, *size_hw)
        # The largest are the farthest back, so that none is hidden for long.
        side = min(size_hw)
        radii = np.sort(rng.uniform(0.1, 0.24, objects))[::-1] * side
        behind = np.array(cv2.mean(self._background)[:3])
        self._actors = [self._cast(rng, float(radius), behind) for radius in radii]

    def _cast(self, rng: np.random.Generator, radius: float, behind: NDArray[np.float64]) -> _Actor:
        height, width = self._size_hw
        heading = rng.uniform(0, 2 * np.pi)
        speed = rng.uniform(0.003, 0.009) * min(height, width)
        return _Actor(
            shape=shapes.random_shape(rng),
            skin=painting.random_skin(rng, _SKIN_SIZE, _SKIN_SIZE, behind, 200),
            radius=radius,
            squeeze=rng.uniform(0.7, 1),
            start=(rng.uniform(0, width), rng.uniform(0, height)),
            speed=(speed * np.cos(heading), speed * np.sin(heading)),
            angle=rng.uniform(0, 2 * np.pi),
            spin=rng.uniform(-0.03, 0.03),
            pulse=rng.uniform(0.02, 0.06),
        )

    def frame(self, index: int, without: Collection[int] = ()) -> Scene:
        """Return frame `index` (0 or greater), `without` the objects of these labels."""
        canvas = self._background.copy()
        labels = np.zeros(self._size_hw, np.uint16)
        for label, actor in enumerate(self._actors, start=1):
            transform = actor.transform(index, self._size_hw)
            found = shapes.draw_mask(actor.shape, transform, *self._size_hw)
            if found is None or label in without:
                continue
            window, mask = found
            painting.cast_shadow(canvas, mask, window, (5, 6), 0.4)
            skin = _worn(actor.skin, transform, window)
            painting.put_object(canvas, labels, window, mask, skin, label)
        rng = np.random.default_rng((self._seed, index))
        return Scene(camera.add_noise(rng, canvas, _NOISE_SIGMA), labels)


def _worn(
    skin: textures.Image, transform: NDArray[np.float32], window: painting.Window
) -> textures.Image:
    """Return `skin` as it lies in `window` (uint8 RGB) when it moves with its object."""
    half = skin.shape[0] / 2
    # From the skin's pixels to the shape's frame (-1 to 1), then to the window's pixels.
    matrix = transform.astype(np.float64)
    matrix[:, 2] -= matrix[:, :2].sum(axis=1)
    matrix[:, :2] /= half
    rows, columns = window
    matrix[:, 2] -= (columns.start, rows.start)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    worn = cv2.warpAffine(skin, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return worn.astype(np.uint8, copy=False)
