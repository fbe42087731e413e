"""Mends what the ROS wheels tell CMake.

Upstream fault: the exports of rosidl's wheels name directories of the machine they were built on.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

BUILD_HOST_PYTHON = re.compile(r"/opt/python/cp\d+-cp\d+/include/python3\.\d+")
BUILD_HOST_NUMPY = re.compile(
    r"/opt/python/cp\d+-cp\d+/lib/python3\.\d+/site-packages/numpy/_?core/include"
)
PRINT_HEADERS = """
import sysconfig, numpy
print(sysconfig.get_paths()["include"])
print(numpy.get_include())
"""


def mend_text(text: str, python_headers: str, numpy_headers: str) -> str:
    """One CMake file with the build host's directories replaced by this machine's."""
    text = BUILD_HOST_NUMPY.sub(lambda _: numpy_headers, text)
    return BUILD_HOST_PYTHON.sub(lambda _: python_headers, text)


def mend_exports(prefix: Path, python: Path) -> int:
    """Points the CMake files of a prefix at the headers of `python`; returns how many changed."""
    answer = subprocess.run(
        [python, "-c", PRINT_HEADERS], capture_output=True, text=True, check=True
    )
    python_headers, numpy_headers = answer.stdout.splitlines()
    changed = 0
    for path in (prefix / "share").rglob("*.cmake"):
        old = path.read_text()
        new = mend_text(old, python_headers, numpy_headers)
        if new != old:
            path.write_text(new)
            changed += 1
    return changed
