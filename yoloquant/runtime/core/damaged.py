"""What Python raises for an archive that is damaged: more than ``zipfile.BadZipFile``, and nowhere listed."""

from __future__ import annotations

import struct
import zipfile
import zlib

UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    OverflowError,
    RuntimeError,  # a flipped bit that says "encrypted", or a compression that nobody knows
    struct.error,
    zipfile.BadZipFile,
    zlib.error,  # a stream of compressed bytes that is none
)
"""For ``except``: reading a zip, or an ``.npz``, that is cut short, changed or something else."""
