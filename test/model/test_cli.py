"""The command line as its users call it: files in, files out, exit status."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_model import SMALL

from mobile_sam.checkpoints import save_safetensors
from mobile_sam.cli import main, segment
from mobile_sam.cli.errors import UserError
from mobile_sam.modeling import Sam
from mobile_sam.pictures import Picture
from mobile_sam.scenes import MovingScene
from mobile_sam.segments import tight_box
from mobile_sam.training.evaluate import mask_iou

SCENE = MovingScene(5, (240, 320), 3)


def write(path: Path, index: int = 0) -> Path:
    cv2.imwrite(str(path), SCENE.frame(index).image[..., ::-1])
    return path


def truth(label: int, index: int = 0) -> np.ndarray:
    return SCENE.frame(index).labels == label


def text(box: np.ndarray) -> str:
    return ",".join(str(value) for value in box)


def read_mask(path: Path) -> np.ndarray:
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert mask.ndim == 2 and set(np.unique(mask)) <= {0, 255}
    return mask > 0


def test_boxes_and_points_of_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, output = write(tmp_path / "image.png"), tmp_path / "out"
    on, off = (tight_box(truth(i)).reshape(2, 2).mean(axis=0).astype(int) for i in (2, 3))
    arguments = ["segment", str(image), "--output", str(output)]
    for label in (2, 3):
        arguments += ["--box", text(tight_box(truth(label)))]
    arguments += ["--points", f"{text(on)} !{text(off)}"]
    assert main(arguments) == 0
    assert "3 objects in 1 pictures" in capsys.readouterr().out
    masks = [read_mask(output / "masks" / f"image_{i}.png") for i in (1, 2, 3)]
    assert all(mask_iou(masks[i], truth(i + 2)) > 0.6 for i in (0, 1))
    assert masks[2][on[1], on[0]] and not masks[2][off[1], off[0]]
    overlay = cv2.imread(str(output / "overlays/image.png"))[..., ::-1]
    outside = ~np.any(masks, axis=0)
    np.testing.assert_array_equal(overlay[outside], SCENE.frame(0).image[outside])

    coco = pytest.importorskip("pycocotools.coco").COCO(output / "segments.json")
    annotations = coco.loadAnns(coco.getAnnIds())
    assert len(annotations) == 3
    for mask, annotation in zip(masks, annotations, strict=True):
        np.testing.assert_array_equal(coco.annToMask(annotation), mask)
        x0, y0, x1, y1 = tight_box(mask)
        assert annotation["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        assert annotation["area"] == mask.sum() and 0 < annotation["score"] <= 1.1


def test_a_folder_with_a_damaged_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    write(folder / "2.png", 10)
    whole = write(folder / "10.png", 20)
    (folder / "11.png").write_bytes(whole.read_bytes()[:100])
    (folder / "notes.txt").write_text("no image")
    status = main(
        ["segment", str(folder), "--everything", "--points-per-side", "6", "--output", str(output),
         "--least-predicted-iou", "0.3", "--least-stability", "0.3", "--write", "coco"]
    )  # fmt: skip
    assert status == 1
    assert "11.png: damaged" in capsys.readouterr().err
    assert [path.name for path in output.iterdir()] == ["segments.json"]
    content = json.loads((output / "segments.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["2.png", "10.png"]
    assert len({a["image_id"] for a in content["annotations"]}) == 2


def quick(folder: Path) -> list[str]:
    """Options for one object in each picture, no matter which."""
    save_safetensors(Sam(SMALL), folder / "small.safetensors")
    model = ["--weights", str(folder / "small.safetensors"), "--backend", "torch"]
    return ["--point", "100,100", "--device", "cpu", *model]


def test_pictures_that_differ_in_their_endings_keep_their_results_apart(tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for index, name in enumerate(("a.jpg", "a.png", "b.png")):
        write(folder / name, 10 * index)
    (folder / "b.txt").write_text("no image")
    assert main(["segment", str(folder), "--output", str(output), *quick(tmp_path)]) == 0
    names = sorted(str(path.relative_to(output)) for path in output.rglob("*.png"))
    assert names == [
        *("masks/a.jpg_1.png", "masks/a.png_1.png", "masks/b_1.png"),
        *("overlays/a.jpg.png", "overlays/a.png.png", "overlays/b.png"),
    ]


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (UserError("full: cannot be written"), 1)]
)
def test_what_was_found_is_kept_when_a_run_ends_early(
    error: BaseException, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for index in range(4):
        write(folder / f"{index}.png", index)
    saved = output / "segments.json"
    seen = []

    def write_third_no_more(writer: object, picture: Picture, segments: object) -> None:
        seen.append(json.loads(saved.read_text()))  # now and then it is saved meanwhile
        if len(seen) == 3:
            raise error

    monkeypatch.setattr(segment._Writer, "write", write_third_no_more)
    monkeypatch.setattr(segment, "_SAVE_SECONDS", -1)
    command = ["segment", str(folder), "--output", str(output), *quick(tmp_path)]
    assert main(command) == status
    assert [len(content["images"]) for content in seen] == [1, 2, 3]
    monkeypatch.setattr(segment, "_SAVE_SECONDS", 300)
    saved.unlink()
    seen.clear()
    monkeypatch.setattr(segment._Writer, "write", lambda *arguments: (_ for _ in ()).throw(error))
    assert main(command) == status
    assert [image["file_name"] for image in json.loads(saved.read_text())["images"]] == ["0.png"]


def test_a_video_with_boxes_from_a_file(tmp_path: Path) -> None:
    video, output = tmp_path / "video.avi", tmp_path / "out"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for index in range(3):
        writer.write(SCENE.frame(index).image[..., ::-1])
    writer.release()
    x0, y0, x1, y1 = (float(v) for v in tight_box(truth(3, 2)))
    boxes = tmp_path / "boxes.json"
    annotation = {"id": 5, "image_id": 9, "category_id": 7, "bbox": [x0, y0, x1 - x0, y1 - y0]}
    boxes.write_text(
        json.dumps(
            {
                "images": [{"id": 9, "file_name": "video_000002.png"}],
                "annotations": [annotation],
                "categories": [{"id": 7, "name": "cup"}],
            }
        )
    )
    assert main(["segment", str(video), "--boxes-from", str(boxes), "--output", str(output)]) == 0
    assert [path.name for path in (output / "masks").iterdir()] == ["video_000002_1.png"]
    assert mask_iou(read_mask(output / "masks/video_000002_1.png"), truth(3, 2)) > 0.5
    result = json.loads((output / "segments.json").read_text())
    assert result["categories"] == [{"id": 7, "name": "cup"}]
    assert [a["category_id"] for a in result["annotations"]] == [7]
    frames = cv2.VideoCapture(str(output / "overlay.mp4"))
    assert frames.get(cv2.CAP_PROP_FRAME_COUNT) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{image}"], "nothing to segment"),
        (["{tmp}/none.png", "--point", "1,1"], "none.png: no such file"),
        (["{tmp}/empty", "--point", "1,1"], "empty: no image can be read"),
        (["{text}", "--point", "1,1"], "text.txt: no image can be read"),
        (["{image}", "--everything", "--point", "1,1"], "--everything needs no"),
        (["{image}", "--everything", "--box-nms", "2"], "box_nms is 2.0"),
        (["{image}", "--point", "1,1", "--weights", "none"], "no weights of the name 'none'"),
        (["{image}", "--point", "1,1", "--device", "abacus"], "'abacus' cannot be used"),
        (["{image}", "--boxes-from", "{text}"], "text.txt: not a JSON file"),
        (["{image}", "--boxes-from", "{json}"], "other.json: an entry has no 'images'"),
        (["{image}", "--point", "1,1", "--output", "{text}/out"], "text.txt"),
    ],
)
def test_user_errors_are_said_without_a_traceback(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("words")
    (tmp_path / "other.json").write_text("{}")
    names = {
        "image": write(tmp_path / "image.png"),
        "tmp": tmp_path,
        "text": tmp_path / "text.txt",
        "json": tmp_path / "other.json",
    }
    given = [argument.format(**names) for argument in arguments]
    output = [] if "--output" in given else ["--output", str(tmp_path / "out")]
    assert main(["segment", *given, *output]) == 1
    said = capsys.readouterr().err
    assert said.startswith("mobile-sam: ") and message in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--box", "1,2,3", "'1,2,3' is not X_MIN,Y_MIN,X_MAX,Y_MAX"),
        ("--box", "5,5,1,9", "box [5.0, 5.0, 1.0, 9.0] has no inside"),
        ("--point", "a,b", "'a,b' is not X,Y"),
        ("--points", "1,2 !", "is not X,Y or !X,Y"),
        ("--points", "", "points has shape"),
        ("--write", "films", "'films' is none of masks"),
    ],
)
def test_wrong_use_has_status_two(
    option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["segment", "image.png", option, value])
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_weights_and_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list"]) == 0
    listed = capsys.readouterr().out
    assert "mobile_sam: " in listed and "licence: Apache-2.0" in listed
    assert main(["weights", "verify", "demo"]) == 0
    assert "verified" in capsys.readouterr().out
    assert main(["info"]) == 0
    assert "input: 512 pixels" in capsys.readouterr().out


def test_shrunk_weights_segment_as_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, small = write(tmp_path / "image.png"), tmp_path / "small.safetensors"
    assert main(["shrink", "demo", str(small)]) == 0
    assert f"{small}: 2." in capsys.readouterr().out
    masks = []
    for weights in ("demo", str(small)):
        output = tmp_path / f"of_{len(masks)}"
        box = text(tight_box(truth(2)))
        arguments = ["segment", str(image), "--box", box, "--output", str(output)]
        assert main([*arguments, "--weights", weights]) == 0
        masks.append(read_mask(output / "masks/image_1.png"))
    assert mask_iou(*masks) > 0.97
    assert main(["shrink", "demo", str(tmp_path / "small.pt")]) == 1
    assert "small.pt: has to end in .safetensors" in capsys.readouterr().err


def test_what_is_prepared_is_kept_for_the_next_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")
    monkeypatch.setenv("MOBILE_SAM_CACHE", str(tmp_path))
    save_safetensors(Sam(SMALL), tmp_path / "small.safetensors")
    model = ["--weights", str(tmp_path / "small.safetensors"), "--backend", "openvino"]
    assert main(["prepare", "640x480", "320x240", *model]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == ["640x480", "320x240"]
    assert all(line.endswith(" s") for line in printed)
    monkeypatch.setattr(openvino, "convert_model", lambda *a, **k: pytest.fail("compiled again"))
    assert main(["prepare", "640x480", *model]) == 0


@pytest.mark.parametrize("size", ["640", "640x", "0x480", "-1x480", "640x480x3"])
def test_sizes_that_are_none(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["prepare", "--", size])
    assert f"'{size}' is not WIDTHxHEIGHT, as 640x480" in capsys.readouterr().err
