"""The build code with a real parser and builder: TensorRT-RTX, which compiles on a CPU and is strongly typed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from device_fakes import PLANNED

from yoloquant.runtime.tensorrt import layers
from yoloquant.runtime.tensorrt.build_options import Sources

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX (module tensorrt_rtx) is not installed"
)

SCRIPT = """
import json, logging, sys
from pathlib import Path
import tensorrt_rtx
from yoloquant.runtime.errors import TargetError
from yoloquant.runtime.tensorrt import api, compile as compiling
from yoloquant.runtime.tensorrt.build_options import BuildOptions
from yoloquant.runtime.tensorrt.layers import parse_log

lines = []
class Keep(logging.Handler):
    def emit(self, record):
        lines.extend(record.getMessage().splitlines())
log = logging.getLogger("yoloquant.runtime.tensorrt.api")
log.setLevel(logging.DEBUG)
log.addHandler(Keep())
model, options = Path(sys.argv[1]), BuildOptions(**json.loads(sys.argv[2]))
release = api.of(tensorrt_rtx)
result = {"strongly_typed": release.strongly_typed, "version": release.version}
try:
    compiled = compiling.compile_plan(release, model, options, Path("none"))
    result.update(plan=len(compiled.plan), layers=[vars(x) for x in parse_log(lines)])
except TargetError as exc:
    result["error"] = str(exc)
print("RESULT" + json.dumps(result))
"""


def _compile(model: Path, **options: Any) -> dict[str, Any]:
    """In a process of its own: a model can kill the compiler."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(model), json.dumps(options)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[3],
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.partition("RESULT")[2])
    return found


def _report(result: dict[str, Any]) -> layers.Int8Report:
    """What became of the planned layers, by the builder's list of layers."""
    told = [{k: tuple(v) if isinstance(v, list) else v for k, v in layer.items()} for layer in result["layers"]]
    return layers.check((layers.Layer(**layer) for layer in told), PLANNED)


@pytest.mark.parametrize("kind", ["onnx", "strongly_typed"])
def test_planned_convolutions_run_in_int8(kind: str, sources: Sources) -> None:
    result = _compile(getattr(sources, kind))
    assert result["strongly_typed"] and result["plan"] > 1000
    assert _report(result).int8 == PLANNED


def test_plain_model_compiles_and_nothing_in_it_is_int8(sources: Sources) -> None:
    result = _compile(sources.plain)
    assert result["plan"] > 1000 and _report(result).other == PLANNED


def test_options_reach_the_builder(sources: Sources) -> None:
    assert _compile(sources.strongly_typed, workspace=1, sparse=True, level=2)["plan"] > 1000


def test_parsers_words_are_quoted(sources: Sources) -> None:
    model = onnx.load(sources.onnx)
    zero = next(i for i in model.graph.initializer if i.name == "last:in/zero_point")
    zero.raw_data = b"\x05"
    onnx.save(model, sources.onnx)
    error = _compile(sources.onnx)["error"]
    assert "cannot parse" in error and "last:in/quantize" in error
