"""DDS domains that nobody else on this machine is in."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

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
