"""What the node says about itself on /diagnostics, once a second.

One status of one DiagnosticArray is ours: its name is `<full name of the node>: segmentation`, for
example `/sam: segmentation`. `status_values(message, "/sam")` reads it back. Its keys:

    weights, device         what runs and where; absent until configured
    device_memory_mb        what torch has allocated on a GPU; absent without one
    memory_mb               resident memory of the process
    temperature_<zone>_c    of each thermal zone of the kernel that can be read
    tracks_<state>          followed objects that are active, occluded, lost; absent until active
    window_s                seconds that rates and windowed latencies look back
    rate_received_hz        images, over the window
    rate_segmented_hz       images with results, over the window
    <counter>               every name in COUNTERS, since the start
    latency_<stage>_p<percent>_ms
                            every name in STAGES and number in PERCENTILES, over the window;
                            absent without samples in it
    latency_<stage>_p<percent>_ms_since_start
                            the same since the start, exact to 1 %; absent before the first sample

Its level is OK; WARN while no images come, the detector is gone, or a counter of PROBLEMS rose in
the window; ERROR if that was one of FAILURES. The message says which, how often, and why the last
time. So a fault shows within a second, and the level is OK again a second after the window.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

STAGES = {
    "wait": "from knowing what to segment in an image until the model takes it up",
    "convert": "message to RGB array",
    "encode": "prompts checked, image encoder; short where the image was encoded already",
    "decode": "all objects of the image in one batch",
    "publish": "composing and publishing the outputs that have subscribers",
    "total": "arrival of the image in the node to its results published",
}

COUNTERS = {
    "frames/received": "images that arrived",
    "frames/segmented": "times that results of an image were published, also empty ones",
    "frames/dropped/newer": "images with something to segment that a newer one overtook",
    "frames/dropped/stale": "images older than `stale_after` when their turn came",
    "frames/dropped/bad": "images that could not be read",
    "frames/dropped/failed": "images on which the model failed, as for lack of memory",
    "frames/dropped/unused": "images not segmented because no output had a subscriber",
    "objects/dropped": "objects left out of an image because of `max_objects`",
    "detections/unmatched": "Detection2DArray messages without an image of their stamp",
    "detections/other_frame_id": "messages whose frame_id is not that of the image of their stamp",
    "depth/missing": "images with 3-D outputs wanted, without depth of their stamp or camera_info",
    "depth/bad": "depth images or camera_info that could not be used",
    "callbacks/failed": "messages lost to an error in the node itself",
}

FAILURES = {"frames/dropped/failed", "callbacks/failed"}
PROBLEMS = FAILURES | {
    "frames/dropped/bad",
    "frames/dropped/stale",
    "objects/dropped",
    "detections/unmatched",
    "detections/other_frame_id",
    "depth/missing",
    "depth/bad",
}

WINDOW_S = 5.0
PERCENTILES = (50, 95, 99)
_REASON = 300  # characters
_STATUS_SUFFIX = ": segmentation"


class Latency:
    """Durations of one stage: the last few seconds exactly, everything since the start to 1 %."""

    _GROWTH = math.log(1.02)  # width of the histogram's buckets
    _LEAST = 1e-6  # seconds; shorter ones count as this

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque()
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float, now: float) -> None:
        """Records a duration at the monotonic time `now`."""
        self._recent.append((now, seconds))
        self.forget(now)
        self._buckets[round(math.log(max(seconds, self._LEAST) / self._LEAST) / self._GROWTH)] += 1

    def forget(self, now: float) -> None:
        """Lets go of what lies before the window."""
        while self._recent and self._recent[0][0] < now - WINDOW_S:
            self._recent.popleft()

    def recent(self, percent: float) -> float | None:
        """Returns a percentile over the window in seconds, None without samples."""
        durations = sorted(seconds for _, seconds in self._recent)
        return durations[_rank(percent, len(durations))] if durations else None

    def since_start(self, percent: float) -> float | None:
        """Returns a percentile over everything in seconds, None without samples."""
        left = _rank(percent, self._buckets.total())
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left < 0:
                return self._LEAST * math.exp(bucket * self._GROWTH)
        return None


def _rank(percent: float, count: int) -> int:
    """Index of a percentile among `count` sorted values, by the nearest-rank rule."""
    return max(0, math.ceil(percent / 100 * count) - 1)


@dataclass(frozen=True)
class Problem:
    """What is wrong now; a `level` of DiagnosticStatus and a text."""

    level: bytes
    text: str


class Statistics:
    """Counts and times what the node does. Any thread may call any method."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._started = clock()
        self._counters = Counter(dict.fromkeys(COUNTERS, 0))
        self._latencies = {stage: Latency() for stage in STAGES}
        self._times: dict[str, deque[float]] = {
            "frames/received": deque(),
            "frames/segmented": deque(),
        }
        self._problems: dict[str, deque[tuple[float, int]]] = {name: deque() for name in PROBLEMS}
        self._reasons: dict[str, str] = {}

    def count(self, counter: str, why: str = "", number: int = 1) -> None:
        """Adds to one of COUNTERS; `why` is what the user is told if it is a problem."""
        with self._lock:
            self._count(counter, number)
            if counter in PROBLEMS:
                self._problems[counter].append((self._clock(), number))
                self._reasons[counter] = why if len(why) <= _REASON else f"{why[:_REASON]} …"

    def problems(self) -> list[Problem]:
        """Returns what went wrong in the window, failures first."""
        with self._lock:
            self._forget()
            found = []
            for counter in sorted(PROBLEMS, key=lambda name: (name not in FAILURES, name)):
                number = sum(item[1] for item in self._problems[counter])
                if number:
                    failed = counter in FAILURES
                    level = DiagnosticStatus.ERROR if failed else DiagnosticStatus.WARN
                    text = f"{counter} {number} times in {WINDOW_S:g} s"
                    why = self._reasons[counter]
                    found.append(Problem(level, f"{text}: {why}" if why else text))
            return found

    def segmented(self, seconds: Mapping[str, float]) -> None:
        """Counts an image with results, and how long each of STAGES took for it."""
        with self._lock:
            self._count("frames/segmented")
            for stage, duration in seconds.items():
                self._latencies[stage].add(float(duration), self._clock())

    def values(self) -> dict[str, str]:
        """Returns rates, counters and latencies by the keys in this module's docstring."""
        with self._lock:
            self._forget()
            window = min(WINDOW_S, max(self._clock() - self._started, 1e-3))
            values = {"window_s": f"{window:.1f}"}
            for counter, times in self._times.items():
                values[f"rate_{counter.rpartition('/')[2]}_hz"] = f"{len(times) / window:.2f}"
            values |= {counter: str(number) for counter, number in self._counters.items()}
            for stage, latency in self._latencies.items():
                for percent in PERCENTILES:
                    key = f"latency_{stage}_p{percent}_ms"
                    for name, seconds in (
                        (key, latency.recent(percent)),
                        (f"{key}_since_start", latency.since_start(percent)),
                    ):
                        if seconds is not None:
                            values[name] = f"{seconds * 1e3:.3f}"
            return values

    def _count(self, counter: str, number: int = 1) -> None:
        if counter not in COUNTERS:
            raise KeyError(counter)
        self._counters[counter] += number
        if counter in self._times:
            self._times[counter].append(self._clock())
            self._forget()

    def _forget(self) -> None:
        now = self._clock()
        for times in self._times.values():
            while times and times[0] < now - WINDOW_S:
                times.popleft()
        for problem in self._problems.values():
            while problem and problem[0][0] < now - WINDOW_S:
                problem.popleft()
        for latency in self._latencies.values():
            latency.forget(now)


def status(
    node: str, values: Mapping[str, str], problems: Sequence[Problem] = ()
) -> DiagnosticStatus:
    """Makes the node's status.

    Args:
        node: full name, such as /sam.
        values: by the keys in this module's docstring.
        problems: what is wrong; the worst one gives the level.
    """
    dropped = sum(int(v) for k, v in values.items() if k.startswith("frames/dropped/"))
    summary = (
        f"{values['rate_segmented_hz']} of {values['rate_received_hz']} Hz segmented, "
        f"{dropped} dropped since the start"
    )
    return DiagnosticStatus(
        level=max((problem.level for problem in problems), default=DiagnosticStatus.OK),
        name=node + _STATUS_SUFFIX,
        message="; ".join(problem.text for problem in problems) or summary,
        hardware_id=values.get("device", ""),
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )


def find_status(message: DiagnosticArray, node: str) -> DiagnosticStatus | None:
    """Returns the status of the node with the full name `node`, None if it is not in there."""
    name = node + _STATUS_SUFFIX
    return next((status for status in message.status if status.name == name), None)


def status_values(message: DiagnosticArray, node: str) -> dict[str, str] | None:
    """Reads back the values in the status of the node `node`, None if it is not in there."""
    status = find_status(message, node)
    return None if status is None else {pair.key: pair.value for pair in status.values}
