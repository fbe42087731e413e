"""What all tests share: DDS of their own, so that nothing else on the network is heard, and how
many cases hypothesis draws: few in the tests, with `--hypothesis-profile=full` a hundred thousand.
"""

import fcntl
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

_ROOM = 4 << 30  # bytes that a fuzzed test may take
_COMMON = settings(deadline=20_000, suppress_health_check=list(HealthCheck), print_blob=True)
settings.register_profile("quick", _COMMON, max_examples=60, derandomize=True, database=None)
settings.register_profile("full", _COMMON, max_examples=8000)
settings.load_profile("quick")

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


def cases(quick: int) -> int:
    """Returns how many cases a test is to draw that draws `quick` in the quick profile."""
    share = settings.default.max_examples / settings.get_profile("quick").max_examples
    return max(1, round(quick * share))


def pytest_configure() -> None:
    """Sets what DDS reads when the first node is made, here and in processes started from here."""
    os.environ["ROS_DOMAIN_ID"] = str(free_domain())
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    if os.environ.get("ROS_DISTRO") == "humble":
        os.environ["ROS_LOCALHOST_ONLY"] = "1"  # Humble's name for it, deprecated since
    os.environ["FASTDDS_BUILTIN_TRANSPORTS"] = "LARGE_DATA"


@pytest.fixture
def ros() -> Iterator[None]:
    """An initialised rclpy."""
    import rclpy

    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture
def limited_memory() -> Iterator[None]:
    """Lets the test take no more than some gigabytes: what wants more fails."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _ROOM, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)
