"""A recorded bag as it is read: its topics, its messages in order, and their bytes decoded."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.rosbag2 import Reader, StoragePlugin
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from mobile_sam_ros.bags.definitions import add_type
from mobile_sam_ros.conversions import BadMessage

_RECOVER = "`mcap recover` finds what can be read, `ros2 bag reindex` (sqlite3) mends the index"
FALL = 1_000_000_000
"""Nanoseconds by which the log times of a topic may fall from one file of a bag to the next."""
_SUFFIXES = (".mcap", ".db3", ".zstd")
_IDL_SEPARATOR = "=" * 80 + "\n"


class BagError(Exception):
    """A bag that cannot be used as it was asked for; the message names bag, topic and value."""


class SourceBag:
    """A bag: the folder that rosbag2 writes, or one .mcap or .db3 file. A context manager.

    Attributes:
        path: as it was given.
        connections: its topics.
        storage: how it is stored.
    """

    def __init__(self, path: Path) -> None:
        """Takes the path, and reads nothing yet."""
        self.path = path
        self.connections: list[Connection] = []
        self.storage = StoragePlugin.SQLITE3

    def __enter__(self) -> SourceBag:
        """Opens it.

        Raises:
            BagError: it cannot be read.
        """
        if not self.path.exists():
            raise BagError(f"{self.path}: no such bag")
        try:
            self._reader = Reader(self.path)
            self._reader.open()
        except Exception as error:  # each storage has errors of its own
            raise BagError(f"{self.path}: cannot be read: {error}; {_advice(error)}") from error
        self.connections = sorted(self._reader.connections, key=lambda c: (c.topic, c.id))
        if any(".mcap" in file.suffixes for file in self.files()):
            self.storage = StoragePlugin.MCAP
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()

    def files(self) -> list[Path]:
        """Returns the files with its messages."""
        if not self.path.is_dir():
            return [self.path]
        return sorted(file for file in self.path.iterdir() if file.suffix in _SUFFIXES)

    @property
    def start(self) -> int:
        """Log time of the first message, nanoseconds."""
        return self._reader.start_time

    @property
    def seconds(self) -> float:
        """From the first message to the last."""
        return self._reader.duration / 1e9

    def custom_data(self) -> dict[str, str]:
        """Returns what was noted in its metadata."""
        return dict(self._reader.storage.metadata.custom or {})

    @property
    def message_count(self) -> int:
        """Number of messages of all topics."""
        return self._reader.message_count

    def topics(self, *types: str) -> list[str]:
        """Returns the topics that have messages of these types, by name."""
        found = {c.topic for c in self.connections if c.msgtype in types and c.msgcount}
        return sorted(found)

    def only_topic(self, types: Sequence[str], option: str, without: Collection[str] = ()) -> str:
        """Returns the one topic of these types that there is.

        Args:
            types: its type is one of these.
            option: by which the user can say which one is meant.
            without: topics that are not meant.

        Raises:
            BagError: there is none, or more than one.
        """
        found = [topic for topic in self.topics(*types) if topic not in without]
        if len(found) == 1:
            return found[0]
        which = "several topics" if found else "no topic"
        raise BagError(
            f"{self.path} has {which} of type {' or '.join(types)}: give {option}; it has\n"
            f"{self.described()}"
        )

    def check(self, topic: str, *types: str) -> str:
        """Returns the type of a topic.

        Args:
            topic: its name.
            types: those that will do; none: all of them.

        Raises:
            BagError: there is no such topic, or it has another type or no messages.
        """
        own = self._of(topic)
        if not own:
            raise BagError(f"{self.path}: no topic {topic}; it has\n{self.described()}")
        if types and own[0].msgtype not in types:
            raise BagError(
                f"{self.path}: topic {topic} has type {own[0].msgtype}, not {' or '.join(types)}"
            )
        if not any(connection.msgcount for connection in own):
            raise BagError(f"{self.path}: topic {topic} has no messages")
        return own[0].msgtype

    def check_order(self, *topics: str) -> None:
        """Checks that the log times of topics rise, but for `FALL` from one file to the next.

        Within a file they always do. Only the beginning of each file is read, if that.

        Raises:
            BagError: the clock was set back while the bag was recorded, or a file is damaged.
        """
        end = 0
        for file in getattr(self._reader.storage, "storages", ()):  # of a folder
            if file.metadata.start_time < end - FALL:
                # Other topics may begin early: what is kept for who comes later, is told again.
                wanted = [c for c in file.connections if c.topic in topics]
                try:
                    first = next(file.messages(wanted), None) if wanted else None
                except Exception as error:  # each storage has errors of its own
                    name = f"{self.path}: {file.path.name}"
                    raise BagError(f"{name}: cannot be read: {error}; {_RECOVER}") from error
                if first is not None and first[1] < end - FALL:
                    raise BagError(
                        f"{self.path}: topic {first[0].topic}: {file.path.name} begins "
                        f"{(end - first[1]) / 1e9:.3f} s before the end of the file before it: the "
                        "clock was set back; give the files one by one"
                    )
            end = max(end, file.metadata.end_time)

    def described(self) -> str:
        """Returns the topics with types and numbers of messages, one a line."""
        width = max((len(c.topic) for c in self.connections), default=0)
        lines = (f"  {c.topic:{width}}  {c.msgtype} ({c.msgcount})" for c in self.connections)
        return "\n".join(lines) or "  no topics at all"

    def count(self, topic: str) -> int:
        """Returns the number of messages of a topic."""
        return sum(connection.msgcount for connection in self._of(topic))

    def messages(
        self,
        topics: Collection[str] | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """Yields connection, log time (nanoseconds) and bytes, file by file in the order of the log
        times.

        Args:
            topics: which of them; None: all.
            start: log time of the first message at the earliest.
            stop: log time that no message reaches.

        Raises:
            BagError: the file is damaged.
        """
        wanted = [c for c in self.connections if topics is None or c.topic in topics]
        messages = self._reader.messages(wanted, start, stop)
        last = self.start
        while True:
            try:
                connection, last, data = next(messages)
            except StopIteration:
                return
            except Exception as error:  # each storage has errors of its own
                raise BagError(
                    f"{self.path}: damaged after {(last - self.start) / 1e9:.3f} s: "
                    f"{error or type(error).__name__}; {_RECOVER}"
                ) from error
            yield connection, last, data

    def definitions(self, topic: str) -> Typestore:
        """Returns the definitions of a topic's type: its own, or else those that are installed.

        Raises:
            BagError: there are none.
        """
        connection = self._of(topic)[0]
        store = embedded_types(connection)
        if store is None:
            store = get_typestore(Stores.LATEST)
            try:
                add_type(store, connection.msgtype)
            except LookupError as error:
                raise BagError(f"{self.path}: topic {topic}: {error}") from error
        return store

    def decoder(self, topic: str) -> Callable[[bytes], Any]:
        """Returns what makes messages of a topic's bytes.

        It raises `BadMessage` for those that are damaged.

        Raises:
            BagError: there is no definition of its type.
        """
        store, name = self.definitions(topic), self._of(topic)[0].msgtype

        def decode(data: bytes) -> Any:
            try:
                return store.deserialize_cdr(data, name)
            except Exception as error:  # whatever a damaged length or text leads to
                raise BadMessage(f"not a {name}: {error or type(error).__name__}") from error

        return decode

    def _of(self, topic: str) -> list[Connection]:
        return [connection for connection in self.connections if connection.topic == topic]


def _advice(error: Exception) -> str:
    """Returns what can be done about a bag that cannot be opened."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"compressed files are unpacked into {gettempdir()}: set TMPDIR to another folder"
    return _RECOVER


def beside(bag: Path, what: str) -> Path:
    """Returns the path beside a bag of what is made of it, `<bag>_<what>`."""
    path = bag.resolve()  # the name of one that was given as a dot, too
    return path.with_name(f"{path.name if path.is_dir() else path.stem}_{what}")


def embedded_types(connection: Connection) -> Typestore | None:
    """Returns the types that a bag defines for a topic, or None if it does not."""
    definition = connection.msgdef
    store = get_typestore(Stores.EMPTY)
    try:
        if definition.format == MessageDefinitionFormat.MSG:
            store.register(get_types_from_msg(definition.data, connection.msgtype))
        elif definition.format == MessageDefinitionFormat.IDL:
            for part in filter(None, definition.data.split(_IDL_SEPARATOR)):
                _, _, text = part.partition("\n") if part.startswith("IDL: ") else ("", "", part)
                store.register(get_types_from_idl(text))
        else:
            return None
    except Exception:  # in a form that rosbags does not read: then others may know the type
        return None
    return store if connection.msgtype in store.fielddefs else None
