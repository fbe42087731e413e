"""Which messages belong to which image, in small bags of times alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mobile_sam_ros.bags.matching import Companions, Moment


def moments(*times: tuple[int, int]) -> list[Moment]:
    """By log time and stamp; the message is its number."""
    return [Moment(log, stamp, number) for number, (log, stamp) in enumerate(times)]


def matched(
    images: list[Moment], others: list[Moment], slop: int = 0, reach: int = 100
) -> tuple[list[list[int]], list[int]]:
    """The numbers of the messages of each image, and of those that belong to none."""
    lost: list[int] = []
    companions = Companions(iter(others), slop, reach, lambda moment: lost.append(moment.message))
    found = [
        [moment.message for moment in companions.of(image, following)]
        for image, following in zip(images, [*images[1:], None], strict=True)
    ]
    companions.close()
    return found, lost


IMAGES = moments((1000, 900), (1010, 910), (1020, 920))


@pytest.mark.parametrize(
    ("others", "slop", "expected", "lost"),
    [
        ([(1005, 900), (1015, 910), (1030, 920)], 0, [[0], [1], [2]], []),
        ([(1019, 900), (1029, 910)], 0, [[0], [1], []], []),  # later than the next image
        ([(995, 900), (1019, 920)], 0, [[0], [], [1]], []),  # recorded before their image
        ([(1005, 901)], 0, [[], [], []], [0]),  # of no image
        ([(1005, 903)], 5, [[0], [], []], []),
        ([(1005, 906)], 6, [[], [0], []], []),  # nearer to the second
        ([(1005, 905)], 6, [[0], [], []], []),  # as near to both: the first
        ([(1005, 901), (1006, 900)], 5, [[1, 0], [], []], []),  # the nearest one first
        ([(1001, 0), (1012, 0), (1050, 0)], 0, [[0], [1], [2]], []),  # without a stamp
        ([(990, 0)], 0, [[], [], []], [0]),  # before the first image
        ([(1101, 900), (1102, 920)], 0, [[], [], [1]], []),  # one second beyond the reach
        ([], 0, [[], [], []], []),
    ],
)
def test_messages_go_to_the_image_of_their_stamp(
    others: list[tuple[int, int]], slop: int, expected: list[list[int]], lost: list[int]
) -> None:
    found, given_up = matched(IMAGES, moments(*others), slop)
    assert found == expected
    assert given_up == lost or others == [(1101, 900), (1102, 920)]


def test_what_lies_before_the_first_image_is_not_kept() -> None:
    """As of an image far into the bag, or after a gap."""
    lost: list[int] = []
    others, most = moments(*((10 * i, 10 * i + 2) for i in range(1, 2000))), 0

    def read() -> Iterator[Moment]:
        nonlocal most
        for other in others:
            yield other
            most = max(most, len(companions._waiting))

    companions = Companions(iter(()), 0, 100, lambda moment: lost.append(moment.message))
    companions._messages = read()
    companions._ahead = next(companions._messages)
    (image,) = moments((19_000, 19_002))
    assert [moment.message for moment in companions.of(image, None)] == [1899]
    assert 0 < most <= 21 and lost == list(range(1889))
    assert companions.nearest(image) == 10  # before and after it


def test_what_nobody_wants_is_not_kept() -> None:
    """Of a bag of any length only what lies within reach is in memory."""
    images = moments(*((10 * i, 10 * i + 1) for i in range(1, 2000)))
    others = moments(*((10 * i, 10 * i + 2) for i in range(1, 2000)))
    companions = Companions(iter(others), 0, 100)
    for image in images:
        assert companions.of(image, None) == []
        assert len(companions._waiting) <= 21
