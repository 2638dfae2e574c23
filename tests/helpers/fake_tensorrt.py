"""Stand-ins for the Python module of four TensorRT releases, with the attributes that each has and lacks.

Sources, beside which every class below is written:

- 8.4: TensorRT 8.4.3 Python API documentation (docs.nvidia.com, archives/tensorrt-843): bindings by index,
  ``execute_async_v2``; no tensor names (those came with 8.5), no builder optimisation level.
- 8.5: ``python/src/infer/pyCore.cpp`` of github.com/NVIDIA/TensorRT at 8.5: both APIs; no
  ``builder_optimization_level`` (came with 8.6); ``ParserError`` without ``node_name``.
- 10.3: ``pyCore.cpp`` at 10: ``EXPLICIT_BATCH`` is still a (deprecated) member, bindings are gone (NVIDIA, migration
  guide 8.x to 10.x, removed Python APIs), calibrators are deprecated but there.
- 11.0: NVIDIA, migration guide 10.x to 11.x, removed Python APIs: no ``BuilderFlag.INT8`` and ``FP16``, no
  ``int8_calibrator``, no ``platform_has_fast_int8``; ``STRONGLY_TYPED`` is ignored. The inspector calls data types
  ``Datatype`` there, as TensorRT-RTX 1.7.1 does in its build log.

Like the real classes, an object here has no attribute beyond its list: reading or setting another raises
AttributeError. "Building" parses the ONNX file with the onnx package and writes its layers as JSON into the plan, in
the form the inspector of that release has. What a real builder refuses is refused: unknown flags, a DLA without
calibration cache of the right release, Q/DQ on a DLA.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import onnx

MAGIC = b"fake-plan\0"


class Severity(enum.Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class Strict:
    """Refuses attributes that are not named, as pybind11 classes without ``dynamic_attr`` do."""

    _allowed: frozenset[str] = frozenset()

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in self._allowed:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        object.__setattr__(self, name, value)


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        self.ready = True  # the real one crashes if a subclass forgets to call this


class Tensor(Strict):
    _allowed = frozenset({"name", "shape", "dtype"})

    def __init__(self, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        self.name, self.shape, self.dtype = name, shape, dtype


class NetworkLayer(Strict):
    _allowed = frozenset({"name", "type"})

    def __init__(self, name: str, kind: Any) -> None:
        self.name, self.type = name, kind


class Network(Strict):
    _allowed = frozenset({"num_inputs", "num_layers", "num_outputs"})

    def __init__(self, release: Release, flags: int) -> None:
        self._release, self._flags, self._model = release, flags, None
        self.num_inputs = self.num_layers = self.num_outputs = 0

    def get_input(self, index: int) -> Tensor:
        value = self._model.graph.input[index]
        dims = value.type.tensor_type.shape.dim
        shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dims)
        return Tensor(value.name, shape, self._release.module.DataType.FLOAT)

    def get_layer(self, index: int) -> NetworkLayer:
        node = self._model.graph.node[index]
        return NetworkLayer(node.name, self._release.module.LayerType[node.op_type.upper()])


class ParserError:
    def __init__(self, node: int, text: str) -> None:
        self._node, self._text = node, text

    def node(self) -> int:
        return self._node

    def desc(self) -> str:
        return self._text


class NamedParserError(ParserError):
    def node_name(self) -> str:
        return f"node_{self._node}"

    def node_operator(self) -> str:
        return "Odd"


class OnnxParser(Strict):
    _allowed = frozenset({"num_errors"})

    def __init__(self, network: Network, logger: ILogger) -> None:
        self._network, self._logger = network, logger
        self._errors: list[ParserError] = []
        self.num_errors = 0

    def parse_from_file(self, path: str) -> bool:
        release = self._network._release
        model = onnx.load(path)
        if release.version < (10,) and not self._network._flags & 1 << release.explicit_batch:
            self._errors.append(release.error(0, "network must have an explicit batch dimension"))
        for index, node in enumerate(model.graph.node):
            if node.op_type == "QLinearConv":
                self._errors.append(release.error(index, "QLinearConv is not supported"))
        self.num_errors = len(self._errors)
        if self._errors:
            return False
        self._network._model = model
        self._network.num_inputs = len(model.graph.input)
        self._network.num_layers = len(model.graph.node)
        self._network.num_outputs = len(model.graph.output)
        return True

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]


class TimingCache:
    def __init__(self, entries: bytes) -> None:
        self.entries = entries

    def serialize(self) -> bytes:
        return self.entries


class Config(Strict):
    def __init__(self, release: Release) -> None:
        self._release = release
        self._allowed = release.config_fields  # type: ignore[misc]
        self._flags: set[str] = set()
        self._pools: dict[str, int] = {}
        self._cache: TimingCache | None = None
        self.profiling_verbosity = release.module.ProfilingVerbosity.LAYER_NAMES_ONLY
        for name, value in (("int8_calibrator", None), ("builder_optimization_level", 3)):
            if name in self._allowed:
                setattr(self, name, value)

    def set_flag(self, flag: Any) -> None:
        self._release.module.BuilderFlag(flag)  # another enum's member is a TypeError in pybind11
        self._flags.add(flag.name)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        if not isinstance(size, int):
            raise TypeError("incompatible function arguments")
        self._pools[pool.name] = size

    def create_timing_cache(self, blob: bytes) -> TimingCache:
        if blob and not blob.startswith(b"timings"):
            raise RuntimeError("the cache is corrupt")
        return TimingCache(blob)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        fits = ignore_mismatch or not cache.entries or cache.entries.endswith(self._release.name.encode())
        self._cache = cache if fits else None
        return fits

    def get_timing_cache(self) -> TimingCache | None:
        return self._cache

    def can_run_on_DLA(self, layer: NetworkLayer) -> bool:
        return layer.type.name in {"CONV", "SIGMOID", "MUL", "ADD", "CONCAT", "MAXPOOL", "RESIZE"}


class Builder(Strict):
    _allowed = frozenset({"num_DLA_cores"})

    def __init__(self, logger: ILogger) -> None:
        assert logger.ready
        self._logger = logger
        self._release.builders.append(self)
        self.num_DLA_cores = self._release.dla_cores

    _release: Release

    def create_network(self, flags: int = 0) -> Network:
        return Network(self._release, flags)

    def create_builder_config(self) -> Config:
        self._config = Config(self._release)
        return self._config

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        release, model = self._release, network._model
        release.built_with.append((network, config))
        if config._cache is not None:
            config._cache.entries = b"timings of " + release.name.encode()
        dla = getattr(config, "default_device_type", None) is not None
        if dla and not self._dla_can(config, model):
            return None
        typed = not hasattr(release.module.BuilderFlag, "INT8")
        int8 = typed or "INT8" in config._flags
        detailed = config.profiling_verbosity is release.module.ProfilingVerbosity.DETAILED
        layers = [release.layer(model, n, int8) for n in model.graph.node if n.op_type == "Conv"]
        if dla:
            self._logger.log(Severity.INFO, "---------- Layers Running on DLA ----------")
            self._logger.log(Severity.INFO, "[DlaLayer] {ForeignNode[stem...last]}")
            self._logger.log(Severity.INFO, "[GpuLayer] SOFTMAX: node_softmax")
        io = {
            "inputs": {i.name: _shape(i) for i in model.graph.input},
            "outputs": {o.name: _shape(o) for o in model.graph.output},
        }
        plan = {"release": release.name, "layers": layers if detailed else [x["Name"] for x in layers], **io}
        return MAGIC + json.dumps(plan).encode()

    def _dla_can(self, config: Config, model: onnx.ModelProto) -> bool:
        cache = config.int8_calibrator.read_calibration_cache()
        head = cache.split(b"\n")[0].decode()
        if any(n.op_type == "QuantizeLinear" for n in model.graph.node):
            self._logger.log(Severity.ERROR, "Q/DQ layers are not supported on DLA")
            return False
        if head != f"TRT-{self._release.tag}-EntropyCalibration2":
            self._logger.log(Severity.ERROR, "Calibration table does not match calibrator algorithm type")
            if config.int8_calibrator.get_batch(["images"]) is None:
                self._logger.log(Severity.ERROR, "Tensor images is bound to nullptr")
                return False
        return True


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [d.dim_value for d in value.type.tensor_type.shape.dim]


class Inspector:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get_engine_information(self, form: Any) -> str:
        assert form.name == "JSON"
        return json.dumps({"Layers": self._engine._plan["layers"], self._engine._release.io_key: []})


class Context(Strict):
    def __init__(self, engine: Engine) -> None:
        self._engine, self._addresses = engine, {}
        for name in engine._release.context_methods:
            setattr(self, f"_{name}", getattr(self, f"_do_{name}"))

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name in self._engine._release.context_methods:
            return self.__dict__[f"_{name}"]
        raise AttributeError(name)

    def _do_set_tensor_address(self, name: str, memory: int) -> bool:
        assert isinstance(memory, int)
        self._addresses[name] = memory
        return name in self._engine._names()

    def _do_execute_async_v3(self, stream_handle: int) -> bool:
        return self._engine._release.execute(self._engine, dict(self._addresses), stream_handle)

    def _do_execute_async_v2(self, bindings: list[int], stream_handle: int) -> bool:
        addresses = dict(zip(self._engine._names(), bindings, strict=True))
        return self._engine._release.execute(self._engine, addresses, stream_handle)


class Engine(Strict):
    def __init__(self, release: Release, plan: dict[str, Any]) -> None:
        self._release, self._plan = release, plan

    def _names(self) -> list[str]:
        return [*self._plan["inputs"], *self._plan["outputs"]]

    def _of(self, name: str) -> list[int]:
        return {**self._plan["inputs"], **self._plan["outputs"]}[name]

    def create_engine_inspector(self) -> Inspector:
        return Inspector(self)

    def create_execution_context(self) -> Context:
        return Context(self)


class BoundEngine(Engine):
    """The API by binding indices, removed in 10."""

    @property
    def num_bindings(self) -> int:
        return len(self._names())

    def get_binding_name(self, index: int) -> str:
        return self._names()[index]

    def get_binding_shape(self, index: int) -> tuple[int, ...]:
        return tuple(self._of(self._names()[index]))

    def get_binding_dtype(self, index: int) -> Any:
        return self._release.module.DataType.FLOAT

    def binding_is_input(self, index: int) -> bool:
        return self._names()[index] in self._plan["inputs"]


class NamedEngine(Engine):
    """The API by tensor names, new in 8.5."""

    @property
    def num_io_tensors(self) -> int:
        return len(self._names())

    def get_tensor_name(self, index: int) -> str:
        return self._names()[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._of(name))

    def get_tensor_dtype(self, name: str) -> Any:
        return self._release.module.DataType.FLOAT

    def get_tensor_mode(self, name: str) -> Any:
        modes = self._release.module.TensorIOMode
        return modes.INPUT if name in self._plan["inputs"] else modes.OUTPUT


class BothEngine(BoundEngine, NamedEngine):
    """8.5 to 9."""


class Runtime(Strict):
    _allowed = frozenset({"DLA_core"})
    _release: Release

    def __init__(self, logger: ILogger) -> None:
        assert logger.ready
        self._logger = logger
        self._release.runtimes.append(self)

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        data = json.loads(plan[len(MAGIC) :]) if plan.startswith(MAGIC) else {}
        if data.get("release") != self._release.name:
            self._logger.log(Severity.ERROR, "The engine plan file is not compatible with this version of TensorRT")
            return None
        return self._release.engine(self._release, data)


class Release:
    """One release: its module, and what was done with it.

    Attributes:
        module: What ``import tensorrt`` would give.
        builders: Every Builder that was made.
        built_with: Network and config of every build.
        runtimes: Every Runtime that was made.
        executed: Addresses and stream of every inference.
        queue: The stream; an inference happens when the device empties it.
        compute: What an inference does: engine, input array by name -> output array by name.
        float_layers: Nodes that the builder runs in another type than Int8.
        layer_edit: Changes the inspector's entry of a layer.
        dla_cores: How many DLAs the device has.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.version = tuple(map(int, name.split(".")))
        self.tag = {"8.4.1": "8401", "8.5.2": "8502", "8.6.1": "8601", "10.3.0": "100300"}.get(name, "")
        self.builders: list[Builder] = []
        self.built_with: list[tuple[Network, Config]] = []
        self.runtimes: list[Runtime] = []
        self.executed: list[tuple[dict[str, int], int]] = []
        self.float_layers: set[str] = set()
        self.layer_edit: Callable[[dict[str, Any]], dict[str, Any]] = lambda entry: entry
        self.dla_cores = 2
        self.memory: dict[int, np.ndarray] = {}
        self.queue: list[Callable[[], None]] = []
        self.compute: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None
        self.named_errors = self.version >= (8, 6)
        self.io_key = "I/O Tensors" if self.version >= (11,) else "Bindings"
        self.engine = BoundEngine if self.version < (8, 5) else BothEngine if self.version < (10,) else NamedEngine
        self.context_methods = {"set_tensor_address", "execute_async_v3"} if self.version >= (8, 5) else set()
        if self.version < (10,):
            self.context_methods.add("execute_async_v2")
        fields = {"profiling_verbosity", "default_device_type", "DLA_core"}
        if self.version >= (8, 6):
            fields.add("builder_optimization_level")
        if self.version < (11,):
            fields.add("int8_calibrator")
        self.config_fields = frozenset(fields)
        self.module = self._module()
        flags = self.module.NetworkDefinitionCreationFlag
        self.explicit_batch = int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else -1

    def error(self, node: int, text: str) -> ParserError:
        return (NamedParserError if self.named_errors else ParserError)(node, text)

    def execute(self, engine: Engine, addresses: dict[str, int], stream: int) -> bool:
        self.executed.append((addresses, stream))
        if self.compute is None:
            return False
        self.queue.append(lambda: self._run(engine, addresses))
        return True

    def _run(self, engine: Engine, addresses: dict[str, int]) -> None:
        assert self.compute is not None
        results = self.compute({name: self.memory[addresses[name]] for name in engine._plan["inputs"]})
        for name, value in results.items():
            self.memory[addresses[name]][...] = value

    def layer(self, model: onnx.ModelProto, node: onnx.NodeProto, int8: bool) -> dict[str, Any]:
        made = {o: n for n in model.graph.node for o in n.output}
        quantized = all(made.get(i) is not None and _on_grid(made, i) for i in node.input[:2])
        kind = "Int8" if int8 and quantized and node.name not in self.float_layers else "Float"
        words = {"Int8": "Thirty-two wide channel vectorized row major Int8 format", "Float": "Row major linear FP32"}
        if self.version >= (11,):
            entry = {
                "Name": f"{node.name}_myl0_1",
                "LayerType": "correlation",
                "Inputs": [{"Name": node.input[0], "Datatype": kind, "Format": "(NHWC) Channel major format"}],
                "Constants": [{"Name": "c", "Datatype": kind}, {"Name": "b", "Datatype": "Float"}],
                "Outputs": [{"Name": node.output[0], "Datatype": "Float"}],
                "Metadata": f"[ONNX Layer: {node.name}]\x1f[ONNX Layer: somebody_else]",
            }
        else:
            entry = {
                "Name": f"{node.name}.weight + {node.name}:weight/quantize + {node.name} + PWN(PWN(sigmoid), mul)",
                "LayerType": "CaskConvolution",
                "Inputs": [{"Name": node.input[0], "Location": "Device", "Format/Datatype": words[kind]}],
                "Outputs": [{"Name": node.output[0], "Location": "Device", "Format/Datatype": words[kind]}],
                "ParameterType": "Convolution",
                "Weights": {"Type": kind, "Count": 64},
                "Bias": {"Type": "Float", "Count": 8},
                "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32" if kind == "Int8" else "sm80_f32",
            }
        return self.layer_edit(entry)

    def _module(self) -> ModuleType:
        module = ModuleType("tensorrt")
        new = self.version
        flags = ["DEBUG", "GPU_FALLBACK", "REFIT", "TF32", "SPARSE_WEIGHTS"]
        if new < (11,):
            flags += ["FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"]
        network = ["EXPLICIT_BATCH"] if new < (11,) else []
        if new >= (10,):
            network.append("STRONGLY_TYPED")
        module.__version__ = f"{self.name}.1" if new >= (10,) else f"{self.name}.2"
        self.name = module.__version__
        module.ILogger = ILogger
        module.BuilderFlag = enum.Enum("BuilderFlag", flags)
        module.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", network, start=0)
        module.MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE", "DLA_MANAGED_SRAM"])
        module.DeviceType = enum.Enum("DeviceType", ["GPU", "DLA"])
        module.ProfilingVerbosity = enum.Enum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "DETAILED", "NONE"])
        module.LayerInformationFormat = enum.Enum("LayerInformationFormat", ["ONELINE", "JSON"])
        module.DataType = enum.Enum("DataType", ["FLOAT", "HALF", "INT8"])
        module.LayerType = _AnyMember()
        module.nptype = _nptype if new >= (8, 6) else _nptype_of_old_numpy
        if new >= (8, 5):
            module.TensorIOMode = enum.Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
        if new < (11,):
            module.IInt8EntropyCalibrator2 = type("IInt8EntropyCalibrator2", (), {"__init__": lambda self: None})
        for base in (Builder, Runtime):
            setattr(module, base.__name__, type(base.__name__, (base,), {"_release": self}))
        module.OnnxParser = OnnxParser
        return module


def _nptype(kind: Any) -> Any:
    return {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8}[kind.name]


def _nptype_of_old_numpy(kind: Any) -> Any:
    raise AttributeError("module 'numpy' has no attribute 'bool'")  # what it says with numpy 1.24


class _AnyMember:
    """``LayerType`` by operator; the real enum has names of its own."""

    def __getitem__(self, name: str) -> Any:
        return enum.Enum("LayerType", [name])[name]


def _on_grid(made: dict[str, onnx.NodeProto], name: str) -> bool:
    """Whether a tensor comes from a DequantizeLinear, perhaps cast or moved."""
    node = made.get(name)
    while node is not None and node.op_type in {"Cast", "Split", "Reshape", "MaxPool", "Concat", "Resize", "Slice"}:
        node = made.get(node.input[0])
    return node is not None and node.op_type == "DequantizeLinear"


RELEASES = ("8.4.1", "8.5.2", "8.6.1", "10.3.0", "11.0.0")
