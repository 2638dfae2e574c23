"""Messages between processes over pipes: eight bytes of length, little end first, and so many bytes."""

from __future__ import annotations

import struct
from typing import IO, Optional

_LENGTH = struct.Struct("<Q")


def read_message(stream: IO[bytes]) -> Optional[bytes]:
    """The next message; None at the end of the stream, or if it breaks off."""
    head = _exactly(stream, _LENGTH.size)
    return None if head is None else _exactly(stream, _LENGTH.unpack(head)[0])


def write_message(stream: IO[bytes], content: bytes) -> None:
    """Write one message, whole."""
    stream.write(_LENGTH.pack(len(content)) + content)
    stream.flush()


def _exactly(stream: IO[bytes], count: int) -> Optional[bytes]:
    found = b""
    while len(found) < count:
        # A pipe may give less than was asked for.
        more = stream.read(count - len(found))
        if not more:
            return None
        found += more
    return found
