"""An executor that goes on: what a callback raises loses its message, never the node."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable

from rclpy.context import Context
from rclpy.executors import Executor, ExternalShutdownException

_PAUSE_SECONDS = 0.01  # so that what fails again at once does not take a whole core


def spin(executor: Executor, context: Context, complain: Callable[[str], None]) -> None:
    """Spins until the context or the executor is shut down, and says what callbacks raise."""
    while context.ok():
        try:
            executor.spin()
            return
        except ExternalShutdownException:
            return
        except Exception:
            if context.ok():  # else it ended under a callback
                complain(f"a callback failed:\n{traceback.format_exc()}")
                time.sleep(_PAUSE_SECONDS)
