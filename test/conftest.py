"""What all tests share: DDS of their own, so that nothing else on the network is heard."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_held = []  # open files: their locks last as long as this process


def free_domain() -> int:
    """Takes a DDS domain that no other test run on this machine uses."""
    for domain in range(20, 100):
        path = Path(tempfile.gettempdir()) / f"mobile_sam_ros-test-domain-{domain}.lock"
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _held.append(file)
        return domain
    raise RuntimeError("no DDS domain is free")


def pytest_configure() -> None:
    """Sets what DDS reads when the first node is made, here and in processes started from here."""
    os.environ["ROS_DOMAIN_ID"] = str(free_domain())
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["FASTDDS_BUILTIN_TRANSPORTS"] = "LARGE_DATA"


@pytest.fixture
def ros() -> Iterator[None]:
    """An initialised rclpy."""
    import rclpy

    rclpy.init()
    yield
    rclpy.try_shutdown()
