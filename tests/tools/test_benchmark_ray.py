"""What a call on a cluster is measured by."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.benchmark_ray import Processors, _row

BUSY = "import time\nwhile time.process_time() < 0.6: pass\ntime.sleep(0.6)"


def test_processor_time_is_of_this_process_and_of_what_it_starts() -> None:
    spent = Processors()
    with spent:
        subprocess.run([sys.executable, "-c", BUSY], check=True, timeout=120)
        start = time.process_time()
        while time.process_time() < start + 0.2:
            pass
    assert spent.seconds > 0.75
    idle = Processors()
    with idle:
        pass
    assert idle.seconds < 0.2, "what ran before does not count"


def test_ratios_are_of_rounds_in_which_all_took_turns() -> None:
    times = {0: [(10.0, 4.0, 8.0), (20.0, 8.0, 8.0)], 1: [(12.0, 5.0, 10.0), (26.0, 10.0, 10.0)]}
    assert _row(1, times) == ["Ray, 1 workers", "19.0", "1.25", "7.5", "1.25", "10.0", "1.25"]
