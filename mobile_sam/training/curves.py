"""Curves for TensorBoard. A training does not depend on them: without the package, or where they
cannot be written, that is said once and the training goes on."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm


class Curves:
    """One file of events. Written at once, by the thread that trains: `SummaryWriter` does it in
    one of its own, which ends with a traceback where the disk is full."""

    def __init__(self, directory: Path, step: int) -> None:
        """Begins a file; what older ones say of later steps than `step` counts no more."""
        self._file: Any = None
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2  # type: ignore[import-untyped]
            from tensorboard.summary.writer import record_writer  # type: ignore[import-untyped]
        except ImportError:
            tqdm.write("no curves: pip install tensorboard", file=sys.stderr)
            return
        self._events, self._summaries = event_pb2, summary_pb2
        now = f"{time.time():010.0f}"
        name = f"{now}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"
        self._path = directory / f"events.out.tfevents.{name}"
        try:
            self._file = record_writer.RecordWriter(self._path.open("wb"))
        except OSError as error:
            self._end(error)
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(file_version="brain.Event:2")
        self._write(step=step + 1, session_log=start)

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Adds a point to the curve of each name."""
        if self._file is not None:
            summary = self._summaries.Summary
            points = [summary.Value(tag=name, simple_value=value) for name, value in values.items()]
            self._write(step=step, summary=summary(value=points))

    def close(self) -> None:
        """Ends the file."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                self._end(error)

    def _write(self, **fields: Any) -> None:
        if self._file is None:
            return
        event = self._events.Event(wall_time=time.time(), **fields)
        try:
            self._file.write(event.SerializeToString())
            self._file.flush()
        except OSError as error:
            self._end(error)

    def _end(self, error: OSError) -> None:
        tqdm.write(
            f"no more curves: cannot write {self._path}: {error}; the training goes on",
            file=sys.stderr,
        )
        if self._file is not None:
            with suppress(OSError):  # it tries once more to write what is left
                self._file.close()
            self._file = None
