"""The variables of a command that runs inside the environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ros_environment.layout import Layout
from ros_environment.plan import Plan

# Those that would let other Python packages in, and one that makes each import of torch compile
# all of it again: 22 s instead of 3.
INTRUDERS = (
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_USER",
    "PYTHONDONTWRITEBYTECODE",
)


def clean_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's variables without those that let other Python packages in."""
    kept = {name: value for name, value in environ.items() if name not in INTRUDERS}
    return kept | {"PYTHONNOUSERSITE": "1"}


def base_prefixes(plan: Plan, layout: Layout) -> list[str]:
    """ROS prefixes below our own workspace."""
    return list(plan.distribution_prefixes) if plan.distribution else [str(layout.venv)]


def site_packages(layout: Layout) -> list[str]:
    """Where the built workspace has its Python packages (Debian's Python may say local/)."""
    patterns = ("lib/python3*/*-packages", "local/lib/python3*/*-packages")
    return [str(path) for pattern in patterns for path in sorted(layout.install.glob(pattern))]


def command_environ(
    plan: Plan, layout: Layout, environ: Mapping[str, str], *, with_workspace: bool = True
) -> dict[str, str]:
    """Variables for a command inside the environment, with or without our built workspace."""
    result = clean_environ(environ)
    prefixes = base_prefixes(plan, layout)
    programs = [str(layout.venv / "bin")]
    libraries = [] if plan.distribution else [str(layout.venv / "lib")]
    modules = []
    if with_workspace:
        prefixes = [str(layout.install), *prefixes]
        programs = [str(layout.install / "bin"), *programs]
        libraries = [str(layout.install / "lib"), *libraries]
        modules = site_packages(layout)
    if plan.distribution:
        modules += environ.get("PYTHONPATH", "").split(":")

    def joined(first: Sequence[str], name: str) -> str:
        rest = environ.get(name, "").split(":")
        return ":".join(dict.fromkeys(path for path in (*first, *rest) if path))

    result["VIRTUAL_ENV"] = str(layout.venv)
    result["PATH"] = joined(programs, "PATH")
    result["LD_LIBRARY_PATH"] = joined(libraries, "LD_LIBRARY_PATH")
    result["AMENT_PREFIX_PATH"] = ":".join(prefixes)
    result["CMAKE_PREFIX_PATH"] = ":".join(prefixes)
    if any(modules):
        result["PYTHONPATH"] = ":".join(path for path in modules if path)
    if not plan.distribution:
        result |= {"ROS_DISTRO": "kilted", "ROS_VERSION": "2", "ROS_PYTHON_VERSION": "3"}
        result["RMW_IMPLEMENTATION"] = "rmw_fastrtps_cpp"  # the only one there is as a wheel
    return result
