"""What one viewer asks for, and how objects are called, with a node that answers by the book."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from graph import header
from mobile_sam_ros.msg import Prompt, PromptArray, Segment, SegmentArray
from test_pictures import segment

from mobile_sam_ros.conversions import image_message
from mobile_sam_ros.panel import requests
from mobile_sam_ros.panel.pictures import Encoder, Picture
from mobile_sam_ros.panel.viewer import Objects, Viewer


class Browser:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.new: list[str] = []
        self.pictures: list[dict[str, Any]] = []

    async def send_str(self, text: str) -> None:
        self.new += [json.loads(text)["new"]]

    async def send_bytes(self, data: bytes) -> None:
        self.pictures.append(json.loads(data[4 : 4 + int.from_bytes(data[:4], "big")]))


class Node:
    """Finds something in the place of a prompt's first point; everything is two objects."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.published: list[tuple[int, Prompt]] = []
        self.asked: list[tuple[Prompt, bool]] = []
        self.is_answering = asyncio.Event()
        self.is_answering.set()

    async def prompt(self, mode: int, prompt: Prompt, header: Any = None) -> None:
        self.published.append((mode, prompt))

    async def segment(self, picture: Picture, prompt: Prompt, track: bool) -> SegmentArray:
        self.asked.append((prompt, track))
        await self.is_answering.wait()
        found = segment(prompt.id, int(prompt.points[0].x), int(prompt.points[0].y), 10, 10)
        return SegmentArray(segments=[found])

    async def everything(self, picture: Picture) -> SegmentArray:
        found = [segment(f"everything_{i + 1}", 20 * i, 0, 11, 11) for i in range(2)]
        return SegmentArray(segments=found)


def picture(*segments: Segment) -> Picture:
    """A picture with objects."""
    image = image_message(np.zeros((60, 80, 3), np.uint8), "rgb8", header(1))
    return Picture(image, SegmentArray(segments=list(segments)))


def show(number: int, id: str = "", mode: str = requests.FOLLOW, **fields: Any) -> requests.Show:
    """A request to show an object."""
    given = {"points": (), "box": None, "still": False} | fields
    given["points"] = tuple((float(x), float(y), there) for x, y, there in given["points"])
    return requests.Show(number=number, id=id, mode=mode, **given)


async def looking(shown: Picture) -> tuple[Viewer, Browser, Node, Objects]:
    """A viewer who was shown a picture."""
    browser, node, objects = Browser(), Node(shown), Objects()
    viewer = Viewer(browser, node, Encoder(0), objects)  # type: ignore[arg-type]
    stream = asyncio.create_task(viewer.send_pictures())
    await viewer.take(requests.Next(0))
    while not browser.pictures:
        await asyncio.sleep(0.001)
    stream.cancel()
    return viewer, browser, node, objects


def test_no_two_panels_give_the_same_id() -> None:
    ids = [objects.new_id() for objects in (Objects(), Objects()) for _ in range(2)]
    assert len(set(ids)) == 4 and all(len(id) < 16 for id in ids)


def test_one_of_everything_is_followed_by_an_id_of_its_own() -> None:
    """The same if it is asked for twice; the next call gives its name to another one."""

    async def run() -> None:
        first = picture()
        viewer, browser, node, _ = await looking(first)
        for _ in range(2):
            await viewer.take(requests.Everything(first.number))
            number = browser.pictures[-1]["number"]
            await viewer.take(show(number, "everything_2"))
            await viewer.take(show(number, "everything_2"))
        (one, _), (again, _), (other, _), _ = node.asked
        assert one.id == again.id == browser.new[0] and other.id not in (one.id, "everything_2")
        assert list(one.box) == [20, 0, 31, 11]
        assert [(point.x, point.y) for point in one.points] == [(25, 5)]
        assert all(track for _, track in node.asked) and not node.published
        await viewer.take(show(number, "everything_1", points=((1, 1, False),), still=True))
        names = [item["id"] for item in browser.pictures[-1]["objects"]]
        assert names == ["everything_2", browser.new[-1]]

    asyncio.run(run())


def test_each_of_two_answers_is_added_to_what_is_shown_by_then() -> None:
    async def run() -> None:
        first = picture(segment("old", 40, 40, 5, 5))
        viewer, browser, node, _ = await looking(first)
        node.is_answering.clear()
        points = [((5, 5, True),), ((30, 5, True),)]
        clicks = [
            asyncio.create_task(viewer.take(show(first.number, points=place, still=True)))
            for place in points
        ]
        while len(node.asked) < 2:
            await asyncio.sleep(0.001)
        node.is_answering.set()
        await asyncio.gather(*clicks)
        objects = browser.pictures[-1]["objects"]
        assert [item["id"] for item in objects] == ["old", *browser.new]
        assert [item["state"] for item in objects] == ["", "active", "active"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("before", "mode", "published", "asked"),
    [
        (Segment.NOT_TRACKED, requests.FOLLOW, [], [True]),
        (Segment.ACTIVE, requests.FOLLOW, [], [True]),
        (Segment.NOT_TRACKED, requests.STAY, [PromptArray.UNTIL_CLEARED], []),
        (Segment.NOT_TRACKED, requests.ONCE, [], [False]),
    ],
)
def test_how_the_node_is_asked(
    before: int, mode: str, published: list[int], asked: list[bool]
) -> None:
    """With the image wherever a click could be lost."""

    async def run() -> None:
        first = picture(segment("mug", 10, 10, 11, 11, state=before))
        viewer, browser, node, _ = await looking(first)
        await viewer.take(show(first.number, "mug", mode))
        assert [m for m, _ in node.published] == published
        assert [track for _, track in node.asked] == asked
        assert len(browser.pictures) == (2 if mode == requests.ONCE else 1)

    asyncio.run(run())


def test_who_comes_again_finds_the_picture_that_was_paused_at() -> None:
    """Also if another one was on its way, which the page did not show."""

    async def run() -> None:
        first = picture()
        viewer, browser, node, objects = await looking(first)
        await viewer.take(requests.Everything(first.number))
        viewer.leave()
        again = Viewer(browser, node, Encoder(0), objects)  # type: ignore[arg-type]
        await again.take(show(first.number, points=((5, 5, True),), still=True))
        assert [item["id"] for item in browser.pictures[-1]["objects"]] == browser.new

    asyncio.run(run())
