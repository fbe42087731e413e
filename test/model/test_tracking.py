"""Objects followed from one click on, against the procedural scene's truth."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from mobile_sam.predictor import Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.scenes import MovingScene
from mobile_sam.segments import inner_points, tight_box
from mobile_sam.tracking import Tracker, TrackState
from mobile_sam.tracking.appearance import Colours, tell_apart
from mobile_sam.tracking.memory import Memory
from mobile_sam.tracking.motion import bend, follow, still, times
from mobile_sam.training.evaluate import mask_iou

SIZE = (480, 640)
SCENE = MovingScene(5, SIZE, 4)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_weights("demo", "cpu", "torch")


def click(mask: np.ndarray) -> Prompt:
    return Prompt(points=inner_points(mask, 1))


class Watched:
    """A tracker that is shown images, and the masks it gives."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.tracker, self.seconds = predictor, Tracker(predictor), 0.0

    def start(self, image: np.ndarray, prompts: dict[str, Prompt]) -> list[str]:
        return self.tracker.start(image, self.predictor.encode(image), prompts, self.seconds)

    def step(self, image: np.ndarray, seconds: float = 0.1) -> dict[str, np.ndarray]:
        self.seconds += seconds
        embedding = self.predictor.encode(image)
        self.tracker.step(image, embedding, self.seconds)
        masks = self.tracker.segments(embedding).masks
        objects = self.tracker.objects()
        for mask, item in zip(masks, objects, strict=True):
            assert (item.state is TrackState.ACTIVE) == mask.any() == (item.unseen == 0)
            assert 0 <= item.confidence <= 1 and (item.confidence > 0) == mask.any()
        return {item.id: mask for item, mask in zip(objects, masks, strict=True)}

    def state(self, id: str) -> TrackState:
        return next(item.state for item in self.tracker.objects() if item.id == id)


def test_one_click_each_and_150_images(predictor: Predictor) -> None:
    """They move, turn, grow, shrink and hide each other; nobody's mask lies on another.

    300 images, and more scenes: `benchmarks/tracking.py`.
    """
    watched = Watched(predictor)
    first = SCENE.frame(0)
    ids = [str(label) for label in range(1, 5)]
    assert not watched.start(first.image, {id: click(first.labels == int(id)) for id in ids})
    overlaps: dict[str, list[float]] = {id: [] for id in ids}
    for index in range(1, 150):
        scene = SCENE.frame(index)
        for id, mask in watched.step(scene.image).items():
            truth = scene.labels == int(id)
            if np.count_nonzero(truth) >= 30:
                overlaps[id].append(mask_iou(mask, truth))
            if mask.any():
                on = int(np.bincount(scene.labels[mask]).argmax())
                assert on == int(id), f"image {index}: the mask of {id} lies on {on}"
    means = {id: float(np.mean(values)) for id, values in overlaps.items()}
    assert min(means.values()) >= 0.75, means


def test_another_tracker_goes_on_from_a_state(predictor: Predictor) -> None:
    """One written to a file and read back, with an object that is lost; to the last bit."""
    watched, other = Watched(predictor), Watched(predictor)
    first = SCENE.frame(0)
    watched.start(first.image, {str(k): click(first.labels == k) for k in (1, 3)})
    for index in range(1, 9):
        watched.step(SCENE.frame(index, without=(3,) if index > 2 else ()).image)
    assert watched.state("3") is TrackState.LOST
    file = io.BytesIO()
    np.savez(file, **watched.tracker.state())
    with np.load(io.BytesIO(file.getvalue()), allow_pickle=False) as state:
        other.tracker.restore(state)
    other.seconds = watched.seconds
    assert other.tracker.objects() == watched.tracker.objects()
    for index in range(9, 13):
        image = SCENE.frame(index).image
        masks, expected = other.step(image), watched.step(image)
        assert list(masks) == list(expected) == ["1", "3"]
        for id, mask in masks.items():
            np.testing.assert_array_equal(mask, expected[id])
        assert other.tracker.objects() == watched.tracker.objects()
    assert watched.state("3") is TrackState.ACTIVE


def test_what_disappears_is_lost_and_found_again(predictor: Predictor) -> None:
    """While another object, that it is not mistaken for, stays."""
    watched = Watched(predictor)
    first = SCENE.frame(0)
    watched.start(first.image, {"a": click(first.labels == 3)})
    for index in range(1, 12):
        watched.step(SCENE.frame(index).image)
    assert watched.state("a") is TrackState.ACTIVE
    states = []
    for index in range(12, 32):
        assert not watched.step(SCENE.frame(index, without=(3,)).image)["a"].any()
        states.append(watched.state("a"))
    assert states[0] is TrackState.OCCLUDED
    assert all(state is TrackState.LOST for state in states[4:])
    for index in range(32, 37):
        scene = SCENE.frame(index)
        mask = watched.step(scene.image)["a"]
    assert mask_iou(mask, scene.labels == 3) > 0.75
    (item,) = watched.tracker.objects()
    assert (item.id, item.age) == ("a", 36)


def twins(index: int, is_hidden: bool) -> np.ndarray:
    """Two discs of one colour that go along beside each other, the left one of which may be
    hidden; on a striped ground."""
    image = np.full((240, 320, 3), (90, 100, 80), np.uint8)
    image[::16] += 12
    for x in (70,) * (not is_hidden) + (230,):
        cv2.circle(image, (x + 2 * index, 120), 32, (30, 60, 190), -1, cv2.LINE_AA)
    return image


def test_what_is_hidden_is_not_taken_for_its_twin(predictor: Predictor) -> None:
    """Of whom the tracker was told nothing."""
    watched = Watched(predictor)
    watched.start(twins(0, False), {"a": Prompt(points=[(70, 120)])})
    for index in range(1, 4):
        watched.step(twins(index, False))
    for index in range(4, 24):
        assert not watched.step(twins(index, True))["a"].any()
    assert watched.state("a") is TrackState.LOST
    for index in range(24, 28):
        mask = watched.step(twins(index, False))["a"]
    assert mask[:, 160:].sum() == 0
    assert mask_iou(mask, twins(27, False)[..., 2] - twins(27, True)[..., 2] > 50) > 0.75
    assert list(watched.tracker.boxes) == ["a"] and len(watched.tracker) == 1


def test_what_lies_on_a_thing_of_its_colour_leaves_that_behind(predictor: Predictor) -> None:
    """A bar on something larger, as blue as itself, when it is clicked."""
    scene, watched = MovingScene(102, SIZE, 4), Watched(predictor)
    first = scene.frame(0)
    watched.start(first.image, {"bar": click(first.labels == 2)})
    for index in range(1, 32):
        frame = scene.frame(index)
        mask = watched.step(frame.image)["bar"]
    assert mask_iou(mask, frame.labels == 2) > 0.8


def test_what_an_object_touches_is_not_taken_in(predictor: Predictor) -> None:
    """Though nobody asked for it: a disc is covered, then lies on a thing as grey as itself."""
    scene, watched = MovingScene(105, SIZE, 4), Watched(predictor)
    watched.start(scene.frame(0).image, {"disc": click(scene.frame(0).labels == 3)})
    for index in range(1, 176):
        frame = scene.frame(index)
        mask = watched.step(frame.image)["disc"]
    assert mask_iou(mask, frame.labels == 3) > 0.8
    assert list(watched.tracker.boxes) == ["disc"] and len(watched.tracker) == 1


def test_what_slowly_goes_behind_a_thing_keeps_its_usual_size(predictor: Predictor) -> None:
    watched = Watched(predictor)

    def image(index: int) -> np.ndarray:
        image = np.full((240, 320, 3), (90, 100, 80), np.uint8)
        image[::16] += 12
        cv2.circle(image, (60 + 3 * index, 120), 32, (30, 60, 190), -1, cv2.LINE_AA)
        cv2.rectangle(image, (160, 40), (260, 200), (190, 150, 40), -1)
        return image

    def usual_size() -> float:
        return float(watched.tracker.state()["000000/area"])

    watched.start(image(0), {"a": Prompt(points=[(60, 120)]), "b": Prompt(points=[(210, 120)])})
    whole = usual_size()
    for index in range(1, 34):
        mask = watched.step(image(index))["a"]
    assert 0 < mask.sum() < 0.7 * whole, "a half of it is hidden"
    assert usual_size() > 0.95 * whole


def test_what_goes_away_from_the_camera_becomes_small(predictor: Predictor) -> None:
    watched = Watched(predictor)

    def image(radius: float) -> np.ndarray:
        image = np.full((240, 320, 3), (90, 100, 80), np.uint8)
        image[::16] += 12
        cv2.circle(image, (160, 120), int(radius), (30, 60, 190), -1, cv2.LINE_AA)
        return cv2.GaussianBlur(image, (5, 5), 0)

    watched.start(image(60), {"a": Prompt(points=[(160, 120)])})
    whole = float(watched.tracker.state()["000000/area"])
    for index in range(1, 91):
        mask = watched.step(image(max(30, 60 - index)))["a"]
    assert 0.2 * whole < mask.sum() < 0.3 * whole
    assert float(watched.tracker.state()["000000/area"]) < 1.4 * mask.sum()


def test_a_lookalike_that_is_shown_is_an_object_like_others(predictor: Predictor) -> None:
    watched = Watched(predictor)
    watched.start(twins(0, False), {"a": Prompt(points=[(70, 120)])})
    watched.step(twins(1, False))
    watched.start(twins(1, False), {"b": Prompt(points=[(232, 120)])})
    for index in range(2, 5):
        masks = watched.step(twins(index, False))
    assert tight_box(masks["a"])[2] < 160 < tight_box(masks["b"])[0]


def test_the_camera_moves(predictor: Predictor) -> None:
    """And the images come irregularly."""
    whole = MovingScene(9, (300, 480), 3).frame(0)
    places = [(0, 0)]
    rng = np.random.default_rng(1)
    while places[-1][1] < 120:
        y, x = places[-1]
        places.append((min(y + int(rng.integers(0, 3)), 60), x + int(rng.integers(1, 9))))
    views = [
        (whole.image[y : y + 240, x : x + 320], whole.labels[y : y + 240, x : x + 320])
        for y, x in places
    ]
    image, labels = views[0]
    there = {str(k): click(labels == k) for k in (1, 2, 3) if np.count_nonzero(labels == k) > 500}
    watched = Watched(predictor)
    watched.start(image, there)
    overlaps = []
    for image, labels in views[1:]:
        for id, mask in watched.step(image, float(rng.uniform(0.02, 0.2))).items():
            if np.count_nonzero(labels == int(id)) > 500:
                overlaps.append(mask_iou(mask, labels == int(id)))
    assert len(overlaps) > 20 and np.mean(overlaps) > 0.75


def snake(index: int) -> tuple[np.ndarray, np.ndarray]:
    """A spotted band through which waves run, on a mottled ground; and its mask."""
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 110, (30, 40, 3), np.uint8)
    ground = cv2.resize(ground, (320, 240), interpolation=cv2.INTER_CUBIC)
    coat = rng.integers(0, 90, (6, 40, 3), np.uint8)
    coat = cv2.resize(coat, (200, 36), interpolation=cv2.INTER_CUBIC) + np.uint8([150, 0, 0])
    rows, columns = np.indices((240, 320), np.float32)
    x = columns - 60
    y = (rows - 102 - 40 * np.sin(columns * np.pi / 90 - 0.3 * index)).astype(np.float32)
    mask = (x >= 0) & (x < 199) & (y >= 0) & (y < 35)
    return np.where(mask[..., None], cv2.remap(coat, x, y, cv2.INTER_LINEAR), ground), mask


def test_what_bends_is_followed(predictor: Predictor) -> None:
    """No part of it moves like the whole does."""
    watched = Watched(predictor)
    image, mask = snake(0)
    watched.start(image, {"a": Prompt(box=tight_box(mask))})
    overlaps = []
    for index in range(1, 40):
        image, mask = snake(index)
        overlaps.append(mask_iou(watched.step(image)["a"], mask))
    assert np.mean(overlaps) > 0.8 and min(overlaps) > 0.5, overlaps


@pytest.mark.parametrize("factor", [0.6, 1.5])
def test_the_light_is_switched(predictor: Predictor, factor: float) -> None:
    """No pixel and no colour is what it was: SAM's features remember the objects."""
    watched = Watched(predictor)
    first = SCENE.frame(0)
    watched.start(first.image, {str(k): click(first.labels == k) for k in range(1, 5)})
    for index in range(1, 12):
        scene, light = SCENE.frame(index), factor if index > 3 else 1.0
        masks = watched.step(np.clip(scene.image * light, 0, 255).astype(np.uint8))
    for id, mask in masks.items():
        assert mask_iou(mask, scene.labels == int(id)) > 0.8, id


def cells(features: np.ndarray) -> torch.Tensor:
    """Features of a map's cells, float (h, w, C), as directions (C, h, w)."""
    return F.normalize(torch.from_numpy(features).permute(2, 0, 1), dim=0)


def test_memory_finds_cells_where_they_went() -> None:
    """No two are alike, and all of them move: not farther than an object may from one image to the
    next, which is farther if it was not seen in the last one."""
    seen = np.random.default_rng(0).normal(size=(24, 40, 32)).astype(np.float32)
    mask = np.zeros((240, 400), bool)
    mask[60:100, 70:130] = True
    memory = Memory.of(cells(seen), mask)
    for step, unseen, is_found in ((5, 0, True), (9, 0, False), (9, 1, True)):
        belief = memory.belief(cells(np.roll(seen, (2, step), (0, 1))), unseen)
        moved = np.roll(mask, (20, 10 * step), (0, 1))[5::10, 5::10]
        assert belief.shape == moved.shape
        error = np.abs(belief - moved)[2:, step:]  # the others came in at the edge
        assert (error.max() < 0.01) == is_found
    small = cells(seen[:1, :3])
    assert Memory.of(small, np.ones((10, 30), bool)).belief(small, 0).min() > 0.99


@pytest.mark.parametrize("unseen", [0, 1])
def test_memory_asks_each_cell_near_enough_and_no_other(unseen: int) -> None:
    """Against a loop over all cells, for an object of several tiles at the picture's corner."""
    rng = np.random.default_rng(3)
    images = [F.normalize(torch.from_numpy(rng.normal(size=(8, 24, 32))), dim=0) for _ in range(3)]
    mask = np.zeros((480, 640), bool)
    mask[:230, 390:] = True
    memory = Memory.of(images[0].float(), mask)
    memory.learn(images[1].float(), mask, cv2.resize(mask.astype(np.float32), (32, 24)))
    assert len(memory.shares) == 2
    belief, reach = memory.belief(images[2].float(), unseen), 8 + 2 * unseen
    kept, shares = memory.features.double().numpy(), memory.shares.numpy()
    own = np.argwhere(shares[-1] > 0)
    for y, x in np.ndindex(24, 32):
        rows, columns = (slice(max(0, at - reach), at + reach + 1) for at in (y, x))
        alike = np.einsum("c,kcij->kij", images[2][:, y, x], kept[:, :, rows, columns]).ravel()
        best = np.argsort(-alike)[:8]
        votes = np.exp((alike[best] - alike[best[0]]) / 0.05)
        wanted = votes / votes.sum() @ shares[:, rows, columns].ravel()[best]
        is_near = (own.min(0) - reach <= (y, x)).all() and ((y, x) <= own.max(0) + reach).all()
        assert belief[y, x] == pytest.approx(wanted if is_near else 0, abs=1e-3), (y, x)


def test_memory_keeps_a_part_that_a_mask_leaves_out_and_takes_no_other_thing() -> None:
    rng = np.random.default_rng(1)
    seen = cells(rng.normal(size=(24, 40, 32)).astype(np.float32))
    whole, half, other = (np.zeros((240, 400), bool) for _ in range(3))
    whole[60:100, 70:130], half[60:100, 70:110], other[150:190, 70:130] = True, True, True
    memory = Memory.of(seen, whole)
    for mask in [half] * 5 + [other] * 5:
        belief = memory.belief(seen, 0)
        np.testing.assert_allclose(belief, whole[5::10, 5::10], atol=0.01)
        memory.learn(seen, mask, belief)
    assert len(memory.shares) == len(memory.features) == 4  # the first and the last three
    grown = whole.copy()
    grown[60:100, 60:140] = True
    for _ in range(4):
        memory.learn(seen, grown, memory.belief(seen, 0))
    np.testing.assert_allclose(memory.belief(seen, 0)[6:10, 7:13], 1, atol=0.01)
    assert memory.belief(seen, 0)[6:10, [6, 13]].min() > 0.5, "it is more than it was at first"


def test_masks_of_large_images_are_of_their_size(predictor: Predictor) -> None:
    watched = Watched(predictor)

    def large(index: int) -> np.ndarray:
        return cv2.resize(SCENE.frame(index).image, (1280, 960), interpolation=cv2.INTER_CUBIC)

    truth = SCENE.frame(0).labels == 2
    watched.start(large(0), {"a": Prompt(box=tight_box(truth) * 2)})
    for index in range(1, 6):
        mask = watched.step(large(index))["a"]
    truth = np.repeat(np.repeat(SCENE.frame(5).labels == 2, 2, axis=0), 2, axis=1)
    assert mask.shape == (960, 1280)
    assert mask_iou(mask, truth) > 0.75
    box = watched.tracker.boxes["a"]
    np.testing.assert_allclose(box, tight_box(mask), atol=8)


def test_what_is_shown_anew_keeps_its_name_and_age(predictor: Predictor) -> None:
    watched = Watched(predictor)
    first = SCENE.frame(0)
    watched.start(first.image, {"a": click(first.labels == 2), "b": click(first.labels == 4)})
    watched.step(SCENE.frame(1).image)
    scene = SCENE.frame(1)
    watched.start(scene.image, {"a": click(scene.labels == 3)})
    masks = watched.step(SCENE.frame(2).image)
    assert list(masks) == ["a", "b"]
    assert mask_iou(masks["a"], SCENE.frame(2).labels == 3) > 0.75
    assert mask_iou(masks["b"], SCENE.frame(2).labels == 4) > 0.75
    assert [item.age for item in watched.tracker.objects()] == [2, 2]
    watched.tracker.forget(["a"])
    assert list(watched.step(SCENE.frame(3).image)) == ["b"]
    watched.tracker.forget()
    assert not len(watched.tracker) and not watched.step(SCENE.frame(4).image)


def test_images_of_another_size_begin_anew(predictor: Predictor) -> None:
    watched = Watched(predictor)
    first = SCENE.frame(0)
    watched.start(first.image, {"a": click(first.labels == 2)})
    smaller = cv2.resize(first.image, (320, 240), interpolation=cv2.INTER_AREA)
    assert watched.step(smaller) == {}
    assert "a" not in watched.tracker


@pytest.mark.parametrize(("factor", "angle", "scale"), [(2.0, 0.1, 1.02), (0.5, -0.2, 0.95)])
def test_a_motion_at_a_constant_rate(factor: float, angle: float, scale: float) -> None:
    """Twice half of it is all of it, and the centre goes straight on."""
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    centre = (40.0, 30.0)
    turned = np.array([[cos, -sin], [sin, cos]])
    motion = np.column_stack([turned, np.array([5, -2]) + centre - turned @ centre])
    np.testing.assert_allclose(times(motion, 1, centre), motion, atol=1e-9)
    np.testing.assert_allclose(times(motion, 0, centre), still(), atol=1e-9)
    part = times(motion, factor, centre)
    np.testing.assert_allclose(part @ (*centre, 1), np.array(centre) + factor * np.array([5, -2]))
    assert np.isclose(np.hypot(part[0, 0], part[1, 0]), scale**factor)
    assert np.isclose(np.arctan2(part[1, 0], part[0, 0]), factor * angle)


def test_optical_flow_finds_a_known_similarity() -> None:
    """Of an object; what is around it stays."""
    scene = SCENE.frame(0)
    grey = cv2.cvtColor(scene.image, cv2.COLOR_RGB2GRAY)
    mask = scene.labels == 4
    x0, y0, x1, y1 = tight_box(mask)
    centre = (float(x0 + x1) / 2, float(y0 + y1) / 2)
    known = cv2.getRotationMatrix2D(centre, 4, 1.03)
    known[:, 2] += (3.0, -1.5)
    moved = cv2.warpAffine(grey, known, grey.shape[::-1])
    where = cv2.warpAffine(mask.astype(np.uint8), known, grey.shape[::-1]) > 0
    found = follow(grey, np.where(where, moved, grey), mask)
    assert found is not None
    corners = np.array([[x0, y0, 1], [x1, y0, 1], [x0, y1, 1], [x1, y1, 1]])
    np.testing.assert_allclose(corners @ found.T, corners @ known.T, atol=1.0)


def test_dense_optical_flow_finds_a_known_wave() -> None:
    """Where each pixel was before; of what is too small, nothing."""
    scene = cv2.cvtColor(SCENE.frame(0).image, cv2.COLOR_RGB2GRAY)
    grey = cv2.GaussianBlur(scene, (0, 0), 2) + cv2.resize(
        np.random.default_rng(0).integers(0, 40, (60, 80), np.uint8), (640, 480)
    )
    rows, columns = np.indices(grey.shape, np.float32)
    wave = (columns + 3 * np.sin(rows / 40)).astype(np.float32)
    places = bend(grey, cv2.remap(grey, wave, rows, cv2.INTER_LINEAR))
    assert places is not None
    error = np.linalg.norm(places - np.stack([wave, rows], axis=-1), axis=-1)
    assert np.median(error[10:-10, 10:-10]) < 0.3
    assert bend(grey[:15], grey[:15]) is None


def test_objects_are_told_apart_from_all_others_at_once() -> None:
    """As from one other after the other: each colour is weighed against whoever has most of it."""
    rng = np.random.default_rng(0)
    objects = []
    for size in (900, 400, 30, 400):
        codes = rng.choice(rng.integers(0, 4096, 50), (40, 40)).astype(np.int32)
        mask = np.zeros((40, 40), bool)
        mask.ravel()[:size] = True
        objects.append(Colours(codes, mask))
    objects.append(Colours(codes, mask))  # just like another
    codes = np.arange(4096, dtype=np.int32)

    def smooth(histogram: np.ndarray) -> np.ndarray:
        kernel = np.array([1, 2, 1]) / 4
        cube = histogram.reshape(16, 16, 16)
        for axis in range(3):
            wide = np.concatenate([cube.take([0], axis), cube, cube.take([15], axis)], axis)
            cube = np.apply_along_axis(np.convolve, axis, wide, kernel, "valid")
        return cube.ravel()

    for number in range(len(objects) + 1):
        tell_apart(objects[:number])
        for one in objects[:number]:
            around = one.around.copy()
            for other in objects[:number]:
                if other is not one:
                    around = np.maximum(around, other.own / 2)
            own, around = smooth(one.own) + 1e-5, smooth(around) + 1e-5
            np.testing.assert_allclose(one.likelihood(codes), own / (own + around), rtol=1e-6)


def test_what_has_no_corners_gives_no_motion() -> None:
    flat = np.zeros((60, 80), np.uint8)
    assert follow(flat, flat, np.ones((60, 80), bool)) is None


def test_prompts_that_show_nothing_are_named(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder finds nothing for one of two."""
    decode = predictor.model.decode

    def blind(*arguments: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:
        logits, iou = decode(*arguments, **named)
        return torch.cat([torch.full_like(logits[:1], -1), logits[1:]]), iou

    monkeypatch.setattr(predictor.model, "decode", blind)
    watched = Watched(predictor)
    labels = SCENE.frame(0).labels
    prompts = {"a": click(labels == 2), "b": click(labels == 3)}
    assert watched.start(SCENE.frame(0).image, prompts) == ["a"]
    assert [item.id for item in watched.tracker.objects()] == ["b"]
    assert watched.start(SCENE.frame(0).image, {}) == []
