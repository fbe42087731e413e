"""Sphinx: what the pages show of the sources, written anew at each build, never by hand.

Messages and services with their comments, parameters, launch arguments, the diagnostics and what
`--help` says. Each is a Markdown or text file in `docs/_build/generated`, which a page includes.
"""

from __future__ import annotations

import ast
import os
import runpy
from argparse import _SubParsersAction
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rosidl_adapter.parser import (
    Field,
    MessageSpecification,
    parse_message_file,
    parse_service_file,
)
from sphinx.ext.autodoc.mock import mock

from mobile_sam.cli import make_parser
from mobile_sam_ros import diagnostics, parameters

CHECKOUT = Path(__file__).resolve().parents[2]
GENERATED = CHECKOUT / "docs/_build/generated"
PACKAGE = "mobile_sam_ros"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def plain(text: str) -> str:
    """Returns a text of the sources for Markdown: <image> is a name in it, and no tag."""
    return text.replace("<", r"\<").replace("|", r"\|")


# --- Messages and services ------------------------------------------------------------------


def _comment(item: Any) -> str:
    return plain(" ".join(item.annotations.get("comment", [])))


def _type(field: Field) -> str:
    kind = str(field.type)
    name = kind.removesuffix("[]")
    if not name.startswith(f"{PACKAGE}/"):
        return f"`{kind}`"
    short = name.removeprefix(f"{PACKAGE}/")
    return f"[`{short}`](#{short.lower()})" + ("`[]`" if kind.endswith("[]") else "")


def _fields(specification: MessageSpecification) -> str:
    """Returns the constants and fields of a message, or of one half of a service."""
    tables = []
    if specification.constants:
        rows = [(f"`{c.name}`", str(c.value), _comment(c)) for c in specification.constants]
        tables.append(table(("constant", "value", "meaning"), rows))
    if specification.fields:
        rows = [(f"`{f.name}`", _type(f), _comment(f)) for f in specification.fields]
        tables.append(table(("field", "type", "meaning"), rows))
    return "\n\n".join(tables)


def messages() -> str:
    """Returns all of `msg/`, each with a heading."""
    sections = []
    for path in sorted((CHECKOUT / "msg").glob("*.msg")):
        message = parse_message_file(PACKAGE, path)
        sections += [f"### {path.stem}", _comment(message), _fields(message)]
    return "\n\n".join(sections)


def services() -> str:
    """Returns all of `srv/`, each with a heading."""
    sections = []
    for path in sorted((CHECKOUT / "srv").glob("*.srv")):
        service = parse_service_file(PACKAGE, path)
        # Not a heading of its name alone: that of a message would be the same.
        sections += [f"### {path.stem}.srv", _comment(service.request)]
        sections += ["Request:", _fields(service.request)]
        sections += ["Response:", _fields(service.response)]
    return "\n\n".join(sections)


# --- Parameters, launch files, diagnostics --------------------------------------------------


def parameter_table() -> str:
    """Returns the parameters; names of types may be broken, so that no column is as wide as one."""
    return parameters.markdown_table().replace("/msg/", "/msg/<wbr>")


def launch_arguments(path: Path) -> dict[str, tuple[str, str]]:
    """Returns default and description of each argument that a launch file has of its own.

    Where there is no `launch`, as with the wheels, something empty stands in for it: only the
    file's table is asked for.
    """
    with mock(["launch", "launch_ros"]):
        table: dict[str, tuple[str, str]] = runpy.run_path(str(path))["ARGUMENTS"]
    here = f"{CHECKOUT}/"
    return {name: (value.removeprefix(here), text) for name, (value, text) in table.items()}


def launch_files() -> str:
    """Returns the arguments of all launch files."""
    sections = []
    for path in sorted((CHECKOUT / "launch").glob("*.launch.py")):
        summary = (ast.get_docstring(ast.parse(path.read_text())) or "").partition(": ros2 launch")
        rows = [
            (f"`{name}`", f"`{default}`" if default else "", plain(text))
            for name, (default, text) in launch_arguments(path).items()
        ]
        sections += [f"### {path.name}", f"{summary[0]}.", INHERITED.get(path.name, "")]
        sections += [table(("argument", "default", "meaning"), rows)]
    return "\n\n".join(sections)


INHERITED = {
    "demo.launch.py": "Arguments are those of sam.launch.py, but for `cameras` and "
    "`image_transport`, and:",
    "sam.launch.py": "Arguments are `use_sim_time`, all [parameters](#parameters), of which those "
    "that are not given are left to `params_file`, and:",
}
"""What a launch file takes besides its own table."""


def diagnostic_keys() -> str:
    """Returns the keys of the node's status on `/diagnostics`."""
    counters = [(f"`{name}`", text) for name, text in diagnostics.COUNTERS.items()]
    stages = [(f"`{name}`", text) for name, text in diagnostics.STAGES.items()]
    percentiles = ", ".join(f"`p{percent}`" for percent in diagnostics.PERCENTILES)
    return "\n\n".join(
        [
            "```none\n" + (diagnostics.__doc__ or "").strip() + "\n```",
            "Counters, since the start:",
            table(("counter", "what is counted"), counters),
            f"Stages, whose latencies come as {percentiles} in milliseconds:",
            table(("stage", "from what to what"), stages),
        ]
    )


# --- The command line -----------------------------------------------------------------------


def help_texts() -> str:
    """Returns what --help says, of the command line and of each command."""
    os.environ["COLUMNS"] = "90"
    parser = make_parser()
    (commands,) = (a for a in parser._actions if isinstance(a, _SubParsersAction))
    texts = [parser.format_help(), *(c.format_help() for c in commands.choices.values())]
    return "\n\n".join(texts)


PAGES: dict[str, Callable[[], str]] = {
    "messages.md": messages,
    "services.md": services,
    "parameters.md": parameter_table,
    "launch_files.md": launch_files,
    "diagnostics.md": diagnostic_keys,
    "help.txt": help_texts,
}


def write_pages(app: object = None) -> None:
    """Writes all of them."""
    GENERATED.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (GENERATED / name).write_text(make() + "\n")


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}
