"""The objects in three dimensions as RViz and Foxglove draw them: boxes with names."""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.duration import Duration
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from mobile_sam.overlay import palette
from mobile_sam_ros.identity import Identity
from mobile_sam_ros.point_cloud import Solid

# Each message takes the place of the one before; this is for when none comes any more.
_LIFETIME = Duration(seconds=5).to_msg()
_ALPHA = 0.4  # what is inside a box shines through
_LEAST_SIDE = 0.001  # metres: RViz refuses what has no extent, as a front seen head-on
_TEXT_HEIGHT = 0.05  # metres


def markers_message(
    header: Header, objects: Sequence[Solid], identities: Sequence[Identity]
) -> MarkerArray:
    """Returns a box around each object, as `detections_3d_message` has it, and its class and id
    above that, both in the colour that the overlay gives it.

    Args:
        header: of the image.
        objects: whose labels name their identities.
        identities: of all objects in the image.
    """
    colours = palette(len(identities)) / 255
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for solid in objects:
        red, green, blue = (float(value) for value in colours[solid.label])
        box = _marker(header, "boxes", solid.label, Marker.CUBE)
        box.color = ColorRGBA(r=red, g=green, b=blue, a=_ALPHA)
        at, size = box.pose.position, box.scale
        at.x, at.y, at.z = (float(v) for v in solid.centre)
        size.x, size.y, size.z = (max(float(v), _LEAST_SIDE) for v in solid.size)
        name = _marker(header, "names", solid.label, Marker.TEXT_VIEW_FACING)
        name.color = ColorRGBA(r=red, g=green, b=blue, a=1.0)
        identity = identities[solid.label - 1]
        name.text = f"{identity.class_id} {identity.id}".strip()
        above = name.pose.position
        above.x, above.y, above.z = at.x, float(solid.minimum[1]) - _TEXT_HEIGHT, at.z
        name.scale.z = _TEXT_HEIGHT
        markers += [box, name]
    return MarkerArray(markers=markers)


def _marker(header: Header, kind: str, label: int, shape: int) -> Marker:
    marker = Marker(header=header, ns=kind, id=label, type=shape, action=Marker.ADD)
    marker.pose.orientation.w = 1.0
    marker.lifetime = _LIFETIME
    return marker
