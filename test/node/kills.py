"""The node told to end, or killed, at random moments: it ends in time, its caches stay whole, and
the next start works.

    python3 tools/environment.py run -- python3 test/node/kills.py --times 200

A camera and a detector run all the while. Moments are spread over imports, loading, compiling for
OpenVINO (into a cache of this run's own, now and then emptied), and work.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]
    import conftest

    conftest.pytest_configure()

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
MOST_SECONDS = 2.0  # to end, but for SIGKILL, which nobody can refuse
_DIGEST_BYTES = 32
_STAGES = (
    ("work", "first image of its size"),
    ("active", "waiting for images"),
    ("loaded", "weights demo on"),
    ("imports", ""),
)


@dataclass(frozen=True)
class End:
    """How one node ended.

    stage: how far it had got.
    signal: what it was sent.
    status: its exit status.
    seconds: until it was gone.
    problem: what is not as it should be; empty if nothing.
    """

    stage: str
    signal: signal.Signals
    status: int
    seconds: float
    problem: str


_NODE = ("-m", "mobile_sam_ros.run", "--ros-args", "-p", "weights:=demo")


@contextmanager
def process(log: Path, cache: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this test's; gone afterwards."""
    environ = os.environ | {"MOBILE_SAM_CACHE": str(cache), "RCUTILS_COLORIZED_OUTPUT": "0"}
    paths = (str(HERE), str(HERE.parent), str(HERE.parent.parent), environ.get("PYTHONPATH", ""))
    environ["PYTHONPATH"] = os.pathsep.join(paths)
    with log.open("w") as file:
        found = subprocess.Popen(
            [sys.executable, *words],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environ,
            # It is ignored by what was started in the background, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    try:
        yield found
    finally:
        found.kill()
        found.wait()


def whole(cache: Path) -> bool:
    """Whether all compiled models that the cache has are as they were written."""
    for path in cache.rglob("*.bin"):
        data = path.read_bytes()
        if hashlib.sha256(data[_DIGEST_BYTES:]).digest() != data[:_DIGEST_BYTES]:
            return False
    return True


def end_at(seconds: float, number: signal.Signals, log: Path, cache: Path) -> End:
    """Starts a node, sends it a signal after some seconds, and looks at what is left."""
    with process(log, cache, *_NODE) as node:
        time.sleep(seconds)
        assert node.poll() is None, log.read_text()
        text = log.read_text()
        stage = next(name for name, said in _STAGES if said in text)
        begin = time.monotonic()
        node.send_signal(number)
        try:
            status = node.wait(10 * MOST_SECONDS)
        except subprocess.TimeoutExpired:
            return End(stage, number, 0, 10 * MOST_SECONDS, "hangs")
        took = time.monotonic() - begin
    problem = ""
    text = log.read_text()
    # While Python imports, before the node's handlers stand, it ends as any program does.
    early = stage == "imports"
    allowed = {-number} if number == signal.SIGKILL else {0, -number, 1, 130} if early else {0}
    if took > MOST_SECONDS:
        problem = f"took {took:.1f} s"
    elif status not in allowed:
        problem = f"exit status {status}, and says {text[-600:]}"
    elif not early and re.search("Traceback|terminate called|Segmentation", text):
        problem = "says " + text[-300:]
    elif not whole(cache):
        problem = "the cache is damaged"
    return End(stage, number, status, took, problem)


def works(log: Path, cache: Path, seconds: float = 60.0) -> bool:
    """Whether a node starts, and gets as far as its first image."""
    with process(log, cache, *_NODE) as node:
        end = time.monotonic() + seconds
        while time.monotonic() < end and node.poll() is None:
            if _STAGES[0][1] in log.read_text():
                return "damaged" not in log.read_text()
            time.sleep(0.05)
    return False


def ends(times: int, longest: float, folder: Path, seed: int) -> Iterator[End]:
    """Ends nodes at random moments, and starts one to work after every tenth."""
    chance = random.Random(seed)
    cache = folder / "cache"
    with ExitStack() as stack:
        for kind in ("camera", "detector"):
            words = (str(HERE / "participant.py"), kind)
            stack.enter_context(process(folder / f"{kind}.log", cache, *words))
        for index in range(times):
            if index % 5 == 0:
                for path in cache.rglob("*.bin"):
                    path.unlink()
            moment = chance.uniform(0.0, longest)
            yield end_at(moment, SIGNALS[index % len(SIGNALS)], folder / "node.log", cache)
            if index % 10 == 9 or index == times - 1:
                assert works(folder / "node.log", cache), (folder / "node.log").read_text()


def main() -> int:
    """Command line; returns the exit status."""
    from mobile_sam.benchmark import machine

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--longest", type=float, default=14.0, help="seconds after the start")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"{machine()}, {time.strftime('%Y-%m-%d')}\n")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for end in ends(options.times, options.longest, Path(folder), options.seed):
            found.append(end)
            if end.problem:
                print(f"{end.signal.name} at {end.stage}: {end.problem}", flush=True)
    print("| signal | stage | times | slowest, s | exit statuses | problems |\n"
          "|---|---|---|---|---|---|")  # fmt: skip
    for number in SIGNALS:
        for stage, _ in reversed(_STAGES):
            some = [end for end in found if (end.signal, end.stage) == (number, stage)]
            if some:
                statuses = ", ".join(
                    f"{k} ({v})" for k, v in Counter(e.status for e in some).items()
                )
                print(f"| {number.name} | {stage} | {len(some)} | "
                      f"{max(end.seconds for end in some):.2f} | {statuses} | "
                      f"{sum(bool(end.problem) for end in some)} |")  # fmt: skip
    return int(any(end.problem for end in found))


if __name__ == "__main__":
    sys.exit(main())
