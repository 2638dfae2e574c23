"""What calibrations of one process share."""

from __future__ import annotations

from yoloquant.quantization.calibration_memory import CalibrationMemory


def test_a_kind_drives_out_its_own_oldest_alone() -> None:
    memory = CalibrationMemory(most=2)
    made: list[tuple[str, int]] = []

    def once(kind: str, number: int) -> int:
        def make() -> int:
            made.append((kind, number))
            return number

        return memory.once((kind, number), make)

    assert [once("seen", 0), once("seen", 1), once("seen", 0)] == [0, 1, 0]
    for number in range(5):
        once("shifts", number)
    made.clear()
    assert once("seen", 0) == 0 and not made, "five of another kind came since"
    once("seen", 2)
    assert once("seen", 1) == 1 and made == [("seen", 2), ("seen", 1)], "the one that was not asked for longest went"
