"""Every verb of the command. Its options are defined where they are used: see ``commands/<verb>.py`` and its models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """One command.

    Attributes:
        name: Its name, and that of its module under ``commands``.
        help: One line for people.
        example: A call that works as it stands, or for a ``best.pt`` of one's own.
        first: Key that a bare first word stands for; none if empty.
        passes: Whether other keys are handed on instead of refused.
    """

    name: str
    help: str
    example: str
    first: str = "model"
    passes: bool = False


# as texts and not by asking the modules: the list of verbs is shown without importing any
VERBS = (
    Verb(
        "quantize",
        "Calibrate a trained checkpoint and save it with its quantization plans.",
        "yoloquant quantize best.pt data=coco128.yaml",
    ),
    Verb(
        "train",
        "Quantization-aware training, after pruning if asked for; every Ultralytics argument works too, and every "
        "argument of 'prune' as prune_<name>.",
        "yoloquant train best.pt data=coco128.yaml preset=fast imgsz=640 batch=16",
        passes=True,
    ),
    Verb(
        "prune",
        "Prune a trained checkpoint in one shot; 'train prune=...' prunes and fine-tunes.",
        "yoloquant prune best.pt data=coco128.yaml amount=0.5 criterion=taylor dry_run=true",
    ),
    Verb(
        "analyze",
        "Measure which layers a model can least do without, for pruning or for quantization; resumes where it stopped.",
        "yoloquant analyze best.pt data=coco128.yaml ratios=0.25,0.5",
    ),
    Verb(
        "search",
        "Find the smallest set of layers that must stay in float for a fidelity or a loss of mAP, or those "
        "that are slower in integers, and save that plan.",
        "yoloquant search best.pt data=coco128.yaml scheme=tensorrt fidelity=0.97",
    ),
    Verb(
        "predict",
        "Detect in a camera, stream, video or images with an exported model; show or write what was found.",
        "yoloquant predict best_exports/best_openvino_model source=0 output=found.mp4",
    ),
    Verb(
        "bench",
        "Measure latency, throughput, processor time, memory, temperature and power of exports that take turns.",
        "yoloquant bench best_exports source=images/ output=bench.json",
    ),
    Verb(
        "export",
        "Export a quantized checkpoint; a plain one is quantized first, for which data is needed.",
        "yoloquant export best.pt data=coco128.yaml targets=openvino,litert",
    ),
    Verb(
        "verify",
        "Run a bundle's own verification here, on the processors that it may meet; those that this machine is not are "
        "emulated.",
        "yoloquant verify best_bundles/raspberrypi cpu=native,aarch64",
        first="bundle",
    ),
    Verb(
        "validate",
        "Score exports beside the FP32 model on the same images and judge them by a gate.",
        "yoloquant validate best.pt exports=best_exports data=coco128.yaml",
    ),
    Verb(
        "compare",
        "Hold a new release against the old one on the same images and judge it by a gate: exports, reports, "
        "checkpoints or predictions.",
        "yoloquant compare old=v1_exports new=v2_exports data=coco128.yaml",
        first="",
    ),
    Verb(
        "history",
        "Plot what releases were worth one after the other, from their reports.",
        "yoloquant history releases/ output=history",
        first="reports",
    ),
    Verb(
        "run",
        "Quantize, export, validate and report, from a recipe or from arguments.",
        "yoloquant run model=best.pt data=coco128.yaml targets=openvino,litert",
        first="recipe",
    ),
    Verb(
        "tune",
        "Search the values of a recipe under a budget: a value may be a range (0.2..0.6, log:1e-5..1e-3) or choices "
        "('mse|percentile', in quotes), also of train.<name> and prune.<name>; resumes where it stopped.",
        "yoloquant tune best.pt data=coco128.yaml targets=openvino space=ptq trials=20",
        passes=True,
    ),
    Verb(
        "plan",
        "Print the quantization plan of a scheme for a checkpoint, or save it as JSON.",
        "yoloquant plan best.pt scheme=openvino",
    ),
    Verb(
        "targets",
        "List every target, whether it builds and runs here, and what to install.",
        "yoloquant targets",
        first="",
    ),
    Verb(
        "demo",
        "Run the whole job on an embedded model and generated images.",
        "yoloquant demo targets=onnxruntime",
        first="targets",
    ),
)

OTHER_NAMES = {"val": "validate", "track": "predict", "benchmark": "bench"}
"""Ultralytics' words for some of them."""
TASK_WORDS = ("detect", "segment", "classify", "pose", "obb")
"""What ``yolo`` may be told first; here the model says it."""
