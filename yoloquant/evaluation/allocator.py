"""What the C library does with memory that a float model gave back."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

# parameters of mallopt in glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT, _LARGEST = 256 << 20, 32 << 20
_ENVIRONMENT = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


@cache
def keep_freed_memory() -> bool:
    """Let this process keep up to 256 MiB that it freed, instead of handing it back and asking for it again.

    PyTorch frees every layer's result as soon as it was read. glibc gives what lies at the heap's end back to the
    kernel, which has to clear it page by page before the next layer may write there: thousands of page faults an image
    of 640 px. The peak stays what it was, and so do all results.

    Returns:
        Whether it is so now: not without glibc, and not where the environment says how memory is to be handled.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _ENVIRONMENT):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    # the first without the second would leave large blocks to mmap, which gives every one of them back
    return bool(mallopt(_TRIM_THRESHOLD, _KEPT)) and bool(mallopt(_MMAP_THRESHOLD, _LARGEST))
