"""Segment everything, against upstream's generator on the demo weights.

The oracle has upstream's prompt encoder, decoder, predictor and generator; only its image encoder
is ours, which test_parity_with_upstream.py compares: upstream's cannot be built in the demo size.
"""

from __future__ import annotations

import contextlib
import io
import types

import numpy as np
import pytest
import torch
from torchvision.ops import nms

from mobile_sam.checkpoints import load_sam
from mobile_sam.everything import Everything, EverythingSettings, _crops, segment_everything
from mobile_sam.predictor import Predictor
from mobile_sam.prompts import Prompt
from mobile_sam.run_lengths import mask_from_counts
from mobile_sam.scenes import MovingScene
from mobile_sam.segments import tight_box
from mobile_sam.suppression import non_maximum_suppression
from mobile_sam.tracking import Tracker

# Of the model's own size: upstream scales with Pillow, which differs by a level here and there.
SCENE = MovingScene(11, (192, 256), 5).frame(20)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(load_sam("demo"))


@pytest.fixture(scope="module")
def upstream() -> types.SimpleNamespace:
    """Upstream's package, and its model with the demo weights."""
    with contextlib.redirect_stdout(io.StringIO()):
        oracle = pytest.importorskip("mobilesam_lite.mobile_sam")
        from mobilesam_lite.mobile_sam import modeling
    ours = load_sam("demo")
    config = ours.config

    class Encoder(torch.nn.Module):
        img_size = config.image_size

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return ours.image_encoder(pixels)

    side = config.embedding_size
    prompt_encoder = modeling.PromptEncoder(
        embed_dim=config.embedding_dim,
        image_embedding_size=(side, side),
        input_image_size=(config.image_size, config.image_size),
        mask_in_chans=config.mask_prompt_dim,
    )
    transformer = modeling.TwoWayTransformer(
        depth=config.decoder_depth,
        embedding_dim=config.embedding_dim,
        mlp_dim=config.decoder_mlp_dim,
        num_heads=config.decoder_heads,
    )
    mask_decoder = modeling.MaskDecoder(
        num_multimask_outputs=config.multimasks,
        transformer=transformer,
        transformer_dim=config.embedding_dim,
        iou_head_depth=config.iou_head_depth,
        iou_head_hidden_dim=config.iou_head_dim,
    )
    prompt_encoder.load_state_dict(ours.prompt_encoder.state_dict())
    mask_decoder.load_state_dict(ours.mask_decoder.state_dict())
    model = modeling.Sam(Encoder(), prompt_encoder, mask_decoder).eval()
    return types.SimpleNamespace(model=model, package=oracle)


def pairwise_iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU of each mask, bool (N, H, W), with each other, bool (M, H, W): (N, M)."""
    flat, others = (m.reshape(len(m), -1).astype(np.float32) for m in (one, other))
    overlap = flat @ others.T
    return overlap / (flat.sum(1)[:, None] + others.sum(1)[None] - overlap)


@pytest.mark.parametrize("most", [0, 0.3, 0.7, 1])
def test_of_boxes_that_overlap_the_same_stay_as_by_torchvision(most: float) -> None:
    """Also at equal scores, at an overlap of just the most, and of boxes without an area."""
    rng = np.random.default_rng(0)
    low = rng.integers(0, 100, (1000, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 40, (1000, 2))], axis=1).astype(np.float32)
    scores = rng.integers(0, 50, 1000) / 50
    ends = torch.from_numpy(boxes - np.array([0, 0, 1, 1], np.float32))
    wanted = nms(ends, torch.from_numpy(scores.astype(np.float32)), most)
    kept = non_maximum_suppression(boxes, scores, most)
    assert kept.tolist() == wanted.tolist()
    assert 0 < len(kept) and (len(kept) < 1000 or most == 1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2},
        {"min_mask_region_area": 60, "box_nms_thresh": 0.6},
        {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.3, "stability_score_offset": 2.0},
    ],
)
def test_same_masks_as_upstream(
    options: dict, predictor: Predictor, upstream: types.SimpleNamespace
) -> None:
    options = {"pred_iou_thresh": 0.6, "stability_score_thresh": 0.7, **options}
    generator = upstream.package.SamAutomaticMaskGenerator(
        upstream.model, points_per_side=12, output_mode="uncompressed_rle", **options
    )
    records = generator.generate(SCENE.image)
    names = {
        "pred_iou_thresh": "least_predicted_iou",
        "stability_score_thresh": "least_stability",
        "stability_score_offset": "stability_offset",
        "crop_n_layers": "crop_layers",
        "crop_n_points_downscale_factor": "crop_points_divisor",
        "min_mask_region_area": "least_region",
        "box_nms_thresh": "box_nms",
    }
    settings = EverythingSettings(
        points_per_side=12, **{names[name]: value for name, value in options.items()}
    )
    found = segment_everything(predictor, SCENE.image, settings)
    wanted = np.stack([mask_from_counts(r["segmentation"]["counts"], (192, 256)) for r in records])
    assert len(wanted) >= 5, "this shows nothing"
    assert abs(len(found) - len(wanted)) <= 0.01 * len(wanted)
    iou = pairwise_iou(found.segments.masks, wanted)
    assert (iou.max(axis=0) > 0.99).mean() >= 0.99
    for record, i in zip(records, iou.argmax(axis=0), strict=True):
        segments = found.segments
        assert segments.predicted_iou[i] == pytest.approx(record["predicted_iou"], abs=1e-3)
        assert segments.stability[i] == pytest.approx(record["stability_score"], abs=5e-3)
        assert segments.area[i] == pytest.approx(record["area"], rel=0.01)
        x, y, width, height = record["crop_box"]
        assert found.crop_boxes[i].tolist() == [x, y, x + width, y + height]
        prompt = found.prompts[i]
        assert prompt.points is not None
        np.testing.assert_allclose(prompt.points[0], record["point_coords"][0], atol=1e-3)


def test_masks_of_the_demo_weights_are_those_of_upstreams_two_resizes(
    predictor: Predictor, upstream: types.SimpleNamespace
) -> None:
    image = MovingScene(11, (300, 400), 5).frame(0)
    boxes = [tight_box(image.labels == i) for i in np.unique(image.labels)[1:]]
    embedding = predictor.encode(image.image)
    segments = predictor.decode(embedding, [Prompt(box=box) for box in boxes])
    wanted = upstream.model.postprocess_masks(
        torch.from_numpy(segments.logits)[:, None], embedding.scaled_size, (300, 400)
    )
    for found, mask in zip(segments.masks, wanted[:, 0].numpy() > 0, strict=True):
        assert mask.sum() > 50 and pairwise_iou(found[None], mask[None])[0, 0] > 0.9995


def test_best_first_and_progress(predictor: Predictor) -> None:
    said: list[tuple[int, int]] = []
    settings = EverythingSettings(
        points_per_side=8,
        prompts_per_batch=20,
        least_predicted_iou=0.5,
        least_stability=0.5,
    )
    found = segment_everything(
        predictor, SCENE.image, settings, progress=lambda *now: said.append(now)
    )
    assert said == [(20, 64), (40, 64), (60, 64), (64, 64)]
    assert (np.diff(found.segments.predicted_iou) <= 0).all() and len(found) > 1


def test_boxes_instead_of_the_grid(predictor: Predictor) -> None:
    """One mask for each box, that of the box's object."""
    masks = [SCENE.labels == i for i in np.unique(SCENE.labels)[1:]]
    boxes = np.array([tight_box(mask) for mask in masks])
    settings = EverythingSettings(least_predicted_iou=0, least_stability=0, box_nms=1)
    found: Everything = segment_everything(predictor, SCENE.image, settings, boxes)
    assert len(found) == len(boxes)
    iou = pairwise_iou(np.stack(masks), found.segments.masks)
    assert iou.max(axis=1).mean() > 0.6
    with pytest.raises(ValueError, match=r"boxes\[1\]: box \[9.0, 9.0, 2.0, 12.0\]"):
        segment_everything(
            predictor, SCENE.image, boxes=np.array([[0, 0, 5, 5], [9, 9, 2, 12]], np.float32)
        )


def test_an_image_where_nothing_is_kept(predictor: Predictor) -> None:
    settings = EverythingSettings(points_per_side=2, least_stability=1.0, least_predicted_iou=1.0)
    found = segment_everything(predictor, np.zeros((40, 60, 3), np.uint8), settings)
    assert len(found) == 0 and found.segments.masks.shape == (0, 40, 60)


@pytest.mark.parametrize("size_hw", [(1, 500), (500, 1), (3, 200)])
def test_thin_and_tiny_images(predictor: Predictor, size_hw: tuple[int, int]) -> None:
    """They are encoded, decoded, cut into crops and followed in, as others are."""
    height, width = size_hw
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    embedding = predictor.encode(image)
    prompts = [Prompt(box=(0, 0, width, height)), Prompt(points=[(width // 2, height // 2)])]
    assert predictor.decode(embedding, prompts).masks.shape == (2, height, width)
    settings = EverythingSettings(
        points_per_side=1, least_predicted_iou=0, least_stability=0, crop_layers=1
    )
    said: list[tuple[int, int]] = []
    found = segment_everything(predictor, image, settings, progress=lambda *now: said.append(now))
    assert found.segments.masks.shape == (len(found), height, width) and said[-1] == said[-1][::-1]
    tracker = Tracker(predictor)
    tracker.start(image, embedding, {"all": prompts[0], "part": prompts[1]}, 0.0)
    tracker.step(image, embedding, 0.1)
    assert tracker.segments(embedding).masks.shape == (len(tracker), height, width)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_crops_have_pixels_and_cover_the_image(layers: int) -> None:
    for height, width in ((1, 1), (1, 500), (500, 1), (3, 40), (5, 5), (20, 30), (480, 640)):
        seen = np.zeros((height, width), int)
        for x0, y0, x1, y1 in (
            b for b, _ in _crops((height, width), EverythingSettings(crop_layers=layers))
        ):
            assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
            seen[y0:y1, x0:x1] += 1
        assert seen.min() > layers  # the image itself, and each layer


@pytest.mark.parametrize(
    ("field", "value"),
    [("points_per_side", 0), ("box_nms", 1.5), ("crop_overlap", 1.0), ("least_region", -1)],
)
def test_bad_settings_are_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        EverythingSettings(**{field: value})
