"""Objects followed from image to image after one prompt, with no network but SAM's own."""

from mobile_sam.tracking.tracker import TrackedObject, Tracker, TrackState

__all__ = ["TrackState", "TrackedObject", "Tracker"]
