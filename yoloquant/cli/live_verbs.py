"""The verbs ``predict`` and ``bench`` with their arguments, as data; their values are texts that the runtime reads."""

from __future__ import annotations

from .parser import Option, Verb

_RUNNING = (
    Option("threads", "threads of an inference, or of all workers together; all cores if not given"),
    Option("device", "device of the runtime, for instance GPU for OpenVINO; its usual one if not given"),
    Option("hint", "what OpenVINO tunes itself for: latency (default) or throughput"),
    Option("precision", "what OpenVINO computes float operations in: f32 (default), or auto for its own choice"),
    Option("conf", "lowest score of a detection (default 0.25)"),
    Option("iou", "overlap above which the weaker box of one class is dropped (default 0.7)"),
    Option("max_det", "detections per image (default 300)"),
)

PREDICT = Verb(
    "predict",
    "Detect in a camera, stream, video or images with an exported model; show or write what was found.",
    (
        Option("model", "a bundle's folder, or an artifact in its export folder", required=True),
        Option("source", "camera number, stream address (rtsp://...), video, folder or image", required=True),
        Option("labels", "file with other class names, one on a line"),
        Option("output", ".jsonl, a video (.mp4, .avi, .mkv), a folder of images, or - ; several with commas"),
        Option("show", "open a window: true, false or auto (where there is a screen and no output)"),
        Option("overlay", "show frames per second and latency in the pictures (default true)"),
        Option("line", "line width in pixels; chosen by the picture's size if not given"),
        Option("limit", "frames after which to stop"),
        Option(
            "workers",
            "inferences side by side, which share the threads; if not given, one for each thread (4 at most) for "
            "videos and folders, and a single one for cameras and streams, whose frames must not wait",
        ),
        Option("timeout", "seconds without a frame after which a source counts as stalled (default 10)"),
        Option("reconnect", "how often a lost camera or stream is opened again before giving up (default 0)"),
        Option("size", "width and height asked of a camera, for instance 1280x720"),
        Option("fps", "frames per second asked of a camera"),
        *_RUNNING,
    ),
    "yoloquant predict model=best_exports/best_openvino_model source=0 output=found.mp4",
)

BENCH = Verb(
    "bench",
    "Measure latency, throughput, processor time, memory, temperature and power of exports that take turns.",
    (
        Option("model", "bundles, artifacts or export folders, separated by commas", required=True),
        Option("source", "images or a video to measure on; a bundle's own pictures, or made ones, if not given"),
        Option("images", "how many pictures of the source take part (default 8)"),
        Option("rounds", "turns of every artifact (default 10)"),
        Option("runs", "images of a turn (default 20)"),
        Option("warmup", "images before the first turn (default 10)"),
        Option("affinity", "cores that may be used, for instance 0,1; all if not given"),
        Option("seed", "draws the order of the turns (default 0)"),
        Option("output", "JSON file to write"),
        *_RUNNING,
    ),
    "yoloquant bench model=best_exports source=images/ output=bench.json",
)
