"""How many cases hypothesis draws: few in the tests, with `--hypothesis-profile=full` a hundred
thousand in all.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

_COMMON = settings(deadline=20_000, suppress_health_check=list(HealthCheck), print_blob=True)
settings.register_profile("quick", _COMMON, max_examples=60, derandomize=True, database=None)
settings.register_profile("full", _COMMON, max_examples=8000)
settings.load_profile("quick")


def cases(quick: int) -> int:
    """Returns how many cases a test is to draw that draws `quick` in the quick profile."""
    share = settings.default.max_examples / settings.get_profile("quick").max_examples
    return max(1, round(quick * share))
