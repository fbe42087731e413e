"""The node with the weights that users get, not the demo weights of the other tests."""

from pathlib import Path

import numpy as np
import pytest
from graph import (
    SCENE,
    box_detection,
    detections,
    header,
    peer,
    pixels,
    running,
    stamps,
)

from mobile_sam.choices import DEFAULT_WEIGHTS
from mobile_sam.segments import tight_box
from mobile_sam.training.evaluate import mask_iou
from mobile_sam_ros.conversions import image_message


@pytest.mark.parametrize("camera_hw", [(480, 640), (720, 1280)])
def test_finds_what_is_in_a_box(camera_hw: tuple[int, int], tmp_path: Path) -> None:
    """Every object of a camera's image, by a box around it. By PyTorch, as the first images are;
    model/test_backends.py compares the other backends with it."""
    frame = SCENE(camera_hw).frame(3)
    wanted = [frame.labels == label for label in range(1, int(frame.labels.max()) + 1)]
    with running(tmp_path / "sam.log", weights=DEFAULT_WEIGHTS) as node, peer(node) as graph:
        kept = graph.listen("labels")
        graph.stands()
        stamp = stamps()
        graph.images.publish(image_message(frame.image, "rgb8", header(stamp)))
        boxes = [box_detection(tight_box(mask), str(i)) for i, mask in enumerate(wanted)]
        graph.detections.publish(detections(stamp, *boxes))
        labels = pixels(graph.wait(lambda: kept, "labels")[0])
    overlaps = [float(mask_iou(labels == label, mask)) for label, mask in enumerate(wanted, 1)]
    assert min(overlaps) > 0.7 and np.mean(overlaps) > 0.85, overlaps
