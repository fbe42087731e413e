"""Steps that survive an interruption, and the lock that keeps two runs apart."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from ros_environment.reporting import EnvironmentFailure, say


class Ledger:
    """Which steps were started and which are done, on disk, so that a later run knows.

    A step that was started and neither finished nor failed was interrupted: what it made cannot
    be trusted.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def done(self, step: str) -> str | None:
        """What `step` was done for (its fingerprint), or None."""
        path = self.directory / f"{step}.done"
        return path.read_text() if path.exists() else None

    def interrupted(self) -> list[str]:
        """Steps that were started and did not come to an end."""
        return sorted(path.stem for path in self.directory.glob("*.started"))

    def clear(self) -> None:
        """Forgets everything."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def perform(self, step: str, fingerprint: str, action: Callable[[], None]) -> bool:
        """Runs `action` unless `step` is done for `fingerprint`; returns whether it ran."""
        if self.done(step) == fingerprint:
            return False
        self.directory.mkdir(parents=True, exist_ok=True)
        started, done = self.directory / f"{step}.started", self.directory / f"{step}.done"
        done.unlink(missing_ok=True)
        started.touch()
        try:
            action()
        except EnvironmentFailure:
            started.unlink()  # it failed, but came to an end: the next run may try it again
            raise
        partial = done.with_suffix(".partial")
        partial.write_text(fingerprint)
        partial.replace(done)
        started.unlink()
        return True


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int]:
    """Holds a lock that other runs wait for; yields the descriptor, to be inherited by children.

    Children hold it too, so that a pip left behind by a killed run is waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another run is making this environment; waiting for it (lock: {path})")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
