"""The benchmark as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yoloquant.types import Verdict

from .contenders import Kind
from .goals import Goal

Row = Mapping[str, Any]
HEAD = (
    "artifact",
    "mAP50-95",
    "drop, points [95 %]",
    "mAP50",
    "fidelity",
    "confidence shift",
    "MB",
    "ms median (p90)",
    "x FP32",
    "x Ultralytics",
)
_SIGN = {Verdict.PASS: "met", Verdict.FAIL: "missed", Verdict.ERROR: "not measured"}


def markdown(result: Mapping[str, Any], goals: Sequence[Goal]) -> str:
    """The whole report.

    Args:
        result: What goes into ``benchmark.json``.
        goals: The goals.
    """
    rows = result["rows"]
    parts = [_setting(result), table(HEAD, [_cells(row) for row in rows]), _remarks(result)]
    if any(row["agreement"] for row in rows):
        head = ("artifact", "mAP50-95 here", "by YOLO(file).val()", "difference, points", "mAP50 difference, points")
        parts.append("### Agreement with Ultralytics' validator\n\n" + table(head, _agreement(rows)))
        parts += _unlike(rows)
    checked = [row for row in rows if row["tensorrt"]]
    if checked:
        parts.append("### TensorRT\n\n" + "\n".join(_tensorrt(row) for row in checked))
    parts.append("### Time of a validation\n\n" + _time(result["overhead"]))
    aims = [(g.what, f"{'>=' if g.at_least else '<='} {g.limit:g}", _number(g.value), _SIGN[g.verdict]) for g in goals]
    parts.append("### Goals\n\n" + table(("goal", "limit", "measured", ""), aims))
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first column is left-aligned and whose others are right-aligned."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _time(spent: Row) -> str:
    return (
        f"{len(spent['models'])} models ({', '.join(spent['models'])}): {spent['wall_s']:.1f} s for the pass and "
        f"{spent['statistics_s']:.1f} s for the statistics against {spent['pure_s']:.1f} s of pure inference and NMS, "
        f"a ratio of {spent['ratio']:.2f} ({spent['ratio_pass']:.2f} for the pass alone)."
    )


def _setting(result: Mapping[str, Any]) -> str:
    env = result["environment"]
    return (
        f"{env['model']}, {env['images']} images with {env['boxes']} boxes of {env['data']} ({env['split']}), imgsz "
        f"{env['imgsz']}, batch 1, {env['threads']} threads on {env['cpu']}; ours calibrated on "
        f"{env['calibration_images']} images of the train split."
    )


def _cells(row: Row) -> tuple[str, ...]:
    if row["error"]:
        return (
            row["name"],
            f"failed: {' '.join(row['error'].split()).replace('|', '/')[:200]}",
            *[""] * (len(HEAD) - 2),
        )
    found = row["comparison"]
    speed = row["latency"] or {}
    times = speed or (_pass_times(row) if row["kind"] == Kind.BASELINE.value else {})
    return (
        row["name"],
        _number(row["map50_95"]),
        _drop(found["map_drop"]) if found else "",
        _number(row["map50"]),
        f"{found['fidelity']['value']:.3f}" if found else "",
        f"{found['confidence_shift']:+.3f}" if found else "",
        f"{row['size_bytes'] / 1e6:.2f}" if row["size_bytes"] else "",
        f"{times['median_ms']:.1f} ({times['p90_ms']:.1f})" if times else "",
        _ratio(speed.get("ratio_fp32")),
        _ratio(speed.get("ratio_ultralytics")),
    )


def _pass_times(row: Row) -> Row:
    times = row["pass_ms"]
    return {"median_ms": times["median"], "p90_ms": times["p90"]} if times else {}


def _drop(value: Row | None) -> str:
    if value is None:
        return ""
    return f"{value['value'] * 100:+.2f} [{value['low'] * 100:+.2f}, {value['high'] * 100:+.2f}]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _remarks(result: Mapping[str, Any]) -> str:
    env = result["environment"]
    lines = [
        "A drop is FP32 minus artifact in points of mAP50-95, with the interval of a paired bootstrap by image. "
        "Fidelity is mAP50-95 against the FP32 model's own detections.",
        f"Latency is the median of {env['rounds']} rounds in which the files of one runtime take turns; ratios are "
        f"medians over the rounds; the load average was {env['load']:.1f} before. Every file of a runtime runs in the "
        "same runner, OpenVINO's float operations in f32. The fp32 row is PyTorch, with its times from the evaluation "
        "pass; its size is that of float32 weights.",
        "Ultralytics calibrates on the val split by default, that is, on the very images that are scored here.",
        "TensorRT files are simulated in ONNX Runtime without graph optimisation; their latency is not measured.",
    ]
    twins = {row["runtime"].partition("@")[2]: row["notes"][0] for row in result["rows"] if row["twin_of"]}
    lines += [f"`@{mark}`: {note}." for mark, note in twins.items()]
    return "\n".join(f"- {line}" for line in lines)


def _unlike(rows: Sequence[Row]) -> list[str]:
    """Which lines of the table are not held to the goal, and why."""
    unlike = {row["name"]: row["agreement"]["twin"] for row in rows if row["agreement"] and row["agreement"]["twin"]}
    if not unlike:
        return []
    pairs = ", ".join(f"{twin} instead of {name}" for name, twin in unlike.items())
    return [
        "Ultralytics runs some files in another way than their accuracy is measured in (see the remarks on `@` above). "
        f"Like is compared with like: the goal is held against {pairs}. The other line of each pair shows what the way "
        "of running a file is worth; that difference lies in the runtime, not in the validators."
    ]


def _agreement(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    cells: list[tuple[str, ...]] = []
    for row in rows:
        found = row["agreement"]
        if found is None:
            continue
        if found["theirs"] is None:
            cells.append((row["name"], _number(found["ours"]), f"failed: {found['error'][:200]}", "", ""))
            continue
        gap50 = (found["theirs50"] - found["ours50"]) * 100
        cells.append(
            (
                row["name"],
                _number(found["ours"]),
                _number(found["theirs"]),
                f"{found['difference'] * 100:+.3f}",
                f"{gap50:+.3f}",
            )
        )
    return cells


def _tensorrt(row: Row) -> str:
    found = row["tensorrt"]
    return (
        f"- {row['name']}: {found['lint_errors']} lint errors, {found['lint_warnings']} warnings; "
        f"{found['planned_convs']} planned convolutions; {found['rtx']['summary']}"
    )
