"""One training by several processes: each computes its share of every batch, and they agree on the gradients.

torchrun starts them, on one machine or on several, or `launch` does; all of them run the same command. In a process that
is alone every function here does nothing.
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

# The others wait while the first one reads and writes. Should one end, the launcher ends the rest of its machine at once; those of
# other machines may hear of it in no other way than this.
_PATIENCE = timedelta(minutes=10)
_SHARED_CPU = torch.device("cpu")  # what the processes say to each other besides tensors does not wait for a GPU

T = TypeVar("T")


def own_device(gpus: str) -> torch.device:
    """This process's one of the devices for `--gpus` on its machine; "auto" is all of them here.

    Raises:
        UsageError: a GPU is asked for that is not there, or there are more processes than GPUs.
    """
    devices = choose_all("all" if gpus == "auto" and torch.cuda.is_available() else gpus)
    place, processes = (int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    if devices[0].type == "cpu":
        return devices[0]
    if processes > len(devices):
        raise UsageError(
            f"--gpus {gpus}: {processes} processes, but {len(devices)} GPUs on this machine;"
            f" use --gpus all, or torchrun --nproc-per-node {len(devices)}"
        )
    return devices[place]


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Be one of the processes that the environment tells of, until all of them have done the block.

    One that fails keeps the connection, and has to end without it: GPUs part only when all of them do.
    """
    end_with_parent()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    yield
    gc.collect()  # a network that the processes shared must not outlive their group: its threads would abort the process
    dist.destroy_process_group()


def first_to_fail() -> bool:
    """Whether none of the processes has failed before this one, whose error is then the one to tell."""
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=10))  # type: ignore[attr-defined]
        return bool(store.add("das3d/failed", 1) == 1)
    except (dist.DistError, KeyError):  # the launcher is ending
        return False


def size() -> int:
    """Number of the processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's place among them."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process is the one that writes and reports."""
    return rank() == 0


def check_share(batch_size: int, portions: int) -> None:
    """Make sure that every process gets as many samples of a batch as the others, in equal portions.

    Raises:
        UsageError: it does not come out even.
    """
    if batch_size % (size() * portions):
        each = f" in {portions} micro-batches each" if portions > 1 else ""
        raise UsageError(
            f"settings.train.batch_size: {batch_size} samples cannot be shared out evenly among {size()} processes{each};"
            f" take a multiple of {size() * portions}, or another number of GPUs"
        )


def own_places(batch_size: int, portions: int) -> Tensor:
    """The places in a batch that are this process's, int64, one portion after another.

    Of every micro-batch all processes have a piece, so that its batch normalisation is that of one process.
    """
    return torch.arange(batch_size).view(portions, size(), -1)[:, rank()].flatten()


def from_first(make: Callable[[], T]) -> T:
    """What the first process makes, for all of them."""
    if size() == 1:
        return make()
    found: list[Any] = [make() if is_first() else None]
    dist.broadcast_object_list(found, src=0, device=_SHARED_CPU)
    made: T = found[0]
    return made


def gathered(own: T) -> list[T] | None:
    """What each of the processes has, in the order of their places; None in all but the first."""
    if size() == 1:
        return [own]
    found: list[Any] | None = [None] * size() if is_first() else None
    dist.gather_object(own, found)  # by way of the CPU
    return found


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    if size() == 1:
        return flag
    flags = torch.tensor(int(flag), device=_SHARED_CPU)
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


def wait_for_all() -> None:
    """Go on when every process has come here."""
    any_of(False)


def mean(values: Tensor) -> Tensor:
    """Mean over the processes, without gradient; a GPU's host does not wait for it."""
    if size() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total / size()


def parallel(network: nn.Module) -> nn.Module:
    """The network as it is to be called in training: gradients become means over the processes, and batch normalisation,
    in the network itself, sees the whole batch. Its weights become the first process's."""
    if size() == 1:
        return network
    device = next(network.parameters()).device
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    else:
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = _SharedBatchNorm
    together = DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)
    # The first process's have been sent; from here on all processes have the same ones. The argument of this is called otherwise
    # from torch 2.13 on.
    together.broadcast_buffers = False
    return together


def unshared(network: nn.Module, wanted: bool) -> contextlib.AbstractContextManager[None]:
    """While a `parallel` network's gradients add up over micro-batches, of which the last one shares them."""
    if wanted and isinstance(network, DistributedDataParallel):
        context: contextlib.AbstractContextManager[None] = network.no_sync()
        return context
    return contextlib.nullcontext()


class _SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the samples of all processes; torch's own, `SyncBatchNorm`, works on GPUs alone."""

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
    """Mean over the processes. Every process's loss depends on it, and the total loss is the mean of theirs."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return mean(values)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return mean(gradient)


def _shared_mean(values: Tensor) -> Tensor:
    shared: Tensor = _Mean.apply(values)  # type: ignore[no-untyped-call]
    return shared
