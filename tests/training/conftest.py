"""What the tests of training need: helper modules of this folder."""

from __future__ import annotations

import sys
from pathlib import Path

if (HERE := str(Path(__file__).resolve().parent)) not in sys.path:
    sys.path.insert(0, HERE)
