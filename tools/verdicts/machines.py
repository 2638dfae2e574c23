"""Section 3: machines."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

from tools.verdicts.bench import Bench, Case, Outcome


def threads(bench: Bench) -> Outcome:
    """Threads of a process that may use one core, and of a control group that pays for one and a half."""
    from yoloquant.runtime.device.processors import cpu_threads

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    job = context.Process(target=_pinned, args=(queue,))
    job.start()
    pinned = queue.get(timeout=60)
    job.join()
    root = bench.folder / "cgroup"
    root.mkdir()
    (root / "cpu.max").write_text("150000 100000\n")
    quota = cpu_threads(root, root / "none")
    found = f"one core: {pinned} thread; a quota of 1.5: {quota} threads"
    return Outcome(0 if (pinned, quota) == (1, min(2, os.cpu_count() or 1)) else 1, found)


def _pinned(queue: multiprocessing.Queue[int]) -> None:
    from yoloquant.runtime.device.processors import cpu_threads

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    queue.put(cpu_threads())


def threads_reported(bench: Bench) -> Outcome:
    """The report says with how many threads it was measured."""
    report = bench.folder / "threads"
    done = bench.validate(output=report)
    count = json.loads((report / "report.json").read_text(encoding="utf-8"))["environment"]["threads"]
    return Outcome(done.code, f"threads in the report: {count}")


def camera(bench: Bench) -> Outcome:
    """A camera's stable name that is not there."""
    exported = next(bench.exports.glob("*.onnx"))
    return bench.run("predict", str(exported), "source=/dev/v4l/by-id/usb-gone", f"output={bench.folder / 'seen'}")


def explained(bench: Bench) -> Outcome:
    """--help of every verb of the runtime."""
    from yoloquant.runtime.__main__ import main

    verbs = ("verify", "info", "predict", "bench", "build_engine")
    codes, said = [], io.StringIO()
    with contextlib.redirect_stdout(said):
        for verb in verbs:
            codes.append(main([verb, "--help"]))
    usages = said.getvalue().count("usage: ")
    return Outcome(max(codes), f"{usages} of {len(verbs)} verbs explain themselves")


def shadowed(bench: Bench) -> Outcome:
    """A bundle whose folder holds a json.py."""
    words = (
        "targets=onnxruntime",
        "bundle=true",
        f"output={bench.folder / 'bundled'}",
        f"data={bench.data}",
        "limit=4",
    )
    made = bench.run("export", str(bench.quantized_model), *words)
    if made.code:
        return made
    folder = next(path.parent for path in (bench.folder / "bundled").rglob("manifest.json"))
    (folder / "json.py").write_text("raise SystemExit('shadowed')\n")
    call = [sys.executable, "-m", "yoloquant_runtime", "info"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    return Outcome(done.returncode, done.stdout + done.stderr)


CASES = (
    Case("affinity and quota", threads, 0, "one core: 1 thread; a quota of 1.5"),
    Case("threads stand in the report", threads_reported, 0, "threads in the report: 1"),
    Case("a camera's stable name", camera, 2, "there is no camera '/dev/v4l/by-id/usb-gone'"),
    Case("--help of every runtime verb", explained, 0, "5 of 5 verbs explain themselves"),
    Case(
        "a bundle that holds json.py", shadowed, 2, "'json.py' can be executed but is not part of the bundle; remove it"
    ),
)
HELD = (
    ("CSI cameras that are silent", "runtime/io/test_sources.py::test_a_camera_that_opens_and_is_silent_is_explained"),
    ("OpenVINO's AUTO", "runtime/backends/test_backends.py::test_openvino_is_configured_for_its_device"),
    ("a delegate that crashes", "runtime/backends/test_backends.py::test_a_delegate_that_crashes_is_a_sentence"),
    ("a bundle with 0 golden inputs", "bundle/test_write.py::test_a_bundle_without_golden_inputs_proves_nothing"),
    ("TIFFs of every depth", "data/test_image_check.py::test_images_of_every_depth_read_as_the_host_reads_them"),
    (
        "classifiers of earlier releases",
        "bridge/test_old_checkpoints.py::test_yesterdays_checkpoints_open_without_running_code",
    ),
    ("labels of single_cls and classes", "data/test_trained_classes.py::test_labels_are_those_of_ultralytics"),
    ("a resumed run's results.csv", "training/test_resume.py::test_a_killed_run_ends_where_the_whole_run_ends"),
)
"""What needs hardware that is not here, or hours: held by tests with stand-ins, which the tool runs."""


def passes(test: str) -> bool:
    """Whether a test of ``HELD`` passes."""
    root = Path(__file__).resolve().parents[2]
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{test}"]
    return subprocess.run(call, cwd=root, capture_output=True, text=True, timeout=600).returncode == 0
