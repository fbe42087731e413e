"""The images that are kept until their masks come."""

from __future__ import annotations

from mobile_sam_ros.frames import Frame, FrameRing

_MOST_IMAGES = 60
_MOST_BYTES = 128 << 20
_FEWEST_IMAGES = 4  # also of the largest ones: masks take longer than an image


class Images(FrameRing[Frame]):
    """The newest images, a number of them and of bytes at most."""

    def __init__(self) -> None:
        super().__init__(_MOST_IMAGES)

    def add(self, frame: Frame) -> None:
        """Keeps an image; the oldest ones go."""
        super().add(frame)
        size = sum(len(kept.message.data) for kept in self._frames)
        while size > _MOST_BYTES and len(self._frames) > _FEWEST_IMAGES:
            size -= len(self._frames.popleft().message.data)
