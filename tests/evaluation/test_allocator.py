"""Memory that a process frees stays with it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

GLIBC = platform.libc_ver()[0] == "glibc"
CODE = """
import ctypes, resource, sys
from yoloquant.evaluation.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def once():
    block = libc.malloc(24 << 20)
    ctypes.memset(block, 1, 24 << 20)
    libc.free(block)
once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    once()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, **environment: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", CODE, how], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not GLIBC, reason="only glibc has mallopt")
def test_what_was_freed_is_written_again_without_page_faults() -> None:
    assert faults("kept") < 20  # as many as 96 without it, even in pages of 2 MiB


@pytest.mark.skipif(not GLIBC, reason="only glibc has mallopt")
def test_what_the_environment_says_stays() -> None:
    assert faults("kept", MALLOC_MMAP_THRESHOLD_="65536") > 8 * 10  # every block is mapped anew
