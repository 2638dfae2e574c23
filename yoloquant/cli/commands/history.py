"""``yoloquant history``."""

from __future__ import annotations

from pathlib import Path

from ...options import Names, Text, option, option_model
from ..parser import Call


@option_model
class HistoryCall:
    """Which releases, and where the page goes."""

    reports: Names = option(help="folders of reports in order, separated by commas; or one that holds them all")
    output: Text = option(default="history", help="folder for the page")


PARTS = (HistoryCall,)


def run(call: Call) -> int:
    """Read, draw, and say where."""
    from ... import api

    own = call[HistoryCall]
    found = api.history(own.reports, output=own.output)
    print(f"{len(found.releases)} releases, {len(found.points)} rows: {Path(own.output) / 'history.html'}")
    return 0
