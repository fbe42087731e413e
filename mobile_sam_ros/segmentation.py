"""What the worker does with one image: convert, encode, decode, publish."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
import rclpy
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import Detection2D

import mobile_sam
from mobile_sam.backends import free_unused
from mobile_sam.everything import EverythingSettings, segment_everything
from mobile_sam.quoting import first_line
from mobile_sam.segments import concatenate
from mobile_sam_ros.candidates import Selection, best, class_names, of_detections, why_left_out
from mobile_sam_ros.conversions import rgb_from_message
from mobile_sam_ros.depth import camera_from_info, metres_from_image
from mobile_sam_ros.diagnostics import Statistics
from mobile_sam_ros.following import Following
from mobile_sam_ros.frames import Frame
from mobile_sam_ros.identity import Identity, Shown
from mobile_sam_ros.msg import Prompt as PromptMessage
from mobile_sam_ros.msg import SegmentArray
from mobile_sam_ros.outputs import THREE_D, Outputs
from mobile_sam_ros.parameters import Parameters
from mobile_sam_ros.point_cloud import Solid, solids
from mobile_sam_ros.prompts import of_prompts
from mobile_sam_ros.results import segments_message

_SAID = 10  # problems of one request that its answer names

# Takes the segments, or None and why there are none.
Reply = Callable[[SegmentArray | None, str], None]


@dataclass(frozen=True, eq=False)
class Job:
    """An image and what to segment in it.

    tracked: prompts that show objects to follow from this image on.
    track_detections: whether detections show such objects as well.
    everything: instead of detections and prompts.
    is_guest: whether the image came with the request, and is none of the camera's.
    reply: who asked by a service and gets the result, rather than the topics. It is called once,
        on any thread, whatever happens.
    created: seconds of the monotonic clock.
    """

    frame: Frame
    detections: Sequence[Detection2D] = ()
    prompts: Sequence[PromptMessage] = ()
    tracked: Sequence[PromptMessage] = ()
    track_detections: bool = False
    everything: bool = False
    is_guest: bool = False
    reply: Reply | None = None
    created: float = field(default_factory=monotonic)


@dataclass(frozen=True)
class Topics:
    """Names of the inputs, for messages to the user."""

    image: str
    detections: str
    prompts: str
    depth: str


# Depth image and calibration for the image of a stamp, or None where one is missing.
DepthSource = Callable[[int], tuple[Image, CameraInfo] | None]


class Segmentation:
    """Performs jobs on the worker's thread. What is wrong is counted and said, never raised."""

    def __init__(
        self,
        predictor: mobile_sam.Predictor,
        outputs: Outputs,
        statistics: Statistics,
        parameters: Callable[[], Parameters],
        topics: Topics,
        complain: Callable[[str], None],
        depth: DepthSource,
    ) -> None:
        self._predictor = predictor
        self._outputs = outputs
        self._statistics = statistics
        self._parameters = parameters
        self._topics = topics
        self._complain = complain
        self._depth = depth
        self.following = Following(predictor, complain)
        self._last: tuple[Frame, NDArray[np.uint8], mobile_sam.Embedding | None] | None = None
        self._is_closed = False

    def close(self) -> None:
        """Publishes nothing any more, also not what is at work."""
        self._is_closed = True

    def perform(self, job: Job) -> None:
        """Segments and publishes, or counts why not; or answers a service."""
        if job.reply is not None:
            self._answer(job, job.reply)
            return
        try:
            self._perform(job)
        except ValueError as error:
            self._drop("bad", f"{self._topics.image}: {error}")
        except Exception as error:  # out of memory and the like: the next image may do better
            # Of a process that ends, or after a deactivation, nothing can be published any more.
            if rclpy.ok() and not self._is_closed:
                self._drop("failed", f"segmentation failed: {first_line(error)}", error)

    def _perform(self, job: Job) -> None:
        wanted = self._outputs.wanted()
        stale_after = self._parameters().stale_after
        age = monotonic() - job.frame.received
        self.following.begin()
        if not wanted and not job.tracked:
            self._statistics.count("frames/dropped/unused")
        elif stale_after and age > stale_after:
            why = f"an image was {age:.1f} s old when its turn came (stale_after)"
            self._statistics.count("frames/dropped/stale", why)
        else:
            self._segment(job, wanted)

    def prepare(self, frame: Frame) -> None:
        """Has the model made ready for images of this size.

        For a thread beside the worker's: until it is ready images are segmented more slowly, but
        they are segmented.
        """
        try:
            image, _ = self._converted(frame)
            self._predictor.prepare(image.shape[:2])
        except ValueError:  # a bad image, which is said when masks of it are wanted
            return
        except Exception as error:  # out of memory and the like
            self._complain(f"{self._topics.image}: cannot prepare for its size: {error}")

    def _answer(self, job: Job, reply: Reply) -> None:
        try:
            image, embedding = self._converted(job.frame)
            if not job.everything and not job.prompts:
                raise ValueError("the request has no prompts")
            problems: list[str] = []
            if job.everything:
                segments, identities = self._everything(image)
            else:
                shown = self._shown((), job.prompts, image.shape[:2], problems.append)
                if not shown and problems:
                    raise ValueError(_joined(problems))
                if embedding is None:
                    embedding = self._encode(job.frame, image)
                segments, identities = self._decode(embedding, shown)
                if job.tracked:
                    self._start_asked(job, image, embedding, shown)
            header = job.frame.message.header
            message = segments_message(header, image.shape[:2], segments, identities)
        except ValueError as error:
            reply(None, str(error))
        except Exception as error:  # out of memory and the like: the next one may do better
            why = f"segmentation failed: {first_line(error)}"
            reply(None, why)
            self._drop("failed", why, error)
        else:
            reply(message, _joined(problems))

    def _start_asked(
        self,
        job: Job,
        image: NDArray[np.uint8],
        embedding: mobile_sam.Embedding,
        shown: Sequence[Shown],
    ) -> None:
        """Begins to follow what a request shows; what is followed already is first followed to that
        image, whose own turn may be still to come."""
        values, following = self._parameters(), self.following
        following.begin()
        if following.is_active and not job.is_guest and not following.is_behind(job.frame):
            following.step(job.frame, image, embedding, values.track_forget_after)
        following.start(job.frame, image, embedding, shown, values.max_objects, job.is_guest)

    def _drop(self, reason: str, why: str, failure: Exception | None = None) -> None:
        """Counts an image that is lost, and says why; of a failure also where."""
        self._statistics.count(f"frames/dropped/{reason}", why)
        if failure is None:
            self._complain(why)
            return
        trace = "".join(traceback.format_exception(failure))
        self._complain(f"{why}\n{trace}")
        self._last = None
        free_unused()  # if it was for lack of memory, the next one is not to lack it too

    def _segment(self, job: Job, wanted: set[str]) -> None:
        header = job.frame.message.header
        times = [monotonic()]
        image, embedding = self._converted(job.frame)
        times.append(monotonic())
        if job.everything:
            segments, identities = self._everything(image)
            times += [monotonic()] * 2
        else:
            found = self._found(job, image, embedding)
            if found is None or not wanted:
                return
            segments, identities, encoded_at = found
            times += [encoded_at, monotonic()]
        if self._is_closed:
            return
        alpha = self._parameters().overlay_alpha
        objects = self._objects(job.frame, image, segments) if wanted & THREE_D else None
        self._outputs.publish(wanted, header, image, segments, identities, alpha, objects)
        times.append(monotonic())
        spans = dict(
            zip(("convert", "encode", "decode", "publish"), np.diff(times).tolist(), strict=True)
        )
        spans["wait"] = times[0] - job.created
        spans["total"] = times[-1] - job.frame.received
        self._statistics.segmented(spans)

    def _everything(self, image: NDArray[np.uint8]) -> tuple[mobile_sam.Segments, list[Identity]]:
        found = segment_everything(self._predictor, image, self._everything_settings())
        return found.segments, [Identity(f"everything_{i + 1}") for i in range(len(found))]

    def _found(
        self, job: Job, image: NDArray[np.uint8], embedding: mobile_sam.Embedding | None
    ) -> tuple[mobile_sam.Segments, list[Identity], float] | None:
        """Returns what is followed and what was shown, what they are called, and when the encoder
        was done; None if the image only served to learn of objects to follow."""
        following, frame = self.following, job.frame
        image_hw = image.shape[:2]
        values = self._parameters()
        to_start = self._shown((), job.tracked, image_hw, self._complain)
        if job.track_detections:
            detected = self._shown(job.detections, (), image_hw, self._complain, unnamed="")
            to_start += following.recognise(frame, detected, values.track_overlap)
            shown = self._shown((), job.prompts, image_hw, self._complain)
        else:
            shown = self._shown(job.detections, job.prompts, image_hw, self._complain)
        late = following.is_behind(frame)
        if job.track_detections and not to_start and following.was_in(frame):
            return None
        follows = following.is_active and not late
        if embedding is None and (shown or to_start or follows):
            embedding = self._encode(frame, image)
        encoded_at = monotonic()
        if embedding is None:
            # Nothing to decode: then only the sizes of the embedding are asked for.
            self._last = (frame, image, None)
            return self._predictor.nothing(image_hw), [], encoded_at
        if follows:
            following.step(frame, image, embedding, values.track_forget_after)
        if to_start:
            following.start(frame, image, embedding, to_start, values.max_objects)
        if late and (job.tracked or job.track_detections):
            return None
        segments, identities = self._decode(embedding, shown)
        if following.is_active and not late:
            followed, names = following.segments(embedding)
            segments, identities = concatenate([followed, segments]), names + identities
        return segments, identities, encoded_at

    def _encode(self, frame: Frame, image: NDArray[np.uint8]) -> mobile_sam.Embedding:
        embedding = self._predictor.encode(image)
        self._last = (frame, image, embedding)
        return embedding

    def _decode(
        self, embedding: mobile_sam.Embedding, shown: Sequence[Shown]
    ) -> tuple[mobile_sam.Segments, list[Identity]]:
        segments = self._predictor.decode(embedding, [prompt for prompt, _ in shown])
        return segments, [identity for _, identity in shown]

    def _objects(
        self, frame: Frame, image: NDArray[np.uint8], segments: mobile_sam.Segments
    ) -> list[Solid] | None:
        """Returns the objects in three dimensions, or None and counts why not."""
        found = self._depth(frame.stamp)
        if found is None:
            self._statistics.count("depth/missing", f"{self._topics.depth} or its camera_info")
            return None
        try:
            depth = metres_from_image(found[0], image.shape[:2])
            camera = camera_from_info(found[1]).scaled(image.shape[:2])
        except ValueError as error:
            why = f"{self._topics.depth}: {error}"
            self._statistics.count("depth/bad", why)
            self._complain(why)
            return None
        return solids(segments, image, depth, camera)

    def _everything_settings(self) -> EverythingSettings:
        values = self._parameters()
        return EverythingSettings(
            points_per_side=values.everything_points_per_side,
            least_predicted_iou=values.everything_min_predicted_iou,
            least_stability=values.everything_min_stability,
        )

    def _converted(self, frame: Frame) -> tuple[NDArray[np.uint8], mobile_sam.Embedding | None]:
        """Returns the pixels, and the embedding if this image was the last one as well."""
        if self._last is not None and self._last[0] is frame:
            return self._last[1], self._last[2]
        return rgb_from_message(frame.message, self._parameters().max_image_pixels), None

    def _shown(
        self,
        detections: Sequence[Detection2D],
        prompts: Sequence[PromptMessage],
        image_hw: tuple[int, int],
        complain: Callable[[str], None],
        unnamed: str = "detection_{}",
    ) -> list[Shown]:
        """Returns what can be used of detections and prompts, and says what cannot.

        `unnamed` is what detections without an id are called, with their number.
        """
        values, topics = self._parameters(), self._topics
        selection = Selection(
            values.min_score,
            class_names(values.classes),
            values.box_padding,
            (values.detections_height, values.detections_width),
        )
        candidates = [
            *of_detections(detections, image_hw, selection, topics.detections, unnamed),
            *of_prompts(prompts, image_hw, self._predictor.mask_logits, topics.prompts),
        ]
        found, left_out = best(candidates, values.max_objects, complain)
        if left_out:
            why = why_left_out(len(candidates), values.max_objects, left_out)
            self._statistics.count("objects/dropped", why, len(left_out))
            complain(why)
        return found


def _joined(problems: Sequence[str]) -> str:
    more = f"; and {len(problems) - _SAID} more" if len(problems) > _SAID else ""
    return "; ".join(problems[:_SAID]) + more
