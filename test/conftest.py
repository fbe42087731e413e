"""What all tests share: DDS of their own, so that nothing else on the network is heard."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_held: list[int] = []  # descriptors: their locks last as long as this process


def free_domain() -> int:
    """Takes a DDS domain that no other test run on this machine uses, until the process ends."""
    for domain in range(1, 101):  # above, ports of DDS collide with those that Linux hands out
        path = Path(tempfile.gettempdir()) / f"mobile_sam_ros-test-domain-{domain}.lock"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
        except PermissionError:
            continue  # another user's
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        _held.append(descriptor)
        return domain
    raise RuntimeError("no DDS domain between 1 and 100 is free")


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
