"""The compressed model: float weights, plans with ranges, and where all of it came from.

It is saved as an ordinary Ultralytics checkpoint. Without yoloquant, ``YOLO(path)`` loads it as the float model; the
plans travel beside the module as plain data (numbers, strings, lists), never as classes.
"""

from __future__ import annotations

import copy
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..bridge.checkpoint import CLASS_ARGUMENTS, STATE_KEY, load_model
from ..bridge.host_model import HostModel, weights_sha256
from ..bridge.input_size import check_imgsz
from ..bridge.installed import ultralytics_version
from ..errors import ArtifactError, PlanError, UsageError
from ..graph.trace import Graph
from ..graph.traced_model import TracedModel
from ..io import atomic_path
from ..summarized import Summarized, plain
from ..types import ModelInfo
from .plan import Plan

if TYPE_CHECKING:
    from .scheme import Scheme


STATE_VERSION = 1
# Whatever of these changes can change the bits of an artifact; others cannot.
_PACKAGES = (
    "ultralytics",
    "torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "litert-torch",
    "ai-edge-litert",
    "tensorrt-rtx-cu13",
    "numpy",
)


def versions() -> dict[str, str]:
    """Versions of yoloquant, Python and every package that shapes an artifact; absent ones are left out."""
    versions = {"yoloquant": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def save_checkpoint(
    path: str | os.PathLike[str], module: Any, arguments: Mapping[str, Any], *, state: Mapping[str, Any] | None = None
) -> None:
    """Write a float model as an ordinary Ultralytics checkpoint, to a temporary name first.

    Args:
        path: A ``.pt`` file.
        module: The live model; left as it is.
        arguments: Training arguments that Ultralytics reads back: imgsz, task.
        state: What travels beside the module, as plain data.

    Raises:
        ArtifactError: The suffix is not ``.pt``.
        OutputError: The folder cannot be written.
    """
    import torch

    path = Path(path)
    if path.suffix != ".pt":
        raise ArtifactError(f"got '{path.name}'; a checkpoint's name must end in .pt")
    # half() works in place, and the caller goes on with the float model
    module = copy.deepcopy(module)
    if all(bool((p.half().float() == p).all()) for p in module.state_dict().values() if p.is_floating_point()):
        module = module.half()  # lossless, and what Ultralytics does
    checkpoint = {
        "model": module,
        # Ultralytics takes ``ema`` before ``model`` where both are there; our weights are in ``model``
        "ema": None,
        # finished: with another number Ultralytics would offer to resume a training that this file has no state of
        "epoch": -1,
        "optimizer": None,
        "train_args": dict(arguments),
        "version": ultralytics_version(),
        "license": "AGPL-3.0",
    }
    if state is not None:
        checkpoint[STATE_KEY] = dict(state)
    # a stream of our own: given a path, torch writes the file's name into the archive, and the temporary one would end
    # up there
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        try:
            torch.save(checkpoint, stream)
        except RuntimeError as exc:  # torch reports a write that failed this way
            if isinstance(exc.__context__, OSError):
                raise exc.__context__ from exc
            raise


@dataclass(frozen=True, repr=False)
class Artifact(Summarized):
    """A model with its quantization plans.

    Attributes:
        traced: The float model at the input size of the plans.
        plans: Calibrated plans by scheme name; the first is the one that exports fall back to.
        bias: Bias corrections by scheme and module path, float32 (channels,).
        provenance: Recipe, hashes of model and data, versions; plain data.
    """

    traced: TracedModel
    plans: Mapping[str, Plan] = field(default_factory=dict)
    bias: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> HostModel:
        """The float model."""
        return self.traced.model

    @property
    def info(self) -> ModelInfo:
        """What a runtime must know about the model at the input size of the plans."""
        return self.traced.info

    @property
    def graph(self) -> Graph:
        """The canonical graph; traced on first use."""
        return self.traced.graph

    @property
    def stem(self) -> str:
        """Name that exports are called by: the checkpoint's, without what ``quantize`` appended."""
        source = Path(self.model.source)
        return source.stem.removesuffix("_int8") if source.suffix == ".pt" else "model"

    def saved_as(self, path: Path) -> Artifact:
        """The same as it will be read from a checkpoint that it was saved to."""
        return replace(self, traced=self.traced.described_as(replace(self.model, source=str(path))))

    def summary(self) -> str:
        """The model, its input size, and every plan in a line."""
        info = self.info
        lines = [
            f"{Path(self.model.source).name}: {info.task.value} model of {len(info.names)} classes at "
            f"{info.imgsz[0]} x {info.imgsz[1]} px, quantized for {len(self.plans)} schemes"
        ]
        for name, plan in self.plans.items():
            state = "" if plan.calibrated else ", not calibrated"
            lines.append(f"  {name:<14} {len(plan.weights)} weights, {len(plan.activations)} activations{state}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: everything but the weights."""
        plans = {name: json.loads(plan.to_json()) for name, plan in self.plans.items()}
        about = {"model": Path(self.model.source).name, "model_sha256": self.model.sha256, "info": plain(self.info)}
        return {**about, "plans": plans, "provenance": plain(self.provenance)}

    def plan_for(self, scheme: Scheme) -> Plan:
        """The calibrated plan that an export with a scheme's placement uses.

        Args:
            scheme: The rules of the target.

        Returns:
            The artifact's plan of that scheme, else its portable or first plan adapted to the scheme's placement.

        Raises:
            PlanError: The artifact has no plan, or lacks ranges that the scheme needs.
        """
        if scheme.name in self.plans:
            return self.plans[scheme.name]
        source = self.source_plan(scheme)
        from .scheme import adapt

        plan = adapt(self.graph, source, scheme)
        missing = [p.name for p in plan.points if p.params is None]
        if missing:
            raise PlanError(
                f"plan '{source.scheme}' has no range for {len(missing)} points that '{scheme.name}' needs, first "
                f"{missing[0]}; give data=<data yaml> to calibrate them, or use scheme={scheme.name} or portable"
            )
        return plan

    def source_plan(self, scheme: Scheme) -> Plan:
        """The plan whose ranges an export with this scheme takes over."""
        if not self.plans:
            raise PlanError("this checkpoint has no quantization plan; run yoloquant.quantize first")
        # the portable plan has ranges for every tensor, so any other scheme finds most of its points there
        return self.plans.get(scheme.name) or self.plans.get("portable") or next(iter(self.plans.values()))

    def bias_for(self, scheme: Scheme) -> dict[str, np.ndarray]:
        """Bias corrections that belong to the plan which an export with this scheme uses."""
        return dict(self.bias.get(self.source_plan(scheme).scheme, {}))

    def metadata(self) -> dict[str, Any]:
        """Plain data that every export carries besides the model."""
        return {
            "yoloquant": __version__,
            "model": Path(self.model.source).name,
            "model_sha256": self.model.sha256,
            "weights_sha256": weights_sha256(self.model.module),
            "origin": asdict(self.model.origin),
            "versions": versions(),
            **{k: _short(v) for k, v in self.provenance.items() if k != "versions"},
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a checkpoint that both Ultralytics and yoloquant read.

        Args:
            path: A ``.pt`` file; written to a temporary name first.

        Returns:
            The path.

        Raises:
            ArtifactError: The suffix is not ``.pt``.
            OutputError: The folder cannot be written.
        """
        save_checkpoint(path, self.model.module, plain_arguments(self.model.module, self.info), state=self.state())
        return Path(path)

    def state(self) -> dict[str, Any]:
        """Everything beside the weights, as plain data."""
        return {
            "version": STATE_VERSION,
            "imgsz": list(self.info.imgsz),
            "plans": {name: plan.to_json() for name, plan in self.plans.items()},
            "bias": {s: {k: v.tolist() for k, v in d.items()} for s, d in self.bias.items()},
            # through JSON once: what is not plain data fails here, and not where the file is read
            "provenance": json.loads(json.dumps(dict(self.provenance))),
            "sha256": self.model.sha256,
        }

    @classmethod
    def load(cls, path: Any, *, allow_unsafe: bool = False) -> Artifact:
        """Read what ``save`` wrote.

        Raises:
            ModelError: The file is not a checkpoint.
            ArtifactError: It has no plans, or they are damaged or of another version.
        """
        return cls.from_host(load_model(path, allow_unsafe=allow_unsafe))

    @classmethod
    def from_host(cls, model: HostModel, imgsz: int | Sequence[int] | None = None) -> Artifact:
        """The same of a checkpoint that is already loaded.

        Args:
            model: The checkpoint.
            imgsz: The input size that somebody asks for; its own if None.

        Raises:
            ArtifactError: It has no plan, or is damaged.
            UsageError: It was quantized at another input size.
        """
        state = model.state
        if not state:
            raise ArtifactError(f"'{model.source}' is a plain checkpoint without a plan; run yoloquant.quantize first")
        with _whole(model.source):
            _known_version(state, model.source)
            size = check_imgsz(state["imgsz"], model.stride)
            # the checkpoint that was quantized, not this file: exports name the model that they were made from
            model = replace(model, sha256=str(state["sha256"]))
        if imgsz is not None and check_imgsz(imgsz, model.stride) != size:
            raise UsageError(
                f"'{model.source}' was quantized at imgsz={size}, got {imgsz}; leave imgsz out, or quantize the "
                "original checkpoint at that size"
            )
        return cls.of_state(TracedModel.of(model, size), state)

    @classmethod
    def of_state(cls, traced: TracedModel, state: Mapping[str, Any]) -> Artifact:
        """The artifact whose ``state`` this is, of a model that is described already.

        Raises:
            ArtifactError: The state is damaged or of another version.
        """
        with _whole(traced.model.source):
            _known_version(state, traced.model.source)
            plans = {str(name): Plan.from_json(text) for name, text in state["plans"].items()}
            bias = {s: {k: np.asarray(v, np.float32) for k, v in d.items()} for s, d in state["bias"].items()}
            return cls(traced, plans, bias, dict(state["provenance"]))


def _known_version(state: Mapping[str, Any], source: str) -> None:
    if state["version"] != STATE_VERSION:
        raise ArtifactError(f"'{source}' was written in format {state['version']}; this release reads {STATE_VERSION}")


@contextmanager
def _whole(source: str) -> Iterator[None]:
    """Say of a state that cannot be read that it is damaged.

    Raises:
        ArtifactError: The block found something missing or of another type.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, PlanError, UsageError) as exc:
        raise ArtifactError(f"the plans in '{source}' are damaged: {exc!r}") from exc


def _short(value: Any) -> Any:
    """An entry of provenance without the numbers of its fingerprint, whose hash says enough on a device."""
    if not isinstance(value, Mapping) or not isinstance(value.get("fingerprint"), Mapping):
        return value
    return {**value, "fingerprint": value["fingerprint"].get("sha256", "")}


def plain_arguments(module: Any, info: ModelInfo) -> dict[str, Any]:
    """Training arguments that a checkpoint keeps."""
    args = getattr(module, "args", None)
    args = dict(args) if isinstance(args, dict) else {}
    names = {"data", "overlap_mask", "mask_ratio", *CLASS_ARGUMENTS}
    kept = {k: v for k, v in args.items() if k in names and v is not None}
    return {**kept, "imgsz": max(info.imgsz), "task": info.task.value}
