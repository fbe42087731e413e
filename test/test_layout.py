"""Rules about the code itself: what may import what, how long a file is, ruff and mypy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
LONGEST_MODULE = 500  # lines
OURS = ("mobile_sam", "mobile_sam_ros", "launch", "tools", "docs", "test")
MODULES = [path for name in OURS for path in sorted((CHECKOUT / name).rglob("*.py"))]
TENSOR_LIBRARIES = {"torch", "torchvision", "timm", "safetensors", "onnxruntime", "openvino"}
CHECKERS = ("ruff check", "ruff format --check", "mypy")
IMPORT_ALL = """
import importlib, pkgutil, sys
import {package}
for module in pkgutil.walk_packages({package}.__path__, "{package}."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print("\\n".join(sorted(sys.modules)))
"""


def loaded_by_importing_all_of(package: str) -> set[str]:
    """Top-level modules that are loaded when every module of a package is imported."""
    script = IMPORT_ALL.format(package=package)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in done.stdout.split()}


def test_model_does_without_ros() -> None:
    loaded = loaded_by_importing_all_of("mobile_sam")
    assert "torch" in loaded
    assert not loaded & {"rclpy", "mobile_sam_ros", "sensor_msgs", "cv_bridge", "rosbags"}


def test_model_imports_at_once() -> None:
    script = "import mobile_sam, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, check=True)


def test_every_ros_module_imports() -> None:
    """And none brings what only training needs, at the cost of every start and its memory."""
    loaded = loaded_by_importing_all_of("mobile_sam_ros")
    assert {"rclpy", "torch"} <= loaded
    assert not loaded & {"timm", "torchvision"}


def test_loading_the_default_weights_brings_no_compiler() -> None:
    """PyTorch's takes a second and 150 MB, and comes unasked with some operations."""
    script = (
        "import sys, mobile_sam; mobile_sam.Predictor.from_weights(); "
        "assert not {'torch._dynamo', 'triton', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, check=True)


def test_only_training_needs_timm() -> None:
    """Also what is imported only when it is used does without."""
    users = {
        path.relative_to(CHECKOUT).parts[:2]
        for package in ("mobile_sam", "mobile_sam_ros")
        for path in (CHECKOUT / package).rglob("*.py")
        if {name.split(".")[0] for name in names(path)} & {"timm", "torchvision"}
    }
    assert users == {("mobile_sam", "training")}


def names(path: Path) -> list[str]:
    """Modules that a file imports."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if "mobile_sam_ros" == path.relative_to(CHECKOUT).parts[0]],
    ids=lambda path: path.name,
)
def test_ros_layer_has_no_tensor_code(path: Path) -> None:
    assert not [name for name in names(path) if name.split(".")[0] in TENSOR_LIBRARIES]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_module_is_short_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_MODULE
    assert not text.strip() or ast.get_docstring(ast.parse(text))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", CHECKERS)
def test_checker_is_content(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
