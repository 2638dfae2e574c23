"""Section 2: data and files that people have, and messages that pointed the wrong way."""

from __future__ import annotations

import resource
import shutil
import signal
from pathlib import Path

import yaml

from tools.verdicts.bench import QUICK, Bench, Case, Outcome


def _copy(bench: Bench, name: str) -> Path:
    root = bench.folder / name
    shutil.copytree(bench.data.parent, root)
    return root


def _yaml(root: Path, **changes: object) -> Path:
    """The data yaml of a copy, without ``path:``."""
    (path,) = root.glob("*.yaml") if len(list(root.glob("*.yaml"))) == 1 else [root / "data.yaml"]
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content.pop("path", None)
    path.write_text(yaml.safe_dump({**content, **changes}, sort_keys=False), encoding="utf-8")
    return path


def without_path(bench: Bench) -> Outcome:
    """A yaml without path:."""
    return bench.validate(data=_yaml(_copy(bench, "pathless")))


def text_list(bench: Bench) -> Outcome:
    """A split that is a list of images in a text file."""
    root = _copy(bench, "listed")
    images = sorted((root / "images" / "val").iterdir())
    (root / "val.txt").write_text("".join(f"./images/val/{image.name}\n" for image in images))
    return bench.validate(data=_yaml(root, val="val.txt"))


def _first(root: Path, split: str) -> Path:
    return min((root / "images" / split).iterdir())


def text_image(bench: Bench) -> Outcome:
    """A text file named .jpg among the scored images."""
    root = _copy(bench, "text")
    _first(root, "val").with_suffix(".jpg").write_bytes(b"404: not found")
    return bench.validate(data=_yaml(root))


def corrupt_jpeg(bench: Bench) -> Outcome:
    """A JPEG that libjpeg calls corrupt, and that ends well."""
    import cv2

    root = _copy(bench, "corrupt")
    path = _first(root, "val")
    image = cv2.imread(str(path))
    content = bytearray(cv2.imencode(".jpg", image)[1].tobytes())
    middle = len(content) // 2
    content[middle : middle + 40] = b"\xff\xd3" * 20
    path.unlink()
    path.with_suffix(".jpg").write_bytes(content)
    return bench.validate(data=_yaml(root))


def broken_calibration(bench: Bench) -> Outcome:
    """A broken image among those that calibrate."""
    root = _copy(bench, "broken-train")
    for path in (root / "images" / "train").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    data = _yaml(root)
    words = (f"data={data}", "images=8", f"output={bench.folder / 'unused'}")
    done = bench.run("quantize", str(bench.model), *words)
    return done if "calibrat" not in done.text else Outcome(done.code, f"after work began: {done.text}")


def broken_scored(bench: Bench) -> Outcome:
    """A broken image among those that are scored, in a whole run: it is refused before anything is calibrated."""
    root = _copy(bench, "broken-val")
    path = _first(root, "val")
    path.write_bytes(path.read_bytes()[:200])
    output = bench.folder / "run"
    words = (f"data={_yaml(root)}", "targets=onnxruntime", "images=8", f"output={output}", *QUICK)
    done = bench.run("run", f"model={bench.model}", *words)
    made = sorted(path.name for path in output.iterdir() if path.suffix == ".pt" or path.name == "exports.json")
    return Outcome(done.code if not made else -1, f"{done.text}\nmade: {made}")


def no_model(bench: Bench) -> Outcome:
    """model=''."""
    return bench.run("quantize", "model=", f"data={bench.data}")


def full_disk(bench: Bench) -> Outcome:
    """A disk that gets full while the model is written."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        words = ("targets=openvino", f"output={bench.folder / 'full'}")
        return bench.run("export", str(bench.quantized_model), *words, f"data={bench.data}", "images=8")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def rewritten(bench: Bench) -> Outcome:
    """An image that was rewritten since a manifest was made."""
    import json

    from yoloquant.data.dataset import ValidationSet
    from yoloquant.runtime.core.folder_check import file_sha256

    root = _copy(bench, "manifest")
    data = _yaml(root)
    images = ValidationSet.from_yaml(data).images
    listed = [{"file": i.path.name, "sha256": file_sha256(i.path), "boxes": len(i.classes)} for i in images]
    (root / "manifest.json").write_text(json.dumps({"format": 1, "name": "x", "images": listed}))
    label = next(path for path in sorted((root / "labels" / "val").iterdir()) if path.stat().st_size)
    label.write_text(label.read_text() + "0 0.5 0.5 0.9 0.9\n")
    return bench.validate(*QUICK, f"manifest={root / 'manifest.json'}", data=data)


CASES = (
    Case("a yaml without path:", without_path, 0, "verdict: PASS"),
    Case("a list of images in a text file", text_list, 0, "verdict: PASS"),
    Case("a text file named .jpg", text_image, 2, "it holds text: '404: not found'"),
    Case("a corrupt JPEG that ends well", corrupt_jpeg, 2, r"is corrupt \(.*JPEG"),
    Case("a broken image that calibrates", broken_calibration, 2, "^error: image .* is (unreadable|corrupt)"),
    Case("a broken image that is scored, in run", broken_scored, 2, "error: image .* is (unreadable|corrupt)"),
    Case("model=''", no_model, 2, "needs model=<trained checkpoint"),
    Case("a full disk", full_disk, 2, "cannot be written|no room|failed"),
    Case("labels changed since the manifest", rewritten, 2, "manifest"),
)
