"""Runs a module as a child that does not outlive its parent: python -m …child MODULE ARGUMENTS."""

from __future__ import annotations

import ctypes
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2): the signal to get when the parent ends, Linux only


def main() -> None:
    """Becomes the module given on the command line."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
    # Ignored where the parent was started in the background, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
