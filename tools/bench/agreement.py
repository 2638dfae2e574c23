"""Does Ultralytics' own validator say the same about a file as this project's?"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .contenders import Contender, Field, Kind

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
        twin: Name of the contender that runs the same file as Ultralytics does; if there is one, that is the one to
            hold against ``theirs``, and the difference here shows what the other way of running it is worth.
    """

    ours: float
    theirs: float | None
    ours50: float
    theirs50: float | None
    error: str = ""
    twin: str = ""

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
        One result per drop-in file, by contender name, and one for each way of running it.
    """
    twins = {c.twin_of: c.name for c in entered.contenders.values() if c.twin_of and c.name in accuracy}
    found: dict[str, Agreement] = {}
    for name, contender in entered.contenders.items():
        if name not in accuracy or contender.twin_of or contender.path is None or not _drop_in(contender):
            continue
        logger.info("Ultralytics validates %s", name)
        twin = twins.get(name, "")
        found[name] = replace(ask(contender.path, accuracy[name], data, imgsz, folder / name), twin=twin)
        if twin:
            ours, ours50 = accuracy[twin]
            found[twin] = replace(found[name], ours=ours, ours50=ours50, twin="")
    return found


def _drop_in(contender: Contender) -> bool:
    return contender.kind in {Kind.BASELINE, Kind.THEIRS} or (
        contender.exported is not None and contender.exported.drop_in
    )


def ask(path: Path, ours: tuple[float, float], data: Path, imgsz: int, folder: Path) -> Agreement:
    """Score one file with Ultralytics' validator.

    Args:
        path: A file or folder that plain Ultralytics loads.
        ours: mAP50-95 and mAP50 that this project measured.
        data: Data yaml whose val split holds exactly the images that were scored.
        imgsz: Input size in pixels.
        folder: Where Ultralytics may write; its own folder in there is made.

    Returns:
        Both scores, or why Ultralytics failed.
    """
    os.environ["YOLO_AUTOINSTALL"] = "false"
    from ultralytics import YOLO

    try:
        box = (
            YOLO(str(path), task="detect")
            .val(
                data=str(data),
                imgsz=imgsz,
                rect=False,
                batch=1,
                workers=0,
                device="cpu",
                plots=False,
                verbose=False,
                project=str(folder.resolve().parent),
                name=folder.name,
                exist_ok=True,
            )
            .box
        )
    except Exception as exc:  # whatever it raises is the result
        logger.exception("Ultralytics cannot validate %s", path)
        return Agreement(ours[0], None, ours[1], None, f"{type(exc).__name__}: {exc}")
    return Agreement(ours[0], float(box.map), ours[1], float(box.map50))
