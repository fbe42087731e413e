"""The documentation: it builds without a warning, and its examples run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.slow
def test_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", tmp_path / "doctrees", DOCS, tmp_path / "html"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    api = (tmp_path / "html/api.html").read_text()
    for name in ("predictor.Predictor.decode", "everything.segment_everything", "prompts.Prompt"):
        assert f'id="mobile_sam.{name}"' in api
    commands = (tmp_path / "html/command_line.html").read_text()
    assert "--boxes-from COCO.json" in commands and "exit status:" in commands


def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the page on the library, one after the other, in one session."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / "library.md").read_text(), re.M | re.S)
    assert len(blocks) >= 7
    session: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(DOCS / "library.md"), "exec"), session)
    assert (tmp_path / "segments.json").is_file()
