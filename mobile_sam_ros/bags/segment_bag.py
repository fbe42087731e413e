"""The command `segment-bag`: a recorded bag in, a new one with all of the node's outputs out.

Two passes. The first one takes the model's time: it leaves the segments of each image in a journal,
so that nothing is lost when it is interrupted. The second one copies the bag, makes all outputs of
the segments and puts them behind their images; interrupted, it is done again.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rosbags.rosbag2 import StoragePlugin, WriterError
from tqdm import tqdm

from mobile_sam.checkpoints import WeightsError
from mobile_sam.cli.errors import UserError
from mobile_sam.cli.model_options import load_predictor
from mobile_sam.cli.prompt_options import everything_settings
from mobile_sam_ros.bags.assembling import Plan, Summary, assemble, check_types
from mobile_sam_ros.bags.exports import Exports
from mobile_sam_ros.bags.journal import Journal, JournalError
from mobile_sam_ros.bags.options import chosen_outputs, make_parser
from mobile_sam_ros.bags.segmenting import (
    IMAGE_TYPES,
    Interrupted,
    PromptError,
    Request,
    TimedPrompt,
    detections_reader,
    segment_images,
)
from mobile_sam_ros.bags.source import BagError, SourceBag, beside
from mobile_sam_ros.bags.space import CAMERA_INFO_TYPE, DEPTH_TYPE
from mobile_sam_ros.candidates import Selection, class_names
from mobile_sam_ros.detections import STANDARD
from mobile_sam_ros.identity import Identity
from mobile_sam_ros.results import THREE_D
from mobile_sam_ros.throttle import Throttle

_NAME = "segment-bag"
# Options on which the segments do not depend: they may be changed when it goes on.
_LATER = {
    *("bag", "output", "prefix", "outputs", "replace", "storage", "compression", "overlay_alpha"),
    *("coco", "images", "video", "restart", "depth", "camera_info", "depth_slop"),
}
_JOURNAL = "journal.sqlite3"
_SHOWN_PROBLEMS = 5
_USUAL_RATE = 30.0


class Ending:
    """What Ctrl-C and SIGTERM do: an end in good order, or at once if they come again. A context
    manager, as long as they do it.

    is_asked: whether one came.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._in_good_order = False

    def __enter__(self) -> Ending:
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._ask) for number in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked or not self._in_good_order:
            raise KeyboardInterrupt
        self.is_asked = True

    @contextmanager
    def in_good_order(self) -> Iterator[None]:
        """Within, the first signal only sets `is_asked`."""
        self._in_good_order = True
        try:
            yield
        finally:
            self._in_good_order = False


def run(options: argparse.Namespace, ending: Ending) -> int:
    """Segments a bag; returns the exit status."""
    output = options.output or beside(options.bag, "segmented")
    if output.exists():
        raise UserError(f"{output}: is there already: choose another --output, or remove it")
    partial = output.with_name(f"{output.name}.partial")
    if partial.exists() and not _is_own(partial):
        raise UserError(f"{partial}: is there, and not of this command: choose another --output")
    if options.restart:
        shutil.rmtree(partial, ignore_errors=True)
    complain = Throttle(lambda text: tqdm.write(f"{_NAME}: {text}", file=sys.stderr))
    with SourceBag(options.bag) as source:
        request, plan = _request(source, options), _plan(source, options)
        settings = _settings(source, options, request)
        partial.mkdir(parents=True, exist_ok=True)
        with Journal(partial / _JOURNAL, settings) as journal:
            if not journal.is_complete:
                _first_pass(source, request, options, journal, complain, ending)
            bag = partial / output.name
            shutil.rmtree(bag, ignore_errors=True)  # of a second pass that was interrupted
            exports = Exports(
                options.coco,
                options.images,
                options.video,
                _rate(journal),
                options.overlay_alpha,
                partial,
            )
            with tqdm(total=source.message_count, unit="message", desc="writing") as bar:
                summary = assemble(
                    source, request, journal, plan, bag, exports, complain, bar.update
                )
            unreadable, problems = journal.unreadable(), journal.problems()
    bag.rename(output)
    shutil.rmtree(partial)
    _tell(output, summary, unreadable, problems, options)
    return 1 if unreadable else 0


def _is_own(partial: Path) -> bool:
    """Whether a folder is one that this command left: with a journal, or killed before it."""
    return partial.is_dir() and ((partial / _JOURNAL).exists() or not any(partial.iterdir()))


def _request(source: SourceBag, options: argparse.Namespace) -> Request:
    """Returns what is asked for, checked against what is in the bag."""
    is_asked = options.prompts or options.detections
    if options.everything and is_asked:
        raise UserError("--everything needs no prompts and no --detections: leave one of them out")
    if not (options.everything or is_asked):
        there = ", ".join(source.topics(STANDARD)) or "no topic with them"
        raise UserError(
            "nothing to segment: give --detections, --box, --point, --points or --everything; "
            f"{source.path} has, of detections, {there}"
        )
    if options.track_detections and not options.detections:
        raise UserError("--track-detections needs --detections")
    image = options.image or source.only_topic(IMAGE_TYPES, "--image", [options.depth])
    source.check(image, *IMAGE_TYPES)
    source.decoder(image)
    start = None if options.start is None else source.start + int(options.start * 1e9)
    stop = None if options.end is None else source.start + int(options.end * 1e9)
    for name in ("start", "end"):
        if (getattr(options, name) or 0) > source.seconds:
            seconds = getattr(options, name)
            raise UserError(
                f"--{name} is {seconds:g}: {source.path} is {source.seconds:.3f} s long"
            )
    if start is not None and stop is not None and stop <= start:
        raise UserError(f"--end {options.end:g} is not after --start {options.start:g}")
    request = Request(
        image=image,
        detections=options.detections,
        detections_fields=options.detections_fields,
        match_slop=int(options.match_slop * 1e9),
        match_frame_id=options.match_frame_id,
        selection=Selection(
            options.min_score,
            class_names(options.classes),
            options.box_padding,
            options.detections_size,
        ),
        prompts=_prompts(source, options, start or 0),
        track_detections=options.track_detections,
        track_overlap=options.track_overlap,
        forget_after=options.track_forget_after,
        everything=everything_settings(options) if options.everything else None,
        max_objects=options.max_objects,
        start=start,
        stop=stop,
    )
    if request.detections:
        detections_reader(source, request)
    source.check_order(image, request.detections, options.depth)
    return request


def _prompts(source: SourceBag, options: argparse.Namespace, first: int) -> tuple[TimedPrompt, ...]:
    """Returns the prompts, none of them before the log time `first`."""
    prompts = []
    for number, option in enumerate(options.prompts, 1):
        if option.seconds > source.seconds:
            raise UserError(f"prompt {option.text!r}: {source.path} is {source.seconds:.3f} s long")
        identity = Identity(option.name or f"prompt_{number}", option.name)
        log = max(source.start + int(option.seconds * 1e9), first)
        prompts.append(TimedPrompt(option.prompt, identity, log))
    return tuple(prompts)


def _plan(source: SourceBag, options: argparse.Namespace) -> Plan:
    """Returns what to write, checked against what is in the bag."""
    if bool(options.depth) != bool(options.camera_info):
        raise UserError("--depth and --camera-info need each other")
    outputs = chosen_outputs(options)
    if not options.depth and not THREE_D.isdisjoint(outputs):
        raise UserError("the outputs points and detections_3d need --depth and --camera-info")
    for topic, kind in ((options.depth, DEPTH_TYPE), (options.camera_info, CAMERA_INFO_TYPE)):
        if topic:
            source.check(topic, kind)
    storage = StoragePlugin[options.storage.upper()] if options.storage else source.storage
    compression = options.compression or ("zstd" if storage == StoragePlugin.MCAP else "none")
    plan = Plan(
        prefix="/" + options.prefix.strip("/"),
        outputs=outputs,
        storage=storage,
        compress=compression == "zstd",
        alpha=options.overlay_alpha,
        depth=options.depth,
        camera_info=options.camera_info,
        depth_slop=int(options.depth_slop * 1e9),
    )
    there = {connection.topic for connection in source.connections}
    twice = sorted(there & {plan.topic(output) for output in outputs})
    if twice and not options.replace:
        raise UserError(
            f"{source.path} has {', '.join(twice)} already: choose another --prefix, or leave the "
            "old ones out with --replace"
        )
    check_types(source, plan)
    return plan


def _settings(source: SourceBag, options: argparse.Namespace, request: Request) -> dict[str, str]:
    """Returns, as text, all that the segments depend on."""
    files = [*source.files(), *filter(Path.is_file, [Path(options.weights)])]
    states = [(file, file.stat()) for file in files]
    values = {name: value for name, value in vars(options).items() if name not in _LATER}
    values |= {"image": request.image, "prompts": " ".join(map(str, options.prompts))}
    settings = {f"--{name.replace('_', '-')}": str(value) for name, value in values.items()}
    return settings | {
        f"the file {file.name}": f"{state.st_size} bytes of {state.st_mtime_ns}"
        for file, state in states
    }


def _first_pass(
    source: SourceBag,
    request: Request,
    options: argparse.Namespace,
    journal: Journal,
    complain: Throttle,
    ending: Ending,
) -> None:
    predictor = load_predictor(options)
    journal.agree({"the model run by": f"{type(predictor.model).__name__} on {predictor.device}"})
    whole = request.start is None and request.stop is None
    total = source.count(request.image) if whole else None
    bar = tqdm(total=total, initial=len(journal), unit="image", desc="segmenting")
    with bar, ending.in_good_order():
        segment_images(
            source,
            request,
            predictor,
            journal,
            complain,
            lambda done: bar.update(done - bar.n),
            lambda: ending.is_asked,
        )


def _rate(journal: Journal) -> float:
    """Returns the images a second."""
    first, last = journal.span()
    return (len(journal) - 1) * 1e9 / (last - first) if last and last > first else _USUAL_RATE


def _tell(
    output: Path,
    summary: Summary,
    unreadable: int,
    problems: Sequence[str],
    options: argparse.Namespace,
) -> None:
    """Says what was done and what was not."""
    different = Counter(problems)
    for text, count in different.most_common(_SHOWN_PROBLEMS):
        print(f"{_NAME}: {text}" + (f" ({count} times)" if count > 1 else ""), file=sys.stderr)
    if len(different) > _SHOWN_PROBLEMS:
        print(f"{_NAME}: {len(problems)} problems in all", file=sys.stderr)
    for text in summary.missing:
        print(f"{_NAME}: {text}", file=sys.stderr)
    if unreadable:
        print(f"{_NAME}: {unreadable} images could not be read", file=sys.stderr)
    print(f"{summary.objects} objects in {summary.images} images")
    for path in filter(None, (output, options.coco, options.images, options.video)):
        print(f"    {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    options = make_parser().parse_args(arguments)
    try:
        with Ending() as ending:
            return run(options, ending)
    except (
        *(UserError, BagError, JournalError, PromptError, WeightsError, WriterError),
        *(LookupError, ValueError, OSError, sqlite3.Error),
    ) as error:
        print(f"{_NAME}: {error}", file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt):
        print(f"{_NAME}: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
