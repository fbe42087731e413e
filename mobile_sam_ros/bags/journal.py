"""What is done of a bag so far, on disk after each image: whoever is killed can go on from there."""

from __future__ import annotations

import io
import json
import sqlite3
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

State = dict[str, NDArray[Any]]
_TABLES = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS results (
    number INTEGER PRIMARY KEY, log INTEGER NOT NULL, segments BLOB, problem TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS checkpoints (number INTEGER PRIMARY KEY, state BLOB NOT NULL);
"""


class JournalError(Exception):
    """A journal that cannot be gone on with; the message names the file and the difference."""


@dataclass(frozen=True)
class Result:
    """What became of an image.

    log: its log time, nanoseconds.
    segments: its mobile_sam_ros/msg/SegmentArray, serialised; None if it could not be read.
    problem: why not.
    """

    log: int
    segments: bytes | None
    problem: str = ""


class Journal:
    """A file of results, by the number of the image from 0. A context manager."""

    def __init__(self, path: Path, settings: Mapping[str, str]) -> None:
        """Opens the journal, or begins it.

        Args:
            path: its file.
            settings: all that the results depend on.

        Raises:
            JournalError: somebody else has it open, it was begun with other settings, or it is
                damaged.
        """
        self._path = path
        self._database = sqlite3.connect(path, timeout=0.5, isolation_level=None)
        try:
            # Whole after a kill at any moment; the last few results may be gone after a power cut.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.executescript(_TABLES)
            self._check(settings)
        except sqlite3.Error as error:
            self._database.close()
            why = "another process is at work on it" if "locked" in str(error) else "cannot be used"
            raise JournalError(f"{path}: {why}: {error}") from error
        except JournalError:
            self._database.close()
            raise

    def _check(self, settings: Mapping[str, str]) -> None:
        known = dict(self._database.execute("SELECT name, value FROM settings"))
        if not known:
            rows = list(settings.items())
            self._database.executemany("INSERT INTO settings VALUES (?, ?)", rows)
            return
        for name in sorted(known.keys() | settings.keys()):
            before, now = known.get(name), settings.get(name)
            if before != now:
                raise JournalError(
                    f"{self._path.parent}: was begun with {name} {_shown(before)}, and it is "
                    f"{_shown(now)} now: go on as it was begun, or begin anew with --restart"
                )

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()

    def __len__(self) -> int:
        """The number of images that are done."""
        return self._database.execute("SELECT COUNT(*) FROM results").fetchone()[0]

    def add(self, number: int, result: Result) -> None:
        """Keeps what became of an image."""
        segments = None if result.segments is None else zlib.compress(result.segments, 1)
        row = (number, result.log, segments, result.problem)
        self._database.execute("INSERT INTO results VALUES (?, ?, ?, ?)", row)

    def result(self, number: int) -> Result:
        """Returns what became of an image.

        Raises:
            KeyError: it is not done.
        """
        query = "SELECT log, segments, problem FROM results WHERE number = ?"
        row = self._database.execute(query, (number,)).fetchone()
        if row is None:
            raise KeyError(number)
        log, segments, problem = row
        return Result(log, None if segments is None else zlib.decompress(segments), problem)

    def last(self) -> tuple[int, int]:
        """Returns the log time of the last image that is done, and how many of those that are done
        have it; 0 and 0 before the first one."""
        query = "SELECT log, COUNT(*) FROM results GROUP BY log ORDER BY MAX(number) DESC LIMIT 1"
        return self._database.execute(query).fetchone() or (0, 0)

    def problems(self) -> list[tuple[int, str]]:
        """Returns log time and problem of the images that could not be read."""
        query = "SELECT log, problem FROM results WHERE problem != '' ORDER BY number"
        return self._database.execute(query).fetchall()

    def checkpoint(self, state: State) -> None:
        """Keeps what is needed to go on after the last result."""
        file = io.BytesIO()
        np.savez_compressed(file, **state)  # type: ignore[arg-type]
        row = (len(self) - 1, file.getvalue())
        with self._database:
            self._database.execute("BEGIN")
            self._database.execute("DELETE FROM checkpoints")
            self._database.execute("INSERT INTO checkpoints VALUES (?, ?)", row)

    def back_to_checkpoint(self) -> State | None:
        """Forgets the results since the last checkpoint, and returns what that kept; None if there
        is none, and then all results are gone."""
        row = self._database.execute("SELECT number, state FROM checkpoints").fetchone()
        number, state = row or (-1, None)
        self._database.execute("DELETE FROM results WHERE number > ?", (number,))
        if state is None:
            return None
        with np.load(io.BytesIO(state), allow_pickle=False) as arrays:
            return dict(arrays)


def _shown(value: str | None) -> str:
    return "not set" if value is None else json.dumps(value)
