"""The messages that say what was found in an image; made here for the node and for bags alike."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import mobile_sam
from mobile_sam.overlay import label_image, overlay_image
from mobile_sam.tracking import TrackedObject, TrackState
from mobile_sam_ros.conversions import (
    bounding_box_message,
    compressed_message,
    crop_of,
    image_message,
    region_message,
)
from mobile_sam_ros.identity import Identity
from mobile_sam_ros.message_classes import ClassOf, ros_class
from mobile_sam_ros.point_cloud import Solid, cloud_message

if TYPE_CHECKING:
    from std_msgs.msg import Header
    from vision_msgs.msg import Detection2DArray, Detection3DArray, LabelInfo

    from mobile_sam_ros.msg import SegmentArray

TYPES = {
    "mask": "sensor_msgs/msg/Image",
    "labels": "sensor_msgs/msg/Image",
    "overlay": "sensor_msgs/msg/Image",
    "overlay/compressed": "sensor_msgs/msg/CompressedImage",
    "segments": "mobile_sam_ros/msg/SegmentArray",
    "detections": "vision_msgs/msg/Detection2DArray",
    "points": "sensor_msgs/msg/PointCloud2",
    "detections_3d": "vision_msgs/msg/Detection3DArray",
}
"""Of the outputs, by their names; `label_info` comes with them when it changes."""
THREE_D = {"points", "detections_3d"}
LABEL_INFO = "label_info"
LABEL_INFO_TYPE = "vision_msgs/msg/LabelInfo"
_JPEG_QUALITY = 85
_STATES = {
    TrackState.ACTIVE: "ACTIVE",
    TrackState.OCCLUDED: "OCCLUDED",
    TrackState.LOST: "LOST",
}


def result_messages(
    wanted: Collection[str],
    header: Header,
    image: NDArray[np.uint8],
    segments: mobile_sam.Segments,
    identities: Sequence[Identity],
    alpha: float,
    objects: Sequence[Solid] | None = None,
    class_of: ClassOf = ros_class,
) -> dict[str, Any]:
    """Returns the messages of an image, by the names of the outputs.

    Args:
        wanted: names of outputs.
        header: of the image.
        image: uint8 (H, W, 3), RGB.
        segments: N objects.
        identities: N, in the same order.
        alpha: of the overlay.
        objects: in three dimensions; None where there is no depth, and then nor are `THREE_D`.
        class_of: where the messages' classes come from.
    """
    messages: dict[str, Any] = {}
    if not {"mask", "labels", "overlay", "overlay/compressed"}.isdisjoint(wanted):
        labels = label_image(segments.crops, segments.boxes, image.shape[:2])
        if "mask" in wanted:
            union = (labels > 0).astype(np.uint8) * np.uint8(255)
            messages["mask"] = image_message(union, "mono8", header, class_of)
        if "labels" in wanted:
            messages["labels"] = image_message(labels, "16UC1", header, class_of)
        if "overlay" in wanted or "overlay/compressed" in wanted:
            overlay = overlay_image(image, labels, alpha)
            if "overlay" in wanted:
                messages["overlay"] = image_message(overlay, "rgb8", header, class_of)
            if "overlay/compressed" in wanted:
                compressed = compressed_message(overlay, header, _JPEG_QUALITY, class_of)
                messages["overlay/compressed"] = compressed
    if "segments" in wanted:
        messages["segments"] = segments_message(
            header, image.shape[:2], segments, identities, class_of
        )
    if "detections" in wanted:
        messages["detections"] = detections_message(header, segments, identities, class_of)
    if objects is not None and "points" in wanted:
        messages["points"] = cloud_message(header, objects, class_of)
    if objects is not None and "detections_3d" in wanted:
        messages["detections_3d"] = detections_3d_message(header, objects, identities, class_of)
    return messages


def label_names(identities: Sequence[Identity]) -> list[str]:
    """Returns what the labels 1 to N are called: an object's class, or else its id."""
    return [identity.class_id or identity.id for identity in identities]


def label_info_message(
    header: Header, names: Sequence[str], class_of: ClassOf = ros_class
) -> LabelInfo:
    """Returns what the labels 1 to N are called."""
    kind = class_of("vision_msgs/msg/VisionClass")
    classes = [kind(class_id=i, class_name=name) for i, name in enumerate(names, 1)]
    return class_of(LABEL_INFO_TYPE)(header=header, class_map=classes)


def segments_message(
    header: Header,
    image_hw: tuple[int, int],
    segments: mobile_sam.Segments,
    identities: Sequence[Identity],
    class_of: ClassOf = ros_class,
) -> SegmentArray:
    """Returns the objects with their masks, each cropped to its region."""
    result = class_of(TYPES["segments"])(header=header, height=image_hw[0], width=image_hw[1])
    kind = class_of("mobile_sam_ros/msg/Segment")
    for i, identity in enumerate(identities):
        crop = segments.crops[i].astype(np.uint8) * np.uint8(255)
        track = identity.track
        result.segments.append(
            kind(
                state=getattr(kind, "NOT_TRACKED" if track is None else _STATES[track.state]),
                age=0 if track is None else track.age,
                unseen=0 if track is None else track.unseen,
                confidence=1.0 if track is None else track.confidence,
                id=identity.id,
                label=i + 1,
                class_id=identity.class_id,
                score=identity.score,
                roi=region_message(segments.boxes[i], class_of),
                area=int(segments.area[i]),
                predicted_iou=float(segments.predicted_iou[i]),
                stability=float(segments.stability[i]),
                mask=image_message(crop, "mono8", header, class_of),
            )
        )
    return result


def segments_from_message(message: SegmentArray) -> tuple[mobile_sam.Segments, list[Identity]]:
    """Returns what `segments_message` was made of, but for the logits, which it does not have."""
    boxes, identities = [], []
    for segment in message.segments:
        roi = segment.roi
        x, y = roi.x_offset, roi.y_offset
        boxes.append((x, y, x + roi.width, y + roi.height))
        track = None
        for state, name in _STATES.items():
            if segment.state == getattr(segment, name):
                numbers = (segment.age, segment.unseen, segment.confidence)
                track = TrackedObject(segment.id, state, *numbers)
        identities.append(Identity(segment.id, segment.class_id, segment.score, track))
    segments = mobile_sam.Segments(
        (message.height, message.width),
        np.array(boxes, np.float32).reshape(-1, 4),
        tuple(crop_of(segment) for segment in message.segments),
        np.array([segment.predicted_iou for segment in message.segments], np.float32),
        np.array([segment.stability for segment in message.segments], np.float32),
        np.zeros((len(boxes), 0, 0), np.float32),
    )
    return segments, identities


def detections_message(
    header: Header,
    segments: mobile_sam.Segments,
    identities: Sequence[Identity],
    class_of: ClassOf = ros_class,
) -> Detection2DArray:
    """Returns the boxes of the masks; an object with an empty mask has none."""
    result = class_of(TYPES["detections"])(header=header)
    for i, identity in enumerate(identities):
        if not segments.area[i]:
            continue
        result.detections.append(
            class_of("vision_msgs/msg/Detection2D")(
                header=header,
                results=[_hypothesis(identity, class_of)],
                bbox=bounding_box_message(segments.boxes[i], class_of),
                id=identity.id,
            )
        )
    return result


def detections_3d_message(
    header: Header,
    objects: Sequence[Solid],
    identities: Sequence[Identity],
    class_of: ClassOf = ros_class,
) -> Detection3DArray:
    """Returns upright boxes around what is seen of the objects, and their mean as their place."""
    result = class_of(TYPES["detections_3d"])(header=header)
    for solid in objects:
        identity = identities[solid.label - 1]
        hypothesis = _hypothesis(identity, class_of)
        place = hypothesis.pose.pose.position
        place.x, place.y, place.z = (float(v) for v in solid.points.mean(axis=0))
        kind = class_of("vision_msgs/msg/Detection3D")
        detection = kind(header=header, results=[hypothesis], id=identity.id)
        centre, size = detection.bbox.center.position, detection.bbox.size
        centre.x, centre.y, centre.z = (float(v) for v in solid.centre)
        size.x, size.y, size.z = (float(v) for v in solid.size)
        result.detections.append(detection)
    return result


def _hypothesis(identity: Identity, class_of: ClassOf) -> Any:
    result = class_of("vision_msgs/msg/ObjectHypothesisWithPose")()
    result.hypothesis.class_id = identity.class_id
    result.hypothesis.score = identity.score
    return result
