"""Time as simulators and bags give it: not yet there, paused, set back."""

from __future__ import annotations

from pathlib import Path

from graph import (
    RELIABLE,
    Peer,
    box_detection,
    detections,
    header,
    object_box,
    peer,
    running,
    scene_image,
)
from rosgraph_msgs.msg import Clock

SECOND = 1_000_000_000


def play(graph: Peer, first: int) -> None:
    """Six images half a second apart, of which each is segmented."""
    kept = graph.received["segments"]
    for i in range(6):
        stamp = first + i * SECOND // 2
        already = len(kept)
        graph.images.publish(scene_image(10 * i, stamp))
        graph.detections.publish(detections(stamp, box_detection(object_box(10 * i), f"{i}")))
        graph.wait(lambda n=already: len(kept) > n, f"segments of image {i}")
        assert kept[-1].header.stamp == header(stamp).stamp
        assert [segment.id for segment in kept[-1].segments] == [f"{i}"]


def test_a_bag_that_is_played_again_and_again(tmp_path: Path) -> None:
    with running(
        tmp_path / "log", use_sim_time="true", stale_after=0.0, silence_warning=2.0
    ) as node:
        with peer(node) as graph:
            graph.listen("segments")
            graph.stands()
            # Nobody says the time, and yet the node says what it misses.
            graph.wait(lambda: node.said("no image on /image for 2 s"), "the warning")
            clock = graph.create_publisher(Clock, "/clock", RELIABLE)
            graph.stands(clock)
            for _ in range(3):
                clock.publish(Clock(clock=header(1000 * SECOND).stamp))
                play(graph, 1000 * SECOND)
            graph.wait(
                lambda: graph.received["/diagnostics"][-1].header.stamp.sec == 1000,
                "diagnostics of that time",
            )
