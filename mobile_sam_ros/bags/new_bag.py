"""A bag as it is written: the topics of another one as they are, and some more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal

from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinitionFormat,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from mobile_sam_ros.bags.definitions import add_type
from mobile_sam_ros.bags.source import embedded_types

# What Humble reads as well; those after it read all that came before.
_VERSION: Literal[8] = 8
_NEVER = QosTime(9_223_372_036, 854_775_807)


def reliable(depth: int, keeps: bool) -> Qos:
    """Returns the profile of a reliable publisher.

    Args:
        depth: of its queue.
        keeps: its last messages for whoever comes later (transient local).
    """
    durability = QosDurability.TRANSIENT_LOCAL if keeps else QosDurability.VOLATILE
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        QosReliability.RELIABLE,
        durability,
        deadline=_NEVER,
        lifespan=_NEVER,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_NEVER,
        avoid_ros_namespace_conventions=False,
    )


class NewBag:
    """A bag that is written. A context manager: left by an error, the bag is not complete."""

    def __init__(
        self, path: Path, storage: StoragePlugin, compress: bool, complain: Callable[[str], None]
    ) -> None:
        """Begins a bag.

        Args:
            path: its folder, which must not exist yet.
            storage: its format.
            compress: by zstd: in chunks (MCAP), or each message (sqlite3).
            complain: called with types of which nobody has the definition.
        """
        self._writer = Writer(path, version=_VERSION, storage_plugin=storage)
        if compress:
            in_chunks = storage == StoragePlugin.MCAP
            mode = CompressionMode.STORAGE if in_chunks else CompressionMode.MESSAGE
            self._writer.set_compression(mode, CompressionFormat.ZSTD)
        self._complain = complain

    def __enter__(self) -> NewBag:
        self._writer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._writer.__exit__(kind, error, traceback)

    def note(self, key: str, value: str) -> None:
        """Adds to the custom data in metadata.yaml."""
        self._writer.set_custom_data(key, value)

    def add_topic(self, topic: str, name: str, store: Typestore, qos: Qos) -> Connection:
        """Adds a topic of a type that `store` defines."""
        return self._writer.add_connection(topic, name, typestore=store, offered_qos_profiles=[qos])

    def copy_topic(self, connection: Connection) -> Connection:
        """Adds a topic of another bag, with its type and its QoS profiles."""
        assert isinstance(connection.ext, ConnectionExtRosbag2)
        topic, name = connection.topic, connection.msgtype
        profiles = connection.ext.offered_qos_profiles
        if connection.msgdef.format == MessageDefinitionFormat.NONE:
            store = self._installed(topic, name)
            return self._writer.add_connection(
                topic, name, typestore=store, offered_qos_profiles=profiles
            )
        digest = connection.digest
        if not digest:
            types = embedded_types(connection)
            digest = "RIHS01_" + "0" * 64 if types is None else types.hash_rihs01(name)
        return self._writer.add_connection(
            topic,
            name,
            msgdef=connection.msgdef.data,
            rihs01=digest,
            offered_qos_profiles=profiles,
        )

    def _installed(self, topic: str, name: str) -> Typestore:
        """Returns the definition of a type of which the bag has none, as those of Humble."""
        store = get_typestore(Stores.LATEST)
        try:
            add_type(store, name)
        except LookupError as error:
            self._complain(
                f"{topic}: {error} Its messages are copied, but who reads the bag has to know them"
            )
            store.register(get_types_from_msg("", name))
        return store

    def write(self, connection: Connection, log: int, data: bytes) -> None:
        """Writes a message of a topic, at a log time in nanoseconds."""
        self._writer.write(connection, log, data)
