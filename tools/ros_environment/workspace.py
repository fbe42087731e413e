"""The built colcon workspace: our package, linked to the checkout, and vision_msgs if needed."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from ros_environment.distribution import provides
from ros_environment.layout import Layout
from ros_environment.plan import Plan
from ros_environment.runner import Runner
from ros_environment.variables import base_prefixes, command_environ

# Whatever changes the build: the contents of these, and the names of the files in those (their
# contents are linked, not copied).
CONTENTS = ("CMakeLists.txt", "package.xml", "cmake", "msg", "srv", "interfaces")
NAMES = ("mobile_sam", "mobile_sam_ros", "launch", "config")
SHOWN = re.compile(r"Starting|Finished|Failed|Summary|.*[Ee]rror")


def source_fingerprint(checkout: Path) -> str:
    """Hash of everything in the checkout that a build depends on."""
    digest = hashlib.sha256()
    for name in (*CONTENTS, *NAMES):
        top = checkout / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if "__pycache__" in path.parts or not path.is_file():
                continue
            digest.update(f"{path.relative_to(checkout)}\0".encode())
            if name in CONTENTS:
                digest.update(path.read_bytes())
    return digest.hexdigest()


def base_paths(checkout: Path, prefixes: list[str]) -> list[Path]:
    """Packages to build: ours, and the repository's vision_msgs where there is no real one."""
    if provides(prefixes, "vision_msgs"):
        return [checkout]
    return [checkout, checkout / "interfaces/vision_msgs"]


def build_advice(output: str) -> str:
    """What to do about a build that failed with this output."""
    missing = re.search(r'By not providing "Find(\w+)\.cmake"', output)
    if missing:
        package = missing[1].replace("_", "-")
        return (
            f"The ROS package {missing[1]} is missing. On a ROS distribution: sudo apt-get install "
            f"ros-$ROS_DISTRO-{package}, or rosdep install --from-paths . --ignore-src"
        )
    if "No space left on device" in output:
        return "The disk is full: make room, or set MOBILE_SAM_ROS_CACHE to a larger one."
    return "This is a fault in CMakeLists.txt, package.xml, msg/ or srv/, or in the compiler."


def build_workspace(plan: Plan, layout: Layout, checkout: Path, run: Runner) -> None:
    """Builds with colcon into the cache, with links into the checkout."""
    paths = base_paths(checkout, base_prefixes(plan, layout))
    generator = [] if plan.distribution else ["-G", "Ninja"]
    command: list[str | Path] = [layout.python, "-m", "colcon"]
    command += ["--log-base", layout.workspace / "log", "build", "--base-paths", *paths]
    command += ["--build-base", layout.workspace / "build", "--install-base", layout.install]
    command += ["--merge-install", "--symlink-install", "--cmake-args", *generator]
    command += ["-DBUILD_TESTING=OFF", f"-DPython3_EXECUTABLE={layout.python}"]
    run(
        command,
        advice=build_advice,
        shown=SHOWN,
        environ=command_environ(plan, layout, os.environ, with_workspace=False),
        directory=layout.root,
    )
    # A module that left the checkout leaves a link that points nowhere.
    for path in layout.install.rglob("*"):
        if path.is_symlink() and not path.exists():
            path.unlink()
