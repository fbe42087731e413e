"""What the person at the terminal sees."""

import sys


class EnvironmentFailure(Exception):
    """The environment cannot be made; the message says why and what to do."""


def say(message: str) -> None:
    """Prints one line of progress; to stderr, because `print` and commands own stdout."""
    print(f"[environment] {message}", file=sys.stderr, flush=True)
