"""Every command in the documentation: run here, or marked with what it needs or what runs it."""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import command_lines
import cv2
import pytest

from command_marks import NEEDS, Block, blocks
from mobile_sam.scenes import MovingScene

CHECKOUT = Path(__file__).resolve().parent.parent
PAGES = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").glob("*.md")])
SHELLS = {"bash", "sh", "shell", "zsh", "shell-session"}
# What is safe to run in a scratch folder.
RUNNABLE = ("mobile-sam ", "python3 -m mobile_sam.")

WHAT_TO_DO = (
    "nothing runs `{}`. Write above the block <!-- needs: X --> if the machine of the tests lacks "
    f"X ({', '.join(NEEDS)}; see docs/extensions/command_marks.py), or <!-- run by: "
    "test_x.py::test_y --> if a test runs it; or let test/test_commands.py run it (RUNNABLE, "
    "SCRATCH)"
)


@dataclass(frozen=True)
class Scratch:
    """What the commands of a page find in their folder, and what is said instead, to be fast and to
    need no network.

    made: files and what makes them.
    """

    made: dict[str, Callable[[Path], None]] = field(default_factory=dict)
    instead: dict[str, str] = field(default_factory=dict)


def picture(path: Path) -> None:
    """A drawn picture of 640x480."""
    image = MovingScene(5, (480, 640), 3).frame(0).image
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def video(path: Path) -> None:
    """Two drawn images of 160x120."""
    scene = MovingScene(5, (120, 160), 2)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (160, 120))
    for index in range(2):
        writer.write(cv2.cvtColor(scene.frame(index).image, cv2.COLOR_RGB2BGR))
    writer.release()


OFFLINE = {
    "--weights mobile_sam": "--weights demo",
    "--everything": "--everything --points-per-side 4",
}
SCRATCH = {
    "README.md": Scratch({"picture.jpg": picture, "video.mp4": video}, OFFLINE),
    "docs/quick_start.md": Scratch({"picture.jpg": picture}, OFFLINE),
}

COMMANDS = [
    block for page in PAGES for block in blocks(page) if block.language in {"console", *SHELLS}
]


def place(block: Block) -> str:
    """Where a block stands."""
    return f"{block.page.relative_to(CHECKOUT)}:{block.line}"


def names_of_tests(path: Path) -> set[str]:
    """Names of the tests in a file."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


def problem(block: Block) -> str:
    """What is to be done about a block; empty: nothing."""
    if block.language != "console":
        return "commands stand in ```console blocks"
    if not block.commands:
        return "no line begins with $, as those with commands do"
    if block.mark is None:
        unknown = [command for command in block.commands if not command.startswith(RUNNABLE)]
        return WHAT_TO_DO.format(unknown[0]) if unknown else ""
    if block.mark.key == "needs":
        known = block.mark.value in NEEDS
        return "" if known else f"needs {block.mark.value!r}, which is none of {', '.join(NEEDS)}"
    file, _, test = block.mark.value.partition("::")
    path = CHECKOUT / "test" / file if test else CHECKOUT / file
    if not path.is_file():
        return f"run by {path}, which is not there"
    return f"{file} has no {test}" if test and test not in names_of_tests(path) else ""


@pytest.mark.parametrize("block", COMMANDS, ids=place)
def test_commands_are_run_or_marked(block: Block) -> None:
    if what := problem(block):
        pytest.fail(f"{place(block)}: {what}", pytrace=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```bash\n$ ls\n```", "```console"),
        ("```console\nls\n```", "no line begins with"),
        ("```console\n$ mobile-sam info\n$ rm -r x\n```", "nothing runs `rm -r x`. Write above"),
        ("<!-- needs: luck -->\n```console\n$ ls\n```", "needs 'luck', which is none of"),
        ("<!-- run by: test_x.py::test_y -->\n```console\n$ ls\n```", "which is not there"),
        ("<!-- run by: conftest.py::test_y -->\n\n```console\n$ ls\n```", "has no test_y"),
    ],
)
def test_what_is_missing_is_said(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(f"# Page\n\n{text}\n")
    (block,) = blocks(tmp_path / "page.md")
    assert said in problem(block)


@pytest.mark.parametrize("block", COMMANDS, ids=place)
def test_commands_fit_what_they_are_for(block: Block) -> None:
    for command in block.commands:
        try:
            command_lines.check(command)
        except command_lines.DoesNotFit as error:
            pytest.fail(f"{place(block)}: {command}: {error}", pytrace=False)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("ros2 launch mobile_sam_ros sam.launch.py picture:=/image", "no argument picture"),
        ("ros2 launch mobile_sam_ros other.launch.py", "other.launch.py is not there"),
        ("ros2 run mobile_sam_ros mobile-sam", "no executable mobile-sam"),
        ("ros2 param set /sam weights demo", "cannot be set at run time"),
        ("ros2 param set /sam max_objects 2.5", "is of type int"),
        ("ros2 topic pub /x mobile_sam_ros/msg/Prompts '{}'", "no type mobile_sam_ros/msg/Prompts"),
        ("ros2 topic pub /x mobile_sam_ros/msg/Prompt '{ids: a}'", "no field ids"),
        (
            "ros2 topic pub /x mobile_sam_ros/msg/PromptArray '{prompts: [{points: [{z: 1}]}]}'",
            "PromptPoint has no field z",
        ),
        ("ros2 topic pub /x mobile_sam_ros/msg/Prompt '{id: 5}'", "id is of type string"),
        ("ros2 lifecycle set /sam begin", "no transition begin"),
        ("mobile-sam segment picture.jpg --rectangle 1", "does not take"),
        ("cd x && make everything", "Makefile has no everything"),
        ("docker build -f docker/Dockerfile . --build-arg DISTRO=x", "no ARG DISTRO"),
    ],
)
def test_wrong_commands_are_noticed(command: str, said: str) -> None:
    with pytest.raises(command_lines.DoesNotFit, match=said):
        command_lines.check(command)


UNMARKED: dict[str, list[str]] = {}
for _block in COMMANDS:
    if _block.mark is None:
        _page = str(_block.page.relative_to(CHECKOUT))
        UNMARKED.setdefault(_page, []).extend(_block.commands)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", UNMARKED)
def test_commands_run(page: str, tmp_path: Path) -> None:
    """Those of a page one after the other in one folder, as a reader would."""
    scratch = SCRATCH.get(page, Scratch())
    for name, make in scratch.made.items():
        make(tmp_path / name)
    environ = os.environ | {"MOBILE_SAM_CACHE": str(tmp_path / "cache")}
    for command in UNMARKED[page]:
        for text, other in scratch.instead.items():
            command = command.replace(text, other)
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environ, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{page}: {command}\n{done.stdout}{done.stderr}"
