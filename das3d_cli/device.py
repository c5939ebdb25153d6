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
    """The devices for `--gpus`: "auto" (the first GPU, else the CPU), "all", "cpu", or numbers.

    Raises:
        UsageError: a GPU does not exist (the message suggests `--gpus cpu`), or the text is none of these.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus == "cpu" or (gpus == "auto" and count == 0):
        return [torch.device("cpu")]
    named = {"auto": [0], "all": list(range(count))}
    if gpus not in named and not all(number.isdecimal() for number in gpus.split(",")):
        raise UsageError(f"--gpus {gpus}: not a device; use auto, all, cpu, or numbers such as 0 or 0,1")
    wanted = named[gpus] if gpus in named else list(dict.fromkeys(int(number) for number in gpus.split(",")))
    if count == 0:
        raise UsageError(f"--gpus {gpus}: no CUDA device on this machine; use --gpus cpu")
    if max(wanted) >= count:
        raise UsageError(
            f"--gpus {gpus}: this machine has only GPU {', '.join(map(str, range(count)))}; use these or --gpus cpu"
        )
    return [torch.device("cuda", number) for number in wanted]


def make_ready(device: torch.device) -> None:
    """Make a GPU this process's current device, and let cuDNN try which convolutions are fastest at the sizes in use.

    Torch's deterministic algorithms stay off: they upsample by sorting, which takes many times as long. Only runs
    on a CPU repeat bit for bit.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)  # pinned memory belongs to the current GPU
        torch.backends.cudnn.benchmark = True


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy from main memory to the device without waiting; later work on the device comes after the copy."""
    return tensor.contiguous().pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def autocast(device: torch.device, *, training: bool = False) -> torch.autocast:
    """bfloat16 where the hardware supports it, else float32: emulated bfloat16 is ten times slower.

    On a CPU only in training, which then takes a fifth less time: judging one part gains nothing, and its score should
    not depend on the processor.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities()
        native = training and (able.get("avx512_bf16", False) or able.get("amx_bf16", False))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=native)


# Texts of torch errors other than OutOfMemoryError that mean a lack of memory: main memory's, the driver's, libraries'.
_OF_HOST = "DefaultCPUAllocator"
_SHORT_OF_MEMORY = (
    _OF_HOST, "out of memory", "STATUS_ALLOC_FAILED", "CUFFT_ALLOC_FAILED", "unable to find an engine to execute"
)  # fmt: skip


def short_of_memory(error: BaseException) -> bool:
    """Whether the error means that the device's memory or main memory is too small."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, cv2.error):
        return decode.short_of_memory(error)
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SHORT_OF_MEMORY)


@contextlib.contextmanager
def within_memory(device: torch.device, advice: str) -> Iterator[None]:
    """Turn a lack of memory into a one-line error with the advice, which reads "WHEN; HOW TO FIX IT".

    Raises:
        DataError: the device's memory or main memory is too small.
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
    if of_host:  # the advice's second half is about the device's memory
        raise DataError(f"main memory: out of memory {advice.partition(';')[0]}; free some memory")
    raise DataError(f"{device}: out of memory {advice}, or use --gpus cpu")
