"""What the environment of this checkout on this machine has to hold."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ros_environment.distribution import sourced_distribution
from ros_environment.interpreters import choose_python, succeeds

SCHEMA = 2  # counted up when environments are made differently


@dataclass(frozen=True)
class Plan:
    """What an environment holds. Plans of equal keys share one virtual environment."""

    python: Path
    python_version: str
    distribution: str | None  # ROS_DISTRO of the sourced distribution; None: ROS from wheels
    distribution_prefixes: tuple[str, ...]  # of it and of the workspaces on top of it
    requirements: tuple[str, ...]
    requirements_without_dependencies: tuple[str, ...]

    @property
    def key(self) -> str:
        """Directory name: readable, and different for different contents.

        The prefixes are not part of it: what pip installs does not depend on them.
        """
        contents = (
            SCHEMA,
            str(self.python),
            self.python_version,
            self.distribution,
            self.requirements,
            self.requirements_without_dependencies,
        )
        source = self.distribution or "wheels"
        digest = hashlib.sha256(repr(contents).encode()).hexdigest()[:12]
        return f"{source}-py{self.python_version}-{digest}"


def read_requirements(path: Path) -> tuple[str, ...]:
    """Requirements of a file, one a line, without comments."""
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return tuple(line for line in lines if line)


def read_setup(path: Path) -> tuple[str, ...]:
    """Requirements and those of all extras from setup.py, read without running it."""
    constants = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            constants[node.targets[0].id] = node.value
    extras = ast.literal_eval(constants["EXTRAS"])
    return (*ast.literal_eval(constants["REQUIREMENTS"]), *sum(extras.values(), []))


def make_plan(environ: Mapping[str, str], checkout: Path, cache: Path) -> Plan:
    """What the environment has to hold.

    Raises:
        EnvironmentFailure: no Python fits.
    """
    distribution, prefixes = sourced_distribution(environ, cache)
    python, version = choose_python(distribution)
    requirements = list(read_setup(checkout / "setup.py"))
    requirements += read_requirements(checkout / "tools/requirements.txt")
    if distribution:
        # The distribution's own OpenCV fits its cv_bridge, and so does its NumPy.
        if succeeds(python, "import cv2"):
            requirements = [item for item in requirements if not item.startswith("opencv")]
        if succeeds(python, "import numpy; assert numpy.__version__.startswith('1.')"):
            requirements.append("numpy<2")
    else:
        requirements += read_requirements(checkout / "tools/requirements-ros.txt")
    return Plan(
        python=python,
        python_version=f"{version[0]}.{version[1]}",
        distribution=distribution,
        distribution_prefixes=prefixes,
        requirements=tuple(requirements),
        requirements_without_dependencies=read_requirements(
            checkout / "tools/requirements-no-deps.txt"
        ),
    )
