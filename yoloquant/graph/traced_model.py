"""A model with its canonical graph: what plans, sensitivity and pruning start from before anything is quantized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..bridge.exportable import exportable
from ..bridge.host_model import HostModel, model_info
from ..types import ModelInfo
from .trace import Graph, trace


@dataclass(frozen=True)
class TracedModel:
    """A float model at one input size.

    Attributes:
        model: The float model as Ultralytics holds it.
        info: What a runtime must know about it at this input size.
    """

    model: HostModel
    info: ModelInfo

    @classmethod
    def of(cls, model: HostModel, imgsz: int | Sequence[int] | None = None) -> TracedModel:
        """Describe a model at an input size.

        Args:
            model: The float model.
            imgsz: Input size in pixels, see ``HostModel.resolve_imgsz``.

        Raises:
            UsageError: The model does not take this size.
        """
        # the size is checked before anything is traced: a trace takes seconds
        return cls(model, model_info(model, model.resolve_imgsz(imgsz)))

    @cached_property
    def graph(self) -> Graph:
        """The canonical graph; traced on first use, because most readers of a checkpoint never need it."""
        return trace(exportable(self.model, self.info), self.info)

    def __getstate__(self) -> dict[str, object]:
        """What another process needs; the graph is traced there: nodes that fx reads back have other names."""
        return {"model": self.model, "info": self.info}

    def described_as(self, model: HostModel) -> TracedModel:
        """Name another origin for the same network; the trace is kept, since the weights are the same."""
        other = replace(self, model=model)
        if "graph" in self.__dict__:  # how functools stores a cached property
            other.__dict__["graph"] = self.graph
        return other
