"""The panel's side towards browsers: three files, and a WebSocket for each viewer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import WSCloseCode, WSMsgType, web

from mobile_sam_ros.panel import requests
from mobile_sam_ros.panel.access import Access
from mobile_sam_ros.panel.panel_node import PanelNode, Unanswered
from mobile_sam_ros.panel.pictures import Encoder
from mobile_sam_ros.panel.viewer import Objects, Viewer

_PAGE = Path(__file__).parent / "page"
_FILES = {
    "/": ("index.html", "text/html"),
    "/panel.css": ("panel.css", "text/css"),
    "/panel.js": ("panel.js", "text/javascript"),
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_LONGEST_MESSAGE = 65536  # bytes; the page only sends clicks and names
_MOST_VIEWERS = 16
_MOST_REQUESTS = 64  # of all viewers that are not done yet
_REPORT_SECONDS = 0.5
_ALIVE_SECONDS = 10.0
_GOODBYE_SECONDS = 0.5  # for a viewer who may have vanished


class Server:
    """Serves the page. All of it runs on one asyncio loop."""

    def __init__(self, node: PanelNode, access: Access) -> None:
        self._node, self._access = node, access
        self._encoder = Encoder(node.settings.max_width)
        self._objects = Objects()
        self._viewers: set[Viewer] = set()
        self._asked: set[asyncio.Task[None]] = set()  # that are not done yet
        self.application = web.Application(middlewares=[self._guard])
        self.application.router.add_get("/socket", self._socket)
        for path in _FILES:
            self.application.router.add_get(path, self._file)
        self.application.on_shutdown.append(self._close)

    def wake(self) -> None:
        """Tells the viewers that there is a new picture."""
        for viewer in self._viewers:
            viewer.wake()

    @web.middleware
    async def _guard(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        given = request.query.get("token")
        if self._access.token and request.path == "/" and self._access.has_token(given):
            response: web.StreamResponse = web.Response(status=303, headers={"Location": "/"})
            cookie = self._access.cookie
            response.set_cookie(cookie, self._access.token, httponly=True, samesite="Strict")
        else:
            given = request.cookies.get(self._access.cookie)
            refusal = self._access.refusal(request.headers, given)
            if refusal:
                response = web.Response(status=403, text=f"No entry: {refusal}.\n")
            else:
                try:
                    response = await handler(request)
                except web.HTTPException as error:
                    response = error
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    async def _file(self, request: web.Request) -> web.Response:
        name, kind = _FILES[request.path]
        text = (_PAGE / name).read_text(encoding="utf-8")
        return web.Response(text=text, content_type=kind, charset="utf-8")

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if len(self._viewers) >= _MOST_VIEWERS:
            return web.Response(status=503, text=f"{_MOST_VIEWERS} viewers look already.\n")
        socket = web.WebSocketResponse(
            max_msg_size=_LONGEST_MESSAGE,
            heartbeat=_ALIVE_SECONDS,
            compress=False,  # pictures are JPEG and PNG
        )
        await socket.prepare(request)
        viewer = Viewer(socket, self._node, self._encoder, self._objects)
        self._viewers.add(viewer)
        self._node.watch(True)
        shown = [
            asyncio.create_task(self._report(viewer)),
            asyncio.create_task(viewer.send_pictures()),
        ]
        try:
            async for message in socket:
                if message.type != WSMsgType.TEXT:
                    continue
                if len(self._asked) >= _MOST_REQUESTS:
                    await viewer.say("too much at once: the last request was not done")
                    continue
                # Beside each other: everything takes its time, and pictures go on.
                task = asyncio.create_task(self._take(viewer, message.data))
                self._asked.add(task)
                task.add_done_callback(self._asked.discard)
        finally:
            for stream in shown:
                stream.cancel()
            await asyncio.gather(*shown, return_exceptions=True)
            viewer.leave()
            self._viewers.discard(viewer)
            if not self._viewers:
                self._node.watch(False)
        return socket

    async def _take(self, viewer: Viewer, text: str) -> None:
        """Does what a viewer asks for, even if it has left by then."""
        try:
            await viewer.take(requests.parse(text))
        except (requests.BadRequest, Unanswered) as error:
            await viewer.say(str(error))

    async def _report(self, viewer: Viewer) -> None:
        """Sends rates, latency and what the node says, until it is cancelled."""
        while True:
            is_well, message = self._node.status
            report = {"is_well": is_well, "status": message, "viewers": len(self._viewers)}
            await viewer.send(json.dumps(report | self._node.meter.values()))
            await asyncio.sleep(_REPORT_SECONDS)

    async def _close(self, application: web.Application) -> None:
        for request in self._asked:
            request.cancel()
        goodbyes = (
            asyncio.wait_for(viewer.close(WSCloseCode.GOING_AWAY), _GOODBYE_SECONDS)
            for viewer in self._viewers
        )
        await asyncio.gather(*goodbyes, return_exceptions=True)
