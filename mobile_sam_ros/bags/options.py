"""The command line of `segment-bag`."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mobile_sam
from mobile_sam.cli.model_options import add_model_options
from mobile_sam.cli.prompt_options import (
    BOX_FORM,
    POINT_FORM,
    POINTS_FORM,
    add_everything_options,
    box_prompt,
    point_prompt,
    points_prompt,
)
from mobile_sam.videos import VideoFile
from mobile_sam_ros.bags.assembling import OUTPUTS
from mobile_sam_ros.results import THREE_D

_FLAT = tuple(name for name in OUTPUTS if name not in THREE_D)
_DEFAULT_OUTPUTS = tuple(name for name in _FLAT if name != "overlay")  # it is large
_PROMPT = re.compile(r"(?:([^=@]+)=)?([^=@]+)(?:@([0-9.]+))?")
_DESCRIPTION = """\
Segments a recorded rosbag2 bag: writes a new one with all that is in the old one, and
after each image the outputs of the node sam. No image is dropped. Interrupted, by Ctrl-C
or a kill, the same command goes on where it was."""
_EXAMPLES = """
A prompt's NAME is the object's id and class; SECONDS are counted from the bag's first
message, as by `ros2 bag play --start-offset`; without them it is shown in the first image.

examples:
  segment-bag run1 --image /camera/color/image_raw --detections /yolo/detections
  segment-bag run1 --box cup=210,140,330,300@2.5 --video run1.mp4
  segment-bag run1.mcap --everything --weights mobile_sam --coco run1.json --images run1_images

exit status:
  0    all was done
  1    something could not be done; standard error says what
  2    the command line was wrong
  130  interrupted; the same command goes on from there
"""


@dataclass(frozen=True, eq=False)
class PromptOption:
    """A prompt as it was given: its name may be empty, its time in seconds."""

    text: str
    name: str
    prompt: mobile_sam.Prompt
    seconds: float

    def __str__(self) -> str:
        return self.text


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser."""
    parser = argparse.ArgumentParser(
        prog="segment-bag",
        usage="segment-bag BAG [options]",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bag", type=Path, metavar="BAG", help="folder, .mcap or .db3 file")
    _add_input(parser.add_argument_group("what to segment"))
    _add_detections(parser.add_argument_group("detections"))
    _add_following(parser.add_argument_group("following"))
    add_everything_options(parser.add_argument_group("everything"))
    add_model_options(parser.add_argument_group("model"))
    _add_output(parser.add_argument_group("output"))
    _add_depth(parser.add_argument_group("3-D outputs, with both topics"))
    return parser


def _add_input(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--image", default="", metavar="TOPIC", help="raw or compressed (the only one there is)")
    add("--detections", default="", metavar="TOPIC", help="boxes of a detector")
    for name, form, read, meaning in (
        ("--box", BOX_FORM, box_prompt, "an object to follow, by its box"),
        ("--point", POINT_FORM, point_prompt, "by a point on it"),
        ("--points", POINTS_FORM, points_prompt, "by several points; ! before those not on it"),
    ):
        add(
            name,
            type=_timed(read),
            action="append",
            dest="prompts",
            default=[],
            metavar=f"[NAME=]{form}[@SECONDS]",
            help=f"{meaning}; may be given again",
        )
    add("--everything", action="store_true", help="all objects of each image by itself")
    add("--start", type=_number(0), metavar="SECONDS", help="no image before (the bag's first)")
    add("--end", type=_number(0), metavar="SECONDS", help="no image from then on (the last one)")
    add("--max-objects", type=_count, default=64, metavar="N", help="in an image (%(default)s)")


def _add_detections(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--min-score", type=_number(0, 1), default=0.0, help="ignore those below (%(default)s)")
    add("--classes", default="", metavar="NAME,NAME", help="ignore all others (all count)")
    add(
        "--box-padding",
        type=_number(0, 1),
        default=0.0,
        metavar="SHARE",
        help="of its size, by which each side of a box is moved outwards (%(default)s)",
    )
    add(
        "--detections-size",
        type=_size,
        default=(0, 0),
        metavar="WxH",
        help="of the images that boxes are in pixels of, if the detector resizes",
    )
    add(
        "--match-slop",
        type=_number(0, 10),
        default=0.0,
        metavar="SECONDS",
        help="that their stamp may differ from their image's, if none is equal (%(default)s)",
    )
    add(
        "--match-frame-id",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="refuse those with another frame_id than their image",
    )
    add(
        "--detections-fields",
        default="",
        metavar="LAYOUT",
        help="where in messages of another type what stands, as the node's parameter of that name",
    )


def _add_following(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--track-detections",
        action="store_true",
        help="detections start objects that are followed, and show lost ones anew",
    )
    add(
        "--track-overlap",
        type=_number(0, 1),
        default=0.5,
        metavar="IOU",
        help="of boxes, from which on a detection is of a followed object (%(default)s)",
    )
    add(
        "--track-forget-after",
        type=_number(0),
        default=0.0,
        metavar="SECONDS",
        help="after which an object that is lost is forgotten; 0: never (%(default)s)",
    )


def _add_output(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--output", type=Path, metavar="FOLDER", help="the new bag (BAG_segmented)")
    add("--prefix", default="/sam", metavar="NAME", help="of the new topics (%(default)s)")
    add(
        "--outputs",
        type=_outputs,
        metavar="NAME,NAME",
        help=f"some of {', '.join(OUTPUTS)} (all but overlay and, without depth, the 3-D ones)",
    )
    add(
        "--replace",
        action="store_true",
        help="leave out topics of the old bag that have the names of new ones",
    )
    add("--storage", choices=("mcap", "sqlite3"), help="of the new bag (as the old one)")
    add("--compression", choices=("none", "zstd"), help="of the new bag (zstd in MCAP, else none)")
    add("--overlay-alpha", type=_number(0, 1), default=0.5, help="strength (%(default)s)")
    add("--coco", type=Path, metavar="FILE", help="all masks as COCO JSON")
    add("--images", type=Path, metavar="FOLDER", help="the pictures that it names, as files")
    add("--video", type=_video, metavar="FILE", help="the overlays, as .mp4, .mkv, .mov or .avi")
    add("--restart", action="store_true", help="forget what an interrupted run has done")


def _add_depth(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--depth", default="", metavar="TOPIC", help="depth registered to the images (REP 118)")
    add("--camera-info", default="", metavar="TOPIC", help="calibration of the images")
    add(
        "--depth-slop",
        type=_number(0, 10),
        default=0.02,
        metavar="SECONDS",
        help="that the stamp of a depth image may differ from the image's (%(default)s)",
    )


def chosen_outputs(options: argparse.Namespace) -> tuple[str, ...]:
    """Returns the outputs that are wanted, in their order."""
    has_depth = bool(options.depth)
    default = {*_DEFAULT_OUTPUTS, *(THREE_D if has_depth else ())}
    return tuple(name for name in OUTPUTS if name in (options.outputs or default))


def _timed(read: Callable[[str], mobile_sam.Prompt]) -> Callable[[str], PromptOption]:
    def timed(text: str) -> PromptOption:
        match = _PROMPT.fullmatch(text)
        try:
            seconds = float((match and match[3]) or 0)
        except ValueError:
            match = None
        if match is None:
            raise argparse.ArgumentTypeError(f"{text!r} is not [NAME=]...[@SECONDS]")
        return PromptOption(text, match[1] or "", read(match[2]), seconds)

    return timed


def _number(low: float, high: float = float("inf")) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not (low <= value <= high and math.isfinite(value)):
            limit = f"from {low:g} on" if high == float("inf") else f"from {low:g} to {high:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is no number {limit}")
        return value

    return number


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT")
    return int(match[2]), int(match[1])


def _video(text: str) -> Path:
    try:
        VideoFile(Path(text), rate=1)  # which makes no file yet
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(text)


def _outputs(text: str) -> set[str]:
    chosen = set(text.split(","))
    unknown = sorted(chosen - set(OUTPUTS))
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(OUTPUTS)}")
    return chosen
