"""Outlines of objects, in a frame where an object reaches from about -1 to 1.

A shape is a tuple of parts, a part a tuple of contours, a contour float32 (N, 2) of x, y.
Parts are united; within a part a contour inside another one is a hole (even-odd rule).
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Contour = NDArray[np.float32]
Part = tuple[Contour, ...]
Shape = tuple[Part, ...]

_CIRCLE = np.linspace(0, 2 * np.pi, 48, endpoint=False)
# Masks are drawn this many times larger and averaged down, for smooth edges.
_OVERSAMPLING = 2
_SHIFT = 4


def _polar(angles: NDArray[np.float64], radii: NDArray[np.float64] | float) -> Contour:
    points = np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=-1)
    return points.astype(np.float32)


def moved(contour: Contour, x: float, y: float, angle: float = 0.0) -> Contour:
    """Return `contour` turned by `angle` (radians) about the origin, then moved."""
    return _turn(contour, angle) + np.array([x, y], np.float32)


def _turn(contour: Contour, angle: float) -> Contour:
    cosine, sine = np.cos(angle), np.sin(angle)
    rotation = np.array([[cosine, sine], [-sine, cosine]], np.float32)
    return contour @ rotation


def rectangle(half_width: float, half_height: float) -> Contour:
    """Return a rectangle about the origin."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)
    return corners * np.array([half_width, half_height], np.float32)


def superellipse(half_width: float, half_height: float, exponent: float) -> Contour:
    """Return an ellipse about the origin (exponent 2), nearer to a rectangle with a greater one."""
    cosine, sine = np.cos(_CIRCLE), np.sin(_CIRCLE)
    x = np.sign(cosine) * np.abs(cosine) ** (2 / exponent) * half_width
    y = np.sign(sine) * np.abs(sine) ** (2 / exponent) * half_height
    return np.stack([x, y], axis=-1).astype(np.float32)


def _ellipse(rng: np.random.Generator) -> Shape:
    return ((superellipse(1, rng.uniform(0.4, 1), 2),),)


def _rounded_rectangle(rng: np.random.Generator) -> Shape:
    return ((superellipse(1, rng.uniform(0.3, 1), rng.uniform(3, 12)),),)


def _convex(rng: np.random.Generator) -> Shape:
    corners = int(rng.integers(3, 9))
    angles = (np.arange(corners) + rng.uniform(-0.35, 0.35, corners)) * 2 * np.pi / corners
    return ((_polar(angles, 1.0),),)


def _concave(rng: np.random.Generator) -> Shape:
    corners = int(rng.integers(5, 12))
    angles = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
    return ((_polar(angles, rng.uniform(0.35, 1, corners)),),)


def _star(rng: np.random.Generator) -> Shape:
    tips = int(rng.integers(4, 10))
    radii = np.tile([1.0, rng.uniform(0.35, 0.7)], tips)
    return ((_polar(np.arange(2 * tips) * np.pi / tips, radii),),)


def _blob_contour(rng: np.random.Generator, roughness: float) -> Contour:
    orders = np.arange(2, 7)[:, None]
    phases = rng.uniform(0, 2 * np.pi, (5, 1))
    sizes = rng.uniform(0, roughness, (5, 1)) / orders
    radii = 1 + (sizes * np.cos(orders * _CIRCLE + phases)).sum(axis=0)
    return _polar(_CIRCLE, np.maximum(radii, 0.15) / radii.max())


def _blob(rng: np.random.Generator) -> Shape:
    return ((_blob_contour(rng, rng.uniform(0.3, 1.2)),),)


def _ring(rng: np.random.Generator) -> Shape:
    makers = (_ellipse, _rounded_rectangle, _convex, _blob)
    outer = makers[rng.integers(len(makers))](rng)[0][0]
    return ((outer, outer * np.float32(rng.uniform(0.3, 0.75))),)


def _bar(rng: np.random.Generator) -> Shape:
    return ((rectangle(1, rng.uniform(0.06, 0.25)),),)


def _arc(rng: np.random.Generator) -> Shape:
    """A bent band: banana, handle, cable."""
    angles = np.linspace(0, rng.uniform(1.5, 5), 24)
    width = rng.uniform(0.1, 0.4)
    taper = np.sin(np.linspace(0.3, np.pi - 0.3, 24)) if rng.random() < 0.5 else 1.0
    inner = 1 - width * taper
    points = [_polar(angles, 1.0), _polar(angles, inner)[::-1]]
    return ((np.concatenate(points),),)


def _cross(rng: np.random.Generator) -> Shape:
    """Two bars: a cross, a T or an L."""
    width = rng.uniform(0.12, 0.35)
    offset = float(rng.choice((0.0, 0.0, 1 - width, width - 1)))
    second = moved(rectangle(width, 0.8), offset, rng.choice((0.0, 0.8 - width)))
    return ((rectangle(1, width),), (second,))


def _figure(rng: np.random.Generator) -> Shape:
    """A body with a head and limbs."""
    slim = rng.uniform(0.2, 0.4)
    parts: list[Part] = [(superellipse(slim, 0.45, rng.uniform(2, 5)),)]
    parts.append((moved(superellipse(0.2, 0.24, 2), 0, -0.66),))
    for side in (-1, 1):
        for height, reach, low in ((-0.3, 0.5, 0.2), (0.4, 0.6, 1.0)):
            angle = np.pi / 2 - side * rng.uniform(low - 0.9, low - 0.1) * (2 if low < 1 else 0.6)
            limb = superellipse(reach / 2, rng.uniform(0.06, 0.11), 5)
            start = np.array([side * slim * 0.7, height])
            middle = start + np.array([np.cos(angle), np.sin(angle)]) * reach * 0.42
            parts.append((moved(limb, middle[0], middle[1], angle),))
    return tuple(parts)


def _chain(rng: np.random.Generator) -> Shape:
    """Links one after the other: a robot arm, a caterpillar."""
    links = int(rng.integers(2, 5))
    angle = rng.uniform(0, 2 * np.pi)
    position = np.zeros(2)
    parts: list[Part] = []
    for _ in range(links):
        length, width = rng.uniform(0.3, 0.6), rng.uniform(0.12, 0.3)
        step = np.array([np.cos(angle), np.sin(angle)]) * length
        middle = position + step * 0.9
        link = superellipse(length, width, rng.uniform(2, 8))
        parts.append((moved(link, middle[0], middle[1], angle),))
        position = position + step * 1.7
        angle += rng.uniform(-1.2, 1.2)
    return tuple(parts)


def _mug(rng: np.random.Generator) -> Shape:
    """A container with a handle, whose hole is not part of it."""
    half_width = rng.uniform(0.4, 0.6)
    handle = superellipse(0.35, rng.uniform(0.3, 0.5), rng.uniform(2, 4))
    hole = handle * np.float32(rng.uniform(0.5, 0.75))
    body = superellipse(half_width, 0.8, rng.uniform(4, 12))
    return ((moved(handle, half_width, 0), moved(hole, half_width, 0)), (body,))


def _vehicle(rng: np.random.Generator) -> Shape:
    """A box with a cabin on two wheels."""
    body = moved(superellipse(1, 0.3, rng.uniform(4, 10)), 0, 0.1)
    cabin = moved(superellipse(rng.uniform(0.3, 0.7), 0.3, 5), rng.uniform(-0.3, 0.3), -0.3)
    wheel = superellipse(0.22, 0.22, 2)
    return ((body,), (cabin,), (moved(wheel, -0.55, 0.4),), (moved(wheel, 0.55, 0.4),))


Maker = Callable[[np.random.Generator], Shape]
MAKERS: tuple[Maker, ...] = (
    _ellipse, _ellipse, _rounded_rectangle, _rounded_rectangle, _convex, _convex, _concave, _star,
    _blob, _blob, _blob, _ring, _bar, _arc, _cross, _figure, _figure, _chain, _mug, _vehicle,
)  # fmt: skip


def random_shape(rng: np.random.Generator, makers: tuple[Maker, ...] = MAKERS) -> Shape:
    """Return a shape of a random kind that reaches exactly to distance 1 from its centre."""
    shape = makers[rng.integers(len(makers))](rng)
    points = np.concatenate([contour for part in shape for contour in part])
    low, high = points.min(axis=0), points.max(axis=0)
    middle = (low + high) / 2
    reach = np.float32(np.sqrt(((points - middle) ** 2).sum(axis=1).max()))
    return tuple(tuple((contour - middle) / reach for contour in part) for part in shape)


def pose(
    centre_xy: tuple[float, float], radius: float, angle: float, squeeze: float = 1.0
) -> NDArray[np.float32]:
    """Return the affine map from a shape's frame to pixels, float32 (2, 3).

    `radius` is in pixels, `angle` in radians, `squeeze` scales the shape's own y axis.
    """
    cosine, sine = np.cos(angle) * radius, np.sin(angle) * radius
    return np.array(
        [[cosine, -sine * squeeze, centre_xy[0]], [sine, cosine * squeeze, centre_xy[1]]],
        np.float32,
    )


def draw_mask(
    shape: Shape, transform: NDArray[np.float32], height: int, width: int
) -> tuple[tuple[slice, slice], NDArray[np.uint8]] | None:
    """Return the window of the image that the shape covers, and its coverage there, 0 to 255.

    `transform` is as of `pose`; pixel (0, 0) covers 0 to 1. The window is cut off at the
    borders of the image, with one pixel of margin. None: nothing of it is in the image.
    """
    placed = [[contour @ transform[:, :2].T + transform[:, 2] for contour in p] for p in shape]
    points = np.concatenate([contour for part in placed for contour in part])
    left, top = np.maximum(np.floor(points.min(axis=0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 1, (width, height))
    if right - left < 1 or bottom - top < 1:
        return None
    size = (int(right - left), int(bottom - top))
    large = np.zeros((size[1] * _OVERSAMPLING, size[0] * _OVERSAMPLING), np.uint8)
    origin = np.array([left, top], np.float32)
    for part in placed:
        # OpenCV's integer coordinates are the centres of pixels: hence the half.
        fixed = [
            np.rint(((c - origin) * _OVERSAMPLING - 0.5) * (1 << _SHIFT)).astype(np.int32)
            for c in part
        ]
        cv2.fillPoly(large, fixed, (255,), cv2.LINE_AA, _SHIFT)
    mask = cv2.resize(large, size, interpolation=cv2.INTER_AREA)
    return (slice(int(top), int(bottom)), slice(int(left), int(right))), mask.astype(
        np.uint8, copy=False
    )
