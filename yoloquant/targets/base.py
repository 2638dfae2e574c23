"""The contract that every runtime fulfils. A new runtime is one new module in this package.

A target says everything about itself: what it can do, the devices that people name, the backend that runs its artifacts
there, what a bundle holds besides the model, and how a model is best prepared for it. Nothing else knows it by name.
"""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..errors import MissingExtraError, PlanError, TargetError, UsageError
from ..runtime.core.bundle_manifest import Requirement
from ..runtime.core.runner import Runner
from ..types import ExportedModel, HeadLayout, Task
from .graph_form import PLAIN, GraphForm

if TYPE_CHECKING:
    from ..cache import Store
    from ..graph.trace import Graph
    from ..quantization.artifact import Artifact
    from ..quantization.plan import Plan
    from ..quantization.scheme import Scheme
    from ..runtime.backends import Backend, BackendOptions

__all__ = ["Capabilities", "Device", "Preparation", "Requirement", "Runner", "Target"]


INT8, FP32, FP16, DYNAMIC, WEIGHTS, W8A16 = "int8", "fp32", "fp16", "dynamic", "weights", "w8a16"
"""Precisions by name: integers throughout; float32; float16; int8 weights with activations that are quantized while the
network runs; int8 weights that are multiplied out again; int8 weights with activations of 16 bits."""
PRECISIONS = frozenset({INT8, FP32, FP16, DYNAMIC, WEIGHTS, W8A16})
FLOAT = frozenset({FP32, FP16})
WEIGHTS_ALONE = frozenset({DYNAMIC, WEIGHTS})
_SHOWN = 4


def tag(precision: str) -> str:
    """What a file's name says about its precision; nothing about the usual one."""
    return "" if precision == INT8 else f"-{precision}"


@dataclass(frozen=True)
class Capabilities:
    """What a runtime can do.

    Attributes:
        tasks: Tasks that it exports.
        runs_here: Whether artifacts run on the machine that builds them; what does not is simulated there.
        timed_here: Whether the time of an artifact on this machine says anything about the device that it is for; an
            Edge TPU's runs here, on a processor that it is not for.
        profiled: Whether its runtime tells what each layer of an artifact costs, see ``Target.layer_times``.
        float_layers: Whether an integer artifact may have layers that compute in float.
        layer_precisions: What other precisions single layers of an integer artifact may have: ``fp16``, ``w8a16``.
        graph: What its graphs can do besides the network; see ``GraphForm.asked``.
        channel_multiple: Pruned layers keep a multiple of so many channels, or they get slower instead of faster.
    """

    tasks: tuple[Task, ...] = (Task.DETECT,)
    runs_here: bool = True
    timed_here: bool = True
    profiled: bool = False
    float_layers: bool = True
    layer_precisions: tuple[str, ...] = ()
    graph: tuple[str, ...] = ()
    channel_multiple: int = 8


@dataclass(frozen=True)
class Device:
    """A device, or a family of devices, that people name instead of the runtime.

    Attributes:
        name: What people call it.
        title: Heading of its bundle's README.
        requires: Libraries that run the model there, the preferred one first; one is enough.
        wheels: Lines of requirements.txt below numpy and OpenCV; the first required library if None.
        guide: Markdown (a Jinja template) of the README's section on starting; the general one if None.
        aliases: Other names for it.
        variant: The target's variant that it takes; its usual one if empty.
    """

    name: str
    title: str
    requires: tuple[Requirement, ...] = ()
    wheels: tuple[str, ...] | None = None
    guide: Path | None = None
    aliases: tuple[str, ...] = ()
    variant: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """All its names."""
        return (self.name, *self.aliases)

    @property
    def requirements(self) -> str:
        """The content of requirements.txt."""
        # One library is enough, so only the preferred one is installed.
        first = (f"{r.package}>={r.minimum}" for r in self.requires[:1])
        own = first if self.wheels is None else self.wheels
        return "\n".join(["numpy", "opencv-python-headless", *own]) + "\n"


@dataclass(frozen=True)
class Preparation:
    """A change of the float model that a target gains from, made before anything is quantized.

    Attributes:
        name: What people ask for.
        help: What it does, in one sentence.
        function: ``module:function`` that does it: ``(model, out, *, data, imgsz, calibration)``, which writes a
            checkpoint and returns something whose ``summary()`` tells people how well it went, line by line.
    """

    name: str
    help: str
    function: str

    def __call__(self, model: Any, out: Path, **options: Any) -> Any:
        """Prepare a checkpoint.

        Args:
            model: Path of a float checkpoint, or a live ``ultralytics.YOLO``.
            out: The checkpoint to write.
            **options: ``data``, ``imgsz``, ``calibration``.

        Raises:
            YoloquantError: What the function raises.
        """
        # Only now: targets are listed without what a preparation imports, torch for one.
        return _imported(self.function)(model, out, **options)


class Target(ABC):
    """A runtime that artifacts are exported to.

    Attributes:
        name: Unique name, as used on the command line.
        extra: The extra that installs what it needs.
        requires: Modules that building needs.
        runs_with: Modules that running the artifact here needs.
        scheme: The rules by which this runtime wants quantization placed.
        suffix: File suffix, or folder suffix, that Ultralytics recognises.
        backend: What runs its artifacts on a device: a module of ``runtime.backends``, or ``package.module:Class`` of
            another distribution, whose module is then copied into bundles and must import the runtime alone.
        devices: Devices that it serves, the usual one first. Every one can have a bundle.
        variants: What can stand behind a colon, each in a few words; the first is what no colon gives. Usually these
            are precisions, of which every target has ``int8`` and ``fp32``.
        preparations: Changes of the float model that it gains from.
        in_all: Whether ``all`` stands for it too; not where only the user knows which hardware it is for.
        box_unit: Unit of the boxes that a drop-in artifact itself returns.
        capabilities: What it can do.
        precision: The precision that this very target writes.
        graph: What this very target's graphs do besides the network.
        store: Where this very target keeps what took long to simulate; None keeps nothing.
    """

    name: ClassVar[str]
    extra: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    runs_with: ClassVar[tuple[str, ...]] = ()
    scheme: ClassVar[Scheme]
    suffix: ClassVar[str]
    backend: ClassVar[str]
    devices: ClassVar[tuple[Device, ...]] = ()
    variants: ClassVar[Mapping[str, str]] = {INT8: "int8 weights and activations", FP32: "the float model"}
    preparations: ClassVar[tuple[Preparation, ...]] = ()
    in_all: ClassVar[bool] = True
    box_unit: ClassVar[str] = "pixels of the input"
    capabilities: ClassVar[Capabilities] = Capabilities()
    # No ClassVar: `variant` sets it on instances.
    precision: str = INT8
    graph: GraphForm = PLAIN
    store: Store | None = None

    @classmethod
    def variant(cls, name: str) -> Target:
        """The target as people ask for it behind a colon, for instance ``uint8`` in ``coral:uint8``.

        Raises:
            UsageError: There is no such variant.
        """
        if name not in cls.variants:
            raise UsageError(f"target '{cls.name}' has no variant '{name}'; allowed are {', '.join(cls.variants)}")
        target = cls()
        # Over the class's own: one class writes every precision of its runtime.
        target.precision = name
        return target

    def with_graph(self, graph: GraphForm) -> Target:
        """The target, writing graphs that do more than the network; see ``registry.with_graph`` for whether it can."""
        self.graph = graph
        return self

    @property
    def wanted(self) -> str:
        """What ``targets.get`` takes to give this very target: its name, and its variant if it is not the usual one."""
        return self.name if self.precision == next(iter(self.variants)) else f"{self.name}:{self.precision}"

    def plan(self, artifact: Artifact) -> Plan | None:
        """What of an artifact's plan this target writes; None if everything stays float.

        Raises:
            PlanError: The artifact has no plan for this target, lacks ranges, or see ``check_layers``.
        """
        if self.precision in FLOAT:
            return None
        plan = artifact.plan_for(self.scheme)
        if self.precision not in WEIGHTS_ALONE:
            self.check_layers(plan)
        # Activations keep no range: the runtime finds them in every image, or multiplies the weights out in float.
        return replace(plan, points=plan.weights) if self.precision in WEIGHTS_ALONE else plan

    def int8_plan(self, artifact: Artifact) -> Plan | None:
        """``plan``, of a runtime whose integers have at most 8 bits.

        Raises:
            PlanError: See ``plan``; or a point has more bits.
        """
        plan = self.plan(artifact)
        # of layers that were given them: whether the target has such was checked by their names
        wide = [p.name for p in plan.points if p.spec.bits > 8] if plan and not plan.wide_layers else []
        if plan and wide:
            raise PlanError(f"{self.name} runs at most 8 bits; plan '{plan.scheme}' has {wide[0]} ({len(wide)} points)")
        return plan

    def check_layers(self, plan: Plan) -> None:
        """Raise PlanError if a plan gives single layers a precision that this target does not compute in."""
        able = (*(("float",) if self.capabilities.float_layers else ()), *self.capabilities.layer_precisions)
        for precision, layers in ((FP16, plan.half_layers), (W8A16, plan.wide_layers)):
            if layers and precision not in able:
                raise PlanError(
                    f"target '{self.name}' computes no single layer in {precision}, and plan '{plan.scheme}' wants it "
                    f"for {', '.join(layers[:_SHOWN])} ({len(layers)} in all); allowed beside int8: "
                    f"{', '.join(able) or 'nothing'}"
                )

    @classmethod
    def missing(cls) -> tuple[str, ...]:
        """Modules that are not installed; importing nothing."""
        return tuple(m for m in (*cls.requires, *cls.runs_with) if importlib.util.find_spec(m) is None)

    @classmethod
    def require(cls) -> None:
        """Raise MissingExtraError unless everything this target needs is installed."""
        # The first is enough to tell: one extra installs them all.
        for module in cls.missing():
            raise MissingExtraError(cls.name, cls.extra, module)

    def require_task(self, task: Task) -> None:
        """Raise TargetError unless it exports models of this task."""
        if task not in self.capabilities.tasks:
            allowed = ", ".join(t.value for t in self.capabilities.tasks)
            raise TargetError(
                f"target '{self.name}' exports {allowed} models, got a {task.value} model; use onnxruntime or openvino "
                "for it"
            )

    def check_graph(self, graph: Graph) -> None:
        """Raise PlanError if the target cannot run what a model is built of; called before anything is calibrated."""
        del graph  # most targets run whatever can be traced

    @abstractmethod
    def check(self, artifact: Artifact) -> None:
        """Raise PlanError or TargetError if the artifact cannot be exported; called before any work starts."""

    @abstractmethod
    def export(self, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
        """Write the artifact in this target's precision into a folder (atomically) and describe it."""

    def tools(self) -> Mapping[str, str]:
        """What decides its files besides the artifact, Python packages and the target itself, in words."""
        return {}

    @abstractmethod
    def export_float(self, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
        """Write the float model for the same runtime, which latency is compared with; ``precision`` is ``fp32``."""

    @abstractmethod
    def read_scales(self, exported: ExportedModel) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """Scale and zero_point of every point as the artifact holds them (int8 convention), by point name."""

    @classmethod
    def device_backend(cls) -> str | type[Backend]:
        """What ``runtime.backends.open_backend`` takes to open an artifact."""
        if ":" not in cls.backend:
            return cls.backend
        found: type[Backend] = _imported(cls.backend)
        return found

    def open(self, exported: ExportedModel, options: BackendOptions) -> Backend:
        """Open an artifact on this machine, as a device does; or what simulates that.

        Raises:
            YoloquantError: See ``open_backend``.
        """
        from ..runtime.backends import open_backend

        return open_backend(self.device_backend(), exported.path, exported.info, options)

    def load(self, exported: ExportedModel, threads: int | None = None) -> Runner:
        """Load an artifact for inference on this machine.

        Raises:
            YoloquantError: See ``open_backend``.
        """
        from ..runtime.backends import BackendOptions

        return self.open(exported, BackendOptions(threads=threads, raw=exported.layout is HeadLayout.RAW))

    def runnable(self, exported: ExportedModel) -> Path | None:
        """The file or folder that ``backend`` opens as it is; None if a device has to build it first."""
        return exported.path

    def add_companions(self, model: Path, artifact: Artifact, exported: ExportedModel) -> tuple[str, ...]:
        """Put other forms of the model beside its copy in a bundle, which the device chooses from by its hardware.

        Args:
            model: The copy, in the folder ``model`` of the bundle.
            artifact: What was exported.
            exported: What this target exported.

        Returns:
            Remarks for people.

        Raises:
            TargetError: A form cannot be made.
        """
        return ()

    def layer_times(
        self, exported: ExportedModel, image: np.ndarray, threads: int | None = None
    ) -> Mapping[str, float]:
        """Milliseconds of every layer of an artifact, where the runtime can tell (``Capabilities.profiled``).

        Args:
            exported: An artifact of this target, in float or integers.
            image: float32 NCHW (1, channels, height, width).
            threads: Threads of one inference; None uses every core.

        Returns:
            By the name of the layer's weight; what quantizes and dequantizes its result counts with it. Empty where the
            runtime has no profiler that Python reaches.
        """
        return {}


def _imported(name: str) -> Any:
    """What ``module:attribute`` stands for."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
