"""What all tests share: DDS of their own, so that nothing else on the network is heard."""

import os
from collections.abc import Iterator

import pytest
from domains import free_domain


def pytest_configure() -> None:
    """Sets what DDS reads when the first node is made, here and in processes started from here."""
    os.environ["ROS_DOMAIN_ID"] = str(free_domain())
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    if os.environ.get("ROS_DISTRO") == "humble":
        os.environ["ROS_LOCALHOST_ONLY"] = "1"  # Humble's name for it, deprecated since
    os.environ["FASTDDS_BUILTIN_TRANSPORTS"] = "LARGE_DATA"
    # Messages check the types of what they are given, as they always do on Humble.
    os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"


@pytest.fixture
def ros() -> Iterator[None]:
    """An initialised rclpy."""
    import rclpy

    rclpy.init()
    yield
    rclpy.try_shutdown()
