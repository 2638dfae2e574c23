"""Every verb of the command with its arguments, as data."""

from __future__ import annotations

from .live_verbs import BENCH, PREDICT
from .parser import Option, Verb, boolean, positive, size

_MODEL = Option("model", "checkpoint (.pt)", required=True)
_DATA = Option("data", "data yaml (a path, or a name such as coco8.yaml)")
_IMGSZ = Option("imgsz", "input size in pixels: 640 or height,width; the checkpoint's own if not given", size)
_SCHEME = Option(
    "scheme", "quantization schemes; auto gives every target its own, portable serves all alike", str, "auto"
)
_TARGETS = Option("targets", "targets or devices, separated by commas; all for every installed one", str, "all",
                  aliases=("target",))  # fmt: skip
_OUTPUT = Option("output", "folder for the results; a folder beside the checkpoint if not given")
_IMAGES = Option("images", "how many training images calibrate", positive, 128)
_SPLIT = Option("calibration_split", "split that calibrates", str, "train")
_SEED = Option("seed", "chooses the calibration images", int, 0)
_ALLOW_SCORED = Option("allow_scored", "calibrate even on images that will be scored", boolean, False)
_UNSAFE = Option("allow_unsafe", "read a checkpoint that can run code; only for files you trust", boolean, False)
_QUANTIZE = (_IMGSZ, _SCHEME, _IMAGES, _SPLIT, _SEED, _ALLOW_SCORED, _UNSAFE)
CPU = (
    Option("cpu", "processors to judge on, by commas: native, avx2 (x86 without VNNI), aarch64", str, "native"),
    Option("cpu_root", "root of aarch64's Python and runtimes, as tools/make_device_root.py makes it"),
)
_VALIDATE = (
    Option("gate", "name of a gate, or a path to one", str, "default"),
    Option("split", "split that is scored", str, "val"),
    Option("source", "folder of images without labels to judge on, instead of data"),
    Option("limit", "score only so many images", positive),
    Option("threads", "threads of every runtime; all cores if not given", positive),
    Option("latency", "time a float model in the same runtime beside each target", boolean, True),
    Option("memory", "measure peak memory of every artifact in a process of its own", boolean, True),
    Option("bootstrap", "replicates of the paired bootstrap", positive, 1000),
    Option("manifest", "manifest (json) that the images are held against"),
    *CPU,
    Option("inconclusive", "exit code of an inconclusive verdict", int, 3),
)

QAT = (
    Option("preset", "fast (minutes), standard or long", str, "standard", aliases=("qat",)),
    Option("scheme", "scheme whose plan is trained; portable serves every runtime", str, "portable"),
    Option("loss", "distill (from the float model, needs no labels), detect (the model's own) or both", str, "distill"),
    Option("teacher", "checkpoint to distil from; the float model itself if not given"),
    Option("weight_bits", "bits of weights", positive, 8),
    Option("activation_bits", "bits of activations", positive, 8),
    Option("range_lr", "learning rate of the ranges; the preset's if not given", float),
    Option("distill_weight", "weight of the distillation loss", float, 1.0),
    Option("detect_weight", "weight of the model's own loss", float, 1.0),
    Option("feature_weight", "weight of distilling every layer's features; 12 below eight bits if not given", float),
    Option("local_weight", "weight of the error that each range makes by itself, for that range alone", float, 0.0),
    Option("damping", "weight of the pull that keeps weights from oscillating", float, 0.0),
    Option("learn_offset", "learn both ends of affine ranges, and so zero_points", boolean, False),
    Option("learn_heads", "learn the ranges of raw head outputs too", boolean, False),
    Option("select", "choose the best checkpoint by fidelity, fitness or auto", str, "auto"),
    Option("float_val", "score the float weights too after every epoch", boolean, True),
    Option("images", "how many training images calibrate the start", positive, 128),
    Option("allow_unsafe", "read a checkpoint that can run code; only for files you trust", boolean, False),
)

_SHARE = Option("amount", "share to remove, between 0 and 1", float, 0.5)
_PRUNE = (
    Option("target", "what the share is of: flops, parameters, channels or latency", str, "flops"),
    Option("kind", "structured (channels), unstructured (single weights) or 2:4", str, "structured"),
    Option("criterion", "l1, l2, bn, lamp, taylor or random; taylor where data have labels, else l2, if not given"),
    Option("scope", "global (least important of the network) or uniform (the same share everywhere)", str, "global"),
    Option("round_to", "pruned layers keep a multiple of so many channels; the runtime's own if not given", positive),
    Option("max_ratio", "largest share of a layer that may go", float, 0.8),
    Option("ignored", "layers that stay, separated by commas; patterns with * are allowed", str, ""),
    Option("blocks", "whole residual bottlenecks to take out first", int, 0),
    Option("runtime", "target whose latency and channel multiple count", str, "openvino"),
    Option("plan", "saved plan to apply instead of making one"),
    Option("sensitivity", "saved analysis whose sensitive layers are protected"),
    Option("tolerance", "drop that the analysis allows a single layer", float, 0.05),
    Option("permutation", "for 2:4, permute channels so that more magnitude stays: none or channel", str, "none"),
)

VERBS = (
    Verb(
        "quantize",
        "Calibrate a trained checkpoint and save it with its quantization plans.",
        (_MODEL, Option("data", _DATA.help, required=True), *_QUANTIZE, _OUTPUT),
        "yoloquant quantize model=best.pt data=coco8.yaml",
    ),
    Verb(
        "train",
        "Quantization-aware training, after pruning if asked for; every Ultralytics argument works too, and every "
        "argument of 'prune' as prune_<name>.",
        (
            _MODEL,
            Option("data", "data yaml, or a folder of images without labels"),
            Option("prune", "share of the multiplications to remove first, fine-tuned for epochs=", float),
            *QAT,
        ),
        "yoloquant train model=best.pt data=coco8.yaml preset=fast imgsz=640 batch=16",
        passes=True,
    ),
    Verb(
        "prune",
        "Prune a trained checkpoint in one shot; 'train prune=...' prunes and fine-tunes.",
        (
            _MODEL,
            Option("data", "data yaml or folder; BatchNorm and taylor are measured on its training images"),
            _SHARE,
            *_PRUNE,
            _IMGSZ,
            Option("images", "how many training images are measured on", positive, 64),
            Option("seed", "of random choices", int, 0),
            Option("dry_run", "only print what would go", boolean, False, aliases=("dry-run",)),
            Option("latency", "measure the latency of the plan in the runtime", boolean, False),
            Option("save_plan", "JSON file to write the plan to, to be edited and applied with plan="),
            Option("output", "checkpoint to write; <model>_pruned.pt if not given"),
            _UNSAFE,
        ),
        "yoloquant prune model=best.pt data=coco8.yaml amount=0.5 criterion=taylor dry_run=true",
    ),
    Verb(
        "analyze",
        "Measure which layers a model can least do without, for pruning or for quantization; resumes where it stopped.",
        (
            _MODEL,
            Option("data", "data yaml, or a folder of images unless metric=map", required=True),
            Option("kind", "prune (channels of each group) or quant (points of each layer)", str, "prune"),
            Option("metric", "distill (raw outputs, needs no labels), fidelity or map", str, "distill"),
            Option("ratios", "shares of every group that are pruned, separated by commas", str, "0.25,0.5,0.75"),
            Option("images", "images that are measured on", positive, 16),
            Option("only", "layers to analyse, separated by commas; patterns with * are allowed", str, "*"),
            Option("criterion", "which channels of a group go first: l1, l2, bn, lamp or random", str, "l2"),
            Option("round_to", "every pruned layer keeps a multiple of so many channels", positive, 8),
            Option("scheme", "quantization scheme whose points are analysed", str, "portable"),
            Option("per", "quantize a layer or a single point at a time", str, "layer"),
            Option("weight_bits", "bits of weights", positive, 8),
            Option("activation_bits", "bits of activations", positive, 8),
            Option("limit", "say how much may go of each layer at this drop", float, 0.05),
            _IMGSZ,
            Option("output", "folder for results, plots and what resuming needs; <model>_sensitivity if not given"),
            _UNSAFE,
        ),
        "yoloquant analyze model=best.pt data=coco8.yaml ratios=0.25,0.5",
    ),
    PREDICT,
    BENCH,
    Verb(
        "export",
        "Export a quantized checkpoint; a plain one is quantized first, for which data is needed.",
        (
            _MODEL,
            _TARGETS,
            _DATA,
            *_QUANTIZE,
            Option("bundle", "write a folder per device that builds, runs and proves itself there", boolean, False),
            Option("archive", "with bundle: write it as .tar.gz too", boolean, False),
            Option("report", "with bundle: report.json of a validation whose accuracy it is held to"),
            Option("golden_images", "with bundle: number of inputs with expected outputs", positive, 3),
            _OUTPUT,
        ),
        "yoloquant export model=best_int8.pt targets=openvino,litert",
    ),
    Verb(
        "verify",
        "Run a bundle's own verification here, on the processors that it may meet; those that this machine is not are "
        "emulated.",
        (
            Option("bundle", "the bundle's folder", required=True),
            *CPU,
            Option("data", "folder or data yaml to measure accuracy on too"),
            Option("limit", "score only so many images", positive),
            Option("threads", "threads of the runtime; all cores if not given", positive),
            Option("expect", "the bundle's id, as the export printed it"),
        ),
        "yoloquant verify best_bundles/raspberrypi cpu=native,aarch64",
        positional="bundle",
    ),
    Verb(
        "validate",
        "Score exports beside the FP32 model on the same images and judge them by a gate.",
        (
            _MODEL,
            Option("exports", "export folder, or one artifact in it", required=True, aliases=("artifact", "folder")),
            _DATA,
            *_VALIDATE,
            Option("output", "folder for the report; <exports>/report if not given"),
        ),
        "yoloquant validate model=best.pt exports=best_exports data=coco8.yaml",
    ),
    Verb(
        "run",
        "Quantize, export, validate and report, from a recipe or from arguments.",
        (
            Option("recipe", "recipe (yaml); arguments override what it says"),
            Option("model", _MODEL.help),
            _DATA,
            _TARGETS,
            Option("prune", "prune and fine-tune first: the share of the multiplications to remove", float),
            Option("train", "train before exporting, with this preset: fast, standard or long"),
            *_QUANTIZE,
            *_VALIDATE,
            _OUTPUT,
        ),
        "yoloquant run model=best.pt data=coco8.yaml targets=openvino,litert",
        positional="recipe",
    ),
    Verb(
        "plan",
        "Print the quantization plan of a scheme for a checkpoint, or save it as JSON.",
        (_MODEL, Option("scheme", "the scheme", str, "portable"), _IMGSZ, Option("output", "JSON file to write")),
        "yoloquant plan model=best.pt scheme=openvino",
    ),
    Verb(
        "targets", "List every target, whether it builds and runs here, and what to install.", (), "yoloquant targets"
    ),
    Verb(
        "demo",
        "Run the whole job on an embedded model and generated images.",
        (_TARGETS, Option("output", "folder for the results", str, "runs/yoloquant/demo")),
        "yoloquant demo",
    ),
)
