"""tools/environment.py: what an environment holds, and the variables of a command inside it.

Stand-ins in a temporary directory take the place of ROS distributions.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ros_environment import interpreters
from ros_environment.distribution import provides, sourced_distribution
from ros_environment.layout import Layout, cache_root, lay_out
from ros_environment.plan import Plan, make_plan, read_requirements, read_setup
from ros_environment.reporting import EnvironmentFailure
from ros_environment.variables import command_environ
from ros_environment.workspace import base_paths

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


# --- The tests' own surroundings ------------------------------------------------------------


def test_parallel_test_runs_have_domains_of_their_own() -> None:
    script = "import domains, sys; print(domains.free_domain(), flush=True); sys.stdin.read()"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parent / "node",
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
