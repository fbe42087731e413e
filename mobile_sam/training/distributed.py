"""One process or many: `torchrun` says which, and DistributedDataParallel joins their gradients.

Both come with torch and are what its own documentation trains with: nothing more to install, to
pin or to learn. A start without torchrun is a group of one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Group:
    """This process among those that train together.

    Attributes:
        rank: its number, 0 for the one that writes files.
        size: number of processes.
        device: where it trains.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Returns a model whose gradients are the mean over all processes."""
        if self.size == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        # Prompts differ from step to step, and not each of them reaches all parameters.
        return DistributedDataParallel(model, device_ids=ids, find_unused_parameters=True)

    def close(self) -> None:
        """Leaves the group."""
        if self.size > 1:
            distributed.destroy_process_group()


def join(device: str = "auto") -> Group:
    """Joins the processes that torchrun started, or makes a group of one.

    Args:
        device: "cpu", "cuda", or "auto": GPUs if there are any. On GPUs each process has its own.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if "WORLD_SIZE" not in os.environ:
        return Group(0, 1, torch.device(device))
    backend = "nccl" if device == "cuda" else "gloo"
    distributed.init_process_group(backend)
    chosen = torch.device(device)
    if device == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    return Group(distributed.get_rank(), distributed.get_world_size(), chosen)
