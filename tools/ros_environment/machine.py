"""What a machine must have before an environment can be made on it."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from ros_environment.interpreters import succeeds
from ros_environment.plan import Plan
from ros_environment.reporting import EnvironmentFailure

NEEDED_BYTES = 9 * 2**30  # torch with its CUDA libraries, and room to unpack them
OPEN_PYTHON_HEADER = """
import os, sysconfig
open(os.path.join(sysconfig.get_paths()["include"], "Python.h"))
"""


def check_machine(plan: Plan, root: Path) -> None:
    """Says what the machine lacks, all of it at once.

    Args:
        plan: What is to be made.
        root: Directory it is to be made in; need not exist.

    Raises:
        EnvironmentFailure: something is missing.
    """
    problems = []
    packages = []
    if not plan.distribution and (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        problems.append(
            "the ROS 2 wheels are for x86-64 Linux only; on this machine install and source a "
            "ROS 2 distribution"
        )
    if not succeeds(plan.python, "import venv, ensurepip"):
        problems.append(f"{plan.python} has no venv module")
        packages.append("python3-venv")
    if not succeeds(plan.python, OPEN_PYTHON_HEADER):
        problems.append(f"{plan.python} has no C headers (Python.h)")
        packages.append("python3-dev")
    if not (shutil.which("c++") and shutil.which("cc")):
        problems.append("there is no C and C++ compiler (cc, c++)")
        packages.append("build-essential")
    if plan.distribution and not shutil.which("cmake"):  # else it comes as a wheel
        problems.append("there is no cmake")
        packages.append("cmake")
    if packages:
        problems.append(f"install with: sudo apt-get install {' '.join(packages)}")
    existing = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < NEEDED_BYTES:
        problems.append(
            f"{existing} has {free / 2**30:.1f} GiB free and {NEEDED_BYTES / 2**30:.0f} are "
            "needed: make room, or set MOBILE_SAM_ROS_CACHE to a directory on a larger disk"
        )
    if problems:
        raise EnvironmentFailure("\n  - ".join(["this machine is not ready:", *problems]))
