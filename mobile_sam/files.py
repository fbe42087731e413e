"""Files that are whole or not there, also after the machine has lost its power."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file under another name, waits until it is on the disk, and renames it.

    Raises:
        OSError: it cannot be written; the one that was there before stays.
    """
    partial = path.with_name(f"partial-{path.name}")
    try:
        write(partial)
        sync(partial)
        partial.replace(path)
        sync(path.parent)  # else the name may be lost
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
