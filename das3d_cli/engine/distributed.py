"""Train in several processes: each computes its share of every batch, and gradients are averaged over all of them.

torchrun starts them, on one or several machines, or `launch` does; all run the same command. In a single process the
functions here have no effect.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from das3d_cli.device import choose_all
from das3d_cli.engine.interrupt import end_with_parent
from das3d_cli.errors import UsageError

# The others wait while the first process reads and writes. If a process ends, its launcher ends the rest of its machine
# at once; processes on other machines may only notice by this timeout.
_PATIENCE = timedelta(minutes=10)
_SHARED_CPU = torch.device("cpu")  # for exchanging flags and objects without waiting for a GPU

T = TypeVar("T")


def own_device(gpus: str) -> torch.device:
    """The device of this process, among those of `--gpus` on its machine; "auto" means all of them here.

    Raises:
        UsageError: a requested GPU does not exist, or there are more processes than GPUs.
    """
    devices = choose_all("all" if gpus == "auto" and torch.cuda.is_available() else gpus)
    place, processes = (int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    if devices[0].type == "cpu":
        return devices[0]
    if processes > len(devices):
        raise UsageError(
            f"--gpus {gpus}: {processes} processes, but GPUs on this machine: {len(devices)};"
            f" use --gpus all, or torchrun --nproc-per-node {len(devices)}"
        )
    return devices[place]


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Be a member of the process group that the environment describes, until all members have finished the block.

    A process that fails must exit without leaving the group: on GPUs that would wait for all others to leave it too.
    """
    end_with_parent()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    yield
    gc.collect()  # a DDP network must not outlive its process group: its threads would abort the process
    dist.destroy_process_group()


def first_to_fail() -> bool:
    """Whether this process is the first to fail, so that its error is the one to report."""
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=10))  # type: ignore[attr-defined]
        return bool(store.add("das3d/failed", 1) == 1)
    except (dist.DistError, KeyError):  # the launcher is shutting down
        return False


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's index, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process is the one that writes and reports."""
    return rank() == 0


def check_share(batch_size: int, portions: int) -> None:
    """Check that a batch splits evenly among the processes, and each share into `portions` micro-batches.

    Raises:
        UsageError: it does not.
    """
    if batch_size % (size() * portions):
        each = f" in {portions} micro-batches each" if portions > 1 else ""
        raise UsageError(
            f"settings.train.batch_size: {batch_size} samples cannot be divided evenly among {size()} processes{each};"
            f" use a multiple of {size() * portions}, or another number of GPUs"
        )


def own_places(batch_size: int, portions: int) -> Tensor:
    """This process's indices within a batch, int64, (batch_size / size(),), one micro-batch after another.

    Every micro-batch is spread over all processes, so that its batch normalisation is the same as in one process.
    """
    return torch.arange(batch_size).view(portions, size(), -1)[:, rank()].flatten()


def from_first(make: Callable[[], T]) -> T:
    """Call `make` in the first process; return its result in all of them."""
    if size() == 1:
        return make()
    found: list[Any] = [make() if is_first() else None]
    dist.broadcast_object_list(found, src=0, device=_SHARED_CPU)
    made: T = found[0]
    return made


def gathered(own: T) -> list[T] | None:
    """The values of all processes, in rank order; None in all processes but the first."""
    if size() == 1:
        return [own]
    found: list[Any] | None = [None] * size() if is_first() else None
    dist.gather_object(own, found)  # via the CPU
    return found


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    if size() == 1:
        return flag
    flags = torch.tensor(int(flag), device=_SHARED_CPU)
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


def wait_for_all() -> None:
    """Wait for every process to get here."""
    any_of(False)


def mean(values: Tensor) -> Tensor:
    """Mean over the processes, without gradient; the host does not wait for a GPU's result."""
    if size() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total / size()


def parallel(network: nn.Module) -> nn.Module:
    """Wrap the network for training in several processes.

    Gradients become means over the processes. The network itself is changed: its batch normalisation sees the samples
    of all processes, and its weights become the first process's.
    """
    if size() == 1:
        return network
    device = next(network.parameters()).device
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    else:
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = _SharedBatchNorm
    wrapped = DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)
    # DDP has sent the first process's buffers; from here on all processes have the same ones. Set as an attribute since
    # torch 2.13 renamed the constructor's argument.
    wrapped.broadcast_buffers = False
    return wrapped


def unshared(network: nn.Module, wanted: bool) -> contextlib.AbstractContextManager[None]:
    """If `wanted`, let a `parallel` network's gradients add up unaveraged; the last micro-batch averages them."""
    if wanted and isinstance(network, DistributedDataParallel):
        context: contextlib.AbstractContextManager[None] = network.no_sync()
        return context
    return contextlib.nullcontext()


class _SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the samples of all processes; torch's own `SyncBatchNorm` works only on GPUs."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        wide = x.to(self.weight.dtype)
        centre = _shared_mean(wide.mean(dim=(0, 2, 3)))
        centred = wide - centre[:, None, None]
        variance = _shared_mean(centred.square().mean(dim=(0, 2, 3)))
        with torch.no_grad():
            count = x.numel() // x.shape[1] * size()
            self.running_mean.lerp_(centre, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            self.num_batches_tracked += 1
        scale = (variance + self.eps).rsqrt() * self.weight
        normalised: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return normalised.to(x.dtype)


class _Mean(torch.autograd.Function):
    """Mean over the processes. The total loss is the mean of losses that all depend on it, so backward averages too."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return mean(values)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return mean(gradient)


def _shared_mean(values: Tensor) -> Tensor:
    shared: Tensor = _Mean.apply(values)  # type: ignore[no-untyped-call]
    return shared
