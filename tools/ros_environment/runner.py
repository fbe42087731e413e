"""Runs pip and colcon: all their output in a log, the gist of it on the screen."""

from __future__ import annotations

import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ros_environment.reporting import EnvironmentFailure, say

QUIET_SECONDS = 15.0  # after which a command that prints nothing is said to be still at work
NOTHING = re.compile("(?!)")


@dataclass(frozen=True)
class Runner:
    """Runs the commands of the steps."""

    log: Path
    lock: int  # descriptor that children inherit

    def __call__(
        self,
        command: Sequence[str | Path],
        *,
        advice: Callable[[str], str],
        shown: re.Pattern[str] = NOTHING,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        """Runs `command` and waits for it.

        Args:
            command: Program and arguments.
            advice: Called with the output of a command that failed; says what to do.
            shown: Lines that match it, leading spaces apart, are shown.
            environ: Variables of the command; the caller's if None.
            directory: Where it runs; the caller's directory if None.

        Raises:
            EnvironmentFailure: it failed; the message has the end of its output and the advice.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        words = [str(word) for word in command]
        lines: list[str] = []
        with self.log.open("a") as log:
            log.write(f"\n$ {shlex.join(words)}\n")
            log.flush()
            process = subprocess.Popen(
                words,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                env=environ,
                cwd=directory,
                pass_fds=(self.lock,),
            )
            assert process.stdout is not None
            pulse = _Pulse(Path(words[0]).name)
            try:
                for line in process.stdout:
                    log.write(line)
                    lines.append(line.rstrip())
                    if shown.match(line.strip()):
                        say("  " + line.strip()[:110])
                        pulse.reset()
            except BaseException:
                process.terminate()
                process.wait()
                raise
            finally:
                pulse.stop()
            if process.wait():
                tail = [f"  | {text}" for text in lines[-15:]]
                raise EnvironmentFailure(
                    "\n".join(
                        [
                            f"{shlex.join(words[:4])} … failed:",
                            *tail,
                            advice("\n".join(lines)),
                            f"The whole output: {self.log}",
                        ]
                    )
                )


class _Pulse:
    """Says every now and then that a silent command is still at work."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._begin = self._last = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def reset(self) -> None:
        self._last = time.monotonic()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stopped.wait(1.0):
            now = time.monotonic()
            if now - self._last >= QUIET_SECONDS:
                say(f"  … still at work, {now - self._begin:.0f} s")
                self._last = now
