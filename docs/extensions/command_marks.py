"""The commands in the documentation, and the marks that say why one is not run by the tests.

A mark is a comment on the line before a block of commands, or on the one before that:

    <!-- needs: a GPU -->              what the machine of the tests does not have; see NEEDS
    <!-- run by: test_demo_graph.py::test_demo_from_end_to_end -->

It holds for all commands of the block. test/test_commands.py runs what is not marked. Sphinx shows
a mark of what is needed above its block, for readers; GitHub hides it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NEEDS = {
    "a ROS 2 distribution": "Needs a ROS 2 distribution.",
    "a camera": "Needs a ROS 2 distribution and a camera.",
    "a detector": "Needs a ROS 2 distribution and the detector's own packages.",
    "a GPU": "Needs an NVIDIA GPU.",
    "a Jetson": "Needs a Jetson. Not tried by us.",
    "Docker": "Needs Docker. Not tried by us.",
    "the network": "Needs the network.",
    "pictures of yours": "Needs pictures or masks of your own.",
}
"""What a command may need, and how that is said to readers."""

MARK = re.compile(r"<!--\s*(?P<key>needs|run by):\s*(?P<value>.+?)\s*-->")
_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w{}-]*)")


@dataclass(frozen=True)
class Mark:
    """Why a block of commands is not run, or what runs it.

    key: "needs" or "run by".
    value: one of NEEDS, or a test or script in the repository.
    """

    key: str
    value: str


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    language: what stands behind the fence.
    line: its number, that of the fence.
    """

    page: Path
    line: int
    language: str
    text: str
    mark: Mark | None

    @property
    def commands(self) -> list[str]:
        """What stands behind the prompts `$`, lines that are continued put together."""
        found: list[str] = []
        continues = False
        for line in self.text.splitlines():
            line = line.strip()
            if line.startswith("$ "):
                found.append(line[2:])
            elif continues:
                found[-1] = found[-1][:-1] + line
            continues = bool(found) and found[-1].endswith("\\")
        return found


def blocks(page: Path) -> Iterator[Block]:
    """Yields the fenced blocks of a page."""
    lines = page.read_text().splitlines()
    begin: int | None = None
    fence = language = ""
    for number, line in enumerate(lines):
        found = _FENCE.match(line)
        if begin is None and found:
            begin, fence, language = number, found["ticks"], found["language"]
        elif begin is not None and line.strip() == fence:
            text = "\n".join(lines[begin + 1 : number])
            yield Block(page, begin + 1, language, text, _mark_above(lines, begin))
            begin = None


def _mark_above(lines: list[str], fence: int) -> Mark | None:
    above = [line for line in lines[max(0, fence - 2) : fence] if line.strip()]
    found = MARK.search(above[-1]) if above else None
    return Mark(found["key"], found["value"]) if found else None


def show_marks(app: Any, doctree: Any) -> None:
    """Makes a line for readers of each mark of what is needed."""
    from docutils import nodes

    for comment in list(doctree.findall(nodes.raw)):
        mark = MARK.fullmatch(comment.astext().strip())
        if mark and mark["key"] == "needs":
            text = NEEDS.get(mark["value"], f"Needs {mark['value']}.")
            comment.replace_self(nodes.paragraph("", text, classes=["command-mark"]))


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("doctree-read", show_marks)
    return {"parallel_read_safe": True}
