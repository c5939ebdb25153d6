"""What the C library does with memory that was freed."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_KEPT = 1 << 30  # bytes
# Bytes from which memory is mapped by itself: as much as is kept, and the most that an older glibc takes.
_MAPPED = (_KEPT, 1 << 25)


def keep_freed() -> None:
    """Keep up to a gigabyte of freed memory for the next images instead of handing it back to the system.

    To have it mapped in anew, page by page, takes up to a sixth of a network's pass on a CPU. Where the C library is not
    glibc, nothing is done.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    # To keep what is freed, without the other, would fix the latter at its least: every image would be mapped anew.
    if hasattr(library, "mallopt") and any(library.mallopt(_M_MMAP_THRESHOLD, size) for size in _MAPPED):
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT)
