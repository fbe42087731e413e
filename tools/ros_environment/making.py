"""Makes an environment step by step, or finds that nothing is to be done."""

from __future__ import annotations

import time
from pathlib import Path

from ros_environment.exports import mend_exports
from ros_environment.interpreters import python_version
from ros_environment.layout import Layout, discard, environments
from ros_environment.ledger import Ledger, locked
from ros_environment.machine import check_machine
from ros_environment.packages import install_packages, make_venv
from ros_environment.plan import Plan
from ros_environment.reporting import say
from ros_environment.runner import Runner
from ros_environment.workspace import build_workspace, source_fingerprint

BASE_STEPS = ("venv", "packages", "oracle", "exports")


def make(plan: Plan, layout: Layout, checkout: Path) -> None:
    """Makes the environment or brings it up to date; quick if there is nothing to do.

    Raises:
        EnvironmentFailure: it cannot be made; the message says what to do.
    """
    base = Ledger(layout.root / "steps")
    built = Ledger(layout.workspace / "steps")
    sources = source_fingerprint(checkout)
    if is_ready(plan, layout, base, built, sources):
        return
    begin = time.monotonic()
    with locked(layout.root / "lock") as lock:
        run = Runner(layout.root / "environment.log", lock)
        forget_if_broken(layout, base)
        if any(base.done(step) != plan.key for step in BASE_STEPS):
            make_base(plan, layout, base, run)
        if built.interrupted():
            say("an earlier build was interrupted: building afresh")
            discard(layout.workspace)
        if built.done("build") != sources:
            say("4/4 building the package with colcon")
            built.perform("build", sources, lambda: build_workspace(plan, layout, checkout, run))
    say(f"ready after {time.monotonic() - begin:.0f} s: {layout.root}")
    others = [path for path in environments(layout.root.parent) if path != layout.root]
    if others:
        place = layout.root.parent
        say(f"{len(others)} other environments take room in {place}; `clean` removes all")


def is_ready(plan: Plan, layout: Layout, base: Ledger, built: Ledger, sources: str) -> bool:
    """Whether everything is made for `plan` and for the checkout as it is now."""
    return (
        not base.interrupted()
        and not built.interrupted()
        and all(base.done(step) == plan.key for step in BASE_STEPS)
        and built.done("build") == sources
        and python_version(layout.python) is not None
    )


def forget_if_broken(layout: Layout, base: Ledger) -> None:
    """Removes a virtual environment that an interruption or a Python upgrade left unusable."""
    interrupted = base.interrupted()
    if interrupted:
        say(f"an earlier run was interrupted ({', '.join(interrupted)}): starting afresh")
    elif base.done("venv") is None or python_version(layout.python):
        return
    else:
        say(f"{layout.python} no longer runs: starting afresh")
    # The ledger last: if this is interrupted as well, the next run ends up here again.
    discard(layout.venv)
    base.clear()


def make_base(plan: Plan, layout: Layout, base: Ledger, run: Runner) -> None:
    """Makes the virtual environment with everything but our own package."""
    check_machine(plan, layout.root)
    # Built with other libraries and headers than those that come now.
    for workspace in layout.root.glob("workspace-*"):
        discard(workspace)
    source = f"ROS {plan.distribution}" if plan.distribution else "ROS 2 wheels"
    say(f"making {layout.root} ({source}, Python {plan.python_version}): some minutes")
    say(f"1/4 virtual environment on {plan.python}")
    base.perform("venv", plan.key, lambda: make_venv(plan, layout, run))
    say(f"2/4 packages, 3 GB to download the first time (log: {run.log})")
    base.perform("packages", plan.key, lambda: install_packages(layout, run, plan.requirements))
    alone = plan.requirements_without_dependencies
    base.perform("oracle", plan.key, lambda: install_packages(layout, run, alone, "--no-deps"))
    say("3/4 CMake exports")
    base.perform("exports", plan.key, lambda: mend(plan, layout))


def mend(plan: Plan, layout: Layout) -> None:
    """Mends the CMake exports of ROS wheels; a distribution's need it not."""
    if not plan.distribution:
        say(f"  {mend_exports(layout.venv, layout.python)} files mended")
