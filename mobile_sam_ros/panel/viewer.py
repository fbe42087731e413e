"""One browser that looks: what it is shown, and what it asks for."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from contextlib import suppress
from itertools import count

from aiohttp import web

from mobile_sam.segments import inner_points
from mobile_sam_ros.msg import Prompt, PromptArray, PromptPoint, Segment, SegmentArray
from mobile_sam_ros.panel import requests
from mobile_sam_ros.panel.panel_node import PanelNode
from mobile_sam_ros.panel.pictures import Encoder, Picture, crop

_REMEMBERED = 8  # pictures that a viewer may still click on when newer ones are on their way
# Of those a page may have paused at, when its connection ends: one that is on its way when it is
# paused, it does not show.
_KEPT = 3
_LEFT = 4 * _KEPT  # pictures of viewers whose connection has ended, and who may come again
_EVERYTHING = "everything_"  # begins what the node calls the objects that nobody has shown it
_MOST_OBJECTS = 1000


class Objects:
    """What all viewers share: how objects are named, and where they were shown.

    left: what those who have left were shown last.
    """

    def __init__(self) -> None:
        self.left: deque[Picture] = deque(maxlen=_LEFT)
        # Objects outlive the panel, and there may be another one.
        self._panel = secrets.token_hex(2)
        self._numbers = count(1)
        self._own: dict[tuple[int, str], str] = {}  # ids, by picture and id, of one of everything
        self._points: dict[str, tuple[int, list[PromptPoint]]] = {}

    def new_id(self) -> str:
        """Returns the id of an object that nobody has shown yet."""
        return f"object_{self._panel}_{next(self._numbers)}"

    def own_id(self, id: str, picture: Picture) -> str:
        """Returns by which id to ask for an object of a picture: its own. One of everything gets
        one, and keeps that, because the next call calls others like it."""
        segment = picture.segment(id)
        if segment is None or is_followed(segment) or not id.startswith(_EVERYTHING):
            return id
        if len(self._own) >= _MOST_OBJECTS:
            self._own.clear()
        key = picture.number, id
        if key not in self._own:
            self._own[key] = self.new_id()
        return self._own[key]

    def points(
        self,
        id: str,
        picture: Picture,
        segment: Segment | None,
        new: list[PromptPoint],
        stays: bool,
    ) -> list[PromptPoint]:
        """Returns all points that show an object in a picture, where it is `segment`.

        Those of before count on if they were made on the same image, or if the object `stays` at
        its place. Else its mask says where it is by now.
        """
        stamp, before = self._points.get(id, (-1, []))
        if not before or not (stays or stamp == picture.stamp):
            before = []
            if segment is not None and segment.roi.width:
                ((x, y),) = inner_points(crop(segment), 1).tolist()
                left, top = segment.roi.x_offset, segment.roi.y_offset
                before = [PromptPoint(x=left + x, y=top + y, label=PromptPoint.FOREGROUND)]
        if len(self._points) >= _MOST_OBJECTS:
            self._points.clear()
        self._points[id] = picture.stamp, before + new
        return before + new

    def forget(self, id: str | None = None) -> None:
        """Forgets the points of an object; None: of all."""
        if id is None:
            self._points.clear()
        else:
            self._points.pop(id, None)


def is_followed(segment: Segment) -> bool:
    """Whether an object is followed, rather than of this image alone or at one place."""
    return segment.state != Segment.NOT_TRACKED


class Viewer:
    """A browser. It asks for each picture: one that is slow, or paused, has none waiting."""

    def __init__(
        self, socket: web.WebSocketResponse, node: PanelNode, encoder: Encoder, objects: Objects
    ) -> None:
        self._socket, self._node, self._encoder, self._objects = socket, node, encoder, objects
        self._after: int | None = None  # of the picture that it wants a newer one than
        self._changed = asyncio.Event()
        self._shown: deque[Picture] = deque(maxlen=_REMEMBERED)
        self._sending = asyncio.Lock()
        self._adding = asyncio.Lock()  # from the picture that is added to, until the new one is

    def wake(self) -> None:
        """There may be a new picture."""
        self._changed.set()

    async def send(self, data: str | bytes) -> None:
        """Sends a text or bytes, whole, whoever else sends; nothing to a viewer who has left."""
        async with self._sending:
            with suppress(ConnectionError):
                if isinstance(data, str):
                    await self._socket.send_str(data)
                else:
                    await self._socket.send_bytes(data)

    async def say(self, problem: str) -> None:
        """Tells the viewer why something was not done."""
        await self.send(json.dumps({"problem": problem}))

    def leave(self) -> None:
        """The connection has ended. A page that is paused comes again, with the same picture."""
        self._objects.left.extend(list(self._shown)[-_KEPT:])

    async def close(self, code: int) -> None:
        """Ends the connection."""
        await self._socket.close(code=code)

    async def send_pictures(self) -> None:
        """Sends each picture that is asked for when there is one, until it is cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            picture = self._node.picture
            if self._after is None or picture is None or picture.number <= self._after:
                continue
            self._after = None
            await self._show(picture)

    async def _show(self, picture: Picture) -> None:
        try:
            data = await asyncio.to_thread(self._encoder.encode, picture)
        except ValueError as error:
            await self.say(str(error))
            self._after = picture.number  # the next one may be better
            return
        self._shown.append(picture)
        await self.send(data)

    async def take(self, request: requests.Request) -> None:
        """Does what was asked for.

        Raises:
            requests.BadRequest: it cannot be done.
            panel_node.Unanswered: the node does not do it.
        """
        match request:
            case requests.Next():
                self._after = request.after
                self.wake()
            case requests.Show():
                await self._show_object(request)
            case requests.Remove():
                self._objects.forget(request.id)
                await self._node.prompt(PromptArray.REMOVE, Prompt(id=request.id))
            case requests.Rename():
                prompt = Prompt(id=request.id, class_id=request.name)
                await self._node.prompt(PromptArray.RENAME, prompt)
            case requests.Clear():
                self._objects.forget()
                await self._node.clear()
            case requests.Everything():
                picture = self._picture(request.number)
                found = await self._node.everything(picture)
                async with self._adding:
                    await self._show(Picture(picture.image, found, still=True))

    def _picture(self, number: int) -> Picture:
        for picture in (*self._shown, *self._objects.left):
            if picture.number == number:
                return picture
        raise requests.BadRequest(f"number is {number}, a picture that is gone")

    async def _show_object(self, request: requests.Show) -> None:
        """Asks the node for an object, and shows it where the viewer holds the picture.

        With the picture's image: nobody knows how many images the node keeps. What is followed is
        in those of the stream from the next one on.
        """
        picture = self._picture(request.number)
        id = self._objects.own_id(request.id, picture) if request.id else self._objects.new_id()
        prompt = self._prompt(request, picture, id)
        if id != request.id:
            await self.send(json.dumps({"new": id}))
        if request.mode == requests.STAY:
            await self._node.prompt(PromptArray.UNTIL_CLEARED, prompt)
            if not request.still:
                return
        track = request.mode == requests.FOLLOW
        found = await self._node.segment(picture, prompt, track)
        for item in found.segments:  # the node says what it is in this image alone
            if track and item.roi.width:
                item.state = Segment.ACTIVE
        if request.still or request.mode == requests.ONCE:
            await self._add(picture, found, {id, request.id})

    async def _add(self, picture: Picture, found: SegmentArray, instead_of: set[str]) -> None:
        """Shows what was found in a picture, also beside what was found in it meanwhile."""
        async with self._adding:
            same = [shown for shown in self._shown if shown.image is picture.image]
            newest = same[-1] if same else picture
            await self._show(newest.with_objects(found, instead_of))

    def _prompt(self, request: requests.Show, picture: Picture, id: str) -> Prompt:
        """Returns what shows an object by its own id, which in the picture may have another."""
        segment = picture.segment(request.id)
        prompt = Prompt(id=id, class_id=segment.class_id if segment else "")
        new = [
            PromptPoint(x=x, y=y, label=PromptPoint.FOREGROUND if there else PromptPoint.BACKGROUND)
            for x, y, there in request.points
        ]
        if request.box is not None:
            self._objects.forget(id)
            prompt.box, prompt.points = list(request.box), new
            return prompt
        stays = request.mode == requests.STAY
        prompt.points = self._objects.points(id, picture, segment, new, stays)
        if not new and segment is not None:
            roi = segment.roi
            right, bottom = roi.x_offset + roi.width, roi.y_offset + roi.height
            prompt.box = [float(v) for v in (roi.x_offset, roi.y_offset, right, bottom)]
        if not prompt.points:
            raise requests.BadRequest(f"{id!r} is not in that picture, and nothing else shows it")
        return prompt
