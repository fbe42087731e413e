"""Three dimensions: against scenes whose geometry is known, and on a real graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graph import (
    SCENE,
    box_detection,
    detections,
    header,
    peer,
    running,
    scene_image,
)
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import Marker, MarkerArray

from mobile_sam.overlay import label_image, overlay_image
from mobile_sam.segments import Segments, tight_box
from mobile_sam_ros.conversions import BadMessage
from mobile_sam_ros.depth import Camera, camera_from_info, metres_from_image
from mobile_sam_ros.identity import Identity
from mobile_sam_ros.markers import markers_message
from mobile_sam_ros.point_cloud import cloud_message, solids
from mobile_sam_ros.results import detections_3d_message

CAMERA = Camera(500.0, 510.0, 319.5, 239.5, (480, 640))


def segments_of(*masks: np.ndarray) -> Segments:
    """Segments with these masks."""
    boxes = np.array([tight_box(mask) for mask in masks], np.float32)
    crops = tuple(
        mask[y0:y1, x0:x1] for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=True)
    )
    ones = np.ones(len(masks), np.float32)
    logits = np.zeros((len(masks), 1, 1), np.float32)
    return Segments(masks[0].shape, boxes, crops, ones, ones, logits)  # type: ignore[arg-type]


def front_of_a_cube(distance: float, side: float) -> tuple[np.ndarray, np.ndarray]:
    """A wall three metres away with the front of a cube before it: depth, and its mask."""
    rows, columns = np.mgrid[:480, :640]
    x = (columns - CAMERA.cx) * distance / CAMERA.fx
    y = (rows - CAMERA.cy) * distance / CAMERA.fy
    mask = (np.abs(x) <= side / 2) & (np.abs(y) <= side / 2)
    return np.where(mask, distance, 3.0).astype(np.float32), mask


def test_a_front_of_known_size_to_a_millimetre() -> None:
    depth, mask = front_of_a_cube(distance=0.8, side=0.2)
    image = np.full((480, 640, 3), (10, 20, 30), np.uint8)
    (solid,) = solids(segments_of(mask), image, depth, CAMERA)
    # One pixel of the rim is left out, and a pixel stands for its centre.
    pixel = 0.8 / CAMERA.fx
    size = solid.maximum - solid.minimum
    assert size[2] == 0 and np.abs(size[:2] + 3 * pixel - 0.2).max() < 1.5 * pixel
    np.testing.assert_allclose(solid.points.mean(axis=0), (0, 0, 0.8), atol=1e-3)
    rows, columns = np.nonzero(mask)
    inner = mask.sum() - 2 * (np.ptp(rows) + np.ptp(columns) + 2) + 4
    assert len(solid.points) == inner
    assert (solid.colours == (10, 20, 30)).all()


def test_a_slanted_plane_is_where_it_is() -> None:
    """z = 1 + 0.5 x, seen along each pixel's ray."""
    columns = np.arange(640)
    slope = (columns - CAMERA.cx) / CAMERA.fx
    depth = np.tile((1 / (1 - 0.5 * slope)).astype(np.float32), (480, 1))
    mask = np.zeros((480, 640), bool)
    mask[100:300, 200:500] = True
    (solid,) = solids(segments_of(mask), np.zeros((480, 640, 3), np.uint8), depth, CAMERA)
    x, y, z = solid.points.T
    assert np.abs(z - (1 + 0.5 * x)).max() < 1e-3
    assert (
        np.abs(y - (np.round(y * CAMERA.fy / z + CAMERA.cy) - CAMERA.cy) * z / CAMERA.fy).max()
        < 1e-3
    )


def test_holes_and_flying_pixels_are_left_out() -> None:
    rng = np.random.default_rng(0)
    depth, mask = front_of_a_cube(distance=0.8, side=0.3)
    clean = depth.copy()
    depth[mask & (rng.random(mask.shape) < 0.2)] = np.nan
    flying = mask & (rng.random(mask.shape) < 0.05)
    depth[flying] = rng.uniform(1.0, 3.0, int(flying.sum()))
    # The mask reaches two pixels over the edge, onto the wall.
    wide = mask | np.roll(mask, 2, axis=1)
    (solid,) = solids(segments_of(wide), np.zeros((480, 640, 3), np.uint8), depth, CAMERA)
    on_cube = np.abs(solid.points[:, 2] - 0.8) < 1e-3
    assert on_cube.mean() > 0.98
    assert on_cube.sum() > 0.6 * mask.sum()
    (whole,) = solids(segments_of(mask), np.zeros((480, 640, 3), np.uint8), clean, CAMERA)
    assert (whole.points[:, 2] == np.float32(0.8)).all()


def test_what_is_seen_of_the_wall_behind_is_no_part_of_the_object() -> None:
    """A mask that reaches ten pixels over the edge: far too much for single pixels to fly."""
    depth, mask = front_of_a_cube(distance=0.8, side=0.2)
    wide = mask | np.roll(mask, 10, axis=1)
    (solid,) = solids(segments_of(wide), np.zeros((480, 640, 3), np.uint8), depth, CAMERA)
    assert np.abs(solid.points[:, 2] - 0.8).max() < 1e-3
    # An object that goes on in depth without a gap stays whole.
    columns = np.arange(640)
    long = np.tile(np.linspace(0.5, 3, 640, dtype=np.float32)[columns], (480, 1))
    whole = np.ones((480, 640), bool)
    (solid,) = solids(segments_of(whole), np.zeros((480, 640, 3), np.uint8), long, CAMERA)
    assert solid.minimum[2] < 0.52 and solid.maximum[2] > 2.97


def test_an_object_without_depth_is_left_out_and_the_others_keep_their_labels() -> None:
    depth, mask = front_of_a_cube(distance=1.0, side=0.2)
    dark = np.zeros_like(mask)
    dark[:50, :50] = True
    depth[dark] = np.nan
    objects = solids(segments_of(dark, mask), np.zeros((480, 640, 3), np.uint8), depth, CAMERA)
    assert [solid.label for solid in objects] == [2]
    message = detections_3d_message(
        Header(), objects, [Identity("dark"), Identity("cube", "box", 0.5)]
    )
    (detection,) = message.detections
    assert detection.id == "cube"
    hypothesis = detection.results[0]
    assert (hypothesis.hypothesis.class_id, hypothesis.hypothesis.score) == ("box", 0.5)
    assert hypothesis.pose.pose.position.z == pytest.approx(1.0)
    assert detection.bbox.center.position.z == pytest.approx(1.0)
    assert detection.bbox.size.x == pytest.approx(0.2, abs=0.01)


def test_the_cloud_is_as_the_fields_say() -> None:
    depth, mask = front_of_a_cube(distance=0.8, side=0.1)
    image = np.full((480, 640, 3), (255, 128, 1), np.uint8)
    objects = solids(segments_of(mask, mask), image, depth, CAMERA)
    message = cloud_message(header(5, "optical"), objects)
    assert message.header.frame_id == "optical" and message.is_dense
    assert [field.name for field in message.fields] == ["x", "y", "z", "rgb", "label"]
    assert len(message.data) == message.row_step == message.point_step * message.width
    data = np.frombuffer(message.data, np.uint8).reshape(message.width, message.point_step)

    def column(name: str, dtype: str) -> np.ndarray:
        (field,) = (f for f in message.fields if f.name == name)
        return data[:, field.offset : field.offset + 4].copy().view(dtype)[:, 0]

    np.testing.assert_array_equal(column("z", "<f4"), np.float32(0.8))
    assert set(column("rgb", "<u4")) == {0xFF8001}
    assert set(column("label", "<u4")) == {1, 2}
    assert cloud_message(Header(), []).width == 0


def test_markers_are_the_boxes_in_the_colours_of_the_overlay() -> None:
    """Two objects, of which the first has no depth; a front seen head-on has no extent in z."""
    depth, mask = front_of_a_cube(distance=0.8, side=0.2)
    dark = np.zeros_like(mask)
    dark[:50, :50] = True
    depth[dark] = np.nan
    image = np.zeros((480, 640, 3), np.uint8)
    segments = segments_of(dark, mask)
    objects = solids(segments, image, depth, CAMERA)
    identities = [Identity("dark"), Identity("7", "cup", 0.5)]
    clear, box, name = markers_message(header(5, "optical"), objects, identities).markers
    assert clear.action == Marker.DELETEALL
    for marker in (box, name):
        assert marker.header == header(5, "optical") and marker.action == Marker.ADD
        assert marker.pose.orientation.w == 1 and 1 <= marker.lifetime.sec <= 10
    assert box.type == Marker.CUBE and (box.ns, box.id) != (name.ns, name.id)
    at, size = box.pose.position, box.scale
    np.testing.assert_allclose((at.x, at.y, at.z), (0, 0, 0.8), atol=1e-3)
    np.testing.assert_allclose((size.x, size.y), 0.2, atol=0.01)
    assert 0 < size.z < 0.01
    assert name.type == Marker.TEXT_VIEW_FACING and name.text == "cup 7"
    above = name.pose.position
    assert (above.x, above.z) == (at.x, at.z) and above.y < at.y - size.y / 2  # y is down
    labels = label_image(segments.crops, segments.boxes, image.shape[:2])
    shown = overlay_image(image, labels, alpha=1.0)[240, 320] / 255
    for colour in (box.color, name.color):
        np.testing.assert_allclose((colour.r, colour.g, colour.b), shown, atol=1e-6)
    assert 0.1 < box.color.a < name.color.a == 1


def depth_message(values: np.ndarray, encoding: str, big: bool = False, padding: int = 0) -> Image:
    values = values.astype(values.dtype.newbyteorder(">" if big else "<"))
    rows = np.pad(values.view(np.uint8).reshape(len(values), -1), ((0, 0), (0, padding)))
    message = Image(height=values.shape[0], width=values.shape[1], encoding=encoding)
    message.is_bigendian, message.step = int(big), rows.shape[1]
    message.data.frombytes(rows.tobytes())
    return message


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 6])
def test_depth_of_both_units(big: bool, padding: int) -> None:
    millimetres = np.array([[0, 800], [1234, 65535]], np.uint16)
    wanted = np.array([[np.nan, 0.8], [1.234, 65.535]], np.float32)
    found = metres_from_image(depth_message(millimetres, "16UC1", big, padding), (2, 2))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    metres = np.array([[np.inf, 0.8], [-1, 2.5]], np.float32)
    found = metres_from_image(depth_message(metres, "32FC1", big, padding), (2, 2))
    np.testing.assert_array_equal(found, np.array([[np.nan, 0.8], [np.nan, 2.5]], np.float32))


def test_depth_of_another_size_is_that_of_the_nearest_pixel() -> None:
    small = np.array([[1, 2], [3, 4]], np.float32)
    found = metres_from_image(depth_message(small, "32FC1"), (4, 6))
    np.testing.assert_array_equal(found, np.repeat(np.repeat(small, 2, 0), 3, 1))


def test_bad_depth_and_calibration_are_named() -> None:
    good = np.ones((2, 2), np.float32)
    with pytest.raises(BadMessage, match="depth has encoding '64FC1', not one of 32FC1"):
        metres_from_image(depth_message(good, "64FC1"), (2, 2))
    short = depth_message(good, "32FC1")
    short.step = 12
    with pytest.raises(BadMessage, match="16 bytes of data, but height 2 times step 12 is 24"):
        metres_from_image(short, (2, 2))
    with pytest.raises(BadMessage, match="focal lengths 0 and 0: not calibrated"):
        camera_from_info(CameraInfo(height=2, width=2))
    info = CameraInfo(height=0, width=2)
    info.k[0] = info.k[4] = 1.0
    with pytest.raises(BadMessage, match="size 2x0"):
        camera_from_info(info)


def info_of_camera(*roi: int) -> CameraInfo:
    """CAMERA's calibration, with a region: width and height, x and y of its first pixel."""
    info = CameraInfo(height=480, width=640)
    info.p = [500.0, 0.0, 319.5, 0.0, 0.0, 510.0, 239.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.roi.width, info.roi.height, info.roi.x_offset, info.roi.y_offset = roi or (0, 0, 0, 0)
    return info


def test_calibration_of_another_size() -> None:
    calibration = camera_from_info(info_of_camera())
    assert calibration.scaled((480, 640)) == CAMERA
    half = Camera(250.0, 255.0, 159.5, 119.5, (240, 320))
    assert CAMERA.scaled((240, 320)) == half == calibration.scaled((240, 320))
    for size in ((161, 214), (160, 213), (60, 80)):  # of 213.3 pixels
        assert calibration.scaled(size) == CAMERA.scaled(size)
    # All of it is no region, nor is what has no size.
    for roi in ((640, 480, 0, 0), (0, 0, 9, 9)):
        assert camera_from_info(info_of_camera(*roi)) == calibration


def test_calibration_of_a_region_of_the_full_resolution() -> None:
    """Its offsets are pixels of the full resolution, also if the image is binned."""
    calibration = camera_from_info(info_of_camera(400, 200, 100, 40))
    assert calibration.scaled((200, 400)) == Camera(500.0, 510.0, 219.5, 199.5, (200, 400))
    binned = calibration.scaled((100, 200))
    # A pixel of the binned image has its centre between two of the sensor's.
    assert binned == Camera(
        250.0, 255.0, (219.5 + 0.5) / 2 - 0.5, (199.5 + 0.5) / 2 - 0.5, (100, 200)
    )
    # Some publish the whole image with it.
    assert calibration.scaled((480, 640)) == CAMERA
    assert calibration.scaled((240, 320)) == CAMERA.scaled((240, 320))
    same_shape = camera_from_info(info_of_camera(320, 240, 160, 120))
    assert same_shape.scaled((480, 640)) == CAMERA
    assert same_shape.scaled((240, 320)) == Camera(500.0, 510.0, 159.5, 119.5, (240, 320))


def test_a_front_of_known_size_in_a_region() -> None:
    """What is cut out of image and depth is where it was."""
    depth, mask = front_of_a_cube(distance=0.8, side=0.2)
    image = np.full((480, 640, 3), (10, 20, 30), np.uint8)
    (wanted,) = solids(segments_of(mask), image, depth, CAMERA)
    rows, columns = slice(150, 350), slice(200, 500)
    region = camera_from_info(info_of_camera(300, 200, 200, 150)).scaled((200, 300))
    parts = (array[rows, columns] for array in (mask, image, depth))
    part, pixels, metres = (np.ascontiguousarray(array) for array in parts)
    (found,) = solids(segments_of(part), pixels, metres, region)
    np.testing.assert_allclose(found.points, wanted.points, atol=1e-6)


def test_an_image_of_another_shape_than_the_calibration_is_said() -> None:
    with pytest.raises(BadMessage, match="^camera_info is of 640x480, but the image of 640x360: "):
        camera_from_info(info_of_camera()).scaled((360, 640))
    info = info_of_camera(400, 200, 100, 40)
    with pytest.raises(BadMessage, match="of 640x480 with a region of 400x200, but .* of 300x200"):
        camera_from_info(info).scaled((200, 300))
    with pytest.raises(BadMessage, match=r"roi of 400x200 at \(300, 40\), outside of 640x480"):
        camera_from_info(info_of_camera(400, 200, 300, 40))


def test_points_and_boxes_from_the_node(tmp_path: Path) -> None:
    """A detection on an image with depth of the same stamp, and one without depth."""
    scene = SCENE().frame(0)
    box = tuple(float(v) for v in tight_box(scene.labels == 3))
    depth = np.where(scene.labels == 3, 700, 2000).astype(np.uint16)
    with running(tmp_path / "log", stale_after=0.0) as node, peer(node) as graph:
        graph.stands(graph.images, graph.detections)
        graph.spin_for(1.5)
        assert not graph.count_subscribers("/depth")  # nobody wants what is made of it
        clouds = graph.listen("points", PointCloud2)
        found = graph.listen("detections_3d", Detection3DArray)
        markers = graph.listen("markers", MarkerArray)
        depths = graph.create_publisher(Image, "depth", 5)
        infos = graph.create_publisher(CameraInfo, "camera_info", 5)
        graph.stands(graph.images, graph.detections, depths, infos)
        for number in range(1, 200):
            stamp = number * 1_000_000_000
            info = CameraInfo(header=header(stamp), height=240, width=320)
            info.k = [300.0, 0.0, 159.5, 0.0, 300.0, 119.5, 0.0, 0.0, 1.0]
            message = depth_message(depth, "16UC1")
            message.header = header(stamp, "camera")
            infos.publish(info)
            depths.publish(message)
            graph.images.publish(scene_image(0, stamp))
            graph.detections.publish(detections(stamp, box_detection(box, "near")))
            graph.spin_for(0.2)
            if clouds and found and markers:
                break
        assert clouds[0].header == found[0].header and clouds[0].header.frame_id == "camera"
        (detection,) = found[0].detections
        assert detection.id == "near"
        assert detection.bbox.center.position.z == pytest.approx(0.7, abs=1e-3)
        cube = markers[0].markers[1]
        assert cube.header == found[0].header and cube.pose == detection.bbox.center
        assert cube.scale.x == pytest.approx(detection.bbox.size.x)
        width = (box[2] - box[0]) * 0.7 / 300
        assert detection.bbox.size.x == pytest.approx(width, rel=0.25)
        data = np.frombuffer(clouds[0].data, np.uint8).reshape(-1, clouds[0].point_step)
        z = data[:, 8:12].copy().view("<f4")
        assert np.abs(z - 0.7).max() < 1e-3 and len(z) > 100
        # Cut to another shape than the image's, without a region that says so.
        info.height = 180
        infos.publish(info)
        graph.spin_for(0.2)
        stamp += 1_000_000_000
        message.header = header(stamp, "camera")
        depths.publish(message)
        graph.spin_for(0.2)
        graph.images.publish(scene_image(0, stamp))
        graph.detections.publish(detections(stamp, box_detection(box, "near")))
        graph.wait(lambda: graph.number("depth/bad") >= 1, "a bad calibration is counted")
        assert node.said("/depth: camera_info is of 320x180, but the image of 320x240")
        info.height = 240
        infos.publish(info)
        # Without an object, the boxes that are there go.
        stamp += 1_000_000_000
        message.header = header(stamp, "camera")
        depths.publish(message)
        graph.spin_for(0.2)
        graph.images.publish(scene_image(0, stamp))
        graph.detections.publish(detections(stamp))
        graph.wait(lambda: len(markers[-1].markers) == 1, "a message without boxes")
        assert markers[-1].markers[0].action == Marker.DELETEALL
        stamp = 1000 * 1_000_000_000
        graph.images.publish(scene_image(0, stamp))
        graph.detections.publish(detections(stamp, box_detection(box)))
        graph.wait(lambda: graph.number("depth/missing") >= 1, "missing depth is counted")
