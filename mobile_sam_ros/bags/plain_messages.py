"""Messages without ROS: classes with the defaults of their fields, and their bytes in a bag."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from mobile_sam_ros.bags.definitions import add_type
from mobile_sam_ros.results import LABEL_INFO_TYPE, TYPES

_CODES = {
    "bool": "b",
    "byte": "B",
    "char": "B",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
# rosbags keeps no defaults of fields. Of the messages that are made here, one field has one.
_DEFAULTS = {("geometry_msgs/msg/Quaternion", "w"): 1.0}


class _Numbers(array):
    """A field of many numbers: filled as rclpy's are, and read as rosbags wants it."""

    def view(self, dtype: DTypeLike) -> NDArray[Any]:
        """Returns the same memory as an array."""
        return np.frombuffer(self, dtype) if len(self) else np.zeros(0, dtype)


class PlainClasses:
    """Makes classes of messages that need no ROS; a `ClassOf`.

    Unlike the classes of rosbags, these have defaults, and constructors that take any fields.

    store: the definitions.
    """

    def __init__(self, store: Typestore) -> None:
        """Takes the definitions from `store`."""
        self.store = store
        self._classes: dict[str, type] = {}

    def knows(self, name: str) -> bool:
        """Returns whether there is a definition of a message type."""
        return name in self.store.fielddefs

    def __call__(self, name: str) -> Any:
        """Returns the class of a message type.

        Raises:
            ImportError: there is no definition of it.
        """
        if name not in self._classes:
            if not self.knows(name):
                raise ImportError(f"there is no definition of {name}")
            self._classes[name] = self._made(name)
        return self._classes[name]

    def _made(self, name: str) -> type:
        constants, fields = self.store.fielddefs[name]

        def init(message: Any, **values: Any) -> None:
            for field, description in fields:
                if field in values:
                    value = values.pop(field)
                else:
                    value = _DEFAULTS.get((name, field)) or self._default(description)
                setattr(message, field, value)
            if values:
                raise TypeError(f"{name} has no field {next(iter(values))!r}")

        def types(message: Any) -> dict[str, str]:
            return {field: _text(description) for field, description in fields}

        members = {constant: value for constant, _, value in constants}
        own = {"__init__": init, "get_fields_and_field_types": types, "__msgtype__": name}
        return type(name.rpartition("/")[2], (), members | own)

    def _default(self, description: Any) -> Any:
        node, inner = description
        if node == Nodetype.NAME:
            return self(inner)()
        if node == Nodetype.BASE:
            return {"string": "", "bool": False, "float32": 0.0, "float64": 0.0}.get(inner[0], 0)
        (inner_node, inner_type), count = inner
        count = 0 if node == Nodetype.SEQUENCE else count
        if inner_node == Nodetype.BASE and inner_type[0] != "string":
            return _Numbers(_CODES[inner_type[0]], [0] * count)
        return [self._default((inner_node, inner_type)) for _ in range(count)]

    def to_bytes(self, message: Any) -> bytes:
        """Returns a message of one of these classes as it stands in a bag."""
        data = self.store.serialize_cdr(message, message.__msgtype__, little_endian=True)
        return bytes(data)

    def from_bytes(self, data: bytes, name: str) -> Any:
        """Returns the message of a type that `to_bytes` made these bytes of, to read only."""
        return self.store.deserialize_cdr(data, name)


def result_classes() -> PlainClasses:
    """Returns the classes of all results, and of what is in them.

    Raises:
        LookupError: the definition of one of them is not installed.
    """
    store = get_typestore(Stores.LATEST)
    for name in (*TYPES.values(), LABEL_INFO_TYPE):
        add_type(store, name)
    return PlainClasses(store)


def _text(description: Any) -> str:
    """Returns the type of a field as rclpy names it, where it is a list of messages."""
    node, inner = description
    if node == Nodetype.SEQUENCE and inner[0][0] == Nodetype.NAME:
        package, _, kind = inner[0][1].split("/")
        return f"sequence<{package}/{kind}>"
    return str(inner)
