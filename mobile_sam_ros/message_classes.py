"""The classes that messages are made of: rclpy's in the node, plain ones where there is no ROS.

What makes messages takes a `ClassOf`, and knows no more about where they go.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

ClassOf = Callable[[str], Any]
"""Returns the class of a message type by its name, as `sensor_msgs/msg/Image`."""


@cache
def ros_class(name: str) -> Any:
    """Returns rclpy's class of a message type.

    Raises:
        ImportError: its package is not there.
        AttributeError: the package has no such message.
    """
    package, _, kind = name.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), kind)
