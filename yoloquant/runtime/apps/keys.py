"""Every argument of the runtime's verbs with its help: the one definition, for bundles and the package's command."""

from __future__ import annotations

from .settings import Key

RUNNING = (
    Key("threads", "threads of an inference, or of all workers together; all cores if not given"),
    Key("device", "device of the runtime, for instance GPU for OpenVINO; its usual one if not given"),
    Key("hint", "what OpenVINO tunes itself for: latency (default) or throughput"),
    Key("precision", "what OpenVINO computes float operations in: f32 (default), or auto for its own choice"),
    Key(
        "conf",
        "lowest confidence of a detection (default 0.25), or matched: the one at which the export does what the FP32 "
        "model does, where validation measured it; matched_per_class is the same for each class",
    ),
    Key("iou", "overlap above which the weaker box of one class is dropped (default 0.7)"),
    Key("max_det", "detections per image (default 300, or what the model was quantized for)"),
)

PREDICT = (
    Key("model", "a bundle's folder, or an artifact in its export folder"),
    Key("source", "camera number, stream address (rtsp://...), video, folder or image"),
    Key("labels", "file with other class names, one on a line"),
    Key(
        "output",
        ".jsonl, .json (COCO results), a video (.mp4, .avi, .mkv), a folder of images, or - ; several with commas",
    ),
    Key("show", "open a window: true, false or auto (where there is a screen and no output)"),
    Key("overlay", "show frames per second and latency in the pictures (default true)"),
    Key("line", "line width in pixels; chosen by the picture's size if not given"),
    Key("limit", "frames after which to stop"),
    Key(
        "workers",
        "inferences side by side, which share the threads; if not given, one for each thread (4 at most) for videos "
        "and folders, and a single one for cameras and streams, whose frames must not wait",
    ),
    Key("timeout", "seconds without a frame after which a source counts as stalled (default 10)"),
    Key("reconnect", "how often a lost camera or stream is opened again before giving up (default 0)"),
    Key("size", "width and height asked of a camera, for instance 1280x720"),
    Key("fps", "frames per second asked of a camera"),
    *RUNNING,
    Key(
        "multi_label",
        "find a box once for every class, as validation does (default false); with conf=0.001, for results that "
        "'yoloquant validate predictions=' scores",
    ),
)

BENCH = (
    Key("model", "bundles, artifacts or export folders, separated by commas"),
    Key("source", "images or a video to measure on; a bundle's own pictures, or made ones, if not given"),
    Key("images", "how many pictures of the source take part (default 8)"),
    Key("rounds", "turns of every artifact (default 10)"),
    Key("runs", "images of a turn (default 20)"),
    Key("warmup", "images before the first turn (default 10)"),
    Key("affinity", "cores that may be used, for instance 0,1; all if not given"),
    Key("seed", "draws the order of the turns (default 0)"),
    Key("output", "JSON file to write"),
    *RUNNING,
)

VERIFY = (
    Key("bundle", "folder of the bundle; the one that holds this package if not given"),
    Key("data", "data yaml or folder of images whose accuracy is measured"),
    Key("limit", "images that are measured on"),
    Key("threads", "threads of an inference; all cores if not given"),
    Key("device", "device of the runtime; its usual one if not given"),
    Key("hint", "what OpenVINO tunes itself for: latency (default) or throughput"),
    Key("expect", "id that the bundle must have"),
    Key("json", "JSON file to write"),
)
INFO = (VERIFY[0], Key("json", "JSON file to write the manifest to"))
