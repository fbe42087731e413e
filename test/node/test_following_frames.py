"""In which image an object is said to be, when images, prompts and requests cross each other.

With the real model, and without a graph: on one, nobody could say which comes first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graph import header
from mobile_sam_ros.msg import Prompt as PromptMessage
from mobile_sam_ros.msg import PromptPoint, SegmentArray

import mobile_sam
from mobile_sam.scenes import MovingScene
from mobile_sam.segments import inner_points
from mobile_sam.training.evaluate import mask_iou
from mobile_sam_ros.conversions import image_message
from mobile_sam_ros.diagnostics import Statistics
from mobile_sam_ros.following import Following
from mobile_sam_ros.frames import Frame
from mobile_sam_ros.identity import Identity
from mobile_sam_ros.parameters import Parameters
from mobile_sam_ros.segmentation import Job, Segmentation, Topics

SCENE = MovingScene(5, (480, 640), 4)
APART = 4  # images of the scene from one to the next here: far enough to tell where a mask is from
MUG, PLUM = 3, 4  # labels


@pytest.fixture(scope="module")
def predictor() -> mobile_sam.Predictor:
    return mobile_sam.Predictor.from_weights("demo", backend="torch")


def truth(index: int, label: int) -> np.ndarray:
    return SCENE.frame(index * APART).labels == label


def frame(index: int) -> Frame:
    image = SCENE.frame(index * APART).image
    return Frame(image_message(image, "rgb8", header((index + 1) * 10**9)), float(index))


def point(index: int, label: int) -> np.ndarray:
    return inner_points(truth(index, label), 1)


class Followed:
    """`Following`, and what it makes of the scene."""

    def __init__(self, predictor: mobile_sam.Predictor) -> None:
        self.said: list[str] = []
        self.predictor = predictor
        self.following = Following(predictor, self.said.append)

    def start(self, frame: Frame, index: int, label: int, is_aside: bool = False) -> None:
        image = SCENE.frame(index * APART).image
        prompt = mobile_sam.Prompt(points=point(index, label))
        shown = [(prompt, Identity(str(label)))]
        embedding = self.predictor.encode(image)
        self.following.start(frame, image, embedding, shown, 10, is_aside)

    def step(self, frame: Frame, index: int) -> dict[str, np.ndarray]:
        image = SCENE.frame(index * APART).image
        embedding = self.predictor.encode(image)
        self.following.begin()
        self.following.step(frame, image, embedding, 0.0)
        segments, identities = self.following.segments(embedding)
        names = [identity.id for identity in identities]
        return dict(zip(names, segments.masks, strict=True))


@pytest.mark.parametrize("is_aside", [False, True], ids=["late", "brought by a request"])
def test_what_begins_in_another_image_is_in_no_result_before_the_next(
    predictor: mobile_sam.Predictor, is_aside: bool
) -> None:
    followed = Followed(predictor)
    frames = [frame(index) for index in range(3)]
    followed.start(frames[0], 0, MUG)
    assert set(followed.step(frames[1], 1)) == {str(MUG)}
    first = Frame(frames[0].message) if is_aside else frames[0]  # it has come just now
    followed.start(first, 0, PLUM, is_aside)
    again = followed.step(frames[1], 1)
    assert set(again) == {str(MUG)} and mask_iou(again[str(MUG)], truth(1, MUG)) > 0.75
    found = followed.step(frames[2], 2)
    for label in (MUG, PLUM):
        assert mask_iou(found[str(label)], truth(2, label)) > 0.75
    assert not followed.said


def test_a_beginning_that_fails_leaves_nothing_behind(
    predictor: mobile_sam.Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory may end after the objects are known, when their neighbours are looked for."""
    followed = Followed(predictor)
    frames = [frame(index) for index in range(3)]
    followed.start(frames[0], 0, MUG)

    def out_of_memory(*arguments: Any) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(followed.following._tracker, "_find_others", out_of_memory)
        with pytest.raises(RuntimeError, match="out of memory"):
            followed.start(frames[0], 0, PLUM)
    assert set(followed.step(frames[1], 1)) == {str(MUG)}
    followed.start(frames[1], 1, PLUM)
    assert set(followed.step(frames[2], 2)) == {str(MUG), str(PLUM)}


class Published:
    """In the place of the node's publishers."""

    def __init__(self) -> None:
        self.masks: dict[int, dict[str, np.ndarray]] = {}

    def wanted(self) -> set[str]:
        return {"segments"}

    def publish(self, wanted: set[str], header: Any, image: Any, segments: Any, *rest: Any) -> None:
        names = [identity.id for identity in rest[0]]
        self.masks[header.stamp.sec] = dict(zip(names, segments.masks, strict=True))


def test_a_request_that_comes_before_its_image_follows_the_others_to_it(
    predictor: mobile_sam.Predictor,
) -> None:
    """The newest image is the request's, and waits for its own turn still."""
    published, said = Published(), []
    values = Parameters(stale_after=0.0)
    topics = Topics("image", "detections", "prompts", "depth")
    segmentation = Segmentation(
        predictor, published, Statistics(), lambda: values, topics, said.append, lambda stamp: None
    )  # type: ignore[arg-type]

    def prompt(name: str, index: int, label: int) -> PromptMessage:
        ((x, y),) = point(index, label).tolist()
        return PromptMessage(id=name, points=[PromptPoint(x=x, y=y, label=PromptPoint.FOREGROUND)])

    answers: list[SegmentArray | None] = []
    first, second = frame(0), frame(1)
    segmentation.perform(Job(first, tracked=[prompt("plum", 0, PLUM)]))
    asked = [prompt("mug", 1, MUG)]
    segmentation.perform(
        Job(second, prompts=asked, tracked=asked, reply=lambda found, why: answers.append(found))
    )
    segmentation.perform(Job(second))
    assert answers[0] is not None and not said
    found = published.masks[2]
    assert set(found) == {"mug", "plum"}
    assert mask_iou(found["mug"], truth(1, MUG)) > 0.75
    assert mask_iou(found["plum"], truth(1, PLUM)) > 0.75
    assert mask_iou(truth(0, PLUM), truth(1, PLUM)) < 0.7  # else it would show nothing
