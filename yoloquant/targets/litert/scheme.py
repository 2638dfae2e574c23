"""What LiteRT wants quantized: every float tensor of the body."""

from __future__ import annotations

from ...quant.scheme import Scheme, complete

SCHEME = Scheme(
    name="litert",
    place=complete,
    description="every tensor of the body in int8, concats tied, sigmoid and softmax at 1/256; no float operator left",
)
