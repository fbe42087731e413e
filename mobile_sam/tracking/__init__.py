"""Objects followed from image to image after one prompt, with no network but SAM's own."""

from mobile_sam.tracking.track import TrackedObject, TrackState
from mobile_sam.tracking.tracker import Tracker

__all__ = ["TrackState", "TrackedObject", "Tracker"]
