"""tools/environment.py: what it makes, what it keeps, and how it comes back after an interruption.

Everything but the last tests works on stand-ins in a temporary directory: no package is downloaded.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ros_environment import interpreters, making, runner
from ros_environment.distribution import provides, sourced_distribution
from ros_environment.exports import mend_exports, mend_text
from ros_environment.layout import Layout, cache_root, environments, lay_out, remove_environments
from ros_environment.ledger import Ledger, locked
from ros_environment.packages import install_packages, pip_advice, venv_advice
from ros_environment.plan import Plan, make_plan, read_requirements, read_setup
from ros_environment.reporting import EnvironmentFailure
from ros_environment.runner import Runner
from ros_environment.variables import command_environ
from ros_environment.workspace import base_paths, build_advice, source_fingerprint

CHECKOUT = Path(__file__).resolve().parent.parent
TOOLS = CHECKOUT / "tools"


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


def ros_prefix(path: Path, *packages: str) -> Path:
    """A directory that looks like a ROS prefix with some packages."""
    index = path / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    for package in packages:
        (index / package).touch()
    return path


# --- The plan -------------------------------------------------------------------------------


def test_key_is_readable_and_follows_the_contents() -> None:
    assert re.fullmatch(r"wheels-py3\.11-[0-9a-f]{12}", plan().key)
    assert plan(distribution="jazzy").key.startswith("jazzy-py3.11-")
    assert plan().key == plan().key
    different = [
        plan(),
        plan(requirements=("numpy", "torch")),
        plan(requirements_without_dependencies=("numpy",)),
        plan(python=Path("/opt/python")),
        plan(distribution="jazzy"),
        plan(distribution="humble"),
    ]
    assert len({item.key for item in different}) == len(different)


def test_overlays_share_the_packages_but_not_the_workspace() -> None:
    plans = [
        plan(distribution="jazzy", distribution_prefixes=prefixes)
        for prefixes in (("/opt/ros/jazzy",), ("/home/me/install", "/opt/ros/jazzy"))
    ]
    layouts = [lay_out(item, Path("/checkout"), Path("/cache")) for item in plans]
    assert layouts[0].root == layouts[1].root
    assert layouts[0].workspace != layouts[1].workspace
    assert lay_out(plan(), Path("/a"), Path("/c")).workspace != (
        lay_out(plan(), Path("/b"), Path("/c")).workspace
    )


def test_requirements_are_read_without_comments_and_without_running_setup(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("# a comment\none>=1,<2\n\ntwo  # why\n")
    assert read_requirements(file) == ("one>=1,<2", "two")
    setup = tmp_path / "setup.py"
    setup.write_text('REQUIREMENTS = ["one"]\nEXTRAS = {"test": ["two"]}\nraise SystemExit\n')
    assert read_setup(setup) == ("one", "two")


def test_without_a_distribution_ros_comes_as_wheels(tmp_path: Path) -> None:
    made = make_plan({}, CHECKOUT, tmp_path)
    names = {re.split("[<>=]", item)[0] for item in made.requirements}
    assert made.distribution is None
    assert {"torch", "timm", "pytest", "ros-kilted-rclpy", "colcon-common-extensions"} <= names


def test_cache_root_can_be_chosen() -> None:
    assert cache_root({"MOBILE_SAM_ROS_CACHE": "/disk/cache"}) == Path("/disk/cache")
    assert cache_root({"XDG_CACHE_HOME": "/xdg"}) == Path("/xdg/mobile_sam_ros")
    assert cache_root({"MOBILE_SAM_ROS_CACHE": ""}) == Path.home() / ".cache/mobile_sam_ros"


# --- A sourced distribution -----------------------------------------------------------------


def test_sourced_distribution_is_found_with_its_overlays(tmp_path: Path) -> None:
    underlay = ros_prefix(tmp_path / "opt/ros/jazzy", "rclpy", "vision_msgs")
    overlay = ros_prefix(tmp_path / "workspace/install", "my_robot")
    environ = {"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": f"{overlay}:{underlay}"}
    found = sourced_distribution(environ, tmp_path / "cache")
    assert found == ("jazzy", (str(overlay), str(underlay)))


def test_our_own_and_other_virtual_environments_are_no_distribution(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    ours = ros_prefix(cache / "wheels/venv", "rclpy")
    other = ros_prefix(tmp_path / "venv", "rclpy")
    (other / "pyvenv.cfg").touch()
    environ = {"ROS_DISTRO": "kilted", "AMENT_PREFIX_PATH": f"{ours}:{other}"}
    assert sourced_distribution(environ, cache) == (None, ())


@pytest.mark.parametrize("missing", ["ROS_DISTRO", "AMENT_PREFIX_PATH"])
def test_half_a_distribution_is_none(tmp_path: Path, missing: str) -> None:
    prefix = ros_prefix(tmp_path / "jazzy", "rclpy")
    environ = {"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": str(prefix)}
    del environ[missing]
    assert sourced_distribution(environ, tmp_path / "cache") == (None, ())


def test_plan_on_a_distribution_leaves_ros_and_opencv_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = ros_prefix(tmp_path / "jazzy", "rclpy")
    modules = tmp_path / "jazzy/lib/python3/dist-packages"
    modules.mkdir(parents=True)
    (modules / "rclpy.py").touch()
    (modules / "cv2.py").touch()
    (modules / "numpy.py").write_text("__version__ = '1.26.4'")
    monkeypatch.setenv("PYTHONPATH", str(modules))  # as the distribution's setup.bash does
    environ = {"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": str(prefix)}
    made = make_plan(environ, CHECKOUT, tmp_path / "cache")
    assert made.distribution == "jazzy"
    assert made.distribution_prefixes == (str(prefix),)
    assert not [item for item in made.requirements if item.startswith(("ros-", "opencv"))]
    assert "numpy<2" in made.requirements


def test_distribution_without_rclpy_is_refused_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rclpy.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EnvironmentFailure, match="apt-get install ros-jazzy-rclpy"):
        interpreters.choose_python("jazzy")


def test_python_without_wheels_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreters, "WHEEL_PYTHONS", ((3, 5),))
    with pytest.raises(EnvironmentFailure, match=r"3\.10 to 3\.13.*or source a ROS 2"):
        interpreters.choose_python(None)


def test_the_same_python_is_chosen_inside_and_outside_of_a_virtual_environment() -> None:
    inside, version = interpreters.choose_python(None)
    script = "from ros_environment.interpreters import choose_python as c; print(c(None)[0])"
    outside = subprocess.run(
        [inside, "-c", script], cwd=TOOLS, capture_output=True, text=True, check=True
    )
    assert Path(outside.stdout.strip()) == inside
    assert version == sys.version_info[:2]


def test_vision_msgs_is_built_only_where_there_is_none(tmp_path: Path) -> None:
    with_it = ros_prefix(tmp_path / "with", "rclpy", "vision_msgs")
    without = ros_prefix(tmp_path / "without", "rclpy")
    ours = CHECKOUT / "interfaces/vision_msgs"
    assert provides([without, with_it], "vision_msgs")
    assert base_paths(CHECKOUT, [str(without), str(with_it)]) == [CHECKOUT]
    assert base_paths(CHECKOUT, [str(without)]) == [CHECKOUT, ours]


# --- Interruptions --------------------------------------------------------------------------


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
    process = subprocess.Popen(
        command, cwd=TOOLS, stdin=reader, stdout=subprocess.PIPE, text=True
    )
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


# --- Commands inside ------------------------------------------------------------------------


def test_variables_with_wheels(tmp_path: Path) -> None:
    layout = Layout(tmp_path, tmp_path / "workspace")
    modules = layout.install / "lib/python3.11/site-packages"
    modules.mkdir(parents=True)
    environ = command_environ(
        plan(), layout, {"PATH": "/bin", "PYTHONPATH": "/theirs", "LD_LIBRARY_PATH": "/l"}
    )
    assert environ["PATH"] == f"{layout.install}/bin:{layout.venv}/bin:/bin"
    assert environ["LD_LIBRARY_PATH"] == f"{layout.install}/lib:{layout.venv}/lib:/l"
    assert environ["AMENT_PREFIX_PATH"] == f"{layout.install}:{layout.venv}"
    assert environ["PYTHONPATH"] == str(modules)
    assert environ["ROS_DISTRO"] == "kilted"
    # Run inside itself, it adds nothing.
    assert command_environ(plan(), layout, environ) == environ


def test_variables_with_a_distribution(tmp_path: Path) -> None:
    layout = Layout(tmp_path, tmp_path / "workspace")
    modules = layout.install / "local/lib/python3.12/dist-packages"
    modules.mkdir(parents=True)
    jazzy = plan(distribution="jazzy", distribution_prefixes=("/opt/ros/jazzy",))
    theirs = {
        "PATH": "/opt/ros/jazzy/bin:/bin",
        "PYTHONPATH": "/opt/ros/jazzy/lib/python3.12/site-packages",
        "ROS_DISTRO": "jazzy",
        "RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp",
    }
    environ = command_environ(jazzy, layout, theirs)
    assert environ["AMENT_PREFIX_PATH"] == f"{layout.install}:/opt/ros/jazzy"
    assert environ["PYTHONPATH"] == f"{modules}:{theirs['PYTHONPATH']}"
    assert environ["RMW_IMPLEMENTATION"] == "rmw_cyclonedds_cpp"
    assert environ["ROS_DISTRO"] == "jazzy"


def test_second_run_is_ready_at_once() -> None:
    command = [sys.executable, str(TOOLS / "environment.py"), "run", "--", "sh", "-c", "exit 7"]
    assert subprocess.run(command).returncode == 7
    begin = time.monotonic()
    assert subprocess.run(command).returncode == 7
    assert time.monotonic() - begin < 10


def test_ctrl_c_ends_the_command_at_work(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from ros_environment.ledger import locked
from ros_environment.runner import Runner
with locked(Path(sys.argv[1]) / "lock") as lock:
    run = Runner(Path(sys.argv[1]) / "log", lock)
    print("ready", flush=True)
    run(["sleep", "100"], advice=str)
"""
    process = python_process(script, tmp_path)
    while "sleep" not in (tmp_path / "log").read_text() if (tmp_path / "log").exists() else True:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    with locked(tmp_path / "lock"):  # nothing is left behind that holds it
        pass


# --- The tests' own surroundings ------------------------------------------------------------


def test_parallel_test_runs_have_domains_of_their_own() -> None:
    script = "import conftest, sys; print(conftest.free_domain(), flush=True); sys.stdin.read()"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    domains = {os.environ["ROS_DOMAIN_ID"]}
    for process in processes:
        assert process.stdout is not None
        domains.add(process.stdout.readline().strip())
    for process in processes:
        process.communicate("")
    assert len(domains) == 4
    assert all(1 <= int(domain) <= 100 for domain in domains)
