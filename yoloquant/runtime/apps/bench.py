"""The verb ``bench``: latency, throughput and what they cost, of one artifact or several that take turns.

Every artifact lives in a process of its own, so that its memory and processor time are its own and its threads do not
disturb the others'. They take turns in an order that is drawn anew for every round, so that a machine that gets hot or
busy does so for all of them, and ratios are taken within a round.
"""

from __future__ import annotations

import json
import logging
import platform
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..device.processors import affinity, cpu_threads
from ..device.sensors import Reading, Sensors, governors, load_average
from ..errors import DataError, OutputError, UsageError
from ..io.open_source import IMAGE_SUFFIXES, open_source
from .bench_report import PERCENTILES, STEPS, BenchMeasurement, Report
from .bench_worker import Opener, Turn, Worker
from .keys import BENCH as KEYS
from .running import BundleOpener, Running, own_bundle
from .settings import VerbSettings

logger = logging.getLogger(__name__)

GOLDEN = "golden"
"""Folder of a bundle that holds real pictures."""
INFERENCE = 1
"""Column of a turn's seconds that is the network alone."""
_SHAPE = (480, 640)


@dataclass(frozen=True)
class BenchOptions:
    """How artifacts are measured.

    Attributes:
        rounds: Turns of each artifact.
        runs: Images of a turn.
        warmup: Images before the first turn, which are not counted.
        seed: Draws the order within each round.
        cores: Cores that the processes may use; all if empty.
        enough: Half of the rounds are enough where times of the network, relative to the first artifact's in the same
            round, differ by no more than this share of their median; all are made if it is 0.
    """

    rounds: int = 10
    runs: int = 20
    warmup: int = 10
    seed: int = 0
    cores: tuple[int, ...] = ()
    enough: float = 0.0


def made_pictures(count: int = 4) -> list[np.ndarray]:
    """Pictures of random blocks (480, 640, 3), for where no real ones are at hand; they hold no objects."""
    # RandomState's stream is frozen (NEP 19), that of default_rng is not: the pictures stay the same with every NumPy.
    draw = np.random.RandomState(0)
    blocks = draw.randint(0, 256, (count, _SHAPE[0] // 16, _SHAPE[1] // 16, 3), dtype=np.uint8)
    return [np.ascontiguousarray(b.repeat(16, axis=0).repeat(16, axis=1)) for b in blocks]


def read_pictures(source: str, count: int = 8) -> list[np.ndarray]:
    """The first pictures of a source.

    Raises:
        DataError: There are none.
        SourceError: It failed.
    """
    opened = open_source(source)
    try:
        frames: list[np.ndarray] = []
        while len(frames) < count and (frame := opened.read()) is not None:
            frames.append(frame.image.copy())
    finally:
        opened.close()
    if not frames:
        raise DataError(f"source '{source}' holds no picture")
    return frames


@dataclass(frozen=True)
class Taken:
    """What the turns gave.

    Attributes:
        turns: Every turn of each artifact with what the sensors said, in the order of the rounds.
        facts: What each process said of its artifact.
        errors: Why an artifact was not measured.
        environment: The machine and the options.
    """

    turns: Mapping[str, Sequence[tuple[Turn, Reading]]]
    facts: Mapping[str, Mapping[str, Any]]
    errors: Mapping[str, str]
    environment: Mapping[str, Any]


def bench(
    openers: Mapping[str, Opener],
    pictures: Sequence[np.ndarray],
    options: BenchOptions | None = None,
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> Report:
    """Measure artifacts side by side.

    Args:
        openers: What loads each artifact, by name; sent to a process of its own.
        pictures: BGR images; every run takes the next one.
        options: How.
        progress: Called before every turn with turns done, turns in all and the artifact's name.

    Returns:
        What was measured; an artifact that fails has its error there and does not stop the others.

    Raises:
        UsageError: Nothing to measure.
    """
    taken = take_turns(openers, pictures, options, progress=progress)
    first = next(iter(openers))
    # Without the first artifact there is nothing to divide by; the others still have their times.
    reference = taken.turns[first] if first not in taken.errors else []
    return Report(
        taken.environment,
        tuple(
            BenchMeasurement(name, error=taken.errors[name])
            if name in taken.errors
            else _measured(name, taken.facts[name], taken.turns[name], reference)
            for name in openers
        ),
    )


def take_turns(
    openers: Mapping[str, Opener],
    pictures: Sequence[np.ndarray],
    options: BenchOptions | None = None,
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> Taken:
    """Let every artifact run in its own process, in turns; see ``bench``.

    Raises:
        UsageError: Nothing to measure.
    """
    if not openers or not pictures:
        raise UsageError("bench needs at least one artifact and one picture")
    options = options or BenchOptions()
    sensors = Sensors()
    workers: dict[str, Worker] = {}
    turns: dict[str, list[tuple[Turn, Reading]]] = {name: [] for name in openers}
    errors: dict[str, str] = {}
    try:
        for name, opener in openers.items():
            # Listed before it starts, so that `finally` also ends the process of one that fails to load.
            workers[name] = Worker(opener, pictures, options.cores)
            _try(errors, name, partial(workers[name].start, options.warmup))  # one after the other: loading is work
        before = load_average()
        order, rng = list(openers), random.Random(options.seed)
        for index in range(options.rounds):
            if options.enough and 2 * index >= options.rounds and _agree(turns, options.enough):
                break
            # a machine that throttles does so in time; a fixed order would always hit the same artifact
            rng.shuffle(order)
            for place, name in enumerate(order):
                if progress:
                    progress(index * len(order) + place, options.rounds * len(order), name)
                if name not in errors:
                    _try(errors, name, partial(_turn, workers[name], options.runs, sensors, turns[name]))
        environment = _environment(options, len(pictures), sensors.power_source, before)
    finally:
        for worker in workers.values():
            worker.close()
        sensors.close()
    return Taken(turns, {name: worker.facts for name, worker in workers.items()}, errors, environment)


def _agree(turns: Mapping[str, Sequence[tuple[Turn, Reading]]], within: float) -> bool:
    """Whether the rounds so far say the same of every artifact that runs."""
    medians = [[float(np.median(t.seconds[:, INFERENCE])) for t, _ in made] for made in turns.values() if made]
    # what slows a whole round down changes no ratio; an artifact that is alone has nothing to be divided by
    told = [[a / b for a, b in zip(each, medians[0])] for each in medians[1:]] or medians
    return bool(told) and all(max(each) - min(each) <= within * statistics.median(each) for each in told)


def _try(errors: dict[str, str], name: str, work: Callable[[], None]) -> None:
    try:
        work()
    except Exception as exc:  # one artifact must not cost the others
        logger.error("%s: %s", name, exc)
        errors[name] = str(exc)


def _turn(worker: Worker, runs: int, sensors: Sensors, turns: list[tuple[Turn, Reading]]) -> None:
    sensors.mark()
    turn = worker.turn(runs)
    turns.append((turn, sensors.reading()))


def _measured(
    name: str,
    facts: Mapping[str, Any],
    turns: Sequence[tuple[Turn, Reading]],
    first: Sequence[tuple[Turn, Reading]],
) -> BenchMeasurement:
    times = np.concatenate([turn.seconds for turn, _ in turns]) * 1e3  # (runs, preprocess inference postprocess)
    columns = [*times.T, times.sum(axis=1)]
    wall, cpu = sum(t.wall_s for t, _ in turns), sum(t.cpu_s for t, _ in turns)
    watts = [r.watts for _, r in turns if r.watts is not None]
    return BenchMeasurement(
        name,
        facts,
        {step: _percentiles(column) for step, column in zip(STEPS, columns)},
        # From the mean and not the median: slow images take their share of the time, too.
        fps=round(1e3 / float(times.sum(axis=1).mean()), 2),
        cpu_percent=round(cpu / wall * 100, 1),
        memory_mb=_rounded(turns[-1][0].memory_mb),
        model_mb=_rounded(facts.get("model_mb")),
        watts=_rounded(statistics.fmean(watts) if watts else None, 2),
        degrees=_rounded(turns[-1][1].degrees),
        ratio=_ratio(turns, first),
    )


def _percentiles(values: np.ndarray) -> dict[str, float]:
    percentiles = np.percentile(values, PERCENTILES).tolist()
    return {**{f"p{p}": round(v, 3) for p, v in zip(PERCENTILES, percentiles)}, "mean": round(float(values.mean()), 3)}


def _ratio(mine: Sequence[tuple[Turn, Reading]], first: Sequence[tuple[Turn, Reading]]) -> float | None:
    pairs = [
        # within a round, where both met the same machine; the median of the rounds then leaves out a disturbed one
        float(np.median(a.seconds.sum(axis=1)) / np.median(b.seconds.sum(axis=1)))
        for (a, _), (b, _) in zip(mine, first)
    ]
    return round(statistics.median(pairs), 3) if pairs else None


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)


def _environment(options: BenchOptions, pictures: int, power: str, load: float | None) -> dict[str, Any]:
    return {
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cores": cpu_threads(),
        "affinity": list(options.cores or affinity()),
        "governors": list(governors()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": _rounded(load, 2),
        "power_source": power,
        "pictures": pictures,
        "rounds": options.rounds,
        "runs": options.runs,
        "warmup": options.warmup,
        "seed": options.seed,
    }


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's or the board's name."""
    try:
        # A board's name first: cpuinfo of ARM processors has no 'model name'. Texts of a device tree end in NUL.
        board = Path("/proc/device-tree/model").read_text(encoding="utf-8", errors="replace").strip("\0\n ")
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        board, lines = "", []
        if cpuinfo.is_file():
            lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return board or fields.get("model name") or platform.processor() or platform.machine()


def parse_options(settings: VerbSettings) -> BenchOptions:
    """Read a verb's arguments.

    Raises:
        UsageError: A value is not allowed.
    """
    cores = settings.text("affinity")
    if cores and not all(part.strip().isdigit() for part in cores.split(",")):
        raise UsageError(f"affinity={cores} is not supported; allowed are numbers of cores, for instance 0,1")
    chosen = tuple(int(part) for part in cores.split(",")) if cores else ()
    here = affinity()
    # the system would refuse them too, but in the worker and with a number instead of a reason
    if here and set(chosen) - set(here):
        raise UsageError(
            f"affinity={cores} names cores that this process cannot use; it has {', '.join(map(str, here))}"
        )
    return BenchOptions(
        # `or` is for the types alone: `whole` gives None only where its default is None.
        rounds=settings.whole("rounds", 10) or 10,
        runs=settings.whole("runs", 20) or 20,
        warmup=settings.whole("warmup", 10) or 10,
        seed=settings.whole("seed", 0, 0) or 0,
        cores=chosen,
    )


def pictures_of(settings: VerbSettings, golden: Path | None) -> list[np.ndarray]:
    """The pictures that a verb's arguments name, those of a folder if there are any, or made ones."""
    source = settings.text("source")
    if not source and golden and golden.is_dir() and any(p.suffix.lower() in IMAGE_SUFFIXES for p in golden.iterdir()):
        source = str(golden)
    count = settings.whole("images", 8) or 8
    if source:
        return read_pictures(source, count)
    logger.warning("no source= is given: measured on made pictures without objects, which need little selecting")
    return made_pictures(count)


def finish(report: Report, output: str, say: Callable[[str], None]) -> int:
    """Say the table and write the JSON.

    Returns:
        The exit code: 0, or 4 if an artifact could not be measured.

    Raises:
        OutputError: The file cannot be written.
    """
    say(report.table())
    if output:
        path = Path(output)
        # Another name first, so that nobody reads half of it.
        temporary = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(report.to_dict(), indent=1), encoding="utf-8")
            temporary.replace(path)
        except OSError as exc:
            raise OutputError(f"'{path}' cannot be written ({exc.strerror or exc}); choose another output=") from exc
        say(f"wrote {path}")
    return 4 if any(m.error for m in report.measured) else 0


def main(arguments: dict[str, str], say: Callable[[str], None] = logger.info) -> int:
    """Run the verb on bundles.

    Args:
        arguments: Texts by key; ``model`` names one or more bundles, separated by commas, by default the one that
            holds this package.
        say: Receives what is to be printed.

    Returns:
        The exit code: 0, or 4 if an artifact could not be measured.
    """
    settings = VerbSettings(arguments, KEYS, "bench")
    options = parse_options(settings)
    running = Running.parse(settings)
    openers: dict[str, BundleOpener] = {}
    for path in (part.strip() for part in (settings.text("model") or own_bundle()).split(",") if part.strip()):
        name = Path(path).resolve().name
        # two bundles of one name would hide each other
        openers[name if name not in openers else path] = BundleOpener(path, running)
    # The first bundle's: all artifacts must see the same pictures, or their times do not compare.
    golden = Path(next(iter(openers.values())).path) / GOLDEN if openers else None
    return finish(bench(openers, pictures_of(settings, golden), options), settings.text("output"), say)
