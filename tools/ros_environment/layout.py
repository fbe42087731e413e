"""Where everything lies: below one cache directory, nothing in the checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ros_environment.plan import Plan


def cache_root(environ: Mapping[str, str] = os.environ) -> Path:
    """Directory that holds all environments of this project."""
    if environ.get("MOBILE_SAM_ROS_CACHE"):
        return Path(environ["MOBILE_SAM_ROS_CACHE"]).expanduser().resolve()
    base = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "mobile_sam_ros"


@dataclass(frozen=True)
class Layout:
    """Where the parts of one environment lie."""

    root: Path  # of the environment; shared by all checkouts with an equal plan
    workspace: Path  # what colcon builds; this checkout's own, with links into it

    @property
    def venv(self) -> Path:
        return self.root / "venv"

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python3"

    @property
    def install(self) -> Path:
        return self.workspace / "install"


def lay_out(plan: Plan, checkout: Path, cache: Path) -> Layout:
    """Where the environment of `plan` and the workspace of `checkout` lie."""
    root = cache / plan.key
    built_from = repr((str(checkout), plan.distribution_prefixes)).encode()
    return Layout(root, root / f"workspace-{hashlib.sha256(built_from).hexdigest()[:12]}")


def environments(cache: Path) -> list[Path]:
    """The environments in a cache directory: what this tool made, and nothing else there."""
    if not cache.is_dir():
        return []
    return sorted(path for path in cache.iterdir() if (path / "lock").is_file())


def discard(path: Path) -> None:
    """Removes a directory, or at least moves it out of the way at once.

    What a killed run left behind may still be writing in it: it may go on doing so.
    """
    if path.exists():
        trash = path.with_name(f"discarded-{path.name}-{os.getpid()}-{time.monotonic_ns()}")
        path.rename(trash)
    for trash in path.parent.glob(f"discarded-{path.name}-*"):
        shutil.rmtree(trash, ignore_errors=True)


def remove_environments(cache: Path) -> list[Path]:
    """Removes all environments and returns where they were; other files there are kept."""
    removed = environments(cache)
    for path in removed:
        discard(path)
    return removed
