"""What all tests share: DDS of their own, so that nothing else on the network is heard."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import effort  # noqa: F401  its profiles are registered before the command line names one
import pytest
from domains import free_domain

_ROOM = 4 << 30  # bytes that a fuzzed test may take


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


@pytest.fixture
def participant(ros: None) -> Iterator[None]:
    """An initialised rclpy in which nodes come and go, and DDS's participant does not.

    Fast DDS now and then does not return from ending one that it has just begun
    (https://github.com/eProsima/Fast-DDS/issues/6513).
    """
    from rclpy.node import Node

    standing = Node("standing")
    yield
    standing.destroy_node()


@pytest.fixture
def limited_memory() -> Iterator[None]:
    """Lets the test take no more than some gigabytes: what wants more fails."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _ROOM, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)
