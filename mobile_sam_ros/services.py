"""The services that take a model's time: `~/segment` and `~/segment_everything`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Event, Thread
from typing import Any

from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import Image

from mobile_sam_ros.executor import SteadyExecutor
from mobile_sam_ros.frames import Frame
from mobile_sam_ros.msg import Prompt, SegmentArray
from mobile_sam_ros.segmentation import Job, Reply
from mobile_sam_ros.srv import Segment, SegmentEverything

_PATIENCE_SECONDS = 120.0
_STOP_SECONDS = 0.2


class Services:
    """Waits for the worker on a thread of its own, while the node's executor goes on.

    rclpy's coroutines would not do: an executor asks a waiting one again and again, at full load.
    So the services belong to a hidden node (its name begins with an underscore) with its own
    executor. One request is worked at a time.
    """

    def __init__(
        self,
        node: Node,
        submit: Callable[[Job], None],
        named: Callable[[Iterable[Prompt]], list[Prompt]],
        newest: Callable[[], Frame | None],
        image_topic: str,
        complain: Callable[[str], None],
    ) -> None:
        """Offers the services.

        Args:
            node: whose names they have.
            submit: leaves a job for the worker; its reply is called, whatever happens.
            named: gives ids to prompts that have none; called on the services' thread.
            newest: returns the newest frame, for requests without an image.
            image_topic: for messages.
            complain: is told what goes wrong here.
        """
        self._submit, self._named = submit, named
        self._newest, self._image_topic = newest, image_topic
        self._node = Node(
            f"_{node.get_name()}_services",
            namespace=node.get_namespace(),
            context=node.context,
            use_global_arguments=False,  # a new name for the node is none for this one
            start_parameter_services=False,
            enable_rosout=False,
        )
        for kind, name, callback in (
            (Segment, "~/segment", self._on_segment),
            (SegmentEverything, "~/segment_everything", self._on_segment_everything),
        ):
            self._node.create_service(kind, node.resolve_service_name(name), callback)
        self._executor = SteadyExecutor(complain, node.context)
        self._executor.add_node(self._node)
        self._thread = Thread(target=self._spin, name="services", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Takes the services away."""
        self._executor.shutdown(timeout_sec=0)
        self._thread.join(_STOP_SECONDS)
        self._node.destroy_node()

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            self._executor.spin()

    def _on_segment(self, request: Segment.Request, response: Segment.Response) -> Segment.Response:
        prompts = self._named(request.prompts)
        tracked = prompts if request.track else ()
        return self._answer(
            response,
            request.image,
            lambda frame, reply: Job(
                frame,
                prompts=prompts,
                tracked=tracked,
                is_guest=bool(request.image.height),
                reply=reply,
            ),
        )

    def _on_segment_everything(
        self, request: SegmentEverything.Request, response: SegmentEverything.Response
    ) -> SegmentEverything.Response:
        return self._answer(
            response, request.image, lambda frame, reply: Job(frame, everything=True, reply=reply)
        )

    def _answer(self, response: Any, image: Image, make_job: Callable[[Frame, Reply], Job]) -> Any:
        """Fills a response with what the worker replies."""
        frame = Frame(image) if image.height else self._newest()
        if frame is None:
            response.success = False
            response.message = f"no image has come on {self._image_topic}, and the request has none"
            return response
        done = Event()

        def reply(segments: SegmentArray | None, why_not: str) -> None:
            response.success = segments is not None
            response.message = why_not
            if segments is not None:
                response.segments = segments
            done.set()

        self._submit(make_job(frame, reply))
        if not done.wait(_PATIENCE_SECONDS):
            response.success = False
            response.message = f"no answer within {_PATIENCE_SECONDS:g} s"
        return response
