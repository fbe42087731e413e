"""The panel: `ros2 run mobile_sam_ros panel`. Serves the page until it is told to end."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from threading import Event, Thread
from typing import NoReturn

import rclpy
from aiohttp import web
from rclpy.exceptions import ParameterException
from rclpy.signals import SignalHandlerOptions

from mobile_sam_ros.ending import end_process
from mobile_sam_ros.executor import SteadyExecutor
from mobile_sam_ros.panel.access import Access
from mobile_sam_ros.panel.panel_node import PanelNode
from mobile_sam_ros.panel.server import Server
from mobile_sam_ros.throttle import Throttle

_END_SECONDS = 2.0  # for the server; what is not done by then ends with the process


def address(host: str, port: int, token: str) -> str:
    """Returns what to open in a browser."""
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    elif ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{port}/" + (f"?token={token}" if token else "")


async def serve(arguments: Sequence[str] | None, nodes: list[PanelNode]) -> None:
    """Runs node and server until SIGINT or SIGTERM; the node is added to `nodes`.

    Raises:
        OSError: the address cannot be listened on.
        ValueError: a parameter has a wrong value.
        rclpy.exceptions.ParameterException: or a wrong type.
    """
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    # Not the loop's own handlers, which end with it: Ctrl-C comes twice from `ros2 launch`.
    def end(number: int, frame: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(ended.set)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    node = PanelNode(lambda: loop.call_soon_threadsafe(server.wake))
    nodes.append(node)
    settings = node.settings
    access = Access.to(settings.host, settings.token)
    server = Server(node, access)
    runner = web.AppRunner(server.application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, settings.host, settings.port).start()
    port = runner.addresses[0][1]
    node.get_logger().info(f"open {address(settings.host, port, access.token)}")
    executor = SteadyExecutor(Throttle(node.get_logger().error))
    executor.add_node(node)
    over = Event()

    # Not `spin`, which may raise when another thread shuts the executor down.
    def spin() -> None:
        while not over.is_set():
            executor.spin_once(timeout_sec=0.1)

    # The loop has this thread, for its signals.
    thread = Thread(target=spin, name="executor")
    thread.start()
    try:
        await ended.wait()
        # Not by aiohttp's shutdown_timeout, which each of its versions takes elsewhere.
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(runner.cleanup(), _END_SECONDS)
    finally:
        over.set()
        thread.join()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the panel until it is told to end, and ends the process with the exit status."""
    nodes: list[PanelNode] = []
    status = 0
    try:
        asyncio.run(serve(arguments, nodes))
    except (OSError, ValueError, ParameterException) as error:
        print(f"panel: {error}", file=sys.stderr)
        status = 1
    end_process(nodes, status)


if __name__ == "__main__":
    main()
