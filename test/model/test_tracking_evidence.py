"""Where an object is looked for, and whose pixels are whose: no model is asked."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from mobile_sam.tracking.appearance import Colours, Template, tell_apart
from mobile_sam.tracking.claim import Claim, prompts_of, settled
from mobile_sam.tracking.evidence import Evidence, View, lacks_a_part, predict, remembered
from mobile_sam.tracking.memory import Memory
from mobile_sam.tracking.motion import still
from mobile_sam.tracking.track import Track
from mobile_sam.training.evaluate import mask_iou

HEIGHT, WIDTH = 120, 160


def rectangle(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """Its mask."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def begun(view: View, mask: np.ndarray) -> Track:
    """What a mask shows, from then on followed."""
    colours, logits = Colours(view.codes, mask), torch.zeros(1)
    parts = (Template.cut(view.image, mask), colours, float(mask.sum()), mask, logits, 1.0, 0.0)
    return Track("item", *parts, motion=still())


def claim(track: Track, mask: np.ndarray, similarity: float) -> Claim:
    """That it is in a mask now."""
    field = np.ones(track.template.mask.shape, np.float32)
    evidence = Evidence(track.template, still(), track.template.mask, 1.0, field, 0.0)
    return Claim(evidence, mask, 1.0, similarity, torch.zeros(1), 1.0)


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

    small, large = begun(view, item), begun(view, ground & ~item)
    tell_apart([small.colours, large.colours])
    both = {small: claim(small, item, 0.9), large: claim(large, ground, 1.0)}
    assert list(settled(both, view)) == [small]
    # And the other way about, where it is the object that was taken for a part of the thing.
    moved = np.roll(item, 35, axis=1)
    wrong = {small: claim(small, moved, 1.0), large: claim(large, ground & ~item, 0.9)}
    assert list(settled(wrong, view)) == [large]
    # What nobody's colours decide is the better claim's; what nobody else claims stays.
    twin = begun(view, item)
    tell_apart([small.colours, twin.colours])
    for first, second in ((0.9, 1.0), (1.0, 0.9)):
        equal = {small: claim(small, item, first), twin: claim(twin, item, second)}
        assert list(settled(equal, view)) == [twin if second > first else small]
    apart = {small: claim(small, item, 0.9), large: claim(large, ground & ~item, 1.0)}
    assert settled(apart, view) == apart


def test_what_loses_its_own_claim_takes_no_other_away() -> None:
    """The red thing's mask, which ranks best, lies on a blue one and a bit of a grey one: since its
    colours say that it is not there, the grey one keeps its mask."""
    blue, grey = rectangle(40, 80, 20, 60), rectangle(40, 80, 60, 75)
    red = rectangle(90, 110, 100, 140)
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    image[blue], image[grey], image[red] = (30, 30, 200), (160, 160, 160), (200, 30, 30)
    view = View.of(image)
    first, second, third = (begun(view, mask) for mask in (red, grey, blue))
    tell_apart([first.colours, third.colours])  # the grey one's colours say nothing
    second.colours.table = first.colours.table
    claims = {
        first: claim(first, rectangle(40, 80, 20, 75), 1.0),
        second: claim(second, grey, 0.9),
        third: claim(third, blue, 0.8),
    }
    assert list(settled(claims, view)) == [second, third]


def test_what_is_remembered_is_not_where_another_object_is() -> None:
    """Neither what is seen of it, nor what SAM is asked for, nor what its mask gains by."""
    believed, taken = rectangle(30, 90, 30, 130), rectangle(30, 90, 80, 130)
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    cells = cv2.resize(believed.astype(np.float32), (WIDTH // 10, HEIGHT // 10))
    found = remembered(cells, float(believed.sum()), taken, View.of(image))
    assert found is not None
    window = found.template.window
    for own in (found.seen, found.field > 0):
        assert not (own & taken[window]).any()
        assert mask_iou(own, (believed & ~taken)[window]) > 0.98  # cells round corners off
    assert remembered(cells, float(believed.sum()), believed, View.of(image)) is None


def test_what_is_learnt_later_changes_no_state() -> None:
    """Nor does what a track, or another made of the same state, learns."""
    mask = rectangle(40, 70, 30, 80)
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    view, other = View.of(image), View.of(255 - image)
    track = begun(view, mask)
    track.memory = Memory.of(torch.rand(4, 6, 8), mask)
    state = track.arrays()
    kept = {name: array.copy() for name, array in state.items()}

    def learn(track: Track) -> None:
        track.colours.learn(other.codes, mask)
        assert track.memory is not None and track.mask is not None
        for values in (track.memory.features, track.memory.shares, track.logits):
            values += 1
        for array in (track.mask, track.motion, track.template.image):
            array[:] = 0

    learn(track)
    one, two = Track.from_arrays(state), Track.from_arrays(state)
    learn(one)
    for found in (state, two.arrays()):
        assert found.keys() == kept.keys()
        for name, array in kept.items():
            np.testing.assert_array_equal(found[name], array)
    assert (one.colours.own != two.colours.own).any()
