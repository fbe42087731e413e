"""What goes wrong around a node that is at work, and what it does then.

Each fault is a function of a live graph; it returns how long the diagnostics took to say so and how
long to be OK again, and raises if the node does not do as it should. `test_faults.py` runs the fast
ones; all of them, as a table:

    python3 tools/environment.py run -- python3 test/node/faults.py [name of a fault …]
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]
    import conftest

    conftest.pytest_configure()

import numpy as np  # noqa: E402
from failing_node import BROKEN, CORNER, NO_MEMORY, SLOW  # noqa: E402
from graph import (  # noqa: E402
    RELIABLE,
    SCENE,
    Peer,
    Process,
    box_detection,
    detections,
    header,
    object_box,
    peer,
    running,
    scene_image,
)
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from vision_msgs.msg import Detection2DArray  # noqa: E402

from mobile_sam.segments import tight_box  # noqa: E402
from mobile_sam_ros.conversions import image_message  # noqa: E402

OK, WARN, ERROR = 0, 1, 2
DEGRADED_SECONDS = 4.0  # until the diagnostics say so, at most: two reports, on a shared machine
OK_SECONDS = 9.0  # until they are OK again: the window, two reports, and some slack
RATE = 10.0


@dataclass
class Live:
    """A node at work: a camera and a detector publish, segments come back."""

    graph: Peer
    node: Process
    camera: bool = True
    detector: bool = True
    offset: int = 0  # nanoseconds from now to the stamps of the images
    detector_offset: int = 0  # from these to the stamps of the detections
    make_image: Callable[[int, int], Image] = scene_image
    box: tuple[float, float, float, float] = field(default_factory=lambda: object_box(0))
    sent: set[int] = field(default_factory=set)
    others: set[int] = field(default_factory=set)  # sent in another way, whose answers may be late

    @property
    def kept(self) -> list[Any]:
        """The segments that came back."""
        return self.graph.received["segments"]

    def tick(self) -> None:
        """A tenth of a second."""
        stamp = time.time_ns() + self.offset
        if self.camera:
            self.sent.add(stamp)
            self.graph.images.publish(self.make_image(0, stamp))
        if self.detector:
            found = box_detection(self.box, f"{stamp}")
            self.graph.detections.publish(detections(stamp + self.detector_offset, found))
        self.graph.spin_for(1 / RATE)
        assert self.node.process.poll() is None, self.node.log.read_text()

    def until(self, condition: Callable[[], Any], what: str, seconds: float) -> float:
        """Goes on until something is so; returns the seconds it took, `seconds` at most."""
        begin = time.monotonic()
        while not condition():
            passed = time.monotonic() - begin
            assert passed < seconds, f"not {what} in {seconds} s, but {self.graph.level()}"
            self.tick()
        return time.monotonic() - begin

    def go_on(self, seconds: float) -> None:
        """Goes on for some seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.tick()

    def rate(self, seconds: float) -> float:
        """Goes on for some seconds, and returns how many images a second came back."""
        begin, count = time.monotonic(), len(self.kept)
        self.go_on(seconds)
        return (len(self.kept) - count) / (time.monotonic() - begin)

    def says(self, level: int, text: str = "", seconds: float = DEGRADED_SECONDS) -> float:
        """Goes on until the diagnostics have a level and a text; returns how long it took."""

        def said() -> bool:
            found, message = self.graph.level()
            return found == level and text in message

        return self.until(said, f"{level} {text!r}", seconds)

    def serves(self, seconds: float = 3.0) -> None:
        """The next images are served: three of those sent from now on, each as it was asked."""
        self.graph.spin_for(0.3)
        before = set(self.sent)
        del self.kept[:]
        self.until(lambda: len(self.answered(before)) >= 3, "served", seconds)

    def answered(self, before: set[int]) -> list[int]:
        """Stamps of images with segments, without those in `before`; checks each answer."""
        stamps = []
        for message in self.kept:
            stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            if stamp in self.others:
                continue
            assert stamp in self.sent, f"segments of an image that was not sent: {stamp}"
            ids = [segment.id for segment in message.segments]
            assert ids in ([], [f"{stamp}"]), f"segments of {stamp} for {ids}"
            if ids and stamp not in before:
                stamps.append(stamp)
        return stamps


@dataclass(frozen=True)
class Outcome:
    """What happened: `said` in the diagnostics, after how many seconds; and when it was over."""

    said: str
    degraded: float | None = None
    recovered: float | None = None


@contextmanager
def live(log: Path, program: str = "", **parameters: Any) -> Iterator[Live]:
    """A node at work, which serves and says that all is well."""
    settings = {"stale_after": 5.0, "silence_warning": 2.0} | parameters
    how = {"program": (str(HERE / program),)} if program else {}
    paths = os.pathsep.join((str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")))
    with running(log, environ={"PYTHONPATH": paths}, **how, **settings) as node:
        with peer(node) as graph:
            graph.listen("segments")
            graph.stands(graph.images, graph.detections)
            found = Live(graph, node)
            found.serves(20.0)
            found.says(OK, "segmented", OK_SECONDS)
            yield found


# --- The faults -----------------------------------------------------------------------------


def camera_stops(at: Live) -> Outcome:
    """For four seconds."""
    at.camera = at.detector = False
    degraded = at.says(WARN, "no images", DEGRADED_SECONDS + 2)
    at.camera = at.detector = True
    recovered = at.says(OK, "segmented", OK_SECONDS)
    at.serves()
    return Outcome("no images", degraded, recovered)


def resolution_changes(at: Live) -> Outcome:
    """From image to image, and back."""
    at.box = (20, 20, 90, 90)  # in all of them
    for size in ((480, 640), (120, 160), (240, 320)):
        at.make_image = lambda index, stamp, s=size: scene_image(index, stamp, "camera", s)
        at.serves(5.0)
        assert (at.kept[-1].height, at.kept[-1].width) == size
    assert at.graph.level()[0] == OK
    return Outcome("nothing: each image is served in its size")


def encoding_changes(at: Live) -> Outcome:
    """To encodings that are read, to one that is not, and back."""
    rgb = SCENE().frame(0).image
    variants = {"bgr8": rgb[..., ::-1], "mono8": rgb[..., 1], "rgb8": rgb}
    for encoding, pixels in variants.items():
        at.make_image = lambda _, stamp, e=encoding, p=pixels: image_message(p, e, header(stamp))
        at.serves()
    at.make_image = lambda _, stamp: image_message(rgb, "klingon8", header(stamp))
    degraded = at.says(WARN, "encoding 'klingon8'")
    at.make_image = scene_image
    at.serves()
    return Outcome("encoding 'klingon8'", degraded, at.says(OK, "segmented", OK_SECONDS))


def images_are_cut_off(at: Live) -> Outcome:
    """Every one, for a while."""

    def cut(index: int, stamp: int) -> Image:
        image = scene_image(index, stamp)
        image.data = image.data[:1000]
        return image

    at.make_image = cut
    degraded = at.says(WARN, "has 1000 bytes of data")
    at.make_image = scene_image
    at.serves()
    return Outcome("has 1000 bytes of data", degraded, at.says(OK, "segmented", OK_SECONDS))


def detector_goes(at: Live) -> Outcome:
    """In good order, and comes back."""
    at.detector = False
    at.graph.destroy_publisher(at.graph.detections)
    degraded = at.says(WARN, "nobody publishes /detections any more")
    at.graph.detections = at.graph.create_publisher(Detection2DArray, "detections", RELIABLE)
    at.graph.stands(at.graph.detections)
    at.detector = True
    at.serves()
    return Outcome("nobody publishes", degraded, at.says(OK, "segmented", OK_SECONDS))


def detector_floods(at: Live) -> Outcome:
    """With 1000 messages a second, half of them for images that are not."""
    at.detector = False
    with participant(at, "flood"):
        degraded = at.says(WARN, "detections/unmatched", 20.0)
        at.go_on(1.0)
        unmatched, before = at.graph.number("detections/unmatched"), set(at.sent)
        del at.kept[:]
        begin = time.monotonic()
        at.go_on(5.0)
        seconds = time.monotonic() - begin
        missed = (at.graph.number("detections/unmatched") - unmatched) / seconds
        rate = len(set(at.answered(before))) / seconds
        assert rate > RATE / 50, f"only {rate:.1f} images a second were served"
    at.detector = True
    at.serves()
    text = f"detections/unmatched, {missed:.0f} a second; {rate:.1f} of 10 Hz served"
    return Outcome(text, degraded, at.says(OK, "segmented", OK_SECONDS))


def detections_from_the_future(at: Live) -> Outcome:
    """An hour ahead: their images never come."""
    at.detector_offset = 3600 * 10**9
    degraded = at.says(WARN, "detections/unmatched", DEGRADED_SECONDS + 2)
    at.detector_offset = 0
    at.serves()
    return Outcome("detections/unmatched", degraded, at.says(OK, "segmented", OK_SECONDS))


def clock_jumps(at: Live) -> Outcome:
    """An hour ahead, back again, and a day back; with and without /clock."""
    clock = at.graph.create_publisher(Clock, "/clock", RELIABLE)
    for hours in (1, 0, -24, 0):
        at.offset = hours * 3600 * 10**9
        clock.publish(Clock(clock=header(time.time_ns() + at.offset).stamp))
        at.serves(6.0)
    return Outcome("what was on its way may be missed", None, at.says(OK, "segmented", OK_SECONDS))


def backend_raises(at: Live, colour: tuple[int, int, int] = BROKEN) -> Outcome:
    """On every image, for a while."""
    at.make_image = cornered(colour)
    degraded = at.says(ERROR, "frames/dropped/failed")
    at.make_image = scene_image
    at.serves()
    assert at.node.said("segmentation failed") and at.node.process.poll() is None
    return Outcome("frames/dropped/failed", degraded, at.says(OK, "segmented", OK_SECONDS))


def backend_has_no_memory(at: Live) -> Outcome:
    """On every image, for a while."""
    return backend_raises(at, NO_MEMORY)


def one_image_fails(at: Live) -> Outcome:
    """And is the only one that is lost."""
    failed = at.graph.number("frames/dropped/failed")
    at.make_image = cornered(BROKEN)
    at.tick()
    at.make_image = scene_image
    degraded = at.says(ERROR, "frames/dropped/failed 1 times")
    at.serves()
    recovered = at.says(OK, "segmented", OK_SECONDS)
    assert at.graph.number("frames/dropped/failed") == failed + 1
    return Outcome("frames/dropped/failed 1 times", degraded, recovered)


def backend_is_slow(at: Live) -> Outcome:
    """A second and a half for each image: those that are old are dropped, and it is said."""
    at.make_image = cornered(SLOW)
    at.go_on(4.0)
    assert at.graph.number("frames/dropped/newer") > 10
    at.make_image = scene_image
    at.serves(6.0)
    return Outcome("dropped/newer", None, at.says(OK, "segmented", OK_SECONDS))


def cornered(colour: tuple[int, int, int]) -> Callable[[int, int], Image]:
    """Images with a corner of a colour."""

    def make(index: int, stamp: int) -> Image:
        pixels = SCENE().frame(index).image.copy()
        pixels[:CORNER, :CORNER] = colour
        return image_message(pixels, "rgb8", header(stamp))

    return make


@contextmanager
def participant(at: Live, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process on the graph."""
    environ = os.environ | {"ROS_DOMAIN_ID": str(at.node.domain)}
    environ["PYTHONPATH"] = os.pathsep.join(
        (str(HERE), str(HERE.parent), str(HERE.parent.parent), os.environ.get("PYTHONPATH", ""))
    )
    process = subprocess.Popen([sys.executable, str(HERE / "participant.py"), *arguments],
                               env=environ)  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def subscriber_never_reads(at: Live) -> Outcome:
    """It stands still, as a debugger leaves it; the others get their masks all the same."""
    at.go_on(1.0)
    before = at.graph.number("memory_mb")
    with participant(at, "listener", "/sam/overlay") as other:
        at.until(lambda: at.graph.count_subscribers("/sam/overlay"), "a listener", 15.0)
        usual = at.rate(4.0)
        other.send_signal(signal.SIGSTOP)
        rate = at.rate(8.0)
        assert rate > usual / 2, f"{rate:.1f} images a second were served, {usual:.1f} before"
    grown = at.graph.number("memory_mb") - before
    assert grown < 100, f"{grown} MB more"
    text = f"nothing: {rate:.1f} Hz served, {usual:.1f} before, {grown:.0f} MB more"
    return Outcome(text)


def listener_is_killed(at: Live) -> Outcome:
    """SIGKILL, while it listens."""
    with participant(at, "listener", "/sam/overlay") as other:
        at.until(lambda: at.graph.count_subscribers("/sam/overlay"), "a listener", 15.0)
        at.go_on(1.0)
        other.kill()
        at.serves()
        at.go_on(3.0)
    at.serves()
    return Outcome("nothing", None, at.says(OK, "segmented", OK_SECONDS))


def camera_is_killed(at: Live) -> Outcome:
    """SIGKILL, and another one comes."""
    at.camera = at.detector = False

    def served() -> bool:
        return at.graph.number("rate_received_hz") > RATE / 2 and at.graph.level()[0] == OK

    with participant(at, "camera") as camera, participant(at, "detector"):
        at.until(served, "the other camera served", 20.0)
        camera.kill()
        degraded = at.says(WARN, "no images", DEGRADED_SECONDS + 2)
        with participant(at, "camera"):
            recovered = at.until(served, "the third camera served", 20.0)
            del at.kept[:]
            at.until(lambda: len(at.kept) > 5, "segments", 5.0)
    at.camera = at.detector = True
    at.serves(5.0)
    return Outcome("no images", degraded, recovered)


def detector_is_killed(at: Live) -> Outcome:
    """SIGKILL: DDS notices when its lease ends, after 20 s."""
    at.detector = False
    at.graph.destroy_publisher(at.graph.detections)
    with participant(at, "detector") as other:
        at.until(lambda: at.graph.level()[1].count("segmented"), "served", 20.0)
        other.kill()
        degraded = at.says(WARN, "nobody publishes /detections any more", 30.0)
    at.graph.detections = at.graph.create_publisher(Detection2DArray, "detections", RELIABLE)
    at.graph.stands(at.graph.detections)
    at.detector = True
    at.serves(5.0)
    return Outcome("nobody publishes", degraded, at.says(OK, "segmented", OK_SECONDS))


def too_many_boxes(at: Live) -> Outcome:
    """256 in every image, of which 64 are segmented, the best ones."""
    box = tight_box(SCENE().frame(0).labels == 1)
    at.camera = at.detector = False
    begin, count, mine = time.monotonic(), 0, set()
    while time.monotonic() < begin + 4.0:
        stamp = time.time_ns()
        mine.add(stamp)
        boxes = [box_detection(tuple(box), f"{i}", score=(i + 1) / 256) for i in range(256)]
        at.graph.images.publish(scene_image(0, stamp))
        at.graph.detections.publish(detections(stamp, *boxes))
        at.graph.spin_for(1 / RATE)
    at.graph.spin_for(0.5)
    wanted = [str(i) for i in range(192, 256)]
    for message in at.kept:
        if message.header.stamp.sec * 10**9 + message.header.stamp.nanosec in mine:
            count += 1
            assert [segment.id for segment in message.segments] == wanted
    assert count
    at.others |= mine
    at.camera = at.detector = True
    at.says(WARN, "objects/dropped")
    at.serves(5.0)
    text = f"objects/dropped; {count / 4:.1f} of 10 Hz served"
    return Outcome(text, None, at.says(OK, "segmented", OK_SECONDS))


Fault = Callable[[Live], Outcome]
FAST: tuple[Fault, ...] = (
    resolution_changes,
    detector_goes,
    detections_from_the_future,
    one_image_fails,
)
"""These want `failing_node.py`."""
OF_THE_BACKEND: tuple[Fault, ...] = (
    one_image_fails,
    backend_raises,
    backend_has_no_memory,
    backend_is_slow,
)
ALL: tuple[Fault, ...] = (
    camera_stops,
    resolution_changes,
    encoding_changes,
    images_are_cut_off,
    detector_goes,
    detections_from_the_future,
    detector_floods,
    clock_jumps,
    too_many_boxes,
    subscriber_never_reads,
    listener_is_killed,
    camera_is_killed,
    detector_is_killed,
)


def main() -> int:
    """Runs all of them and prints a table; returns the exit status."""
    from mobile_sam.benchmark import machine

    wanted = sys.argv[1:]
    print(f"{machine()}, {time.strftime('%Y-%m-%d')}\n")
    print("| fault | the diagnostics say | after, s | OK again after, s |\n|---|---|---|---|")
    status = 0
    with tempfile.TemporaryDirectory() as folder:
        for faults, program, more in (
            (ALL, "", {"use_sim_time": "false"}),
            ((clock_jumps,), "", {"use_sim_time": "true"}),
            (OF_THE_BACKEND, "failing_node.py", {}),
        ):
            faults = tuple(f for f in faults if not wanted or f.__name__ in wanted)
            if not faults:
                continue
            with live(Path(folder) / "log", program, **more) as at:
                for fault in faults:
                    name = fault.__name__.replace("_", " ")
                    name += ", use_sim_time" if more.get("use_sim_time") == "true" else ""
                    try:
                        found = fault(at)
                    except AssertionError as error:
                        print(f"| {name} | FAILED: {error} | | |", flush=True)
                        status = 1
                        break  # the graph is not as the next one needs it
                    times = ["" if t is None else f"{t:.1f}" for t in
                             (found.degraded, found.recovered)]  # fmt: skip
                    print(f"| {name} | {found.said} | {times[0]} | {times[1]} |", flush=True)
    return status


if __name__ == "__main__":
    np.seterr(all="raise")
    sys.exit(main())
