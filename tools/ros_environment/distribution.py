"""The ROS 2 distribution that is sourced in the calling shell, if there is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path


def provides(prefixes: Iterable[str | Path], package: str) -> bool:
    """Whether a ROS package is found in one of the prefixes."""
    marker = Path("share/ament_index/resource_index/packages") / package
    return any((Path(prefix) / marker).exists() for prefix in prefixes)


def sourced_distribution(
    environ: Mapping[str, str], cache: Path
) -> tuple[str | None, tuple[str, ...]]:
    """The sourced ROS distribution and the prefixes of its workspaces, or None and nothing.

    Our own environments (below `cache`, where `make shell` may have led) are none, and neither
    are other virtual environments that hold ROS wheels.
    """
    prefixes = tuple(
        path
        for path in environ.get("AMENT_PREFIX_PATH", "").split(":")
        if path
        and not Path(path).resolve().is_relative_to(cache.resolve())
        and not (Path(path) / "pyvenv.cfg").exists()
    )
    name = environ.get("ROS_DISTRO")
    if name and provides(prefixes, "rclpy"):
        return name, prefixes
    return None, ()
