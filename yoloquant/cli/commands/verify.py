"""``yoloquant verify``: a bundle's own verification, here or on emulated processors."""

from __future__ import annotations

from ...evaluation.validate_options import DeviceRoot, Processors, ScoredImages
from ...options import Text, TextOrNone, option, option_model
from ..parser import Call
from ..show import say

CODES = {"pass": 0, "inconclusive": 3, "fail": 1, "error": 4}  # milder ones first


@option_model
class VerifyCall:
    """Which bundle, on which processors, on what."""

    bundle: Text = option(help="the bundle's folder")
    cpu: Processors = "native"
    cpu_root: DeviceRoot = None
    data: TextOrNone = option(default=None, help="folder or data yaml to measure accuracy on too")
    limit: ScoredImages = None
    threads: int | None = option(default=None, ge=1, help="threads of the runtime; all cores if not given")
    expect: TextOrNone = option(default=None, help="the bundle's id, as the export printed it")


PARTS = (VerifyCall,)


def run(call: Call) -> int:
    """Verify on every processor; the exit code is the worst outcome's."""
    from ...bundle.verify_on import verify_on

    own = call[VerifyCall]
    # as they were written: the bundle's own command reads them, on the emulated processor too
    handed_on = [f"{key}={text}" for key, text in call.given.items() if key in ("data", "limit", "threads", "expect")]
    results = []
    for check in verify_on(own.bundle, own.cpu, root=own.cpu_root or "", arguments=handed_on):
        say(f"{check.title}: {check.result.upper()}")
        for line in check.lines:
            say(f"  {line.strip()}")
        results.append(check.result)
    # the table is ordered from mild to bad
    return CODES[max(results, key=list(CODES).index)]
