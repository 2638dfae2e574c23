"""The exit code of verdicts, as commands that judge share it."""

from __future__ import annotations

from ..options import option, option_model


@option_model
class VerdictCode:
    """What a script is told of a verdict."""

    # a release pipeline may want to stop at what it cannot decide, a nightly one to go on
    inconclusive: int = option(default=3, ge=0, le=255, help="exit code of an inconclusive verdict")
