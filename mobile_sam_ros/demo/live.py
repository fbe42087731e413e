"""A camera, the node and the panel: `python3 -m mobile_sam_ros.demo.live`. Until Ctrl-C.

Exit status: 0 after Ctrl-C, 1 if something failed, 2 if what was asked for cannot be done.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep

from mobile_sam.pictures import PictureError
from mobile_sam_ros.demo.processes import ChildDied, Children, children
from mobile_sam_ros.demo.run import (
    WEIGHTS_HELP,
    environment,
    interruptible,
    prepare,
    ros_arguments,
    sam_arguments,
    usual_weights,
)
from mobile_sam_ros.demo.sources import PROCEDURAL_SIZE, file_shots

PANEL = "panel"
_ADDRESS = re.compile(r"open (http\S+)")
_START_SECONDS = 60.0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="live", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--video", type=Path, help="video file or folder of images, instead of a procedural scene")
    add("--rate", type=float, default=10.0, help="images a second (%(default)s)")
    add("--seed", type=int, default=5, help="which procedural scene (%(default)s)")
    add("--objects", type=int, default=4, help="objects in the procedural scene (%(default)s)")
    add("--weights", help=WEIGHTS_HELP)
    add("--device", default="auto", help="of the model: cpu, cuda:0, ... (%(default)s)")
    add("--host", default="127.0.0.1", help="address of the panel; 0.0.0.0: all (%(default)s)")
    add("--port", type=int, default=8080, help="its port; 0: any that is free (%(default)s)")
    options = parser.parse_args(arguments)
    if options.rate <= 0 or options.objects < 1:
        parser.error("rate and objects must be positive")
    options.weights = options.weights or usual_weights(options.video)
    return options


def start(options: argparse.Namespace, group: Children, logs: Path) -> str:
    """Starts all processes; returns the panel's address.

    Raises:
        ChildDied: one of them failed.
        TimeoutError: the panel does not start.
    """
    group.start("sam", "mobile_sam_ros.run", sam_arguments(options.weights, options.device))
    source: dict[str, object] = {"seed": options.seed, "objects": options.objects}
    if options.video:
        source = {"video": options.video.resolve(), "loop": "true"}
    camera = ros_arguments(**source, rate=options.rate)
    group.start("camera", "mobile_sam_ros.demo.camera", camera)
    panel = ros_arguments(
        host=options.host,
        port=options.port,
        **{"qos_overrides./image.subscription.reliability": "reliable"},
    )
    group.start(PANEL, "mobile_sam_ros.panel.run", panel)
    begin = monotonic()
    while monotonic() - begin < _START_SECONDS:
        group.check()
        found = _ADDRESS.search((logs / f"{PANEL}.log").read_text(errors="replace"))
        if found:
            return found[1]
        sleep(0.1)
    raise TimeoutError(f"after {_START_SECONDS:g} s the panel is not there")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until Ctrl-C; returns the exit status."""
    options = parse(arguments)
    size_hw = PROCEDURAL_SIZE
    try:
        if options.video:
            size_hw = next(file_shots(options.video))[0].shape[:2]
    except PictureError as error:
        print(f"live: {error}", file=sys.stderr)
        return 2
    os.environ.update(environment(os.environ))
    with interruptible(), tempfile.TemporaryDirectory(prefix="mobile_sam_live_") as folder:
        logs = Path(folder)
        try:
            with children(logs, os.environ) as group:
                prepare(options, size_hw, group)
                print(f"\nThe panel: {start(options, group, logs)}\nCtrl-C ends it.", flush=True)
                while True:
                    group.check()
                    sleep(0.5)
        except (ChildDied, TimeoutError) as error:
            print(f"\nlive: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nAll processes have ended.", file=sys.stderr)
            return 0


if __name__ == "__main__":
    sys.exit(main())
