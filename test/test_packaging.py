"""What pip and colcon install, and what package.xml says is needed for it."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from ament_index_python.packages import get_package_prefix
from catkin_pkg.changelog import get_changelog_from_path
from catkin_pkg.package import parse_package
from test_layout import CHECKERS

from ros_environment.plan import read_setup

CHECKOUT = Path(__file__).resolve().parent.parent
MANIFEST = ElementTree.parse(CHECKOUT / "package.xml").getroot()
EXECUTABLES = ("sam_node", "camera", "detector", "recorder", "segment-bag", "bag-report")
COMMANDS = ("mobile-sam", "segment-bag", "bag-report")

# Modules whose package in package.xml has another name than they have.
DECLARED_AS = {
    "aiohttp": "python3-aiohttp",
    "catkin_pkg": "python3-catkin-pkg-modules",
    "cv2": "python3-opencv",
    "hypothesis": "python3-hypothesis",
    "matplotlib": "python3-matplotlib",
    "numpy": "python3-numpy",
    "pytest": "python3-pytest",
    "rosbags": "python3-rosbags-pip",
    "safetensors": "python3-timm-pip",  # no rosdep key of its own; timm requires it
    "setuptools": "python3-setuptools",
    "timm": "python3-timm-pip",
    "torch": "python3-pytorch-pip",
    "torchvision": "python3-pytorch-pip",
    "tqdm": "python3-tqdm",
    "yaml": "python3-yaml",
}
DISTRIBUTIONS = {"cv2": "opencv-python-headless"}  # where the name in setup.py differs
# Without rosdep keys: what needs them says so, and its tests are skipped where they are missing.
EXTRAS = {"onnx", "onnxruntime", "onnxscript", "openvino", "tensorboard"}
TESTS_ONLY = {"brotli", "mobilesam_lite", "playwright", "pycocotools"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, because builds write into it."""
    copy = tmp_path_factory.mktemp("source") / "mobile_sam_ros"
    ignored = shutil.ignore_patterns(".git", "__pycache__", "build", "install", "log", ".*_cache")
    shutil.copytree(CHECKOUT, copy, ignore=ignored)
    return copy


def modules_of(package: str) -> set[str]:
    """Files of a package in the checkout, relative to it."""
    return {
        str(path.relative_to(CHECKOUT / package))
        for path in (CHECKOUT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


# --- pip ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install .` installs."""
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--quiet", "-w", target, source], check=True)
    (file,) = target.glob("mobile_sam-*.whl")
    return file


def test_wheel_holds_the_model_and_its_data_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    contents = {name for name in names if ".dist-info/" not in name}
    assert contents == {f"mobile_sam/{name}" for name in modules_of("mobile_sam")}


def test_wheel_requires_what_setup_says_but_no_ros(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    headers = Parser().parsestr(archive.read(metadata).decode())
    requirements = headers.get_all("Requires-Dist") or []
    plain = [item for item in requirements if "extra ==" not in item]
    names = {item.split("<")[0].split(">")[0] for item in plain}
    assert {"numpy", "opencv-python-headless", "safetensors", "timm", "torch"} <= names
    assert not [item for item in requirements if item.startswith("ros")]
    assert headers["Version"] == MANIFEST.findtext("version")


def test_installed_without_ros_it_imports_and_has_its_command(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install"]
    # Without PYTHONPATH, by which pip would find ours in the workspace and leave it at that.
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    install = [*pip, "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, env=environ, check=True)
    script = "import sys, mobile_sam; print(mobile_sam.__file__); assert 'rclpy' not in sys.modules"
    imported = subprocess.run(
        [python, "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    assert imported.returncode == 0, imported.stderr
    assert Path(imported.stdout.strip()).is_relative_to(tmp_path / "venv")

    # The rest of what it needs is big: borrowed from this environment.
    import numpy

    environ["PYTHONPATH"] = str(Path(numpy.__file__).parent.parent)
    command = tmp_path / "venv/bin/mobile-sam"
    helped = subprocess.run([command, "--help"], env=environ, capture_output=True, text=True)
    assert helped.returncode == 0, helped.stderr
    assert "mobile-sam" in helped.stdout


# --- colcon ---------------------------------------------------------------------------------


def check_installed(prefix: Path) -> None:
    """Checks a merged colcon install space of our package."""
    (modules,) = prefix.glob("**/*-packages/mobile_sam_ros")
    node_modules = modules_of("mobile_sam_ros") - {"__init__.py"}  # rosidl's own is installed
    missing = [name for name in node_modules if not (modules / name).exists()]
    assert not missing
    assert (modules / "msg").is_dir() and (modules / "srv").is_dir()
    model = modules.parent / "mobile_sam"
    missing = [name for name in modules_of("mobile_sam") if not (model / name).exists()]
    assert not missing
    for executable in EXECUTABLES:
        assert os.access(prefix / "lib/mobile_sam_ros" / executable, os.X_OK), executable
    for command in COMMANDS:
        assert os.access(prefix / "bin" / command, os.X_OK), command
    assert (prefix / "share/mobile_sam_ros/LICENSE").exists()
    for directory in ("launch", "config"):
        for path in (CHECKOUT / directory).glob("*.*"):
            assert (prefix / "share/mobile_sam_ros" / directory / path.name).exists()


def test_symlink_install_that_the_tests_run_in_is_complete() -> None:
    prefix = Path(get_package_prefix("mobile_sam_ros"))
    check_installed(prefix)
    # Links, so that an edit in the checkout counts without a build.
    (modules,) = prefix.glob("**/*-packages/mobile_sam")
    assert (modules / "__init__.py").resolve() == CHECKOUT / "mobile_sam/__init__.py"


def colcon(directory: Path, *arguments: str | Path) -> str:
    """Runs colcon in a workspace and returns its output."""
    done = subprocess.run(
        [sys.executable, "-m", "colcon", *map(str, arguments)],
        cwd=directory,
        env={**os.environ, "AMENT_PREFIX_PATH": base_prefixes()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def base_prefixes() -> str:
    """AMENT_PREFIX_PATH without the workspace that this package is already built in."""
    ours = get_package_prefix("mobile_sam_ros")
    return ":".join(path for path in os.environ["AMENT_PREFIX_PATH"].split(":") if path != ours)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_plain_colcon_build_is_complete_and_independent_of_the_sources(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/mobile_sam_ros").symlink_to(source)
    # interfaces/vision_msgs must stay unseen: on a robot there is the real one.
    assert colcon(tmp_path, "list", "--names-only").split() == ["mobile_sam_ros"]
    python = f"-DPython3_EXECUTABLE={sys.executable}"
    build = ("build", "--merge-install", "--cmake-args", "-DBUILD_TESTING=OFF", python)
    ninja = ("-G", "Ninja") if shutil.which("ninja") else ()
    colcon(tmp_path, *build, *ninja)
    install = tmp_path / "install"
    check_installed(install)
    links = [path for path in install.rglob("*") if path.is_symlink()]
    assert not [path for path in links if not path.resolve().is_relative_to(install)]

    script = """
import mobile_sam, mobile_sam_ros, sys
from mobile_sam_ros.msg import Prompt, PromptArray, PromptPoint, SegmentArray
from mobile_sam_ros.srv import Segment, SegmentEverything
point = PromptPoint(x=1.5, y=2.5, label=PromptPoint.FOREGROUND)
prompts = PromptArray(mode=PromptArray.UNTIL_CLEARED, prompts=[Prompt(id="1", points=[point])])
assert prompts.prompts[0].points[0].y == 2.5
assert Segment.Response().segments == SegmentArray()
print(mobile_sam.__file__, mobile_sam_ros.__file__)
"""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environ["AMENT_PREFIX_PATH"] = base_prefixes()
    done = subprocess.run(
        ["bash", "-c", f". {install}/setup.bash && exec {sys.executable} -c '{script}'"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert all(Path(path).is_relative_to(install) for path in done.stdout.split())

    # What the containers start everything by.
    done = subprocess.run(
        [
            CHECKOUT / "docker/entrypoint.sh",
            "bash",
            "-c",
            "command -v mobile-sam; echo $0",
            "given",
        ],
        env=environ | {"MOBILE_SAM_ROS_INSTALL": str(install)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(install / "bin/mobile-sam"), "given"], done.stderr


# --- package.xml ----------------------------------------------------------------------------


def declared(*kinds: str) -> set[str]:
    """Names in package.xml of some kinds of dependency; of all kinds if none is named."""
    return {
        (element.text or "").strip()
        for element in MANIFEST
        if element.tag in kinds or (not kinds and element.tag.endswith("depend"))
    }


def imported_modules(path: Path) -> Iterator[str]:
    """Top-level names of all that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def foreign_imports(*directories: str) -> set[str]:
    """What the files below some directories import that is neither Python's nor ours."""
    files = [path for name in directories for path in (CHECKOUT / name).rglob("*.py")]
    ours = {"mobile_sam", "mobile_sam_ros", "ros_environment"}
    for directory in ("test", "docs", "benchmarks"):
        ours |= {path.stem for path in (CHECKOUT / directory).rglob("*.py")}
    found = {module for path in files for module in imported_modules(path)}
    return found - ours - set(sys.stdlib_module_names)


def test_package_xml_is_format_3_and_agrees_with_setup_py() -> None:
    assert MANIFEST.get("format") == "3"
    assert MANIFEST.findtext("name") == "mobile_sam_ros"
    assert MANIFEST.findtext("license") == "Apache-2.0"
    assert MANIFEST.findtext("export/build_type") == "ament_cmake"
    assert f'VERSION = "{MANIFEST.findtext("version")}"' in (CHECKOUT / "setup.py").read_text()
    assert "Apache License" in (CHECKOUT / "LICENSE").read_text()


def test_what_release_tools_ask_for_is_there() -> None:
    package = parse_package(CHECKOUT / "package.xml")
    package.validate()
    assert package.authors and all(maintainer.email for maintainer in package.maintainers)
    assert package.licenses == ["Apache-2.0"]
    changelog = get_changelog_from_path(CHECKOUT, package.name)
    assert changelog is not None
    versions = [version for version, _, _ in changelog.foreach_version()]
    is_coming = "\nForthcoming\n---" in (CHECKOUT / "CHANGELOG.rst").read_text()
    assert is_coming or package.version in versions


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not there")
def test_a_release_can_be_prepared(tmp_path: Path) -> None:
    """With the tools of bloom's documentation, in a copy that is a repository of its own."""
    for name in ("package.xml", "CHANGELOG.rst", "setup.py", "LICENSE"):
        shutil.copy(CHECKOUT / name, tmp_path)
    person = {"NAME": "somebody", "EMAIL": "somebody@example.org"}
    environ = os.environ | {
        f"GIT_{role}_{key}": value
        for role in ("AUTHOR", "COMMITTER")
        for key, value in person.items()
    }

    def run(*command: str) -> None:
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def catkin(tool: str, *arguments: str) -> None:
        run(sys.executable, "-m", f"catkin_pkg.cli.{tool}", *arguments)

    run("git", "init", "--quiet")
    run("git", "add", ".")
    run("git", "commit", "--quiet", "--message", "All of it")
    catkin("prepare_release", "--version", "7.8.9", "--no-push", "--non-interactive")
    changelog = get_changelog_from_path(tmp_path)
    assert changelog is not None
    (version, _, entries), *_ = changelog.foreach_version(reverse=True)
    assert version == "7.8.9" and len(entries) >= 1
    assert parse_package(tmp_path / "package.xml").version == "7.8.9"
    run("git", "rev-parse", "7.8.9")
    (tmp_path / "new.txt").write_text("new")
    run("git", "add", ".")
    run("git", "commit", "--quiet", "--message", "Something new")
    catkin("generate_changelog", "--non-interactive")
    assert "* Something new" in (tmp_path / "CHANGELOG.rst").read_text()


def test_what_runs_imports_nothing_undeclared() -> None:
    needed = foreign_imports("mobile_sam", "mobile_sam_ros", "launch") - EXTRAS
    names = {DECLARED_AS.get(module, module) for module in needed}
    assert names <= declared("depend", "exec_depend")


def test_tests_import_nothing_undeclared() -> None:
    needed = foreign_imports("test") - TESTS_ONLY - EXTRAS
    assert {DECLARED_AS.get(module, module) for module in needed} <= declared()


def test_model_imports_only_what_setup_py_requires() -> None:
    names = {item.split("<")[0].split(">")[0] for item in read_setup(CHECKOUT / "setup.py")}
    needed = {DISTRIBUTIONS.get(name, name) for name in foreign_imports("mobile_sam")}
    assert needed <= names


def test_packages_of_our_messages_are_declared_and_found_by_cmake() -> None:
    files = [*(CHECKOUT / "msg").glob("*.msg"), *(CHECKOUT / "srv").glob("*.srv")]
    fields = [line.split()[0] for path in files for line in path.read_text().splitlines() if line]
    packages = {field.split("/")[0] for field in fields if "/" in field}
    cmake = (CHECKOUT / "CMakeLists.txt").read_text()
    assert packages <= declared("depend")
    assert all(f"find_package({package} REQUIRED)" in cmake for package in packages)


# --- Containers and hooks -------------------------------------------------------------------

DOCKERFILES = sorted((CHECKOUT / "docker").glob("Dockerfile*"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfile_is_linted(path: Path) -> None:
    if shutil.which("hadolint") is None:
        pytest.skip("hadolint is not there")
    done = subprocess.run(["hadolint", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def ignored(name: str) -> bool:
    """Whether docker build does not see a file or folder of the checkout."""
    lines = (CHECKOUT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    parts = Path(name).parts
    prefixes = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    return any(fnmatch(prefix, pattern) for prefix in prefixes for pattern in patterns)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfile_copies_what_is_there_and_runs_as_nobody_special(path: Path) -> None:
    text = path.read_text()
    copied = re.findall(r"^COPY (?!--from)(\S+) ", text, re.MULTILINE)
    assert {"package.xml", ".", "docker/entrypoint.sh"} == set(copied)
    for name in set(copied) - {"."}:
        assert (CHECKOUT / name).exists() and not ignored(name), name
    users = re.findall(r"^(USER|ENTRYPOINT|CMD) (.+)$", text, re.MULTILINE)
    assert [key for key, _ in users] == ["USER", "ENTRYPOINT", "CMD"]
    assert users[0][1] == "${UID}" and re.search(r"^ARG UID=[1-9]", text, re.MULTILINE)
    # No weights unless they are asked for.
    assert re.search(r'^ARG WEIGHTS=""$', text, re.MULTILINE)
    entry = json.loads(users[1][1])
    assert entry == ["/opt/mobile_sam_ros/entrypoint.sh"]
    assert os.access(CHECKOUT / "docker/entrypoint.sh", os.X_OK)


def test_docker_sees_all_that_colcon_needs_and_no_more() -> None:
    cmake = (CHECKOUT / "CMakeLists.txt").read_text()
    needed = {"CMakeLists.txt", "LICENSE", "msg", "srv", "cmake", "launch", "config"}
    for name in (*needed, "mobile_sam/data", "mobile_sam_ros"):
        assert Path(name).parts[0] in cmake or name == "CMakeLists.txt"
        assert not ignored(name), name
    for name in (".git", "test", "docs/index.md", "build/x", "mobile_sam/__pycache__"):
        assert ignored(name), name


def test_hooks_are_the_checks_of_the_tests() -> None:
    """The same commands as in test_layout.py, in the same environment: no versions of their own."""
    (repository,) = yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    entries = [hook["entry"] for hook in repository["hooks"]]
    begin = "python3 tools/environment.py run -- "
    assert all(entry.startswith(begin) for entry in entries)
    assert all(hook["language"] == "system" for hook in repository["hooks"])
    commands = [entry.removeprefix(begin).removeprefix("python3 -m ") for entry in entries]
    assert commands == [*CHECKERS, "hadolint"]
