"""The node `sam`: wires topics, parameters and the worker together, and does nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Thread
from time import monotonic
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point, PointStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection2DArray

import mobile_sam
from mobile_sam.backends import device_memory, free_unused
from mobile_sam_ros import diagnostics, machine, parameters
from mobile_sam_ros.conversions import nanoseconds
from mobile_sam_ros.depth_input import DepthInput
from mobile_sam_ros.detections import of_another_camera, reader
from mobile_sam_ros.frames import Frame, FrameRing, Waiting
from mobile_sam_ros.models import Models
from mobile_sam_ros.msg import Prompt, PromptArray
from mobile_sam_ros.outputs import THREE_D, Outputs
from mobile_sam_ros.prompts import PromptStore, point_prompt
from mobile_sam_ros.qos import sensor_data
from mobile_sam_ros.segmentation import Job, Segmentation, Topics
from mobile_sam_ros.services import Services
from mobile_sam_ros.silence import Silence
from mobile_sam_ros.throttle import Throttle
from mobile_sam_ros.transitions import said
from mobile_sam_ros.worker import Mailbox, Worker

NAME = "sam"
_CLICK = "click"
_EARLY = 16  # messages that wait for their image,
_EARLY_SECONDS = 2.0  # and how long
_DETECTOR_SECONDS = 1.0  # since its last message, for which a detector counts as running
_STOP_SECONDS = 0.5
_PREPARED = 8  # sizes of images, at most, before anything is asked of them


class SamNode(LifecycleNode):
    """Segments what detections, prompts and clicks point at in the images that come."""

    def __init__(self, models: Models, worker: Worker[Job], cli_args: Sequence[str] = ()) -> None:
        """Makes a node that is not configured yet.

        Args:
            models: where the weights come from; shared by all nodes of the process.
            worker: what runs the model; shared as well.
            cli_args: ROS arguments of this node alone.
        """
        super().__init__(NAME, cli_args=list(cli_args))
        self._models, self._worker = models, worker
        self.values = parameters.declare(self)
        self._detections_type, self._as_standard = reader(
            self.values.detections_type, self.values.detections_fields
        )
        self.add_on_set_parameters_callback(self._on_parameters)
        self._statistics = diagnostics.Statistics()
        self._complain = Throttle(self.get_logger().error)
        self._frames: FrameRing[Frame] = FrameRing(self.values.frame_buffer)
        self._depth = DepthInput(self, self.values.frame_buffer)
        self._store = PromptStore()
        self._early: Waiting[Detection2DArray | PromptArray] = Waiting(_EARLY, _EARLY_SECONDS)
        self._detector_seen = self._detector_served = -float("inf")
        self._prepared_sizes: set[tuple[int, int]] = set()
        self._segmentation: Segmentation | None = None
        self._inputs: list[Subscription] = []
        self._predictor: mobile_sam.Predictor | None = None
        self._outputs: Outputs | None = None
        self._mailbox: Mailbox[Job] | None = None
        compressed = self.values.image_transport == "compressed"
        self._image_type = CompressedImage if compressed else Image
        self._image_name = "image/compressed" if compressed else "image"
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 1)
        # Of the machine's time: with use_sim_time, a paused bag must not silence the diagnostics.
        self.create_timer(1.0, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.create_service(Trigger, "~/clear_prompts", self._clear_prompts)
        image = self.resolve_topic_name(self._image_name)
        self._silence = Silence(self, image)
        newest = self._frames.newest
        self._model_services = Services(
            self, self._submit, self._store.named, newest, image, self.say_failure
        )
        self._everything_at = -float("inf")

    # --- Life -------------------------------------------------------------------------------

    @said
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the weights and offers the outputs."""
        self._predictor = self._models.load(self.values)
        self._outputs = Outputs(self)
        self.get_logger().info(
            f"weights {self.values.weights} on {self._predictor.device}, input "
            f"{self._predictor.input_size} pixels"
        )
        return TransitionCallbackReturn.SUCCESS

    @said
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listens and works."""
        assert self._predictor is not None and self._outputs is not None
        image = self.resolve_topic_name(self._image_name)
        names = [self.resolve_topic_name(name) for name in ("detections", "prompts", "depth")]
        self._segmentation = Segmentation(
            self._predictor,
            self._outputs,
            self._statistics,
            lambda: self.values,
            Topics(image, *names),
            self._complain,
            lambda stamp: self._depth.find(stamp, int(self.values.depth_slop * 1e9)),
        )
        self._prepared_sizes = set()
        self._mailbox = self._worker.serve(self._segmentation.perform)
        # Not depth 1: images that come while a callback runs have to reach the ring, where a
        # detector's answer finds them. Nothing gets late by it: the mailbox takes the newest.
        mouse = self.resolve_topic_name("image") + "_mouse_left"
        for kind, name, callback, qos in (
            (self._image_type, self._image_name, self._on_image, sensor_data()),
            (self._detections_type, "detections", self._on_detections, 5),
            (PromptArray, "prompts", self._on_prompts, 10),
            (PointStamped, "clicked_point", self._on_clicked_point, 10),
            (Point, mouse, self._on_click, 10),
        ):
            options = QoSOverridingOptions.with_default_policies()
            self._inputs.append(
                self.create_subscription(kind, name, callback, qos, qos_overriding_options=options)
            )
        self._silence.heard()
        self.get_logger().info(f"waiting for images on {image}")
        return super().on_activate(state)

    @said
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listens to nothing more."""
        self._stop_work()
        return super().on_deactivate(state)

    @said
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Gives the model's memory back."""
        self._stop_work()
        if self._outputs is not None:
            self._outputs.destroy()
        self._predictor = self._outputs = None
        free_unused()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The same as cleaning up."""
        return self.on_cleanup(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The same, after which the node may be configured again."""
        return self.on_cleanup(state)

    def start(self) -> bool:
        """Configures and activates, unless the parameter `autostart` says not to."""
        if not self.values.autostart:
            return True
        success = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == success and self.trigger_activate() == success

    def _stop_work(self) -> None:
        """Takes the inputs away, and leaves the worker once it is at rest."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        self._depth.listen(False)
        self._frames.clear()
        self._early.clear()
        if self._segmentation is not None:
            self._segmentation.close()
        self._segmentation = None
        mailbox, self._mailbox = self._mailbox, None
        if mailbox is not None:
            for job in self._worker.leave(mailbox, _STOP_SECONDS):
                if job.reply is not None:
                    job.reply(None, "the node was deactivated")

    def close(self) -> None:
        """Ends the work, or leaves it to its thread if it lasts."""
        self._stop_work()
        self._model_services.close()

    def destroy_node(self) -> None:
        """Leaves the graph; rclpy's states would hold on to the node."""
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    # --- Inputs: callbacks only store -------------------------------------------------------

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._silence.heard()
        self._statistics.count("frames/received")
        frame = Frame(message)
        self._frames.add(frame)
        self._prepare_for_size(frame)
        slop = self._slop()
        for early in self._early.take(frame.stamp, slop):
            self._serve(early, frame)
        detector_runs = monotonic() - self._detector_served < _DETECTOR_SECONDS
        standing = self._store.standing()
        # While a detector runs, what stands is segmented along with its boxes: the images
        # between would make its own older ones stale. Where its boxes are followed, that is meant
        # for the images between.
        if self.values.track_detections or not detector_runs:
            if standing or self._is_following():
                self._put_newest(Job(frame, prompts=standing))
        period = self.values.everything_period
        if period and frame.received - self._everything_at >= period:
            self._everything_at = frame.received
            # No order: where it takes longer than the period, it would leave no time for the rest.
            self._put_newest(Job(frame, everything=True), "everything")

    def _is_following(self) -> bool:
        return self._segmentation is not None and self._segmentation.following.is_active

    def _prepare_for_size(self, frame: Frame) -> None:
        """Has the model made ready for the first image of a size, before anything is asked of it;
        of compressed ones for the first of all, as their size is not known yet."""
        message = frame.message
        size = (message.height, message.width) if isinstance(message, Image) else (0, 0)
        if self._segmentation is None:  # an image that was taken up before the deactivation
            return
        if size not in self._prepared_sizes and len(self._prepared_sizes) < _PREPARED:
            self._prepared_sizes.add(size)
            self.get_logger().info("first image of its size: the model is made ready for it")
            prepare = self._segmentation.prepare
            # A daemon, because it lasts for seconds and cannot be interrupted.
            Thread(target=prepare, args=(frame,), name="preparation", daemon=True).start()

    def _on_detections(self, message: Any) -> None:
        self._detector_seen = monotonic()
        self._match(self._as_standard(message))

    def _on_prompts(self, message: PromptArray) -> None:
        if message.mode in (PromptArray.REMOVE, PromptArray.RENAME):
            self._change_objects(message)
            return
        message.prompts = self._store.named(message.prompts)
        if message.mode == PromptArray.UNTIL_CLEARED:
            most = self.values.max_objects
            for prompt in message.prompts:
                self._stop_following(prompt.id)
            if self._store.keep(message.prompts, most):
                topic = self.resolve_topic_name("prompts")
                self._complain(
                    f"{topic}: more than {most} prompts stand (parameter max_objects): the oldest "
                    "are forgotten"
                )
        elif message.mode == PromptArray.TRACKED:
            for prompt in message.prompts:
                self._store.remove(prompt.id)
        elif message.mode != PromptArray.ONCE:
            self._complain(
                f"{self._topic_of(message)}: mode {message.mode} is neither ONCE, UNTIL_CLEARED, "
                "TRACKED, REMOVE nor RENAME"
            )
            return
        self._match(message)

    def _change_objects(self, message: PromptArray) -> None:
        """Forgets objects that stand or are followed, or gives them other classes."""
        following = None if self._segmentation is None else self._segmentation.following
        for prompt in message.prompts:
            id = prompt.id
            if message.mode == PromptArray.REMOVE:
                known = self._store.remove(id)
                known |= self._stop_following(id)
            else:
                known = self._store.rename(id, prompt.class_id)
                known |= following is not None and following.rename(id, prompt.class_id)
            if not known:
                self._complain(
                    f"{self._topic_of(message)}: no object with id {id!r} stands or is followed"
                )

    def _stop_following(self, id: str) -> bool:
        """Follows an object no more, also if that was still to begin; returns whether it is one."""
        known = bool(self._withdraw(lambda prompt: prompt.id == id))
        following = None if self._segmentation is None else self._segmentation.following
        return (following is not None and following.remove(id)) or known

    def _withdraw(self, which: Callable[[Prompt], bool]) -> int:
        """Takes back prompts to follow that wait for their image or for the worker; returns how
        many."""
        withdrawn: set[str] = set()

        def kept(prompts: Sequence[Prompt]) -> list[Prompt]:
            withdrawn.update(prompt.id for prompt in prompts if which(prompt))
            return [prompt for prompt in prompts if not which(prompt)]

        for message in self._early:
            if isinstance(message, PromptArray) and message.mode == PromptArray.TRACKED:
                message.prompts = kept(message.prompts)
        if self._mailbox is not None:
            self._mailbox.change_orders(lambda job: replace(job, tracked=kept(job.tracked)))
        return len(withdrawn)

    def _on_clicked_point(self, message: PointStamped) -> None:
        self._on_click(message.point)

    def _on_click(self, point: Point) -> None:
        tracked = self.values.track_clicks
        mode = PromptArray.TRACKED if tracked else PromptArray.UNTIL_CLEARED
        self._on_prompts(PromptArray(mode=mode, prompts=[point_prompt(point, _CLICK)]))

    def _slop(self) -> int:
        return int(self.values.match_slop * 1e9)

    def _match(self, message: Detection2DArray | PromptArray) -> None:
        """Serves a message with the image it is about, now or when that comes."""
        stamp = _stamp(message)
        frame = self._frames.find(stamp, self._slop()) if stamp else self._frames.newest()
        if frame is not None:
            self._serve(message, frame)
        elif self._frames.may_come(stamp):
            for lost in self._early.put(message, stamp):
                self._miss(lost)
        else:
            self._miss(message)

    def _miss(self, message: Detection2DArray | PromptArray) -> None:
        """Says that the image that a message is about is not there and does not come."""
        newest = self._frames.newest()
        why = (
            f"{self._topic_of(message)}: no image has stamp {_stamp(message) / 1e9:.9f} of its "
            f"header, the newest one has {newest.stamp / 1e9 if newest else 0:.9f}: it is not "
            f"among the last {self.values.frame_buffer} images (frame_buffer), or the stamps "
            "differ (match_slop)"
        )
        if not isinstance(message, PromptArray):
            self._statistics.count("detections/unmatched", why)
        self._complain(why)

    def _topic_of(self, message: Detection2DArray | PromptArray) -> str:
        is_prompt = isinstance(message, PromptArray)
        return self.resolve_topic_name("prompts" if is_prompt else "detections")

    def _serve(self, message: Detection2DArray | PromptArray, frame: Frame) -> None:
        standing = self._store.standing()
        if isinstance(message, Detection2DArray):
            if not self._is_of_this_camera(message, frame):
                return
            self._detector_served = monotonic()
            if self.values.track_detections:  # images in between must not replace it
                job = Job(frame, message.detections, standing, track_detections=True)
                self._put_newest(job, "detections")
            else:
                self._put_newest(Job(frame, message.detections, standing))
        elif message.mode == PromptArray.UNTIL_CLEARED:
            self._put_newest(Job(frame, prompts=standing))
        elif message.mode == PromptArray.TRACKED:
            self._order(Job(frame, prompts=standing, tracked=message.prompts))
        else:
            self._order(Job(frame, prompts=message.prompts))

    def _is_of_this_camera(self, message: Detection2DArray, frame: Frame) -> bool:
        """Whether detections are taken for an image; says why not."""
        doubt = of_another_camera(message.header, frame.message.header)
        if not self.values.match_frame_id or not doubt:
            return True
        why = f"{self._topic_of(message)}: {doubt} If not, set match_frame_id to false"
        self._statistics.count("detections/other_frame_id", why)
        self._complain(why)
        return False

    def _order(self, job: Job) -> None:
        """Leaves a job that is done even if newer images come."""
        if self._mailbox is not None and self._mailbox.put_order(job):
            self._statistics.count("frames/dropped/newer")

    def _submit(self, job: Job) -> None:
        """Takes a service's job; called on the services' thread."""
        mailbox = self._mailbox
        lost = job if mailbox is None else mailbox.put_request(job)
        if lost is not job:
            for prompt in job.tracked:
                self._store.remove(prompt.id)
        if lost is not None and lost.reply is not None:
            lost.reply(None, "the node is not active" if lost is job else "too many wait")

    def _put_newest(self, job: Job, stream: str = "images") -> None:
        if self._mailbox is not None and self._mailbox.put_newest(job, stream):
            self._statistics.count("frames/dropped/newer")

    def _clear_prompts(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        number = self._store.clear() + self._withdraw(lambda prompt: True)
        if self._segmentation is not None:
            number += self._segmentation.following.forget()
        response.success = True
        response.message = f"{number} prompts cleared"
        return response

    # --- Parameters and reports -------------------------------------------------------------

    def say_failure(self, text: str) -> None:
        """Counts and says that a callback raised, which should not happen."""
        self._statistics.count("callbacks/failed", text.strip().rpartition("\n")[2])
        self._complain(text)

    def _on_parameters(self, changes: Sequence[Parameter]) -> SetParametersResult:
        # rclpy has checked types and ranges by now, so that what passes here is set. Humble has no
        # callback for afterwards.
        result = parameters.check(changes)
        if result.successful:
            self.values = parameters.changed(self.values, changes)
        return result

    def _report(self) -> None:
        active = bool(self._inputs)
        if active and self._outputs is not None:
            self._depth.listen(bool(self._outputs.wanted() & THREE_D))
        silent = active and self._silence.check(self.values.silence_warning)
        for message in self._early.overdue():
            self._miss(message)
        problems = self._statistics.problems()
        if silent:
            problems.insert(0, diagnostics.Problem(diagnostics.WARN, "no images"))
        detections = self.resolve_topic_name("detections")
        if active and self._detector_seen > 0 and not self.count_publishers(detections):
            text = f"nobody publishes {detections} any more"
            problems.append(diagnostics.Problem(diagnostics.WARN, text))
        values = self._statistics.values()
        if self._predictor is not None:
            values |= {"device": self._predictor.device, "weights": self.values.weights}
            allocated = device_memory(self._predictor.device)
            if allocated is not None:
                values["device_memory_mb"] = f"{allocated:.0f}"
        if self._segmentation is not None:
            counts = self._segmentation.following.counts()
            values |= {f"tracks_{state}": str(number) for state, number in counts.items()}
        values |= machine.memory() | machine.temperatures()
        report = DiagnosticArray()
        report.header.stamp = self.get_clock().now().to_msg()
        report.status = [diagnostics.status(self.get_fully_qualified_name(), values, problems)]
        self._diagnostics.publish(report)


def _stamp(message: Detection2DArray | PromptArray) -> int:
    return nanoseconds(message.header.stamp)
