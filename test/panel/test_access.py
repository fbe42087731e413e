"""Who gets in, what is served, and what becomes of what should not be sent."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from domains import free_domain
from robot import bare_socket, panel, ros_process

from mobile_sam_ros.panel.access import Access, is_loopback


def get(address: str, path: str = "/", method: str = "GET", **headers: str) -> Any:
    """An answer to a request as it is written here, without a client's tidying."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=10)
    skip = "Host" in headers
    connection.putrequest(method, path, skip_host=skip)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    answer.text = answer.read().decode()  # type: ignore[attr-defined]
    return answer


def talk(
    address: str,
    what: Callable[[aiohttp.ClientWebSocketResponse], Awaitable[Any]],
    headers: dict[str, str] | None = None,
) -> Any:
    """What somebody with a WebSocket to the panel returns."""

    async def run() -> Any:
        async with aiohttp.ClientSession() as session:
            url = address.replace("http", "ws").split("?")[0] + "socket"
            async with session.ws_connect(url, headers=headers) as socket:
                return await asyncio.wait_for(what(socket), 20)

    return asyncio.run(run())


async def problem(socket: aiohttp.ClientWebSocketResponse, request: str | None) -> str:
    """What the panel says is wrong with a request."""
    if request is not None:
        await socket.send_str(request)
    while True:
        message = await socket.receive()
        assert message.type == aiohttp.WSMsgType.TEXT, message
        said = json.loads(message.data)
        if "problem" in said:
            return said["problem"]


@pytest.mark.parametrize(
    ("host", "given", "wants_token"),
    [
        ("127.0.0.1", "", False),
        ("localhost", "", False),
        ("::1", "", False),
        ("0.0.0.0", "", True),
        ("192.168.1.5", "", True),
        ("robot.local", "", True),
        ("127.0.0.1", "mine", True),
    ],
)
def test_a_token_is_wanted_beyond_this_machine(host: str, given: str, wants_token: bool) -> None:
    access = Access.to(host, given)
    assert bool(access.token) is wants_token
    assert is_loopback(host) is (host in ("127.0.0.1", "localhost", "::1"))
    if wants_token and not given:
        assert len(access.token) >= 20 and access.token != Access.to(host).token


def test_the_page_on_this_machine(lonely_panel: str) -> None:
    page = get(lonely_panel)
    assert page.status == 200 and "<canvas" in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert "http" not in page.text.replace("http-equiv", "")  # nothing from elsewhere
    for path, kind in (("/panel.js", "text/javascript"), ("/panel.css", "text/css")):
        file = get(lonely_panel, path)
        assert file.status == 200 and file.headers["Content-Type"].startswith(kind)
        assert "://" not in file.text.replace("${scheme}//", "")


@pytest.mark.parametrize(
    "path",
    [
        "/server.py",
        "/../server.py",
        "/page/../../server.py",
        "/%2e%2e/server.py",
        "/..%2fserver.py",
        "//etc/passwd",
        "/panel.js/../server.py",
        "/%00",
    ],
)
def test_no_other_file_is_served(lonely_panel: str, path: str) -> None:
    answer = get(lonely_panel, path)
    assert answer.status in (400, 404) and "import" not in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_uploaded(lonely_panel: str, method: str) -> None:
    assert get(lonely_panel, "/", method, Content_Length="0").status == 405


def test_a_page_of_another_site_does_not_get_in(lonely_panel: str) -> None:
    """Neither by its origin, nor by a name that it gave this machine's address."""
    port = urlsplit(lonely_panel).port
    assert get(lonely_panel, Origin="http://evil.example").status == 403
    assert get(lonely_panel, Host=f"evil.example:{port}").status == 403
    assert get(lonely_panel, Origin="null").status == 403
    assert get(lonely_panel, Origin=f"http://127.0.0.1:{port}").status == 200
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        talk(lonely_panel, lambda socket: socket.close(), {"Origin": "http://evil.example"})
    assert refused.value.status == 403


def test_only_who_knows_the_token_gets_in(tmp_path: Path) -> None:
    with panel(tmp_path, free_domain(), host="0.0.0.0") as address:
        token = urlsplit(address).query.removeprefix("token=")
        assert len(token) >= 20
        for path in ("/", "/panel.js", "/socket", "/?token=wrong", "/?token=", "/server.py"):
            answer = get(address, path)
            assert answer.status == 403 and "<canvas" not in answer.text, path
        entered = get(address, f"/?token={token}")
        assert entered.status == 303 and entered.headers["Location"] == "/"
        cookie = entered.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        pair = cookie.split(";")[0]
        assert get(address, Cookie=f"{pair.split('=')[0]}=wrong").status == 403
        assert get(address, Cookie=pair).status == 200
        assert get(address, Cookie=pair, Origin="http://evil.example").status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError):
            talk(address, lambda socket: socket.close())
        said = talk(address, lambda socket: problem(socket, "{}"), {"Cookie": pair})
        assert "do is None" in said


def test_two_panels_of_a_host_do_not_share_a_cookie() -> None:
    """Browsers send a host's cookies to all of its ports."""
    names = [Access.to("0.0.0.0", token).cookie for token in ("mine", "yours", "mine")]
    assert names[0] == names[2] != names[1] and "mine" not in names[0]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ("{", "not JSON"),
        ("[" * 20000, "not JSON"),
        ("[]", "not an object"),
        ('{"do": "fly"}', "do is 'fly'"),
        ('{"do": "next"}', "after is None"),
        ('{"do": "next", "after": true}', "after is True"),
        ('{"do": "show", "number": 1, "id": "", "mode": "fly"}', "mode is 'fly'"),
        ('{"do": "show", "number": 1, "id": "", "mode": "follow"}', "a new object needs"),
        (
            '{"do": "show", "number": 1, "id": "", "mode": "follow", "points": [[1, NaN, true]]}',
            "nan is not a place",
        ),
        (
            '{"do": "show", "number": 1, "id": "", "mode": "follow", "box": [1, 2, 3, 1'
            + "0" * 400
            + "]}",
            "is not a place",
        ),
        (
            '{"do": "show", "number": 1, "id": "", "mode": "follow", "points": [["1", 2, true]]}',
            "'1' is not a number",
        ),
        (
            '{"do": "show", "number": 1, "id": "", "mode": "follow", "box": [1, 2, 3]}',
            "box [1, 2, 3] is not",
        ),
        (
            '{"do": "show", "number": 7, "id": "", "mode": "follow", "box": [1, 2, 3, 4]}',
            "number is 7, a picture that is gone",
        ),
        ('{"do": "remove", "id": 7}', "id is not a printable text"),
        ('{"do": "rename", "id": "a", "name": "\\u0000"}', "name is not a printable text"),
        ('{"do": "clear"}', "service /sam/clear_prompts is not there: does the node run?"),
        ('{"do": "remove", "id": "mug"}', "nobody listens to /prompts: does the node run?"),
    ],
)
def test_what_is_wrong_is_said_and_the_next_is_served(
    lonely_panel: str, request_: str, said: str
) -> None:
    async def both(socket: aiohttp.ClientWebSocketResponse) -> tuple[str, str]:
        return await problem(socket, request_), await problem(socket, "{}")

    first, second = talk(lonely_panel, both)
    assert said in first and "do is None" in second


def test_too_large_a_message_ends_its_connection_alone(lonely_panel: str) -> None:
    async def send(socket: aiohttp.ClientWebSocketResponse) -> int | None:
        await socket.send_str("x" * 70000)
        while not socket.closed:
            await socket.receive()
        return socket.close_code

    assert talk(lonely_panel, send) == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
    assert "do is None" in talk(lonely_panel, lambda socket: problem(socket, "{}"))


def test_there_is_an_end_to_viewers(lonely_panel: str) -> None:
    async def crowd() -> int:
        url = lonely_panel.replace("http", "ws") + "socket"
        async with aiohttp.ClientSession() as session:
            sockets = [await session.ws_connect(url) for _ in range(16)]
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(url)
            for socket in sockets:
                await socket.close()
            for _ in range(50):  # the panel hears of it a little later
                try:
                    await (await session.ws_connect(url)).close()
                    break
                except aiohttp.WSServerHandshakeError:
                    await asyncio.sleep(0.1)
            else:
                raise AssertionError("nobody gets in after the others have left")
            return refused.value.status

    assert asyncio.run(crowd()) == 503


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_at_once_and_cleanly(number: int, tmp_path: Path) -> None:
    """Also if it is told twice, and while somebody looks."""
    log = tmp_path / "log"
    process = ros_process("mobile_sam_ros.panel.run", log, free_domain(), port=0)
    while "open http" not in log.read_text():
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    address = log.read_text().split("open ")[1].strip()

    async def end_it(socket: aiohttp.ClientWebSocketResponse) -> None:
        for _ in range(3):
            process.send_signal(number)
            await asyncio.sleep(0.02)
        while not socket.closed:
            await socket.receive()

    talk(address, end_it)
    assert process.wait(10) == 0, log.read_text()
    assert "Traceback" not in log.read_text()


def test_it_ends_at_once_when_viewers_have_vanished(tmp_path: Path) -> None:
    """Of whom nothing comes any more, no answer to a goodbye either."""
    with panel(tmp_path, free_domain()) as address:
        vanished = [bare_socket(address) for _ in range(4)]
        begin = time.monotonic()
    assert time.monotonic() - begin < 4
    for connection in vanished:
        connection.close()


def test_a_port_that_is_taken_is_said(lonely_panel: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="address already in use"):
        with panel(tmp_path, free_domain(), port=urlsplit(lonely_panel).port):
            pass
