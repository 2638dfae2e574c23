"""Does Ultralytics' own validator say the same about a file as this project's?"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .contenders import AUTO, Contender, Field, Kind

logger = logging.getLogger(__name__)

GOAL = 0.001
"""Largest difference of mAP50-95, as a fraction."""


@dataclass(frozen=True)
class Agreement:
    """What both validators make of one file.

    Attributes:
        ours: mAP50-95 by this project.
        theirs: mAP50-95 by ``YOLO(file).val()``; None if it failed.
        ours50: mAP50 by this project.
        theirs50: mAP50 by Ultralytics.
        error: Why Ultralytics failed.
    """

    ours: float
    theirs: float | None
    ours50: float
    theirs50: float | None
    error: str = ""

    @property
    def difference(self) -> float | None:
        """Theirs minus ours, mAP50-95."""
        return None if self.theirs is None else self.theirs - self.ours


def agree(
    entered: Field, accuracy: Mapping[str, tuple[float, float]], data: Path, imgsz: int, folder: Path
) -> dict[str, Agreement]:
    """Score every file that plain Ultralytics loads with its own validator.

    Args:
        entered: The contenders.
        accuracy: mAP50-95 and mAP50 that this project measured, by contender name.
        data: Data yaml whose val split holds exactly the images that were scored.
        imgsz: Input size in pixels.
        folder: Where Ultralytics may write.

    Returns:
        One result per drop-in file, by contender name.
    """
    found = {}
    auto = any(c.runtime.endswith(AUTO) for c in entered.contenders.values())
    for name, contender in entered.contenders.items():
        if auto and contender.runtime == "openvino":
            continue  # Ultralytics runs it at the other precision
        if name in accuracy and _drop_in(contender):
            logger.info("Ultralytics validates %s", name)
            found[name] = _one(contender, accuracy[name], data, imgsz, folder)
    return found


def _drop_in(contender: Contender) -> bool:
    if contender.path is None:
        return False
    return contender.kind in {Kind.BASELINE, Kind.THEIRS} or (
        contender.exported is not None and contender.exported.drop_in
    )


def _one(contender: Contender, ours: tuple[float, float], data: Path, imgsz: int, folder: Path) -> Agreement:
    os.environ["YOLO_AUTOINSTALL"] = "false"
    from ultralytics import YOLO

    try:
        box = (
            YOLO(str(contender.path), task="detect")
            .val(
                data=str(data),
                imgsz=imgsz,
                rect=False,
                batch=1,
                workers=0,
                device="cpu",
                plots=False,
                verbose=False,
                project=str(folder.resolve()),
                name=contender.name,
                exist_ok=True,
            )
            .box
        )
    except Exception as exc:  # whatever it raises is the result
        logger.exception("Ultralytics cannot validate %s", contender.name)
        return Agreement(ours[0], None, ours[1], None, f"{type(exc).__name__}: {exc}")
    return Agreement(ours[0], float(box.map), ours[1], float(box.map50))
