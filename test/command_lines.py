"""Whether the commands in the documentation fit what they are for, without running them.

Those of our own programs are parsed by the programs themselves; those of `ros2` are held against
launch files, executables, parameters and message types; those of make and docker against their
files. Others' programs are left alone.
"""

from __future__ import annotations

import argparse
import array
import importlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from lifecycle_msgs.msg import Transition

from generated_pages import launch_arguments
from mobile_sam_ros import launching
from mobile_sam_ros.parameters import Parameters

CHECKOUT = Path(__file__).resolve().parent.parent
_FREE = "…"  # left to the reader


class DoesNotFit(Exception):
    """A command that is wrong; the text says how."""


def check(command: str) -> None:
    """Checks one command.

    Raises:
        DoesNotFit: it cannot be meant for this repository as it is.
    """
    if _FREE in command or "$(" in command:
        return
    for words in _simple_commands(shlex.split(command, comments=True)):
        _check_simple(words)


def _simple_commands(words: Sequence[str]) -> list[list[str]]:
    """Splits what && joins; variables that are set before a command are left out."""
    commands: list[list[str]] = [[]]
    for word in words:
        if word == "&&":
            commands.append([])
        elif commands[-1] or not re.match(r"\w+=", word):
            commands[-1].append(word)
    return commands


def _check_simple(words: list[str]) -> None:
    match words:
        case ["ros2", verb, *rest]:
            _check_ros2(verb, rest)
        case ["mobile-sam", *rest]:
            _parse("mobile_sam.cli", rest)
        case ["python" | "python3", "-m", module, *rest] if module.startswith("mobile_sam"):
            _parse(module, rest)
        case ["make", *rest]:
            _check_make(rest)
        case ["docker", "build", *rest]:
            _check_docker_build(rest)


# --- Our own programs -----------------------------------------------------------------------


class _Parsed(Exception):
    """The command line was read, and that was all that was wanted."""


def _parse(module: str, words: Sequence[str]) -> None:
    """Has a program read its command line, and stops it there."""
    parse_args = argparse.ArgumentParser.parse_args

    def parse_only(parser: argparse.ArgumentParser, args: Any = None, *rest: Any) -> Any:
        parse_args(parser, args, *rest)
        raise _Parsed

    with mock.patch.object(argparse.ArgumentParser, "parse_args", parse_only):
        try:
            importlib.import_module(module).main(list(words))
        except _Parsed:
            return
        except SystemExit as error:
            raise DoesNotFit(f"{module} does not take {shlex.join(words)}") from error
    raise DoesNotFit(f"{module} reads no command line")


# --- make and docker ------------------------------------------------------------------------


def _check_make(words: Sequence[str]) -> None:
    text = (CHECKOUT / "Makefile").read_text()
    for word in words:
        variable, equals, _ = word.partition("=")
        pattern = rf"^{variable} \?=" if equals else rf"^{word}:"
        if not re.search(pattern, text, re.MULTILINE):
            raise DoesNotFit(f"Makefile has no {variable if equals else word}")


def _check_docker_build(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("-t")
    parser.add_argument("-f", type=Path, required=True)
    parser.add_argument("--build-arg", action="append", default=[])
    parser.add_argument("context", choices=["."])
    options = parser.parse_args(list(words))
    if not (CHECKOUT / options.f).is_file():
        raise DoesNotFit(f"{options.f} is not there")
    known = re.findall(r"^ARG (\w+)", (CHECKOUT / options.f).read_text(), re.MULTILINE)
    for given in options.build_arg:
        if given.partition("=")[0] not in known:
            raise DoesNotFit(f"{options.f} has no ARG {given.partition('=')[0]}")


# --- ros2 -----------------------------------------------------------------------------------


def _check_ros2(verb: str, words: list[str]) -> None:
    plain = [word for word in words if not word.startswith("-")]
    match verb, plain:
        case "launch", ["mobile_sam_ros", name, *given]:
            _check_launch(name, given)
        case "run", ["mobile_sam_ros", name, *_]:
            cmake = (CHECKOUT / "CMakeLists.txt").read_text()
            if not re.search(rf'^ *"{re.escape(name)} .* lib/', cmake, re.MULTILINE):
                raise DoesNotFit(f"CMakeLists.txt installs no executable {name}")
        case "topic", ["pub", _, kind, values]:
            _fill(_class(kind)(), yaml.safe_load(values))
        case "service", ["call", _, kind, *values]:
            _fill(_class(kind).Request(), yaml.safe_load(values[0]) if values else {})
        case "param", ["set", node, name, value] if node.endswith("/sam"):
            _check_parameter(name, yaml.safe_load(value))
        case "param", ["get" | "describe", node, name] if node.endswith("/sam"):
            _check_parameter(name, None)
        case "lifecycle", ["set", _, transition]:
            if not hasattr(Transition, f"TRANSITION_{transition.upper()}"):
                raise DoesNotFit(f"there is no transition {transition}")


def _check_launch(name: str, given: Sequence[str]) -> None:
    path = CHECKOUT / "launch" / name
    if not path.is_file():
        raise DoesNotFit(f"launch/{name} is not there")
    known = {*launch_arguments(path), *launching.arguments()}
    known |= set(launch_arguments(path.with_name("sam.launch.py")))  # which the others include
    for word in given:
        argument, is_one, _ = word.partition(":=")
        if not is_one or argument not in known:
            raise DoesNotFit(f"{name} has no argument {word}: {', '.join(sorted(known))}")


def _check_parameter(name: str, value: object) -> None:
    field = Parameters.__dataclass_fields__.get(name)
    if field is None:
        raise DoesNotFit(f"there is no parameter {name}")
    if value is None:
        return
    if field.metadata["read_only"]:
        raise DoesNotFit(f"parameter {name} cannot be set at run time")
    if type(value) is not type(field.default):
        kind = type(field.default).__name__
        raise DoesNotFit(f"parameter {name} is of type {kind}, {value!r} is not")


def _class(name: str) -> Any:
    package, group, kind = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.{group}"), kind)
    except (ImportError, AttributeError) as error:
        raise DoesNotFit(f"there is no type {name}: {error}") from error


def _fill(message: Any, values: dict[str, Any]) -> None:
    """Checks that a message has fields of these names and kinds, as `ros2 topic pub` does."""
    kinds = message.get_fields_and_field_types()
    for name, value in values.items():
        if name not in kinds:
            raise DoesNotFit(f"{type(message).__name__} has no field {name}: {', '.join(kinds)}")
        present = getattr(message, name)
        if isinstance(value, dict):
            _fill(present, value)
        elif isinstance(value, list):
            _check_list(name, kinds[name], present, value)
        elif not isinstance(value, _accepted(present)):
            raise DoesNotFit(f"{name} is of type {kinds[name]}, {value!r} is not")


def _accepted(present: object) -> type | tuple[type, ...]:
    return (int, float) if isinstance(present, float) else type(present)


def _check_list(name: str, kind: str, present: object, values: Sequence[Any]) -> None:
    items = re.match(r"sequence<(\w+)/(\w+)", kind)
    if items:
        for value in values:
            _fill(_class(f"{items[1]}/msg/{items[2]}")(), value)
    elif isinstance(present, array.array):
        array.array(present.typecode, values)  # a TypeError if they do not fit
    elif not isinstance(present, list):
        raise DoesNotFit(f"{name} is of type {kind}, which is no list")
