"""Ultralytics' training arguments, as far as somebody who searches over them must know them."""

from __future__ import annotations

from typing import Any

from ultralytics import cfg as host

from ..errors import UsageError
from .qat.run import OURS


def names() -> tuple[str, ...]:
    """Every argument that training takes."""
    return tuple(name for name in host.DEFAULT_CFG_DICT if name not in OURS)


def is_number(name: str) -> bool:
    """Whether an argument is a number."""
    return name in {*host.CFG_FLOAT_KEYS, *host.CFG_FRACTION_KEYS, *host.CFG_INT_KEYS}


def is_whole(name: str) -> bool:
    """Whether it must be a whole one."""
    return name in host.CFG_INT_KEYS


def default(name: str) -> Any:
    """What training takes where nobody names a value."""
    return host.DEFAULT_CFG_DICT[name]


def check_value(name: str, value: Any) -> None:
    """Refuse a value that Ultralytics would refuse once training begins.

    Raises:
        UsageError: Its type or its size is not supported.
    """
    try:
        # hard: without it strings are cast to numbers, and a typing error would be searched over
        host.check_cfg({name: value}, hard=True)
    except (TypeError, ValueError, SyntaxError) as exc:
        # their messages run over several lines
        raise UsageError(" ".join(str(exc).split())) from exc
