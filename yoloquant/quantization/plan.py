"""The quantization plan: which tensors are quantized, how, with which range, and why.

A plan is plain frozen data. It is derived from a graph and a scheme before anything is quantized, can be printed,
saved and compared, and is the one thing that calibration, training and every export share.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from functools import cached_property
from typing import Any

from ..errors import PlanError
from .qparams import QParams, QuantSpec

PLAN_VERSION = 1
_CHOSEN = {
    "float_layers": "left in float",
    "half_layers": "of these in float16",
    "wide_layers": "activations of 16 bits",
}
"""Layers whose precision somebody chose, by the attribute that names them."""


class PointKind(str, Enum):
    """What a point quantizes."""

    WEIGHT = "weight"
    ACTIVATION = "activation"


class Role(str, Enum):
    """What a tensor is in the network; calibration algorithms are chosen per role."""

    WEIGHT = "weight"
    INPUT = "input"
    PRE_ACTIVATION = "pre_activation"  # a convolution's result before its SiLU
    UNIT = "unit"  # sigmoid and softmax results
    ACTIVATION = "activation"  # after a non-linearity
    LINEAR = "linear"  # a convolution's result that has no non-linearity
    ADD = "add"
    CONCAT = "concat"
    MATMUL = "matmul"
    SCORE = "score"  # raw class scores of a head, before their sigmoid
    HEAD = "head"  # other raw head outputs: boxes, masks, keypoints, angles
    OTHER = "other"


@dataclass(frozen=True)
class Site:
    """A place in the graph where a point's quantize-dequantize pair stands.

    Attributes:
        tensor: Operation whose result is quantized here.
        consumers: Operations that read the quantized value; empty for all of them.
    """

    tensor: str
    consumers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """One quantization point.

    Attributes:
        name: Stable name: ``module.path:operation:index`` of the tensor, or ``module.path:weight`` of a parameter.
        kind: Weight or activation.
        role: What the tensor is.
        spec: Representation.
        sites: Where it applies; empty for weights.
        tie: Name of the group with shared qparams; empty if it stands alone.
        fixed: Whether its range is prescribed rather than calibrated or learned.
        reason: Why the scheme wants it.
        params: Its range; None until calibrated.
        algorithm: What found the range: ``fixed``, ``mse``, ``minmax``, ``learned`` ...
    """

    name: str
    kind: PointKind
    role: Role
    spec: QuantSpec
    sites: tuple[Site, ...] = ()
    tie: str = ""
    fixed: bool = False
    reason: str = ""
    params: QParams | None = None
    algorithm: str = ""

    @property
    def grid(self) -> Hashable:
        """What its integers stand for: representation and range; the points of two plans may have the same."""
        return self.spec, None if self.params is None else (
            self.params.scale.tobytes(),
            self.params.zero_point.tobytes(),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and checkpoints."""
        # not dataclasses.asdict, which copies every text: a job writes thousands of points, again and again
        data = _fields(self)
        data["kind"], data["role"] = self.kind.value, self.role.value
        data["spec"], data["sites"] = _fields(self.spec), [_fields(site) for site in self.sites]
        data["params"] = self.params.to_dict() if self.params else None
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Point:
        """Inverse of to_dict."""
        values = dict(data)
        values["kind"], values["role"] = PointKind(values["kind"]), Role(values["role"])
        values["spec"] = QuantSpec(**values["spec"])
        values["sites"] = tuple(Site(s["tensor"], tuple(s["consumers"])) for s in values["sites"])
        values["params"] = QParams.from_dict(values["params"]) if values["params"] else None
        return cls(**values)


@dataclass(frozen=True)
class Plan:
    """A complete list of quantization points.

    Attributes:
        scheme: Name of the scheme that it follows.
        imgsz: Input height and width of the traced graph.
        points: Weights and activations in execution order.
        notes: What a person should know, for instance which layers stay float and why.
        float_layers: Layers that somebody left in float although the scheme would quantize them.
        half_layers: Those of them that are to compute in float16.
        wide_layers: Layers that somebody gave activations of 16 bits.
    """

    scheme: str
    imgsz: tuple[int, int]
    points: tuple[Point, ...]
    notes: tuple[str, ...] = field(default=())
    float_layers: tuple[str, ...] = ()
    half_layers: tuple[str, ...] = ()
    wide_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # everything finds points by name, and a second one would be lost in silence
        if len({p.name for p in self.points}) != len(self.points):
            raise PlanError(f"plan '{self.scheme}' names a point twice")

    @cached_property
    def by_name(self) -> dict[str, Point]:
        """Points by name."""
        return {p.name: p for p in self.points}

    @property
    def weights(self) -> tuple[Point, ...]:
        """Weight points."""
        return tuple(p for p in self.points if p.kind is PointKind.WEIGHT)

    @property
    def activations(self) -> tuple[Point, ...]:
        """Activation points."""
        return tuple(p for p in self.points if p.kind is PointKind.ACTIVATION)

    @property
    def calibrated(self) -> bool:
        """Whether every point has its range."""
        return all(p.params is not None for p in self.points)

    def groups(self) -> dict[str, tuple[Point, ...]]:
        """Activation points by the range they share: a tie's name, or the point's own."""
        groups: dict[str, list[Point]] = {}
        for point in self.activations:
            # names of ties and of points cannot meet: a tie is called by one of its own members
            groups.setdefault(point.tie or point.name, []).append(point)
        return {name: tuple(members) for name, members in groups.items()}

    def with_params(self, params: Mapping[str, QParams], algorithm: str | Mapping[str, str] = "") -> Plan:
        """A copy in which the named points have these ranges; unknown names are an error."""
        unknown = sorted(set(params) - set(self.by_name))
        if unknown:
            raise PlanError(f"plan '{self.scheme}' has no point {unknown[0]} ({len(unknown)} unknown names)")
        named = algorithm if isinstance(algorithm, str) else None
        points = tuple(
            replace(p, params=params[p.name], algorithm=algorithm[p.name] if named is None else named)  # type: ignore[index]
            if p.name in params
            else p
            for p in self.points
        )
        return replace(self, points=points)

    def with_specs(self, choose: Callable[[Point], QuantSpec]) -> Plan:
        """A copy in which every point without a range has the representation that ``choose`` returns for it."""
        return replace(
            self, points=tuple(p if p.params is not None else replace(p, spec=choose(p)) for p in self.points)
        )

    @property
    def computed(self) -> Hashable:
        """What decides the results of a simulation; plans that share it give the same, bit for bit."""
        return frozenset((p.name, p.grid, _rounding(p)) for p in self.points)

    def require_calibrated(self) -> None:
        """Raise PlanError if a point still lacks its range."""
        missing = [p.name for p in self.points if p.params is None]
        if missing:
            raise PlanError(
                f"{len(missing)} points of plan '{self.scheme}' have no range, first {missing[0]}; calibrate"
            )

    def digest(self) -> str:
        """SHA-256 of the plan's content."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and checkpoints."""
        data = {
            "version": PLAN_VERSION,
            "scheme": self.scheme,
            "imgsz": list(self.imgsz),
            "notes": list(self.notes),
            "points": [p.to_dict() for p in self.points],
        }
        # absent where nobody chose, so that plans of earlier releases keep their digest
        return data | {name: list(layers) for name in _CHOSEN if (layers := getattr(self, name))}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """Inverse of to_dict.

        Raises:
            PlanError: The data is of another version or damaged.
        """
        try:
            if data["version"] != PLAN_VERSION:
                raise PlanError(f"plan version {data['version']} is not supported; this release reads {PLAN_VERSION}")
            points = tuple(Point.from_dict(p) for p in data["points"])
            height, width = data["imgsz"]
            chosen = {key: tuple(str(name) for name in data.get(key, ())) for key in _CHOSEN}
            # checkpoints are untrusted: every value is converted, so that damage shows here and not in an export
            return cls(str(data["scheme"]), (int(height), int(width)), points, tuple(data["notes"]), **chosen)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
            raise PlanError(f"this is not a quantization plan: {exc!r}") from exc

    def to_json(self) -> str:
        """The plan as JSON; float32 ranges survive exactly."""
        # a float32 written as the shortest Python float reads back as the same float32
        return json.dumps(self.to_dict(), separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Inverse of to_json."""
        try:
            return cls.from_dict(json.loads(text))
        except (json.JSONDecodeError, RecursionError) as exc:
            raise PlanError(f"this is not a quantization plan: {exc}") from exc

    def __str__(self) -> str:
        head = f"plan '{self.scheme}' at {self.imgsz[0]}x{self.imgsz[1]}: "
        head += f"{len(self.weights)} weight and {len(self.activations)} activation points"
        rows = [_row(p) for p in self.points]
        chosen = [f"{text}: {', '.join(layers)}" for key, text in _CHOSEN.items() if (layers := getattr(self, key))]
        return "\n".join([head, *rows, *chosen, *(f"note: {n}" for n in self.notes)])


def _fields(value: Point | QuantSpec | Site) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _row(point: Point) -> str:
    spec = point.spec
    kind = f"{'w' if point.kind is PointKind.WEIGHT else 'a'}{spec.bits}"
    shape = "per channel" if spec.axis is not None else "per tensor"
    how = "symmetric" if spec.symmetric else "affine"
    if point.params is None:
        span = "not calibrated"
    elif point.params.scale.ndim:
        scales = point.params.scale
        span = f"scale {scales.min():.3g}..{scales.max():.3g}"
    else:
        low, high = point.params.range(spec)
        span = f"[{float(low):.4g}, {float(high):.4g}]"
    tie = f" tied {point.tie}" if point.tie else ""
    return f"  {point.name:<44} {kind} {how:<9} {shape:<11} {point.role.value:<14} {span:<24}{tie}  # {point.reason}"


def ties(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Union-find over pairs of points that must share a range.

    Args:
        pairs: Names of two points each.

    Returns:
        For every named point the name of its group, which is its alphabetically first member.
    """
    parent: dict[str, str] = {}

    def find(x: str) -> str:
        parent.setdefault(x, x)
        while parent[x] != x:
            # path halving
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x

    for a, b in pairs:
        # the smaller name stands for a group whatever the order of pairs: plans of one model compare equal
        ra, rb = sorted((find(a), find(b)))
        parent[rb] = ra
    return {x: find(x) for x in parent}


def _rounding(point: Point) -> tuple[Site, ...]:
    """A point's sites without those that change nothing: behind a move of what is on the same grid for all readers."""
    everywhere = Site(point.name)
    return (everywhere,) if everywhere in point.sites and point.spec.axis is None else point.sites
