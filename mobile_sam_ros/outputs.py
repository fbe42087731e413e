"""What is published for a segmented image: only what somebody listens to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from vision_msgs.msg import (
    Detection2D,
    Detection2DArray,
    Detection3D,
    Detection3DArray,
    LabelInfo,
    ObjectHypothesisWithPose,
    VisionClass,
)
from visualization_msgs.msg import MarkerArray

import mobile_sam
from mobile_sam.overlay import label_image, overlay_image
from mobile_sam.tracking import TrackState
from mobile_sam_ros.conversions import (
    bounding_box_message,
    compressed_message,
    image_message,
    region_message,
)
from mobile_sam_ros.identity import Identity
from mobile_sam_ros.markers import markers_message
from mobile_sam_ros.msg import Segment, SegmentArray
from mobile_sam_ros.point_cloud import Solid, cloud_message

_TYPES = {
    "mask": Image,
    "labels": Image,
    "overlay": Image,
    "overlay/compressed": CompressedImage,
    "segments": SegmentArray,
    "detections": Detection2DArray,
    "points": PointCloud2,
    "detections_3d": Detection3DArray,
    "markers": MarkerArray,
}
THREE_D = {"points", "detections_3d", "markers"}
_JPEG_QUALITY = 85
_STATES = {
    TrackState.ACTIVE: Segment.ACTIVE,
    TrackState.OCCLUDED: Segment.OCCLUDED,
    TrackState.LOST: Segment.LOST,
}
# Reliable, so that subscribers of either kind match (REP 2003).
_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=2, reliability=ReliabilityPolicy.RELIABLE)
# Who comes later has to know as well what the labels mean.
_LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


class Outputs:
    """The node's publishers of results."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publishers: dict[str, Publisher] = {
            name: node.create_publisher(
                kind,
                f"~/{name}",
                _QOS,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            for name, kind in _TYPES.items()
        }
        self._label_info = node.create_publisher(LabelInfo, "~/label_info", _LATCHED)
        self._names: list[str] | None = None  # what was said last

    def wanted(self) -> set[str]:
        """Returns the names of the outputs that have a subscriber."""
        return {
            name
            for name, publisher in self._publishers.items()
            if publisher.get_subscription_count()
        }

    def destroy(self) -> None:
        """Takes the publishers away."""
        for publisher in (*self._publishers.values(), self._label_info):
            self._node.destroy_publisher(publisher)

    def publish(
        self,
        wanted: set[str],
        header: Header,
        image: NDArray[np.uint8],
        segments: mobile_sam.Segments,
        identities: Sequence[Identity],
        alpha: float,
        objects: Sequence[Solid] | None = None,
    ) -> None:
        """Publishes the outputs named in `wanted`.

        Args:
            wanted: as `wanted()` returned it.
            header: of the image.
            image: uint8 (H, W, 3), RGB.
            segments: N objects.
            identities: N, in the same order.
            alpha: of the overlay.
            objects: in three dimensions; None where there is no depth.
        """
        messages: dict[str, object] = {}
        if wanted & {"mask", "labels", "overlay", "overlay/compressed"}:
            labels = label_image(segments.crops, segments.boxes, image.shape[:2])
            if "mask" in wanted:
                union = (labels > 0).astype(np.uint8) * np.uint8(255)
                messages["mask"] = image_message(union, "mono8", header)
            if "labels" in wanted:
                messages["labels"] = image_message(labels, "16UC1", header)
            if wanted & {"overlay", "overlay/compressed"}:
                overlay = overlay_image(image, labels, alpha)
                if "overlay" in wanted:
                    messages["overlay"] = image_message(overlay, "rgb8", header)
                if "overlay/compressed" in wanted:
                    messages["overlay/compressed"] = compressed_message(
                        overlay, header, _JPEG_QUALITY
                    )
        if "segments" in wanted:
            messages["segments"] = segments_message(header, image.shape[:2], segments, identities)
        if "detections" in wanted:
            messages["detections"] = detections_message(header, segments, identities)
        if objects is not None and "points" in wanted:
            messages["points"] = cloud_message(header, objects)
        if objects is not None and "detections_3d" in wanted:
            messages["detections_3d"] = detections_3d_message(header, objects, identities)
        if objects is not None and "markers" in wanted:
            messages["markers"] = markers_message(header, objects, identities)
        # Before the labels that it explains.
        names = [identity.class_id or identity.id for identity in identities]
        if names != self._names:
            self._names = names
            self._label_info.publish(label_info_message(header, names))
        for name, message in messages.items():
            self._publishers[name].publish(message)


def label_info_message(header: Header, names: Sequence[str]) -> LabelInfo:
    """Returns what the labels 1 to N are called: an object's class, or else its id."""
    classes = [VisionClass(class_id=i, class_name=name) for i, name in enumerate(names, 1)]
    return LabelInfo(header=header, class_map=classes)


def segments_message(
    header: Header,
    image_hw: tuple[int, int],
    segments: mobile_sam.Segments,
    identities: Sequence[Identity],
) -> SegmentArray:
    """Returns the objects with their masks, each cropped to its region."""
    result = SegmentArray(header=header, height=image_hw[0], width=image_hw[1])
    for i, identity in enumerate(identities):
        crop = segments.crops[i].astype(np.uint8) * np.uint8(255)
        track = identity.track
        result.segments.append(
            Segment(
                state=Segment.NOT_TRACKED if track is None else _STATES[track.state],
                age=0 if track is None else track.age,
                unseen=0 if track is None else track.unseen,
                confidence=1.0 if track is None else track.confidence,
                id=identity.id,
                label=i + 1,
                class_id=identity.class_id,
                score=identity.score,
                roi=region_message(segments.boxes[i]),
                area=int(segments.area[i]),
                predicted_iou=float(segments.predicted_iou[i]),
                stability=float(segments.stability[i]),
                mask=image_message(crop, "mono8", header),
            )
        )
    return result


def detections_message(
    header: Header, segments: mobile_sam.Segments, identities: Sequence[Identity]
) -> Detection2DArray:
    """Returns the boxes of the masks; an object with an empty mask has none."""
    result = Detection2DArray(header=header)
    for i, identity in enumerate(identities):
        if not segments.area[i]:
            continue
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = identity.class_id
        hypothesis.hypothesis.score = identity.score
        result.detections.append(
            Detection2D(
                header=header,
                results=[hypothesis],
                bbox=bounding_box_message(segments.boxes[i]),
                id=identity.id,
            )
        )
    return result


def detections_3d_message(
    header: Header, objects: Sequence[Solid], identities: Sequence[Identity]
) -> Detection3DArray:
    """Returns upright boxes around what is seen of the objects, and their mean as their place."""
    result = Detection3DArray(header=header)
    for solid in objects:
        identity = identities[solid.label - 1]
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = identity.class_id
        hypothesis.hypothesis.score = identity.score
        place = hypothesis.pose.pose.position
        place.x, place.y, place.z = (float(v) for v in solid.points.mean(axis=0))
        detection = Detection3D(header=header, results=[hypothesis], id=identity.id)
        centre, size = detection.bbox.center.position, detection.bbox.size
        centre.x, centre.y, centre.z = (float(v) for v in solid.centre)
        size.x, size.y, size.z = (float(v) for v in solid.size)
        result.detections.append(detection)
    return result
