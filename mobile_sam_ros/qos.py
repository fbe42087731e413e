"""QoS profiles, made anew for each topic.

rclpy writes the overrides of a topic (`qos_overrides.…`) into the profile that it is given: of one
that topics share, the others would have them as well.
"""

from __future__ import annotations

from copy import copy

from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data


def sensor_data() -> QoSProfile:
    """Returns the profile of a camera's images (REP 2003): best effort, the last few."""
    return copy(qos_profile_sensor_data)


def reliable(depth: int) -> QoSProfile:
    """Returns the profile of what is not to be lost, the last `depth` messages. Subscribers of
    either kind match it (REP 2003)."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE
    )
