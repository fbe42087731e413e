"""Short versions of what `benchmarks/soak.py` and `kills.py` do for long."""

from __future__ import annotations

from pathlib import Path

import pytest
from kills import MOST_SECONDS, SIGNALS, ends

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MOST_GROWTH = 40.0  # MB; so short after its start, not everything is there that will be


@pytest.mark.slow
def test_nothing_grows(ros: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import soak

    samples = list(soak.soak(0.15, 15.0, 0.1, 0.05, ["backend:=torch"]))
    first, last = samples[0], samples[-1]
    assert len(samples) == 4 and sum(len(s.milliseconds) for s in samples) > 10
    assert last.megabytes - first.megabytes < MOST_GROWTH
    assert last.threads <= first.threads and last.files <= first.files


@pytest.mark.slow
def test_ends_in_time_and_starts_again(tmp_path: Path) -> None:
    found = list(ends(len(SIGNALS), 6.0, tmp_path, seed=4))
    assert [end.signal for end in found] == list(SIGNALS)
    assert not [end for end in found if end.problem], found
    assert max(end.seconds for end in found) < MOST_SECONDS
