"""The demo: `python3 -m mobile_sam_ros.demo.run`. Starts a graph, waits for its end, reports.

Exit status: 0 if all went well; 1 if something failed or the masks are not good enough; 2 if what
was asked for cannot be done; 130 if it was interrupted.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from time import monotonic, sleep

import cv2
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from mobile_sam.choices import DEFAULT_WEIGHTS
from mobile_sam.pictures import PictureError
from mobile_sam_ros.demo.monitor import DETECTOR, RECORDER, SAM, Monitor
from mobile_sam_ros.demo.processes import ChildDied, Children, children
from mobile_sam_ros.demo.recording import Recording, mean_iou, read_overlays, read_recording
from mobile_sam_ros.demo.report import describe, judge
from mobile_sam_ros.demo.sources import PROCEDURAL_SIZE, file_shots
from mobile_sam_ros.demo.strip import evenly, picture_strip

CAMERA = "camera"
PREPARATION = "preparation"
PICTURES = 6
START_SECONDS = 600  # the official weights may have to be downloaded first
QUIET_SECONDS = 5
WEIGHTS_HELP = f"name or file (demo for the procedural scene, {DEFAULT_WEIGHTS} for a video)"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--video", type=Path, help="video file or folder of images, instead of a procedural scene")
    add("--frames", type=int, default=100, help="images until the end (%(default)s)")
    add("--rate", type=float, default=10.0, help="images a second (%(default)s)")
    add("--seed", type=int, default=5, help="which procedural scene (%(default)s)")
    add("--objects", type=int, default=4, help="objects in the procedural scene (%(default)s)")
    add("--latency", type=float, default=0.05, help="of the detector, seconds (%(default)s)")
    add("--weights", help=WEIGHTS_HELP)
    add("--device", default="auto", help="of the model: cpu, cuda:0, ... (%(default)s)")
    add("--least-iou", type=float, default=0.75, help="mean IoU to reach (%(default)s)")
    add("--output", type=Path, help="folder for bag, logs and pictures (demo_output/<time>)")
    options = parser.parse_args(arguments)
    if options.frames < 1 or options.rate <= 0 or options.objects < 1 or options.latency < 0:
        parser.error("frames, rate and objects must be positive, latency must not be negative")
    options.weights = options.weights or usual_weights(options.video)
    return options


class Progress:
    """One line that is written over, on a terminal; elsewhere a line every few seconds."""

    _SECONDS = 2.0

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._said = 0.0

    def __call__(self, text: str) -> None:
        """Says where things stand."""
        if self._terminal:
            print(f"\r\x1b[K{text}", end="", flush=True)
        elif monotonic() - self._said > self._SECONDS:
            self._said = monotonic()
            print(text, flush=True)

    def end(self, text: str) -> None:
        """Says how it ended."""
        print(f"\r\x1b[K{text}" if self._terminal else text, flush=True)


def free_domain() -> int:
    """Returns a DDS domain that nobody on this machine is in."""
    for domain in random.sample(range(1, 101), 100):
        if all(_is_free(7400 + 250 * domain + 10 + 2 * process) for process in range(10)):
            return domain
    raise RuntimeError("no DDS domain is free; set ROS_DOMAIN_ID")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables for DDS: a domain of its own on this machine, and large images."""
    defaults = {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA",
        "RCUTILS_COLORIZED_OUTPUT": "0",
    }
    result = defaults | dict(environ)
    if "ROS_DOMAIN_ID" not in result:
        result["ROS_DOMAIN_ID"] = str(free_domain())
    return result


@contextmanager
def interruptible() -> Iterator[None]:
    """Makes SIGINT and SIGTERM raise KeyboardInterrupt, also where they were ignored."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {n: signal.signal(n, interrupt) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def usual_weights(video: Path | None) -> str:
    """Returns what suits what is looked at: the demo weights know the procedural scene."""
    return DEFAULT_WEIGHTS if video else "demo"


def ros_arguments(**parameters: object) -> list[str]:
    """Returns parameters as arguments of a node."""
    pairs = (["-p", f"{name}:={value}"] for name, value in parameters.items())
    return ["--ros-args", *(word for pair in pairs for word in pair)]


def sam_arguments(weights: str, device: str) -> list[str]:
    """Returns the arguments of the SAM node."""
    # Best effort, as is right for cameras, loses large images while the model keeps all cores
    # busy; the demo is to show what the node drops, not what DDS does.
    reliable = {"qos_overrides./image.subscription.reliability": "reliable"}
    return ros_arguments(weights=weights, device=device, **reliable)


def prepare(options: argparse.Namespace, size_hw: tuple[int, int], group: Children) -> None:
    """Has the model made ready, so that the camera's first images do not meet a busy machine.

    Raises:
        ChildDied: the model cannot be loaded.
    """
    begin, progress = monotonic(), Progress()
    model = ["--weights", options.weights, "--device", options.device]
    size = f"{size_hw[1]}x{size_hw[0]}"
    group.start(PREPARATION, "mobile_sam.cli", ["prepare", size, *model])
    while not group.finished(PREPARATION):
        group.check(PREPARATION)
        progress(f"making the model ready for {size}: {monotonic() - begin:.0f} s")
        sleep(0.1)
    group.end(PREPARATION)
    progress.end(f"the model is ready for {size} after {monotonic() - begin:.1f} s")


def perform(options: argparse.Namespace, output: Path, group: Children) -> Path:
    """Runs the graph from its start to its orderly end; returns the bag.

    Raises:
        ChildDied: a process failed.
        TimeoutError: the graph does not come together.
    """
    bag = output / "bag"
    # Those who listen first: what is said before somebody listens is lost.
    group.start(RECORDER, "mobile_sam_ros.demo.recorder", ros_arguments(bag=bag))
    group.start(SAM, "mobile_sam_ros.run", sam_arguments(options.weights, options.device))
    group.start(
        DETECTOR,
        "mobile_sam_ros.demo.detector",
        ros_arguments(
            method="motion" if options.video else "truth",
            latency=float(options.latency),
            wait_for_subscribers=3,  # the node, the recorder, the monitor
        ),
    )
    source: dict[str, object] = {"seed": options.seed, "objects": options.objects}
    if options.video:
        source = {"video": options.video.resolve()}
    camera = ros_arguments(
        **source,
        rate=float(options.rate),
        frames=options.frames,
        # Image: the node, the recorder, and for a video the detector. Truth, if there is one: the
        # detector, the recorder. Camera info: the recorder, the monitor.
        wait_for_subscribers=5 if options.video else 6,
    )
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        _watch(group, camera, "/image" if options.video else "/truth/labels", options.frames)
    finally:
        rclpy.try_shutdown()
    group.end(CAMERA, DETECTOR, SAM)
    group.end(RECORDER)
    return bag


def _watch(group: Children, camera: Sequence[str], detector_input: str, frames: int) -> None:
    """Starts the camera once the others are there, and waits until all its frames are through."""
    monitor = Monitor()
    executor = SingleThreadedExecutor()
    executor.add_node(monitor)
    progress = Progress()

    def wait(until: Callable[[], bool], text: Callable[[], str], may_finish: str = "") -> None:
        while not until():
            group.check(may_finish)
            progress(text())
            executor.spin_once(timeout_sec=0.1)

    def missing() -> str:
        return ", ".join(monitor.missing(detector_input))

    begin = monotonic()

    def ready() -> bool:
        if monotonic() - begin > START_SECONDS:
            raise TimeoutError(f"after {START_SECONDS} s not there: {missing()}")
        return not monitor.missing(detector_input)

    wait(ready, lambda: f"starting: {missing()}")
    progress.end(f"all nodes are up after {monotonic() - begin:.1f} s")

    def frame_count() -> str:
        return f"frame {monitor.frames_in} of {frames}, {monitor.frames_out} segmented"

    def quiet(seconds: float) -> bool:
        return monotonic() - monitor.last_event > seconds

    group.start(CAMERA, "mobile_sam_ros.demo.camera", camera)
    wait(lambda: group.finished(CAMERA), frame_count, CAMERA)
    wait(lambda: monitor.drained() or quiet(QUIET_SECONDS), frame_count, CAMERA)
    progress.end(frame_count())
    # The node's last word on its counters, said after the last frame.
    reports = monitor.reports
    wait(
        lambda: monitor.reports > reports or quiet(2 * QUIET_SECONDS),
        lambda: "waiting for the last diagnostics",
        CAMERA,
    )
    progress.end("ending")


def draw(bag: Path, recording: Recording, output: Path) -> list[Path]:
    """Writes a few overlays and the strip of them; returns the files."""
    arrivals = recording.arrivals.get("/sam/overlay", {})
    drawn = sorted(set(arrivals) & set(recording.objects))
    stamps = evenly([stamp for stamp in drawn if recording.objects[stamp]] or drawn, PICTURES)
    if not stamps:
        return []
    begin = min(recording.arrivals["/image"], default=stamps[0])
    images, captions, files = [], [], []
    for stamp, image in read_overlays(bag, stamps):
        number = recording.objects[stamp]
        caption = f"{(stamp - begin) / 1e9:.1f} s, {number} object{'' if number == 1 else 's'}"
        own = [overlap for overlap in recording.overlaps or () if overlap.stamp == stamp]
        if own:
            caption += f", mean IoU {mean_iou(own):.2f}"
        images.append(image)
        captions.append(caption)
        files.append(output / f"overlay_{len(images)}.png")
        cv2.imwrite(str(files[-1]), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    strip = output / "strip.png"
    cv2.imwrite(str(strip), cv2.cvtColor(picture_strip(images, captions), cv2.COLOR_RGB2BGR))
    return [strip, *files]


def report(options: argparse.Namespace, bag: Path, output: Path) -> int:
    """Reads the bag back, prints and draws what is in it; returns the exit status."""
    recording = read_recording(bag)
    text = describe(recording)
    (output / "report.txt").write_text(text + "\n")
    pictures = draw(bag, recording, output)
    size = sum(file.stat().st_size for file in bag.iterdir()) / 1e6
    print(
        f"\n{text}\n\nWritten\n    {bag} ({size:.0f} MB, {sum(recording.counts.values())} messages)"
    )
    for file in (output / "report.txt", *pictures[:1]):
        print(f"    {file}")
    if pictures:
        print(f"    {output}/overlay_1.png ... {pictures[-1].name}")
    problems = judge(recording, options.least_iou)
    for problem in problems:
        print(f"demo: failed: {problem}", file=sys.stderr)
    return 1 if problems else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo; returns the exit status."""
    options = parse(arguments)
    output = options.output or Path("demo_output", datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    size_hw = PROCEDURAL_SIZE
    try:
        if options.video:
            size_hw = next(file_shots(options.video))[0].shape[:2]
        (output / "logs").mkdir(parents=True)
    except FileExistsError:
        print(f"demo: {output}/logs is there already: choose another --output", file=sys.stderr)
        return 2
    except (PictureError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    os.environ.update(environment(os.environ))
    print(f"DDS domain {os.environ['ROS_DOMAIN_ID']}, output in {output}", flush=True)
    with interruptible():
        try:
            with children(output / "logs", os.environ) as group:
                prepare(options, size_hw, group)
                bag = perform(options, output, group)
            return report(options, bag, output)
        except (ChildDied, TimeoutError) as error:
            print(f"\ndemo: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\ndemo: interrupted; all processes have ended", file=sys.stderr)
            return 130


if __name__ == "__main__":
    sys.exit(main())
