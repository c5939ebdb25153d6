"""Which device the work runs on, and in which precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import cv2
import torch
from torch import Tensor

from das3d_cli.data import decode
from das3d_cli.errors import DataError, UsageError


def choose(gpus: str | int) -> torch.device:
    """The device for `--gpus` where one is enough: the first of `choose_all`."""
    return choose_all(str(gpus))[0]


def choose_all(gpus: str) -> list[torch.device]:
    """The devices for `--gpus`: "auto", which is the first GPU if there is one, "all", "cpu", or numbers.

    Raises:
        UsageError: a GPU is asked for that is not there, which names `--gpus cpu`, or something else than these.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus == "cpu" or (gpus == "auto" and count == 0):
        return [torch.device("cpu")]
    named = {"auto": [0], "all": list(range(count))}
    if gpus not in named and not all(number.isdecimal() for number in gpus.split(",")):
        raise UsageError(f"--gpus {gpus}: no device; use auto, all, cpu, or numbers as 0 or 0,1")
    wanted = named[gpus] if gpus in named else list(dict.fromkeys(int(number) for number in gpus.split(",")))
    if count == 0:
        raise UsageError(f"--gpus {gpus}: no CUDA device on this machine; use --gpus cpu")
    if max(wanted) >= count:
        raise UsageError(f"--gpus {gpus}: this machine has GPU 0 to {count - 1}; use one of those or --gpus cpu")
    return [torch.device("cuda", number) for number in wanted]


def make_ready(device: torch.device) -> None:
    """Make a GPU this process's own, and let it try which of its convolutions are the fastest at these sizes.

    Torch's deterministic algorithms are left off: they scale images up by sorting, many times as long, and what repeats
    bit for bit is a CPU's run.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)  # pinned memory belongs to the current one
        torch.backends.cudnn.benchmark = True


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy from main memory to the device; nobody waits for the copy, and what is computed there next comes after it."""
    return tensor.contiguous().pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def autocast(device: torch.device, *, training: bool = False) -> torch.autocast:
    """bfloat16 where the hardware computes in it, float32 elsewhere: emulated bfloat16 is ten times slower.

    On a CPU in training alone: that takes a fifth less time, while the pass of one part gains nothing, and its score
    should not depend on the processor.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities()
        native = training and (able.get("avx512_bf16", False) or able.get("amx_bf16", False))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=native)


# What torch's other errors than its own OutOfMemoryError say of a lack of memory: main memory's, the driver's, libraries'.
_OF_HOST = "DefaultCPUAllocator"
_SHORT_OF_MEMORY = (
    _OF_HOST, "out of memory", "STATUS_ALLOC_FAILED", "CUFFT_ALLOC_FAILED", "unable to find an engine to execute"
)  # fmt: skip


def short_of_memory(error: BaseException) -> bool:
    """Whether the error says that the device's memory is too small, or the computer's."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, cv2.error):
        return decode.short_of_memory(error)
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SHORT_OF_MEMORY)


@contextlib.contextmanager
def within_memory(device: torch.device, advice: str) -> Iterator[None]:
    """Turn a lack of memory into one line that ends with the advice, which reads "WHEN; HOW TO MEND IT".

    Raises:
        DataError: the device's memory is too small, or the computer's.
    """
    try:
        yield
    except (RuntimeError, MemoryError, cv2.error) as error:
        if not short_of_memory(error):
            raise
        of_host = isinstance(error, (MemoryError, cv2.error)) or _OF_HOST in str(error)
    else:
        return
    if device.type == "cpu":
        raise DataError(f"{device}: out of memory {advice}")
    if of_host:  # what the advice tells to lower is on the device
        raise DataError(f"main memory: out of memory {advice.partition(';')[0]}; free some")
    raise DataError(f"{device}: out of memory {advice}, or use --gpus cpu")
