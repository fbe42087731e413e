"""The virtual environment and what pip installs into it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ros_environment.layout import Layout
from ros_environment.plan import Plan
from ros_environment.runner import Runner
from ros_environment.variables import clean_environ

# Of pip's several hundred lines: downloads of a megabyte and more, and what matters otherwise.
SHOWN = re.compile(
    r"Downloading .*\d [MG]B|Using cached .*\d [MG]B|Installing|Successfully|Preparing"
    r"|WARNING: Retrying|ERROR"
)
NETWORK_SIGNS = (
    "WARNING: Retrying",
    "NewConnectionError",
    "ConnectTimeoutError",
    "NameResolutionError",
    "Read timed out",
    "ReadTimeoutError",
    "ProxyError",
    "SSLError",
)


def pip_advice(output: str) -> str:
    """What to do about a pip that failed with this output."""
    if "No space left on device" in output:
        return (
            "The disk is full: make room, or set MOBILE_SAM_ROS_CACHE (environments), "
            "PIP_CACHE_DIR (downloads) and TMPDIR to a directory on a larger one. Then run this "
            "again."
        )
    if any(sign in output for sign in NETWORK_SIGNS):
        return (
            "The package index is out of reach. Check the network, and behind a proxy or a mirror "
            "pip's settings (python3 -m pip config list; https_proxy, PIP_INDEX_URL). Then run "
            "this again: what was downloaded is kept."
        )
    if "No matching distribution found" in output:
        return (
            "The package index that pip is set to (python3 -m pip config list) lacks a package, "
            "or has it for other versions of Python only. With a mirror, check that it is "
            "complete; else report this as a fault of this project."
        )
    return "Run this again; if it fails in the same way, report it as a fault of this project."


def venv_advice(output: str) -> str:
    """What to do about a virtual environment that could not be made."""
    if "ensurepip" in output:
        return "Install Python's venv module: sudo apt-get install python3-venv"
    return "Check that the directory can be written to, or set MOBILE_SAM_ROS_CACHE to another."


def make_venv(plan: Plan, layout: Layout, run: Runner) -> None:
    """Makes an empty virtual environment; on a distribution, one that sees its packages."""
    options = ["--system-site-packages"] if plan.distribution else []
    run(
        [plan.python, "-m", "venv", "--clear", *options, layout.venv],
        advice=venv_advice,
        environ=clean_environ(os.environ),
    )


def install_packages(
    layout: Layout, run: Runner, requirements: Iterable[str], *options: str
) -> None:
    """Installs requirements with pip."""
    # pip compiles nothing: Python does at first import, and torch alone has 10,000 files.
    command: list[str | Path] = [layout.python, "-m", "pip", "install", "--no-compile"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    run(
        [*command, *options, *requirements],
        advice=pip_advice,
        shown=SHOWN,
        environ=clean_environ(os.environ),
    )
