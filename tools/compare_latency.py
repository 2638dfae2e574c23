"""The latency that a report states against what ``bench`` measures of the same artifacts, in turns.

    python tools/compare_latency.py model=yolo11n.pt data=coco256.yaml targets=onnxruntime,openvino,litert

``yoloquant run`` makes the artifacts and its report is the first of ``rounds``; ``validate`` writes the others.
After each report, ``bench`` measures every artifact and prints the same column: the network alone, median. Ends with
0 if the medians over rounds agree to ``tolerance``, else with 1. Nothing else should run on the machine; the table
also says how far rounds of one command are apart, which no comparison can be better than.

Options (``key=value`` or ``--key value``): model, data, source (pictures for ``bench``; made ones if not
given), targets (onnxruntime,openvino,litert), imgsz (the model's), images (16, calibration), limit (32, scored),
rounds (3), threads (all cores), tolerance (0.1), output (runs/compare_latency).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.bench.table import table
from tools.options import parse_options, positive
from yoloquant.io import output_folder, write_text

DEFAULTS = {
    "model": "yolo11n.pt",
    "data": "coco8.yaml",
    "source": "",
    "targets": "onnxruntime,openvino,litert",
    "imgsz": "",
    "images": "16",
    "limit": "32",
    "rounds": "3",
    "threads": "",
    "tolerance": "0.1",
    "output": "runs/compare_latency",
}
_SECONDS = 1800


def yoloquant(*arguments: str) -> None:
    """Run the command in a process of its own; a verdict that fails or decides nothing is no failure here.

    Raises:
        SystemExit: It ended in an error; its output was printed.
    """
    line = [sys.executable, "-m", "yoloquant", *arguments]
    done = subprocess.run(line, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode not in {0, 1, 3}:
        print(f"{' '.join(line)} ended with {done.returncode}:\n{done.stdout}{done.stderr}", file=sys.stderr)
        raise SystemExit(2)


def reported(report: Path) -> dict[str, float]:
    """Median milliseconds of every artifact in a report, by its file's name."""
    rows = json.loads((report / "report.json").read_text(encoding="utf-8"))["targets"]
    return {Path(row["path"]).name: row["latency"]["median_ms"] for row in rows if row.get("latency")}


def benched(file: Path) -> dict[str, float]:
    """Median milliseconds of every artifact that ``bench`` measured, by its file's name."""
    rows = json.loads(file.read_text(encoding="utf-8"))["artifacts"]
    return {Path(row["name"]).name: row["steps_ms"]["inference"]["p50"] for row in rows}


def rows(found: Sequence[Mapping[str, float]], other: Sequence[Mapping[str, float]]) -> list[list[str]]:
    """Of every artifact, what both said, their ratio, and how far the rounds of each were apart."""
    result = []
    for name in found[0]:
        ours, theirs = [one[name] for one in found], [one[name] for one in other]
        result.append(
            [
                name,
                f"{median(ours):.1f}",
                f"{median(theirs):.1f}",
                f"{median(ours) / median(theirs):.2f}",
                f"{max(ours) / min(ours):.2f}",
                f"{max(theirs) / min(theirs):.2f}",
            ]
        )
    return result


def main(arguments: Sequence[str]) -> int:
    """Print and write the table; 1 if an artifact's two medians differ by more than the tolerance."""
    values = parse_options(arguments, DEFAULTS, __doc__ or "")
    folder = output_folder(values["output"])
    shared = [f"{key}={values[key]}" for key in ("data", "imgsz", "threads", "limit") if values[key]]
    few = ["bootstrap=100", "memory=false"]
    found, other = [], []
    for turn in range(positive(values["rounds"])):
        report = folder / f"report{turn}"
        if turn == 0:
            made = [f"targets={values['targets']}", f"images={values['images']}", f"output={folder / 'job'}"]
            yoloquant("run", f"model={values['model']}", *shared, *made, *few)
            report = folder / "job"
            exports = next(path.parent for path in report.rglob("exports.json"))
        else:
            yoloquant("validate", values["model"], f"exports={exports}", *shared, *few, f"output={report}")
        found.append(reported(next(path.parent for path in report.rglob("report.json"))))
        measured = folder / f"bench{turn}.json"
        source, threads = ([f"{key}={values[key]}"] if values[key] else [] for key in ("source", "threads"))
        yoloquant("bench", f"{exports}", *source, *threads, f"output={measured}")
        other.append(benched(measured))
    head = ["artifact", "report, ms", "bench, ms", "ratio", "rounds of reports apart", "rounds of bench apart"]
    result = rows(found, other)
    text = table(head, result)
    print(text)
    write_text(folder / "latency.md", text + "\n")
    return int(any(abs(float(row[3]) - 1) > float(values["tolerance"]) for row in result))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
