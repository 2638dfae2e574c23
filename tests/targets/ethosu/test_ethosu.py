"""Ethos-U: named accelerators, what Vela says of a network, and the refusal of what stays on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from core_models import tiny_artifact

from yoloquant import targets
from yoloquant.errors import TargetError, UsageError
from yoloquant.targets.ethosu.accelerators import ACCELERATORS, Accelerator, accelerator
from yoloquant.targets.ethosu.target import EthosUTarget, compiled_path
from yoloquant.targets.ethosu.vela import compile_for
from yoloquant.targets.litert.flatbuffer import Flatbuffer
from yoloquant.targets.litert.metadata import read
from yoloquant.types import ExportedModel, HeadLayout


def test_accelerators_have_the_names_that_people_use() -> None:
    assert accelerator("Ethos-U55-128") is accelerator("u55_128") is ACCELERATORS["u55-128"]
    with pytest.raises(UsageError, match="no Ethos-U accelerator 'u55-129'; did you mean 'u55-128'"):
        accelerator("u55-129")
    with pytest.raises(UsageError, match=rf"\? Allowed are {', '.join(ACCELERATORS)}$"):
        accelerator("u55-129")
    with pytest.raises(UsageError, match=r"allowed are u85-512, .*u55-256"):
        accelerator("coral")


@pytest.mark.parametrize(
    ("name", "chosen", "wanted"),
    [
        ("ethosu", "u85-512", "ethosu"),
        ("ethosu:u55-128", "u55-128", "ethosu:u55-128"),
        ("imx93", "u65-256", "ethosu:u65-256"),
        ("ethos-u:u55-32", "u55-32", "ethosu:u55-32"),
    ],
)
def test_a_variant_is_an_accelerator(name: str, chosen: str, wanted: str) -> None:
    found = targets.get(name)
    assert isinstance(found, EthosUTarget) and found.accelerator.name == chosen
    assert found.wanted == wanted == targets.get(wanted).wanted


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    target = targets.get("ethosu:u55-128")
    if target.missing():
        pytest.skip(f"target 'ethosu' needs {', '.join(target.missing())}, not installed here")
    return target.export(tiny_artifact(), tmp_path_factory.mktemp("ethosu"), "tiny")


@pytest.mark.slow
def test_every_operator_is_on_the_npu(exported: ExportedModel) -> None:
    assert exported.path.name == "tiny-ethosu-u55-128.tflite" and exported.layout is HeadLayout.RAW
    facts = exported.metadata["ethosu"]
    _, plain = read(exported.path)
    _, compiled = read(compiled_path(exported.path))
    assert facts["operators"] == len(Flatbuffer(plain).ops) > 20 and facts["on_cpu"] == []
    assert {op.kind for op in Flatbuffer(compiled).ops} == {"CUSTOM"}
    assert facts["sram_kib"] > 0 and facts["cycles"] > 1000 and facts["dram_kib"] == 0
    assert any(f"{facts['operators']} of {facts['operators']} operators run on" in note for note in exported.notes)


@dataclass(frozen=True)
class Without(Accelerator):
    """An accelerator that lacks an operator."""

    @property
    def arguments(self) -> list[str]:
        return [*super().arguments, "--ignore-ops", "MAX_POOL_2D"]


@pytest.mark.slow
def test_what_stays_on_the_cpu_is_refused_by_name(
    exported: ExportedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = ACCELERATORS["u55-128"]
    lacking = Without(known.name, known.system, known.memory)
    with pytest.raises(TargetError, match=r"3 operators stay on the CPU of an Ethos-U55-128: MAX_POOL_2D \("):
        compile_for(lacking, read(exported.path)[1])
    with pytest.raises(TargetError, match="stay on the CPU"):
        EthosUTarget(lacking).export(tiny_artifact(), tmp_path, "tiny")
    assert list(tmp_path.iterdir()) == [], "nothing is left of what was refused"


def test_a_file_that_is_no_network_is_said(tmp_path: Path) -> None:
    pytest.importorskip("ethosu")
    with pytest.raises(TargetError, match="Vela could not compile the network"):
        compile_for(ACCELERATORS["u55-128"], b"nothing of the kind")
