"""From an ONNX file to TensorRT's plan: network, flags and builder of every release."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, TargetError, UsageError
from . import dla
from .api import TensorRT, complaints
from .build_options import BuildOptions, Sources

logger = logging.getLogger(__name__)

GIB = 1 << 30


@dataclass(frozen=True)
class CompiledEngine:
    """What the builder made.

    Attributes:
        plan: The serialized engine.
        timings: The serialized timing cache; empty if there is none.
        dla: Where layers go; None without a DLA.
    """

    plan: bytes
    timings: bytes = b""
    dla: dla.DlaReport | None = None


def model_for(api: TensorRT, sources: Sources, options: BuildOptions) -> Path:
    """Which of the models a release builds from.

    Raises:
        TargetError: The release cannot do what is asked.
        ArtifactError: The file is missing.
    """
    if options.dla is not None and api.strongly_typed:
        raise TargetError(
            f"TensorRT {api.version} does not support DLAs; leave out dla=, or use TensorRT 10 (JetPack 6)"
        )
    # Before TensorRT 11 FP16 is a flag of the builder; from then on types come from the model, so there are two.
    if options.dla is not None:
        path = sources.plain
    elif api.strongly_typed and options.fp16:
        path = sources.strongly_typed
    else:
        path = sources.onnx
    for needed in (path, sources.calibration) if options.dla is not None else (path,):
        if not needed.is_file():
            raise ArtifactError(
                f"'{needed}' is missing, which TensorRT {api.version} needs for this engine; export again"
            )
    return path


def compile_plan(
    api: TensorRT, model: Path, options: BuildOptions, calibration: Path, timings: bytes = b""
) -> CompiledEngine:
    """Parse a model and build its plan.

    Args:
        api: The release.
        model: What ``model_for`` returned.
        options: How to build.
        calibration: The calibration cache; read only for a DLA.
        timings: An earlier timing cache of this release and device.

    Raises:
        TargetError: The parser or the builder refuses; the message has their own words.
        UsageError: The release does not know an option.
    """
    trt, trt_logger = api.module, api.logger()
    builder = trt.Builder(trt_logger)
    network = builder.create_network(api.network_flags)
    _parse(trt, network, trt_logger, model)
    config = builder.create_builder_config()
    _set_options(api, config, options)
    report, keep = None, None
    if options.dla is not None:
        keep = dla.configure(api, builder, config, options.dla, calibration)
        report = dla.survey(config, network, options.dla)
    _start_timing_cache(config, timings)
    plan = builder.build_serialized_network(network, config)
    del keep  # the calibrator had to live until here
    if plan is None:
        said = complaints(trt_logger) or "it gave no reason"
        raise TargetError(f"TensorRT {api.version} could not build an engine from '{model}': {said}")
    if report is not None:
        placed = dla.placements(trt_logger.lines)
        report = dla.DlaReport(report.core, report.on_dla, report.fallback, placed)
    return CompiledEngine(bytes(plan), _timings(config), report)


def _parse(trt: Any, network: Any, trt_logger: Any, model: Path) -> None:
    parser = trt.OnnxParser(network, trt_logger)
    if not parser.parse_from_file(str(model)):
        errors = "; ".join(_error(parser.get_error(i)) for i in range(parser.num_errors)) or complaints(trt_logger)
        raise TargetError(f"TensorRT {trt.__version__} cannot parse '{model}': {errors or 'it gave no reason'}")
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if any(size < 0 for size in tuple(tensor.shape)):
            shape = tuple(tensor.shape)
            raise TargetError(
                f"input '{tensor.name}' of '{model}' has the shape {shape}; engines here have fixed shapes"
            )


def _error(error: Any) -> str:
    """Node names came to ``ParserError`` after TensorRT 8.5."""
    where = f"{error.node_name()} [{error.node_operator()}]" if hasattr(error, "node_name") else f"node {error.node()}"
    return f"{where}: {error.desc()}"


def _set_options(api: TensorRT, config: Any, options: BuildOptions) -> None:
    trt = api.module
    if not api.strongly_typed:
        # Both: with Int8 alone the parts that stay float run in FP32, which may cost more than Int8 saves.
        config.set_flag(trt.BuilderFlag.INT8)
        if options.fp16:
            config.set_flag(trt.BuilderFlag.FP16)
    if options.sparse:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(options.workspace * GIB))
    if options.level is not None:
        if not hasattr(config, "builder_optimization_level"):
            raise UsageError(
                f"TensorRT {api.version} has no builder optimisation levels (8.6 and later do); drop level="
            )
        config.builder_optimization_level = options.level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the inspector tells only names


def _start_timing_cache(config: Any, timings: bytes) -> None:
    """Use an earlier cache; one that is damaged or from another device is set aside."""
    # An empty cache, too: without one the builder has nowhere to note what it measures.
    for blob in [timings, b""] if timings else [b""]:
        try:
            cache = config.create_timing_cache(blob)
            if cache is not None and config.set_timing_cache(cache, False):
                return
        except Exception as exc:  # what a damaged cache raises differs between releases
            logger.debug("timing cache refused: %s", exc)
        if blob:
            logger.warning("the timing cache does not fit this device or release and is made anew")
    logger.debug("TensorRT takes no timing cache here")


def _timings(config: Any) -> bytes:
    cache = config.get_timing_cache()
    return bytes(cache.serialize()) if cache is not None else b""


def fallback_lines(report: dla.DlaReport) -> list[str]:
    """The DLA report as lines for people: a sentence, then one line per layer on the GPU."""
    lines = [
        f"DLA core {report.core} can run {len(report.on_dla)} of {len(report.on_dla) + len(report.fallback)} layers"
    ]
    lines += [f"  on the GPU: {name} ({kind})" for name, kind in report.fallback]
    return lines + [f"  {line}" for line in report.placed]


__all__: tuple[str, ...] = ("CompiledEngine", "compile_plan", "fallback_lines", "model_for")
