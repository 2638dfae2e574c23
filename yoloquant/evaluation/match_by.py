"""What is alike at a matched confidence; light enough for recipes and the command."""

from __future__ import annotations

from enum import Enum


class MatchBy(str, Enum):
    """What an artifact does at its matched confidence as the FP32 model does at the deployed one."""

    F1 = "f1"
    FALSE_ALARMS = "false_alarms"


USUAL = MatchBy.F1
"""What is matched where nobody says another: users deploy a threshold for its F1."""
