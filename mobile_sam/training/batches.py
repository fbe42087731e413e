"""Which samples a batch has: a pure function of the seed and its number, so that nothing is lost
or repeated when a training goes on, and processes share the samples without talking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch


@dataclass(frozen=True)
class Batches:
    """Indices of samples, batch after batch, without end; a `batch_sampler` for a DataLoader.

    Every epoch has all samples once, in an order of its own.

    Attributes:
        samples: number of them.
        size: samples a batch.
        seed: of the orders.
        first: number of the first batch, counted over all processes.
        rank: this process.
        processes: number of them; each takes every `processes`-th batch.
    """

    samples: int
    size: int
    seed: int = 0
    first: int = 0
    rank: int = 0
    processes: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        number = self.first + self.rank
        while True:
            begin = number * self.size
            yield [self._index(position) for position in range(begin, begin + self.size)]
            number += self.processes

    def _index(self, position: int) -> int:
        epoch, place = divmod(position, self.samples)
        return int(_order(self.samples, self.seed, epoch)[place])


@lru_cache(maxsize=2)
def _order(samples: int, seed: int, epoch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % (1 << 63))
    return torch.randperm(samples, generator=generator)
