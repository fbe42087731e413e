"""What is done of a bag so far, on disk after each image: who is killed can go on from there."""

from __future__ import annotations

import io
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

State = dict[str, NDArray[Any]]
_TABLES = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS results (
    number INTEGER PRIMARY KEY, log INTEGER NOT NULL, stamp INTEGER NOT NULL, segments BLOB
);
CREATE TABLE IF NOT EXISTS problems (number INTEGER NOT NULL, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS checkpoints (number INTEGER PRIMARY KEY, state BLOB NOT NULL);
"""


class JournalError(Exception):
    """A journal that cannot be gone on with; the message names the file and the difference."""


@dataclass(frozen=True)
class Result:
    """What became of an image.

    log: its log time, nanoseconds.
    stamp: of its header, nanoseconds; 0 if it could not be read.
    segments: its mobile_sam_ros/msg/SegmentArray, serialised; None if it could not be read.
    """

    log: int
    stamp: int
    segments: bytes | None


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
            if not len(self):  # nothing depends on what was wanted before
                self._database.execute("DELETE FROM settings")
            self.agree(settings)
        except sqlite3.Error as error:
            self._database.close()
            why = "another process is at work on it" if "locked" in str(error) else "cannot be used"
            raise JournalError(f"{path}: {why}: {error}") from error
        except JournalError:
            self._database.close()
            raise

    def agree(self, settings: Mapping[str, str]) -> None:
        """Keeps settings, or makes sure that they are those that were kept.

        Raises:
            JournalError: one is another.
        """
        known = dict(self._database.execute("SELECT name, value FROM settings"))
        for name, now in settings.items():
            before = known.setdefault(name, now)
            if before != now:
                raise JournalError(
                    f"{self._path.parent}: was begun with {name} {before or 'not set'}, and now it "
                    f"is {now or 'not set'}: go on as it was begun, or begin anew with --restart"
                )
        rows = list(known.items())
        with self._transaction():
            self._database.executemany("INSERT OR IGNORE INTO settings VALUES (?, ?)", rows)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN")
        with self._database:  # commits, or takes back
            yield

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()

    def __len__(self) -> int:
        """The number of images that are done."""
        # They are numbered without gaps: counting would read them all, for each image.
        query = "SELECT COALESCE(MAX(number) + 1, 0) FROM results"
        return self._database.execute(query).fetchone()[0]

    def add(self, number: int, result: Result, problems: Sequence[str] = ()) -> None:
        """Keeps what became of an image, and what was wrong with it or along with it."""
        segments = None if result.segments is None else zlib.compress(result.segments, 1)
        row = (number, result.log, result.stamp, segments)
        with self._transaction():
            self._database.execute("INSERT INTO results VALUES (?, ?, ?, ?)", row)
            self._add_problems(number, problems)

    @property
    def is_complete(self) -> bool:
        """Whether all images are done."""
        return bool(self._database.execute("PRAGMA user_version").fetchone()[0])

    def complete(self, problems: Sequence[str]) -> None:
        """Keeps that all images are done, and what is wrong beyond the last one."""
        with self._transaction():
            self._add_problems(len(self), problems)
            self._database.execute("PRAGMA user_version = 1")

    def _add_problems(self, number: int, problems: Sequence[str]) -> None:
        rows = [(number, problem) for problem in problems]
        self._database.executemany("INSERT INTO problems VALUES (?, ?)", rows)

    def problems(self) -> list[str]:
        """Returns all that was wrong, in the order of the images."""
        query = "SELECT text FROM problems ORDER BY number, rowid"
        return [text for (text,) in self._database.execute(query)]

    def result(self, number: int) -> Result | None:
        """Returns what became of an image, None if it is not done."""
        query = "SELECT log, stamp, segments FROM results WHERE number = ?"
        row = self._database.execute(query, (number,)).fetchone()
        if row is None:
            return None
        log, stamp, segments = row
        return Result(log, stamp, None if segments is None else zlib.decompress(segments))

    def moments(self, since: int) -> list[tuple[int, int]]:
        """Returns log time and stamp of the images that are done, from a log time on."""
        query = "SELECT log, stamp FROM results WHERE log >= ? ORDER BY number"
        return self._database.execute(query, (since,)).fetchall()

    def unreadable(self) -> int:
        """Returns how many of the images that are done could not be read."""
        query = "SELECT COUNT(*) FROM results WHERE segments IS NULL"
        return self._database.execute(query).fetchone()[0]

    def span(self) -> tuple[int, int]:
        """Returns the log times of the first and the last image that are done."""
        return self._database.execute("SELECT MIN(log), MAX(log) FROM results").fetchone()

    def checkpoint(self, state: State) -> None:
        """Keeps what is needed to go on after the last result."""
        file = io.BytesIO()
        np.savez_compressed(file, **state)  # type: ignore[arg-type]
        row = (len(self) - 1, file.getvalue())
        with self._transaction():
            self._database.execute("DELETE FROM checkpoints")
            self._database.execute("INSERT INTO checkpoints VALUES (?, ?)", row)

    def back_to_checkpoint(self) -> State | None:
        """Forgets the results since the last checkpoint, and returns what that kept; None if there
        is none, and then all results are gone."""
        row = self._database.execute("SELECT number, state FROM checkpoints").fetchone()
        number, state = row or (-1, None)
        with self._transaction():
            for table in ("results", "problems"):
                self._database.execute(f"DELETE FROM {table} WHERE number > ?", (number,))
        if state is None:
            return None
        with np.load(io.BytesIO(state), allow_pickle=False) as arrays:
            return dict(arrays)
