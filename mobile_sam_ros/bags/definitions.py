"""Definitions of message types: from the .msg files of what is installed, or of the checkout."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rosbags.interfaces import Nodetype
from rosbags.typesys import get_types_from_msg
from rosbags.typesys.store import Typestore

_CHECKOUT = Path(__file__).resolve().parents[2]


def add_type(store: Typestore, name: str) -> None:
    """Adds the definition of a message type, such as std_msgs/msg/Header, and all it contains.

    Raises:
        LookupError: its package is not installed, or has no such message.
    """
    if name in store.fielddefs:
        return
    package, _, kind = name.split("/")
    files = (folder / f"{kind}.msg" for folder in _folders(package))
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise LookupError(f"no definition of {name} is installed: is its workspace sourced?")
    definition = get_types_from_msg(file.read_text(encoding="utf-8"), name)
    for _, field in definition[name][1]:
        # An array or sequence wraps the type of its elements.
        node, inner = field[1][0] if field[0] in (Nodetype.ARRAY, Nodetype.SEQUENCE) else field
        if node == Nodetype.NAME:
            add_type(store, str(inner))
    store.register(definition)


def _folders(package: str) -> Iterator[Path]:
    """Yields where the messages of a package may be, most wanted first."""
    sourced = filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep))
    # Not sourced, this file may be below lib/ of an installation all the same.
    for prefix in (*map(Path, sourced), *Path(__file__).parents):
        yield prefix / "share" / package / "msg"
    yield _CHECKOUT / ("msg" if package == "mobile_sam_ros" else f"interfaces/{package}/msg")
