"""What memory a process takes, as Linux counts it."""

from __future__ import annotations

from pathlib import Path


def resident(pid: int | str = "self") -> float:
    """Returns what a process has in memory, with what it shares, in MB; 0 if it ends."""
    return _status(pid, "VmRSS")


def peak(pid: int | str = "self") -> float:
    """Returns the most that a process ever had in memory, in MB; 0 if it ends.

    Unlike `getrusage`, this leaves out what its parent had when it was forked.
    """
    return _status(pid, "VmHWM")


def private(pid: int | str = "self") -> float:
    """Returns what a process has allocated and touched, without what it shares, in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    wanted = ("Anonymous:", "Swap:")
    return sum(int(line.split()[1]) for line in lines if line.startswith(wanted)) / 1024


def _status(pid: int | str, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(s.split()[1]) / 1024 for s in lines if s.startswith(f"{name}:")), 0.0)
