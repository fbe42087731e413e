"""What users of such nodes complain of most: that nothing comes, and nothing is said."""

from __future__ import annotations

from time import monotonic

from rclpy.node import Node

_SHORTEST_SECONDS = 2.0


class Silence:
    """Notices that no images come, and says so once, with the likely cause."""

    def __init__(self, node: Node, topic: str) -> None:
        """Watches for what `heard` is told of.

        Args:
            node: in whose name it is said.
            topic: full name of the images' topic.
        """
        self._node, self._topic = node, topic
        self._heard_at = monotonic()
        self._said = False

    def heard(self) -> None:
        """An image has come, or listening has begun."""
        self._heard_at = monotonic()

    def check(self, warn_after: float) -> bool:
        """Returns whether it is silent.

        Args:
            warn_after: seconds after which that is said; 0: never.
        """
        if monotonic() - self._heard_at <= max(warn_after, _SHORTEST_SECONDS):
            self._said = False
            return False
        if warn_after and not self._said:
            self._said = True
            cause = self._likely_cause()
            self._node.get_logger().warning(
                f"no image on {self._topic} for {warn_after:g} s: {cause}"
            )
        return True

    def _likely_cause(self) -> str:
        publishers = self._node.get_publishers_info_by_topic(self._topic)
        if not publishers:
            return "nobody publishes it. Is the camera running, and the remapping right?"
        return (
            f"it has {len(publishers)} publisher(s) of type {publishers[0].topic_type}. Do type "
            "and QoS fit? If the images are large, does the camera's process have Fast DDS's "
            "profile config/fastdds_large_images.xml?"
        )
