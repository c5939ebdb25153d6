"""How the C library treats freed memory."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_KEPT = 1 << 30  # bytes
# Bytes from which an allocation is mapped on its own: as much as is kept, or else the most that an older glibc accepts.
_MAPPED = (_KEPT, 1 << 25)


def keep_freed() -> None:
    """Keep up to a gigabyte of freed memory for the next images instead of handing it back to the system.

    Mapping it in again, page by page, takes up to a sixth of a network pass on a CPU. Does nothing where the C library
    is not glibc.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    # Setting the trim threshold alone would freeze the mmap threshold at its minimum: every image would be mapped anew.
    if hasattr(library, "mallopt") and any(library.mallopt(_M_MMAP_THRESHOLD, size) for size in _MAPPED):
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT)
