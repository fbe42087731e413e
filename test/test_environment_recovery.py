"""tools/environment.py: steps are done once, and an interruption leaves nothing half done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ros_environment import making
from ros_environment.layout import Layout, environments, lay_out, remove_environments
from ros_environment.ledger import Ledger, locked
from ros_environment.plan import Plan
from ros_environment.reporting import EnvironmentFailure
from ros_environment.runner import Runner
from ros_environment.workspace import source_fingerprint

TOOLS = Path(__file__).resolve().parent.parent / "tools"


def plan(**changes: object) -> Plan:
    values: dict[str, object] = {
        "python": Path("/usr/bin/python3.11"),
        "python_version": "3.11",
        "distribution": None,
        "distribution_prefixes": (),
        "requirements": ("numpy",),
        "requirements_without_dependencies": (),
    }
    return Plan(**(values | changes))  # type: ignore[arg-type]


def test_step_is_done_once_for_each_fingerprint(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "steps")
    runs: list[str] = []
    assert ledger.perform("build", "a", lambda: runs.append("first"))
    assert not ledger.perform("build", "a", lambda: runs.append("again"))
    assert ledger.perform("build", "b", lambda: runs.append("changed"))
    assert runs == ["first", "changed"]
    assert ledger.done("build") == "b"
    assert ledger.interrupted() == []


def test_failed_step_is_neither_done_nor_interrupted(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)

    def fail() -> None:
        raise EnvironmentFailure("no network")

    ledger.perform("packages", "a", lambda: None)
    with pytest.raises(EnvironmentFailure):
        ledger.perform("packages", "b", fail)
    assert ledger.done("packages") is None
    assert ledger.interrupted() == []


def python_process(script: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Starts a script that can import ros_environment and prints a line when it is ready."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    process = subprocess.Popen(command, cwd=TOOLS, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_killed_step_is_known_as_interrupted(tmp_path: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from ros_environment.ledger import Ledger
def action():
    print("ready", flush=True)
    time.sleep(60)
Ledger(Path(sys.argv[1])).perform("packages", "a", action)
"""
    process = python_process(script, tmp_path)
    process.kill()
    process.wait()
    ledger = Ledger(tmp_path)
    assert ledger.interrupted() == ["packages"]
    assert ledger.done("packages") is None


def test_lock_is_waited_for_as_long_as_a_killed_run_has_children(tmp_path: Path) -> None:
    script = """
import subprocess, sys, time
from pathlib import Path
from ros_environment.ledger import locked
with locked(Path(sys.argv[1])) as lock:
    child = "import sys; print('ready', flush=True); sys.stdin.read()"
    subprocess.Popen([sys.executable, "-c", child], pass_fds=(lock,))
    time.sleep(60)
"""
    path = tmp_path / "lock"
    reader, writer = os.pipe()
    command = [sys.executable, "-c", script, path]
    process = subprocess.Popen(command, cwd=TOOLS, stdin=reader, stdout=subprocess.PIPE, text=True)
    os.close(reader)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait()
    waiter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from ros_environment.ledger import locked\n"
            "with locked(Path(sys.argv[1])): print('held', flush=True)",
            path,
        ],
        cwd=TOOLS,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiter.stderr is not None
    assert "another run is making this environment" in waiter.stderr.readline()
    assert waiter.poll() is None
    os.close(writer)  # the child of the killed run ends
    output, _ = waiter.communicate(timeout=30)
    assert output == "held\n"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand-ins for all that takes time; the list says which of them ran."""
    ran: list[str] = []

    def make_venv(plan: Plan, layout: Layout, run: Runner) -> None:
        ran.append("venv")
        layout.python.parent.mkdir(parents=True, exist_ok=True)
        layout.python.symlink_to(sys.executable)

    def recorder(name: str) -> Callable[..., None]:
        return lambda *_: ran.append(name)

    monkeypatch.setattr(making, "check_machine", recorder("machine"))
    monkeypatch.setattr(making, "make_venv", make_venv)
    monkeypatch.setattr(making, "install_packages", recorder("packages"))
    monkeypatch.setattr(making, "mend", recorder("exports"))
    monkeypatch.setattr(making, "build_workspace", recorder("build"))
    return ran


EVERYTHING = ["machine", "venv", "packages", "packages", "exports", "build"]


def small_checkout(path: Path) -> Path:
    (path / "mobile_sam").mkdir(parents=True)
    (path / "mobile_sam/__init__.py").touch()
    (path / "msg").mkdir()
    (path / "msg/One.msg").write_text("int8 one")
    for name in ("CMakeLists.txt", "package.xml"):
        (path / name).touch()
    return path


def test_everything_is_made_once_and_only_what_changed_again(
    tmp_path: Path, steps: list[str]
) -> None:
    checkout = small_checkout(tmp_path / "checkout")
    layout = lay_out(plan(), checkout, tmp_path / "cache")
    making.make(plan(), layout, checkout)
    assert steps == EVERYTHING
    making.make(plan(), layout, checkout)
    assert steps == EVERYTHING, "nothing had changed"

    (checkout / "mobile_sam/__init__.py").write_text("# linked, not copied")
    making.make(plan(), layout, checkout)
    assert steps == EVERYTHING, "contents of modules are linked"

    (checkout / "mobile_sam/new.py").touch()
    making.make(plan(), layout, checkout)
    assert steps == [*EVERYTHING, "build"]

    (checkout / "msg/One.msg").write_text("int16 one")
    making.make(plan(), layout, checkout)
    assert steps == [*EVERYTHING, "build", "build"]


def test_interrupted_installation_starts_afresh(
    tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = small_checkout(tmp_path / "checkout")
    layout = lay_out(plan(), checkout, tmp_path / "cache")

    def interrupt(*_: object) -> None:
        (layout.venv / "half a package").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(making, "install_packages", interrupt)
        with pytest.raises(KeyboardInterrupt):
            making.make(plan(), layout, checkout)
    steps.clear()
    making.make(plan(), layout, checkout)
    assert steps == EVERYTHING
    assert not (layout.venv / "half a package").exists()


def test_interrupted_build_is_repeated_in_an_empty_workspace(
    tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = small_checkout(tmp_path / "checkout")
    layout = lay_out(plan(), checkout, tmp_path / "cache")

    def interrupt(*_: object) -> None:
        layout.install.mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(making, "build_workspace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            making.make(plan(), layout, checkout)
    steps.clear()
    making.make(plan(), layout, checkout)
    assert steps == ["build"]
    assert not layout.install.exists()


def test_failed_build_is_tried_again(
    tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = small_checkout(tmp_path / "checkout")
    layout = lay_out(plan(), checkout, tmp_path / "cache")

    def fail(*_: object) -> None:
        raise EnvironmentFailure("a fault in CMakeLists.txt")

    with monkeypatch.context() as patch:
        patch.setattr(making, "build_workspace", fail)
        with pytest.raises(EnvironmentFailure):
            making.make(plan(), layout, checkout)
    steps.clear()
    making.make(plan(), layout, checkout)
    assert steps == ["build"]


def test_python_that_no_longer_runs_is_noticed(tmp_path: Path, steps: list[str]) -> None:
    checkout = small_checkout(tmp_path / "checkout")
    layout = lay_out(plan(), checkout, tmp_path / "cache")
    making.make(plan(), layout, checkout)
    layout.python.unlink()
    layout.python.symlink_to("/python/that/was/upgraded")
    steps.clear()
    making.make(plan(), layout, checkout)
    assert steps == EVERYTHING


def test_clean_removes_environments_and_nothing_else(tmp_path: Path, steps: list[str]) -> None:
    checkout = small_checkout(tmp_path / "checkout")
    cache = tmp_path / "cache"
    layout = lay_out(plan(), checkout, cache)
    making.make(plan(), layout, checkout)
    (cache / "holiday pictures").mkdir()
    assert environments(cache) == [layout.root]
    assert remove_environments(cache) == [layout.root]
    assert [path.name for path in cache.iterdir()] == ["holiday pictures"]
    assert remove_environments(tmp_path / "nothing") == []


def test_fingerprint_ignores_bytecode(tmp_path: Path) -> None:
    checkout = small_checkout(tmp_path)
    before = source_fingerprint(checkout)
    (checkout / "mobile_sam/__pycache__").mkdir()
    (checkout / "mobile_sam/__pycache__/x.pyc").touch()
    assert source_fingerprint(checkout) == before


def test_ctrl_c_ends_the_command_at_work(tmp_path: Path) -> None:
    script = """
import re, sys
from pathlib import Path
from ros_environment import runner
from ros_environment.ledger import locked
runner.say = lambda line: print(line.strip(), flush=True)
with locked(Path(sys.argv[1]) / "lock") as lock:
    run = runner.Runner(Path(sys.argv[1]) / "log", lock)
    run(["sh", "-c", "echo ready; exec sleep 100"], advice=str, shown=re.compile("ready"))
"""
    process = python_process(script, tmp_path)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    with locked(tmp_path / "lock"):  # nothing is left behind that holds it
        assert time.monotonic() - begin < 30
