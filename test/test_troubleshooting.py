"""What docs/troubleshooting.md quotes is what the code says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from command_marks import blocks
from mobile_sam_ros.diagnostics import COUNTERS

CHECKOUT = Path(__file__).resolve().parent.parent
PAGE = CHECKOUT / "docs/troubleshooting.md"
LEAST = 8  # characters that a quotation has to have beside its placeholders
QUOTED = [
    line for block in blocks(PAGE) if block.language == "text" for line in block.text.splitlines()
]


def template(node: ast.expr) -> str | None:
    """A text in the code with … for what is filled in; None if it is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) or "…" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = template(node.left), template(node.right)
        if left is not None or right is not None:
            return f"{left or '…'}{right or '…'}"
    return None


def templates() -> list[str]:
    """All texts in the code of both libraries."""
    files = [
        path
        for name in ("mobile_sam", "mobile_sam_ros")
        for path in CHECKOUT.glob(f"{name}/**/*.py")
    ]
    nodes = (node for path in files for node in ast.walk(ast.parse(path.read_text())))
    return [text for node in nodes if isinstance(node, ast.expr) and (text := template(node))]


TEMPLATES = templates()


def is_said(quotation: str) -> bool:
    """Whether the code says this, in one text or in two, one after the other."""
    cuts = (0, *(cut.end() for cut in re.finditer(": ", quotation)))
    return any(
        all(
            any(part in text for text in TEMPLATES)
            for part in (quotation[:cut], quotation[cut:])
            if part
        )
        for cut in cuts
    )


@pytest.mark.parametrize("quotation", QUOTED)
def test_the_code_says_what_is_quoted(quotation: str) -> None:
    assert len(quotation.replace("…", "").strip()) >= LEAST
    assert is_said(quotation), f"nowhere in the code: {quotation}"


def test_what_nobody_says_is_noticed() -> None:
    assert len(QUOTED) > 30
    assert is_said("no image on … for … s: nobody publishes it.")
    assert not is_said("no image on … for … s: somebody publishes it.")
    assert not is_said("no picture on … for … s: nobody publishes it.")


def test_every_counter_is_explained_and_none_is_made_up() -> None:
    named = set(
        re.findall(r"`((?:frames|objects|detections|depth|callbacks)/[\w/]+)`", PAGE.read_text())
    )
    assert named <= set(COUNTERS)
    assert set(COUNTERS) - named <= {"frames/segmented"}  # no trouble
