"""Procedural scenes with exact labels: training data, and what the demo camera looks at.

Needs numpy and OpenCV only. Everything is a pure function of a random generator or a seed.
"""

from mobile_sam.scenes.moving import MovingScene
from mobile_sam.scenes.robot import draw_robot_scene
from mobile_sam.scenes.still import Scene, draw_scene

__all__ = ["MovingScene", "Scene", "draw_robot_scene", "draw_scene"]
