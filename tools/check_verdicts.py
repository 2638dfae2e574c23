"""Does every known way to a wrong verdict end in the right one?

Runs the command on the embedded demo model, once for each way, and prints a table: case, exit code, sentence, right?
Artifacts are of ONNX Runtime, which is always installed; images are drawn. Nothing but a temporary folder is written.

    python tools/check_verdicts.py

Options (``key=value`` or ``--key value``): part (judging, models, inputs, machines, held; all by default), only (cases
whose name contains this), work (folder that keeps the model's exports and the rows that were right, so that a run that
was ended goes on), out (a page of the documentation), run (true; false writes what the work folder knows of, and "not
tried" for the rest).
"""

from __future__ import annotations

import re
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.options import boolean, parse_options
from tools.verdicts import inputs, judging, machines, models
from tools.verdicts.bench import Bench, Case, Outcome
from tools.verdicts.remembered import remembered_traces

DEFAULTS = {"part": "", "only": "", "work": "", "out": "", "run": "true"}
PARTS = {"judging": judging.CASES, "models": models.CASES, "inputs": inputs.CASES, "machines": machines.CASES}
PAGE = """\
# Ways to a wrong verdict

Every way to a wrong verdict that is known, tried by the command on the embedded demo model: what it ends in, and what
it says. Written by `python tools/check_verdicts.py out=docs/benchmarks/verdicts.md`, which fails if a row is not right.
"Held by" names a test: what it needs is not on every machine. A row that says "not tried in this run" is open.

"""
HEAD = ("| case | exit code | sentence | right? |", "|---|---:|---|---|")


def run_case(bench: Bench, case: Case) -> tuple[str, bool, str]:
    """Run one case: a line of the table, whether it is right, and all that was said."""
    try:
        outcome = case.act(bench)
    except Exception:  # a case that cannot be tried is not right
        outcome = Outcome(-1, traceback.format_exc())
    lines = outcome.text.splitlines()
    said = next((line for line in lines if re.search(case.sentence, line)), None)
    right = outcome.code == case.code and said is not None
    text = " ".join((said or (lines or [""])[-1]).split()).replace("|", "/")
    for place in (bench.folder, bench.base, tempfile.gettempdir()):
        text = text.replace(str(place), "")
    return f"| {case.name} | {outcome.code} | {text[:200]} | {'yes' if right else 'NO'} |", right, outcome.text


def rows(part: str, only: str, base: Path, run: bool = True) -> Iterator[tuple[str, bool, str]]:
    """Every line of the table as ``run_case`` gives it; those that were right before are read from the base folder."""
    known = base / "rows"
    known.mkdir(exist_ok=True)
    bench: Bench | None = None
    with tempfile.TemporaryDirectory(prefix="yoloquant-") as scratch:
        for name in PARTS:
            for case in PARTS[name] if part in ("", name) else ():
                row = known / f"{_slug(case.name)}.md"
                if only not in case.name:
                    continue
                if row.is_file():
                    yield row.read_text(encoding="utf-8"), True, ""
                    continue
                if not run:
                    yield f"| {case.name} | - | - | not tried in this run |", False, ""
                    continue
                bench = bench or Bench(base, Path(scratch))
                done = run_case(bench, case)
                if done[1]:
                    row.write_text(done[0], encoding="utf-8")
                yield done
    for what, test in machines.HELD if part in ("", "held") else ():
        row = known / f"{_slug(what)}.md"
        if only not in what:
            continue
        if not row.is_file() and run and machines.passes(test):
            row.write_text(f"| {what} | - | held by tests/{test} | yes |", encoding="utf-8")
        if row.is_file():
            yield row.read_text(encoding="utf-8"), True, ""
        else:
            state = "no" if run else "not tried in this run"
            yield f"| {what} | - | held by tests/{test} | {state} |", False, ""


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


@contextmanager
def workplace(work: str) -> Iterator[Path]:
    """The folder that is to be kept, or one for this run alone."""
    if work:
        Path(work).mkdir(parents=True, exist_ok=True)
        yield Path(work).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="yoloquant-") as name:
        yield Path(name)


def main(arguments: Sequence[str]) -> int:
    """Run the tool; exit code 1 if a verdict is wrong."""
    options = parse_options(arguments, DEFAULTS, __doc__ or "")
    table, wrong = list(HEAD), 0
    print("\n".join(HEAD), flush=True)
    with workplace(options["work"]) as base, remembered_traces():
        for line, right, text in rows(options["part"], options["only"], base, boolean(options["run"])):
            table.append(line)
            wrong += not right
            print(line if right else f"{line}\n{text[-3000:]}", flush=True)
    print(f"{len(table) - len(HEAD)} cases, {wrong} wrong")
    if options["out"]:
        Path(options["out"]).write_text(PAGE + "\n".join(table) + "\n", encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
