"""The panel's side in the ROS graph: hears images and segments, and asks the node `sam`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import IntegerRange, ParameterDescriptor
from rclpy.client import Client
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from mobile_sam_ros.conversions import image_message, nanoseconds
from mobile_sam_ros.diagnostics import OK, find_status
from mobile_sam_ros.frames import Frame
from mobile_sam_ros.msg import Prompt, PromptArray, SegmentArray
from mobile_sam_ros.panel.images import Images
from mobile_sam_ros.panel.meter import Meter
from mobile_sam_ros.panel.pictures import Picture
from mobile_sam_ros.qos import reliable, sensor_data
from mobile_sam_ros.srv import Segment, SegmentEverything

_SILENCE_SECONDS = 3.0
_SHORTEST_PATIENCE, _LONGEST_PATIENCE = 1.0, 10.0
_DISCOVERY_SECONDS = 5.0  # nodes announce themselves each 3 s, if the first time was lost
_ANSWER_SECONDS = 30.0
_DEPTH = 5
Response = TypeVar("Response")


class Unanswered(Exception):
    """The node `sam` is not there, does not answer, or refuses; the text says which."""


@dataclass(frozen=True)
class Settings:
    """The panel's parameters."""

    host: str
    port: int
    token: str
    max_width: int


async def _discovered(is_there: Callable[[], object], why_not: str) -> None:
    """Waits for what may not have been discovered yet.

    Raises:
        Unanswered: it is not there; the text is `why_not`.
    """
    end = monotonic() + _DISCOVERY_SECONDS
    while not is_there():
        if monotonic() > end:
            raise Unanswered(f"{why_not}: does the node run?")
        await asyncio.sleep(0.05)


class PanelNode(Node):
    """Keeps the newest picture. The methods may be called from any thread."""

    def __init__(self, changed: Callable[[], object]) -> None:
        """Calls `changed`, on the executor's thread, when there is a new picture."""
        super().__init__("panel")
        self._changed = changed
        self.settings = Settings(
            host=self._declare("host", "127.0.0.1", "Address to listen on; 0.0.0.0: all."),
            port=self._declare("port", 8080, "Port; 0: any that is free.", (0, 65535)),
            token=self._declare("token", "", "What lets in over the network; empty: a new one."),
            max_width=self._declare(
                "max_width",
                1280,
                "Width of the pictures at most; 0: as they come.",
                (0, 100000),
            ),
        )
        transport = self._declare("image_transport", "raw", "raw, or compressed: of the images.")
        if transport not in ("raw", "compressed"):
            raise ValueError(f"parameter image_transport: {transport!r} is not raw or compressed")
        self._image_type = CompressedImage if transport == "compressed" else Image
        self._image_name = "image/compressed" if transport == "compressed" else "image"
        self.meter = Meter()
        self._frames = Images()
        self._picture: Picture | None = None
        self._segmented_at = -_LONGEST_PATIENCE
        self._patience = _SHORTEST_PATIENCE
        self._status: DiagnosticStatus | None = None
        self._status_at = 0.0
        self._inputs: list[Subscription] = []
        self._is_watched = False
        self._sam = self.resolve_topic_name("sam/segments").rpartition("/")[0]
        self._prompts = self.create_publisher(PromptArray, "prompts", 10)
        self._segment = self.create_client(Segment, "sam/segment")
        self._everything = self.create_client(SegmentEverything, "sam/segment_everything")
        self._clear = self.create_client(Trigger, "sam/clear_prompts")

    def _declare(
        self, name: str, default: Any, description: str, limits: tuple[int, int] | None = None
    ) -> Any:
        descriptor = ParameterDescriptor(description=description, read_only=True)
        if limits:
            descriptor.integer_range = [IntegerRange(from_value=limits[0], to_value=limits[1])]
        return self.declare_parameter(name, default, descriptor).value

    # --- What is seen -----------------------------------------------------------------------

    @property
    def picture(self) -> Picture | None:
        """The newest picture, if there is one."""
        return self._picture

    @property
    def status(self) -> tuple[bool, str]:
        """Whether the node says that all is well, and what it says."""
        if self._status is None or monotonic() - self._status_at > _SILENCE_SECONDS:
            return False, f"nothing is heard of the node {self._sam}"
        return self._status.level == OK, self._status.message

    def watch(self, watched: bool) -> None:
        """Listens only while somebody looks: what nobody listens to is not computed."""
        self._is_watched = watched
        self._executor().create_task(self._listen_or_rest)

    def _executor(self) -> Executor:
        assert self.executor is not None
        return self.executor

    def _listen_or_rest(self) -> None:
        # By what is wanted now: rclpy may run the newest task first
        # (https://github.com/ros2/rclpy/issues/1304).
        if self._is_watched and not self._inputs:
            self._listen()
        elif self._inputs and not self._is_watched:
            self._rest()

    def _listen(self) -> None:
        for kind, name, callback, qos in (
            (self._image_type, self._image_name, self._on_image, sensor_data()),
            (SegmentArray, "sam/segments", self._on_segments, reliable(_DEPTH)),
            (DiagnosticArray, "/diagnostics", self._on_diagnostics, reliable(_DEPTH)),
        ):
            options = QoSOverridingOptions.with_default_policies()
            if kind is DiagnosticArray:
                options = None
            self._inputs.append(
                self.create_subscription(kind, name, callback, qos, qos_overriding_options=options)
            )

    def _rest(self) -> None:
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        self._frames = Images()
        self._picture = None

    def _on_image(self, message: Image | CompressedImage) -> None:
        frame = Frame(message)
        self._frames.add(frame)
        self.meter.image()
        # While objects are segmented, only images with their masks are shown.
        if frame.received - self._segmented_at > self._patience:
            self._show(Picture(message))

    def _on_segments(self, message: SegmentArray) -> None:
        frame = self._frames.find(nanoseconds(message.header.stamp), 0)
        if frame is None:
            return
        self.meter.mask(frame.received)
        now = monotonic()
        if message.segments:
            lasted = 3 * (now - self._segmented_at)
            self._patience = min(max(lasted, _SHORTEST_PATIENCE), _LONGEST_PATIENCE)
            self._segmented_at = now
        else:
            self._segmented_at = -_LONGEST_PATIENCE
        self._show(Picture(frame.message, message))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        status = find_status(message, self._sam)
        if status is not None:
            self._status = status
            self._status_at = monotonic()

    def _show(self, picture: Picture) -> None:
        self._picture = picture
        self._changed()

    # --- What is asked ----------------------------------------------------------------------

    async def prompt(self, mode: int, prompt: Prompt, header: Header | None = None) -> None:
        """Publishes a prompt: of the image with `header`, which the node may no longer have, else
        of the newest one.

        Raises:
            Unanswered: nobody listens.
        """
        topic = self._prompts.topic_name
        await _discovered(self._prompts.get_subscription_count, f"nobody listens to {topic}")
        self._prompts.publish(PromptArray(header=header or Header(), mode=mode, prompts=[prompt]))

    async def segment(self, picture: Picture, prompt: Prompt, track: bool) -> SegmentArray:
        """Returns what a prompt shows in a picture, however old that is.

        Args:
            picture: whose image the node is sent.
            prompt: the object.
            track: whether it is followed from then on.

        Raises:
            Unanswered: there is no answer.
        """
        request = Segment.Request(image=self._raw(picture), prompts=[prompt], track=track)
        return self._successful(await self._ask(self._segment, request)).segments

    async def everything(self, picture: Picture) -> SegmentArray:
        """Returns everything that is in a picture.

        Raises:
            Unanswered: there is no answer.
        """
        request = SegmentEverything.Request(image=self._raw(picture))
        return self._successful(await self._ask(self._everything, request)).segments

    async def clear(self) -> str:
        """Forgets all objects; returns what the node says to it.

        Raises:
            Unanswered: there is no answer.
        """
        answer = self._successful(await self._ask(self._clear, Trigger.Request()))
        self._segmented_at = -_LONGEST_PATIENCE
        return answer.message

    def _raw(self, picture: Picture) -> Image:
        if isinstance(picture.image, Image):
            return picture.image
        return image_message(picture.pixels, "rgb8", picture.image.header)

    @staticmethod
    def _successful(answer: Any) -> Any:
        if not answer.success:
            raise Unanswered(answer.message)
        return answer

    async def _ask(self, client: Client, request: Any) -> Any:
        """Calls a service; for an asyncio loop on another thread than the executor's."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Any] = loop.create_future()

        def deliver(answer: Any) -> None:
            if not answered.done():
                answered.set_result(answer)

        def done(future: Future) -> None:
            loop.call_soon_threadsafe(deliver, future.result())

        name = self.resolve_service_name(client.srv_name)
        await _discovered(client.service_is_ready, f"service {name} is not there")
        self._executor().create_task(lambda: client.call_async(request).add_done_callback(done))
        try:
            return await asyncio.wait_for(answered, _ANSWER_SECONDS)
        except asyncio.TimeoutError:
            raise Unanswered(f"service {name} has not answered for {_ANSWER_SECONDS:g} s") from None
