"""Which samples a batch has: a pure function of the seed and its number, so that nothing is lost
or repeated when a training goes on, and processes share the samples without talking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate


@dataclass(frozen=True)
class Batches:
    """Positions in an endless row of samples, batch after batch; for `load`.

    Attributes:
        size: samples a batch.
        first: number of the first batch, counted over all processes.
        rank: this process.
        processes: number of them; each takes every `processes`-th batch.
    """

    size: int
    first: int = 0
    rank: int = 0
    processes: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        number = self.first + self.rank
        while True:
            yield list(range(number * self.size, (number + 1) * self.size))
            number += self.processes


def index_at(position: int, samples: int, seed: int) -> int:
    """Returns which of `samples` samples stands at a position of the endless row.

    Every epoch has all of them once, in an order of its own.
    """
    epoch, place = divmod(position, samples)
    return int(_order(samples, seed, epoch)[place])


def load(
    dataset: Dataset[Any],
    batches: Iterable[list[int]],
    workers: int,
    collate: Callable[[Any], Any] = default_collate,
    expected: tuple[type[Exception], ...] = (),
) -> Iterator[Any]:
    """Yields the batches of a dataset, made by so many processes; 0: by this one.

    The processes are begun afresh: one that is forked would wait for OpenCV's threads, which it
    does not have.

    Raises:
        Exception: one of those `expected`, of bad data, as the dataset raised it; all others with
            the traceback of their process in what they say, as torch has it.
    """
    loader = DataLoader(
        _WholeBatches(dataset, collate, expected),
        batch_size=None,
        sampler=batches,
        num_workers=workers,
        collate_fn=_as_it_is,
        multiprocessing_context="spawn" if workers else None,
    )
    return _raising(iter(loader))


@dataclass(frozen=True)
class _Failure:
    error: Exception


@dataclass(frozen=True)
class _WholeBatches(Dataset[Any]):
    """A dataset by lists of positions. What is expected to go wrong is a value: torch would raise
    it in the other process with a traceback for a message."""

    samples: Dataset[Any]
    collate: Callable[[Any], Any]
    expected: tuple[type[Exception], ...]

    def __getitem__(self, positions: list[int]) -> Any:
        try:
            return self.collate([self.samples[position] for position in positions])
        except self.expected as error:
            return _Failure(error)


def _as_it_is(batch: Any) -> Any:
    return batch


def _raising(batches: Iterator[Any]) -> Iterator[Any]:
    for batch in batches:
        if isinstance(batch, _Failure):
            raise batch.error
        yield batch


@lru_cache(maxsize=2)
def _order(samples: int, seed: int, epoch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % (1 << 63))
    return torch.randperm(samples, generator=generator)
