"""Child processes that are watched while they run and surely gone afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

GRACE_SECONDS = 5.0


class ChildDied(Exception):
    """A child ended that should not have; the text says which, how, and its last words."""


class Children:
    """Processes by name, each with a file of all that it says."""

    def __init__(self, logs: Path, environ: Mapping[str, str]) -> None:
        """Starts nothing yet.

        Args:
            logs: existing folder for a file a child.
            environ: variables of the children.
        """
        self._logs = logs
        self._environ = dict(environ)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, module: str, arguments: Sequence[str] = ()) -> None:
        """Runs a Python module."""
        with self._log(name).open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "mobile_sam_ros.demo.child", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environ,
                # Ctrl-C in the terminal is for the parent, which ends the children in order.
                start_new_session=True,
            )

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def finished(self, name: str) -> bool:
        """Returns whether a child has ended by itself, successfully."""
        return self._processes[name].poll() == 0

    def check(self, may_finish: str = "") -> None:
        """Looks after the children.

        Args:
            may_finish: the one that may have ended, if successfully.

        Raises:
            ChildDied: one has ended.
        """
        for name, process in self._processes.items():
            status = process.poll()
            if status is not None and not (status == 0 and name == may_finish):
                raise ChildDied(
                    f"{name} {_how(status)}. Its last words, in {self._log(name)}:\n"
                    + last_lines(self._log(name))
                )

    def end(self, *names: str) -> None:
        """Tells the children to end, and waits until they have; none: all that still run.

        Raises:
            ChildDied: one had to be killed, or failed at its end.
        """
        ending = [name for name in names or self._processes if name in self._processes]
        running = [name for name in ending if self._processes[name].poll() is None]
        for name in running:
            self._processes[name].send_signal(signal.SIGINT)
        deadline = time.monotonic() + GRACE_SECONDS
        killed = []
        for name in running:
            try:
                self._processes[name].wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._processes[name].kill()
                self._processes[name].wait()
                killed.append(name)
        gone = {name: self._processes.pop(name) for name in ending}
        for name in running:
            status = gone[name].returncode
            if status:
                reason = f"did not end within {GRACE_SECONDS:g} s and was killed"
                raise ChildDied(
                    f"{name} {reason if name in killed else _how(status)}. Its last words, in "
                    f"{self._log(name)}:\n{last_lines(self._log(name))}"
                )


def _how(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"


def last_lines(file: Path, number: int = 20) -> str:
    """Returns the end of a text file, indented."""
    lines = file.read_text(errors="replace").splitlines()[-number:]
    return "\n".join(f"    {line}" for line in lines) or "    (nothing)"


@contextmanager
def children(logs: Path, environ: Mapping[str, str]) -> Iterator[Children]:
    """Yields children that are all gone afterwards, whatever happens."""
    result = Children(logs, environ)
    try:
        yield result
    finally:
        # A second Ctrl-C must not leave some behind; it will not take longer than the grace.
        before = {
            number: signal.signal(number, signal.SIG_IGN)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            # All are gone after it; what they say while they are torn down explains nothing.
            with suppress(ChildDied):
                result.end()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
