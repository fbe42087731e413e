"""Text from a file or a message, as it can stand in a message of ours."""

from __future__ import annotations

import reprlib
import textwrap

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_LONGEST = 200


def quoted(value: object) -> str:
    """Returns a value as Python writes it, text in quotes and without what a terminal would obey;
    and short."""
    return _SHORT.repr(value)


def first_line(error: BaseException) -> str:
    """Returns what an error says, in one line; its name if it says nothing."""
    lines = str(error).strip().splitlines()
    said = lines[0] if lines else type(error).__name__
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]} …"


def in_one_line(text: str) -> str:
    """Returns a text of several lines, of which the first may say little, in one; and short."""
    return textwrap.shorten(text, _LONGEST, placeholder=" …")
