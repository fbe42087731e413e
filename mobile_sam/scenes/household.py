"""Outlines of things that stand about where robots work: thin, jointed, branched, with holes.

Shapes are as in `shapes`: y points down, so that a thing stands on its greatest y.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mobile_sam.scenes.shapes import Contour, Maker, Part, Shape, moved, rectangle, superellipse


def _band(middle: NDArray[np.float64], width: float) -> Contour:
    """Returns the outline of a band of `width` along a line, float (N, 2)."""
    along = np.gradient(middle, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-6)
    sides = (middle + across * width / 2, (middle - across * width / 2)[::-1])
    return np.concatenate(sides).astype(np.float32)


def _beam(x0: float, y0: float, x1: float, y1: float, width: float) -> Part:
    return (_band(np.array([[x0, y0], [x1, y1]], np.float64), width),)


def _cable(rng: np.random.Generator) -> Shape:
    """A line that wanders, cut into pieces so that it may cross itself."""
    turns = np.cumsum(rng.normal(0, rng.uniform(0.1, 0.5), 40))
    steps = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    middle = np.cumsum(steps, axis=0) / 12
    width = rng.uniform(0.03, 0.12)
    return tuple((_band(middle[i : i + 5], width),) for i in range(0, 36, 4))


def _chair(rng: np.random.Generator) -> Shape:
    """Seat, back and legs; a stool without a back, a table if it is wide."""
    leg, half, seat = rng.uniform(0.04, 0.1), rng.uniform(0.4, 1.0), rng.uniform(-0.3, 0.1)
    spread = rng.uniform(0, 0.15)
    parts: list[Part] = [(moved(rectangle(half, rng.uniform(0.04, 0.1)), 0, seat),)]
    for side in (-1, 1):
        inner = side * (half - leg)
        parts.append(_beam(inner, seat, inner + side * spread, 1, leg))
        if rng.random() < 0.6:
            parts.append(_beam(inner * 0.6, seat, inner * 0.6, rng.uniform(0.7, 0.95), leg))
    if rng.random() < 0.6:
        side = rng.choice((-1, 1)) * (half - leg)
        parts.append(_beam(side, seat, side * rng.uniform(0.9, 1.2), -1, leg * 1.5))
        if rng.random() < 0.5:
            parts.append(_beam(-side, seat, -side, -1, leg))
            parts += [_beam(-side, y, side, y, leg) for y in rng.uniform(-1, seat, 3)]
    return tuple(parts)


def _bottle(rng: np.random.Generator) -> Shape:
    body, neck, shoulder = rng.uniform(0.25, 0.5), rng.uniform(0.07, 0.15), rng.uniform(-0.5, 0)
    half = [(neck, -1.0), (neck, shoulder - 0.3), (body, shoulder), (body, 0.92), (body * 0.9, 1.0)]
    right = np.array(half)
    outline = np.concatenate([right, (right * (-1, 1))[::-1]])
    return ((outline.astype(np.float32),),)


def _plant(rng: np.random.Generator) -> Shape:
    """A pot, stems, and a leaf at the end of each."""
    pot = np.array([[-0.35, 0.5], [0.35, 0.5], [0.25, 1], [-0.25, 1]], np.float32)
    parts: list[Part] = [(pot,)]
    for lean in rng.uniform(-0.9, 0.9, int(rng.integers(3, 8))):
        height = rng.uniform(0.5, 1.4)
        top = (np.sin(lean) * height, 0.5 - np.cos(lean) * height)
        parts.append(_beam(0, 0.55, *top, rng.uniform(0.03, 0.07)))
        leaf = superellipse(rng.uniform(0.15, 0.35), rng.uniform(0.06, 0.15), 2)
        parts.append((moved(leaf, *top, lean - np.pi / 2 + rng.normal(0, 0.4)),))
    return tuple(parts)


def _ladder(rng: np.random.Generator) -> Shape:
    """Two posts and what lies between them: ladder, fence, rack, dish drainer."""
    half, post, steps = rng.uniform(0.25, 1), rng.uniform(0.03, 0.1), int(rng.integers(2, 7))
    parts: list[Part] = [_beam(side * half, -1, side * half, 1, post) for side in (-1, 1)]
    rows = np.linspace(-0.85, 0.85, steps)
    parts += [_beam(-half, row, half, row, post * rng.uniform(0.6, 1.2)) for row in rows]
    return tuple(parts)


def _wheel(rng: np.random.Generator) -> Shape:
    """A rim with spokes: the sectors between them are holes."""
    rim, spokes = rng.uniform(0.06, 0.2), int(rng.integers(2, 7))
    tyre = superellipse(1, 1, 2)
    parts: list[Part] = [(tyre, tyre * np.float32(1 - rim))]
    parts.append((superellipse(rng.uniform(0.08, 0.2), 0.12, 2),))
    for angle in np.arange(spokes) * np.pi / spokes + rng.uniform(0, np.pi):
        x, y = np.cos(angle) * (1 - rim / 2), np.sin(angle) * (1 - rim / 2)
        parts.append(_beam(-x, -y, x, y, rng.uniform(0.03, 0.08)))
    return tuple(parts)


def _tongs(rng: np.random.Generator) -> Shape:
    """Two arms on a joint: scissors, pliers, a gripper."""
    opening, width = rng.uniform(0.1, 0.6), rng.uniform(0.08, 0.2)
    joint, ring = rng.uniform(-0.2, 0.4), rng.random() < 0.5
    parts: list[Part] = []
    for side in (-1, 1):
        tip = (side * np.sin(opening), joint - np.cos(opening) * (1 + joint))
        grip = (-side * np.sin(opening) * 0.8, joint + np.cos(opening) * (0.75 - joint))
        parts += [_beam(0, joint, *tip, width * 0.7), _beam(0, joint, *grip, width)]
        if ring:
            loop = superellipse(0.22, 0.28, 2)
            parts.append((moved(loop, *grip), moved(loop * np.float32(0.6), *grip)))
    return tuple(parts)


def _walker(rng: np.random.Generator) -> Shape:
    """A body on two or four jointed legs, with a neck and a head: animal, person, legged robot."""
    tall = rng.random() < 0.5
    half_width, half_height = (0.2, 0.35) if tall else (rng.uniform(0.4, 0.7), 0.2)
    parts: list[Part] = [(superellipse(half_width, half_height, rng.uniform(2, 6)),)]
    neck = (half_width * (0.1 if tall else rng.uniform(0.8, 1.3)), -half_height - 0.15)
    parts.append(_beam(half_width * 0.2 if tall else half_width * 0.7, 0, *neck, 0.12))
    parts.append((moved(superellipse(rng.uniform(0.12, 0.22), 0.15, 2), *neck),))
    for hip in (-1, 1) if tall else (-1, -0.7, 0.7, 1):
        x, y = hip * half_width * 0.8, half_height * 0.6
        length, bend = (1 - y) / 2, rng.normal(0, 0.45)
        knee = (x + np.sin(bend) * length, y + np.cos(bend) * length)
        second = bend + rng.normal(0, 0.5)
        foot = (knee[0] + np.sin(second) * length, knee[1] + np.cos(second) * length)
        width = rng.uniform(0.06, 0.14)
        parts += [_beam(x, y, *knee, width), _beam(*knee, *foot, width * 0.8)]
    return tuple(parts)


def _bag(rng: np.random.Generator) -> Shape:
    """Something with a handle above it, through which one sees."""
    half, top = rng.uniform(0.4, 0.8), rng.uniform(-0.4, 0.1)
    body = moved(superellipse(half, (1 - top) / 2, rng.uniform(3, 10)), 0, (1 + top) / 2)
    handle = superellipse(half * rng.uniform(0.4, 0.9), 1 + top, rng.uniform(2, 4))
    hole = handle * np.float32(rng.uniform(0.7, 0.9))
    return ((moved(handle, 0, top), moved(hole, 0, top)), (body,))


HOUSEHOLD: tuple[Maker, ...] = (
    _bag, _bottle, _bottle, _cable, _chair, _chair, _ladder, _plant, _tongs, _walker, _walker,
    _wheel,
)  # fmt: skip
