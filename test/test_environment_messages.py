"""tools/environment.py: mended CMake exports, and what the person at the terminal sees."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from ros_environment import machine, runner
from ros_environment.exports import mend_exports, mend_text
from ros_environment.layout import Layout
from ros_environment.packages import install_packages, pip_advice, venv_advice
from ros_environment.plan import Plan
from ros_environment.reporting import EnvironmentFailure
from ros_environment.runner import Runner
from ros_environment.workspace import build_advice

# --- Mended exports -------------------------------------------------------------------------


EXPORT = """set_target_properties(x PROPERTIES INTERFACE_INCLUDE_DIRECTORIES
"/opt/python/cp311-cp311/include/python3.11;${_IMPORT_PREFIX}/include;\
/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include")
"""


def test_build_host_directories_are_replaced() -> None:
    mended = mend_text(EXPORT, "/here/python", "/here/numpy")
    assert '"/here/python;${_IMPORT_PREFIX}/include;/here/numpy"' in mended
    assert mend_text(mended, "/elsewhere", "/elsewhere") == mended


def test_exports_are_mended_for_the_given_python(tmp_path: Path) -> None:
    exports = tmp_path / "share/std_msgs/cmake/export.cmake"
    exports.parent.mkdir(parents=True)
    exports.write_text(EXPORT)
    (tmp_path / "share/other.cmake").write_text("# nothing to mend")
    assert mend_exports(tmp_path, Path(sys.executable)) == 1
    included = re.findall(r'"([^";]+);.*;([^";]+)"', exports.read_text(), re.DOTALL)
    assert included and all(Path(path).is_dir() for path in included[0])
    assert mend_exports(tmp_path, Path(sys.executable)) == 0


# --- What the person at the terminal sees ---------------------------------------------------


@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("WARNING: Retrying (Retry(total=4 …", "out of reach.*pip config list"),
        ("ReadTimeoutError(…): Read timed out.", "out of reach"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: No matching distribution found for torch", "lacks a package"),
        ("Segmentation fault", "Run this again"),
    ],
)
def test_pip_advice(output: str, advice: str) -> None:
    assert re.search(advice, pip_advice(output))


def test_other_advice() -> None:
    assert "python3-venv" in venv_advice("… because ensurepip is not available")
    missing = 'By not providing "Findsensor_msgs.cmake" in CMAKE_MODULE_PATH this project has'
    assert "ros-$ROS_DISTRO-sensor-msgs" in build_advice(missing)
    assert "CMakeLists.txt" in build_advice("c++: fatal error")


def test_all_that_the_machine_lacks_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jazzy = Plan(Path("/no/python3"), "3.12", "jazzy", (), (), ())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine, "NEEDED_BYTES", 2**60)
    with pytest.raises(EnvironmentFailure) as caught:
        machine.check_machine(jazzy, tmp_path / "not/yet/there")
    advice = "sudo apt-get install python3-venv python3-dev build-essential cmake"
    assert "no C and C++ compiler" in str(caught.value)
    assert advice in str(caught.value)
    assert "set MOBILE_SAM_ROS_CACHE" in str(caught.value)


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    return Runner(tmp_path / "environment.log", descriptor)


def test_commands_are_logged_and_their_gist_is_shown(
    run: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sh", "-c", "echo chatter; echo Finished it"]
    run(command, advice=str, shown=re.compile("Finished"))
    assert capsys.readouterr().err == "[environment]   Finished it\n"
    assert "chatter\nFinished it\n" in run.log.read_text()


def test_failure_shows_the_end_of_the_output_and_advice(run: Runner) -> None:
    with pytest.raises(EnvironmentFailure) as caught:
        run(["sh", "-c", "echo the reason; exit 3"], advice=lambda text: f"advice on {text}")
    assert "  | the reason" in str(caught.value)
    assert "advice on the reason" in str(caught.value)
    assert str(run.log) in str(caught.value)


def test_silent_command_is_said_to_be_at_work(
    run: Runner, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "QUIET_SECONDS", 0.5)
    run(["sleep", "1.5"], advice=str)
    assert "still at work" in capsys.readouterr().err


def test_index_out_of_reach_is_explained(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "venv").symlink_to(sys.prefix)
    layout = Layout(tmp_path, tmp_path / "workspace")
    nobody_listens = "http://127.0.0.1:9/simple"
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", nobody_listens)
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(EnvironmentFailure, match="package index is out of reach"):
        install_packages(layout, run, ["mobile-sam-ros-needs-this-for-its-tests"])
