"""Where an object is looked for, and whose pixels are whose: no model is asked."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from mobile_sam.tracking.appearance import Colours, Template, tell_apart
from mobile_sam.tracking.claim import Claim, prompts_of, settled
from mobile_sam.tracking.evidence import Evidence, View, lacks_a_part, predict
from mobile_sam.tracking.motion import still
from mobile_sam.tracking.track import Track

HEIGHT, WIDTH = 120, 160


def rectangle(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """Its mask."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_a_part_may_grow_to_where_the_rest_is_remembered() -> None:
    """If it is smaller than usual; not to where its colours are, but another thing."""
    bar, part, twin = (rectangle(50, 70, 20, end) for end in (85, 60, 60))
    twin = np.roll(twin, 40, axis=0)
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    image[bar | twin] = (200, 30, 30)
    view = View.of(image)
    colours, template = Colours(view.codes, bar), Template.cut(image, part)
    cells = cv2.resize(bar.astype(np.float32), (WIDTH // 10, HEIGHT // 10))
    for area, gains, asked in (
        (bar.sum(), [True, True, False], [bar]),
        (part.sum(), [True, False, False], []),
    ):
        found = predict(template, colours, float(area), 10.0, still(), view, cells)
        assert found is not None
        corner = np.array((found.template.y, found.template.x))
        inside = np.transpose([(60, 40), (60, 78), (98, 40)] - corner)  # part, rest, twin
        assert (found.field[tuple(inside)] > 0).tolist() == gains
        more = prompts_of(found, True)[2:]
        assert len(more) == len(asked)
        for prompt, mask in zip(more, asked, strict=True):
            rows, columns = np.nonzero(mask)
            box = (columns.min(), rows.min(), columns.max(), rows.max())
            np.testing.assert_allclose(prompt.box, box, atol=4)
    assert lacks_a_part(part, colours, None, view) and not lacks_a_part(bar, colours, None, view)


def test_features_say_that_a_part_is_missing_where_colours_do_not() -> None:
    """The other half has colours that the ground has as well: it grows to there only if nothing
    touches it."""
    whole, half = rectangle(40, 80, 40, 120), rectangle(40, 80, 40, 80)
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    image[half] = (200, 30, 30)
    view = View.of(image)
    colours = Colours(view.codes, whole)
    cells = cv2.resize(whole.astype(np.float32), (WIDTH // 10, HEIGHT // 10))
    assert not lacks_a_part(half, colours, None, view)
    assert lacks_a_part(half, colours, cells, view)
    assert not lacks_a_part(whole, colours, cells, view)
    colours.around[:] = 2 * colours.own  # likelihoods of a third
    tell_apart([colours])
    grown = []
    for touched in (False, True):
        template = Template.cut(image, half)
        found = predict(template, colours, whole.sum(), 10.0, still(), view, cells, touched)
        assert found is not None
        grown.append(found.field[60 - found.template.y, 95 - found.template.x] > 0)
    assert grown == [True, False]


def test_pixels_are_whose_colours_they_have() -> None:
    """A larger thing that takes in an object is not believed, be its claim ever so good."""
    ground = rectangle(20, 100, 20, 140)
    item = rectangle(50, 70, 60, 90)
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    image[ground], image[item] = (40, 60, 160), (200, 30, 30)
    view = View.of(image)

    def track(id: str, mask: np.ndarray) -> Track:
        colours, logits = Colours(view.codes, mask), torch.zeros(1)
        parts = (Template.cut(image, mask), colours, float(mask.sum()), mask, logits, 1.0, 0.0)
        return Track(id, *parts, motion=still())

    def claim(track: Track, mask: np.ndarray, similarity: float) -> Claim:
        field = np.ones(track.template.mask.shape, np.float32)
        evidence = Evidence(track.template, still(), track.template.mask, 1.0, field, 0.0)
        return Claim(evidence, mask, 1.0, similarity, torch.zeros(1), 1.0)

    small, large = track("item", item), track("ground", ground & ~item)
    tell_apart([small.colours, large.colours])
    both = {small: claim(small, item, 0.9), large: claim(large, ground, 1.0)}
    assert list(settled(both, view)) == [small]
    # And the other way about, where it is the object that was taken for a part of the thing.
    moved = np.roll(item, 35, axis=1)
    wrong = {small: claim(small, moved, 1.0), large: claim(large, ground & ~item, 0.9)}
    assert list(settled(wrong, view)) == [large]
    # What nobody's colours decide is the better claim's; what nobody else claims stays.
    twin = track("twin", item)
    tell_apart([small.colours, twin.colours])
    for first, second in ((0.9, 1.0), (1.0, 0.9)):
        equal = {small: claim(small, item, first), twin: claim(twin, item, second)}
        assert list(settled(equal, view)) == [twin if second > first else small]
    apart = {small: claim(small, item, 0.9), large: claim(large, ground & ~item, 1.0)}
    assert settled(apart, view) == apart
