"""Transitions of a managed node that say what goes wrong: rclpy is silent about what they raise."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

import mobile_sam

Transition = Callable[[Any, LifecycleState], TransitionCallbackReturn]


def said(transition: Transition) -> Transition:
    """Makes a method of a managed node say what it raises.

    What is the user's to change (weights that cannot be had, a value, a file, too little memory) is
    said in one line, and the node stays in its state. All else is said in full, and the node
    processes the error.
    """

    @wraps(transition)
    def wrapped(node: Any, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except (mobile_sam.WeightsError, ValueError, OSError, MemoryError) as error:
            node.get_logger().fatal(str(error) or type(error).__name__)
            return TransitionCallbackReturn.FAILURE
        except Exception:
            node.get_logger().fatal(f"{transition.__name__} failed:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR

    return wrapped
