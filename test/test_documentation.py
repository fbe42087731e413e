"""The documentation: builds without a warning, has what is in the sources, and its examples run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from command_marks import NEEDS, blocks
from generated_pages import launch_arguments
from mobile_sam_ros.detections import parse_layout
from mobile_sam_ros.diagnostics import COUNTERS, STAGES
from mobile_sam_ros.parameters import Parameters

CHECKOUT = Path(__file__).resolve().parent.parent
DOCS = CHECKOUT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages."""
    pytest.importorskip("sphinx")
    output = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", output / "doctrees", DOCS, output / "html"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return output / "html"


def text_of(page: Path) -> str:
    """A page without its tags, and with plain quotation marks."""
    return unescape(re.sub("<[^>]+>", "", page.read_text())).replace("’", "'")


def interfaces() -> Iterator[tuple[str, Any]]:
    """The sections of messages and services, and what rosidl generated of them."""
    for path in (CHECKOUT / "msg").glob("*.msg"):
        yield path.stem.lower(), getattr(import_module("mobile_sam_ros.msg"), path.stem)
    for path in (CHECKOUT / "srv").glob("*.srv"):
        service = getattr(import_module("mobile_sam_ros.srv"), path.stem)
        yield f"{path.stem.lower()}-srv", service.Request
        yield f"{path.stem.lower()}-srv", service.Response


@pytest.mark.slow
def test_builds_strictly(site: Path) -> None:
    api = (site / "api.html").read_text()
    for name in ("predictor.Predictor.decode", "everything.segment_everything", "prompts.Prompt"):
        assert f'id="mobile_sam.{name}"' in api
    commands = text_of(site / "command_line.html")
    assert "--boxes-from COCO.json" in commands and "exit status:" in commands


@pytest.mark.slow
def test_every_page_is_in_the_index(site: Path) -> None:
    index = (site / "index.html").read_text()
    for page in {*DOCS.glob("*.md"), *DOCS.glob("*.rst")} - {DOCS / "index.md"}:
        assert f'href="{page.stem}.html"' in index, page.name


@pytest.mark.slow
def test_interfaces_are_those_of_the_sources(site: Path) -> None:
    text = text_of(site / "interfaces.html")
    for name in (*Parameters.__dataclass_fields__, *COUNTERS, *STAGES):
        assert name in text, name
    for path in (CHECKOUT / "launch").glob("*.launch.py"):
        for name, (_, description) in launch_arguments(path).items():
            assert name in text and description.replace("`", "") in text, (path.name, name)
    html = (site / "interfaces.html").read_text()
    for identifier, kind in interfaces():
        section = re.search(rf'<section id="{identifier}">.*?</section>', html, re.DOTALL)
        assert section, identifier
        for field in kind.get_fields_and_field_types():
            assert f'<span class="pre">{field}</span>' in section[0], (identifier, field)


@pytest.mark.slow
def test_readers_see_what_commands_need(site: Path) -> None:
    for page in DOCS.glob("*.md"):
        marks = [block.mark for block in blocks(page) if block.mark]
        wanted = [NEEDS[mark.value] for mark in marks if mark.key == "needs"]
        shown = re.findall(
            r'<p class="command-mark">(.*?)</p>', (site / f"{page.stem}.html").read_text()
        )
        assert page.name in ("interfaces.md", "contributing.md") or shown == wanted, page.name


def test_the_diagram_names_modules_that_there_are() -> None:
    drawn = re.findall(r'class="file"[^>]*>([^<]+)<', (DOCS / "architecture.svg").read_text())
    assert len(drawn) > 10
    for name in drawn:
        assert any(
            (CHECKOUT / library / name).exists() for library in ("mobile_sam_ros", "mobile_sam")
        )


# --- Examples -------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "least"), [("library.md", 7), ("prompts.md", 1)])
def test_examples_run(
    page: str, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a page, one after the other, in one session."""
    monkeypatch.chdir(tmp_path)
    examples = [block.text for block in blocks(DOCS / page) if block.language == "python"]
    assert len(examples) >= least
    session: dict[str, object] = {}
    for example in examples:
        exec(compile(example, str(DOCS / page), "exec"), session)
    assert page != "library.md" or (tmp_path / "segments.json").is_file()


SETTINGS = [
    pytest.param(block.text, id=f"{page.name}:{block.line}")
    for page in sorted([*DOCS.glob("*.md"), CHECKOUT / "README.md"])
    for block in blocks(page)
    if block.language == "yaml" and "ros__parameters" in block.text
]


@pytest.mark.parametrize("text", SETTINGS)
def test_parameters_in_examples_are_those_of_the_node(text: str) -> None:
    for name, value in yaml.safe_load(text)["/**"]["ros__parameters"].items():
        if name.startswith("qos_overrides."):
            assert re.fullmatch(
                r"qos_overrides\.[\w/]+\.(publisher|subscription)\.(reliability|depth|history)",
                name,
            )
            continue
        field = Parameters.__dataclass_fields__[name]
        assert type(value) is type(field.default)
        if name == "detections_fields":
            parse_layout(value)
