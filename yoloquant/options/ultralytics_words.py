"""Ultralytics' words for what this project calls otherwise: the same where it means the same, else an answer.

People come from ``yolo export model=best.pt format=engine half=True int8=True``. Source of the words: Ultralytics 8.4's
``cfg/default.yaml`` and its export table.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

SAME = {"format": "targets", "weights": "model"}

_ANSWERS = {
    "half": "float16 is a precision of a target: targets=openvino:fp16, litert:fp16 or tensorrt:fp16; leave half= out",
    "nms": "NMS becomes a part of the model when it is exported: yoloquant export nms=true targets=...",
    "dynamic": "yoloquant export dynamic=true leaves the number of images open, never their size (imgsz=)",
    "simplify": "graphs are always simplified; leave simplify= out",
    "opset": "the target chooses the opset that its runtimes read; leave opset= out",
    "workspace": "the engine is built on the device: bundle=true, then build_engine there",
    "fraction": "images=<number> says how many training images calibrate, instead of fraction=",
    "batch": "calibration and validation take one image at a time; batch= is for export and train",
    "device": "export, calibration and validation run on the CPU; device= is for train and predict",
    "val": "scoring is a verb of its own: yoloquant validate model=... exports=... data=...",
    "project": "output=<folder> says where results go, instead of project=, name= and exist_ok=",
    "name": "output=<folder> says where results go, instead of project=, name= and exist_ok=",
    "exist_ok": "results are replaced as a whole, so exist_ok= is not needed; output=<folder> says where they go",
    "epochs": "epochs= belongs to train: yoloquant train model=... data=... epochs=...",
    "tflite": "targets=litert is what writes .tflite",
    "engine": "targets=tensorrt is what an engine is built from, on its device",
    "rpi": "targets=rpi is what a Raspberry Pi runs",
}
# what one verb says of a word that others take, or that means something else there
_OF_VERB = {
    ("validate", "images"): "limit=<number> says how many images are scored, instead of images=",
    ("quantize", "limit"): "images=<number> says how many images calibrate; limit= is how many validate and run score",
    ("validate", "report"): "output=<folder> says where the report goes, instead of report=",
    ("run", "report"): "output=<folder> says where all results go, the report in it, instead of report=",
    ("run", "batch"): "export_batch=<number> makes files that take so many images at once; scoring takes one at a time",
    ("run", "bundle"): "bundles are made by yoloquant export: bundle=true, with the checkpoint that a run leaves",
}
_VERBS = {"quantize", "export", "validate", "run", "analyze", "bundle", "plan", "prune", "demo", "tune"}
# what is asked for here anyway, by the words that 'yolo export' takes
_NEEDLESS = {"int8": True, "quantize": 8}


def same_word(key: str) -> str:
    """Our word for one of Ultralytics'; the word itself where there is none."""
    return SAME.get(key, key)


def answer(key: str, value: Any, verb: str, known: Container[str]) -> str | None:
    """Reply to an option that is not ours.

    Args:
        key: Its name.
        value: Its value.
        verb: The command.
        known: What the verb knows.

    Returns:
        What to tell; empty for nothing; None where it asks for what happens anyway (``int8=True``).
    """
    # train and the runtime's verbs take Ultralytics' arguments themselves
    if verb not in _VERBS or key in known:
        return ""
    if key in _NEEDLESS:
        if str(value).lower() in {str(_NEEDLESS[key]).lower(), "1"}:
            return None
        return (
            f"{key}={value} is not supported: a precision stands behind its target, as in targets=openvino:fp32; "
            "weight_bits= and activation_bits= of train go lower than INT8"
        )
    return _OF_VERB.get((verb, key)) or _ANSWERS.get(key, "")
