"""What the machine says about itself, for the diagnostics: memory and temperatures."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")
_THERMAL = Path("/sys/class/thermal")


def memory(status: Path = _STATUS) -> dict[str, str]:
    """Returns the resident memory of this process by its key, nothing where it cannot be read."""
    try:
        lines = status.read_text().splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    except (OSError, StopIteration, ValueError):
        return {}
    return {"memory_mb": f"{kilobytes / 1024:.0f}"}


def temperatures(thermal: Path = _THERMAL) -> dict[str, str]:
    """Returns the temperature of each of the kernel's thermal zones by its key; those that cannot
    be read, as zones of parts that are switched off, are left out."""
    found: dict[str, str] = {}
    for zone in sorted(thermal.glob("thermal_zone*")):
        try:
            name = (zone / "type").read_text().strip()
            celsius = int((zone / "temp").read_text()) / 1000
        except (OSError, ValueError):
            continue
        key = f"temperature_{name}_c"
        if key in found:
            key = f"temperature_{name}_{zone.name.removeprefix('thermal_zone')}_c"
        found[key] = f"{celsius:.1f}"
    return found
