"""Reading what the Edge TPU compiler prints. The texts follow logs that people made public."""

from __future__ import annotations

import json

import pytest
from edgetpu_logs import PARTIAL, TOO_LARGE, WHOLE
from hypothesis import given
from hypothesis import strategies as st

from yoloquant.targets.edgetpu.compiler_log import CompilerReport, OperatorLine, parse_log

UNKNOWN_VERSION = """Edge TPU Compiler version 16.0.384591198
ERROR: Didn't find op for builtin opcode 'CONV_2D' version '6'. An older version of this builtin might be supported. Are you using an old TFLite binary with a newer model?

ERROR: Registration failed.

Invalid model: model.tflite
Model could not be parsed
"""  # noqa: E501
INTERNAL = "Edge TPU Compiler version 14.1.317412892\n\nInternal compiler error. Aborting! \n"


def test_everything_mapped() -> None:
    found = parse_log(WHOLE)
    assert found.succeeded and found.version == "16.0.384591198"
    assert found.operators == (
        OperatorLine("ADD", 3, "Mapped to Edge TPU"),
        OperatorLine("RESIZE_NEAREST_NEIGHBOR", 2, "Mapped to Edge TPU"),
    )
    assert (found.mapped, found.total, found.subgraphs, found.reasons()) == (5, 5, 1, {})
    assert found.on_chip_used == round(5.90 * 2**20) and found.off_chip == round(41.75 * 2**10)
    assert found.summary()[0] == "edgetpu_compiler 16.0.384591198 mapped 5 of 5 operators"


def test_reasons_of_what_stays_on_the_host() -> None:
    found = parse_log(PARTIAL)
    assert found.succeeded and (found.mapped, found.total) == (61, 71)
    assert found.reasons() == {
        "More than one subgraph is not supported": {"CONV_2D": 1, "LOGISTIC": 3},
        "Operation is working on an unsupported data type": {"DEQUANTIZE": 3},
        "Operation is otherwise supported, but not mapped due to some unspecified limitation": {"QUANTIZE": 1},
        "Operation version not supported": {"RESIZE_NEAREST_NEIGHBOR": 2},
    }
    assert (found.on_chip_left, found.off_chip) == (512, 0)
    assert any("1 CONV_2D, 3 LOGISTIC not mapped: More than one" in line for line in found.summary())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TOO_LARGE, "large activation tensors"),
        (UNKNOWN_VERSION, "'CONV_2D' version '6'"),
        (INTERNAL, "Internal compiler error"),
    ],
)
def test_failures(text: str, message: str) -> None:
    found = parse_log(text)
    assert not found.succeeded and not found.operators
    assert message in found.summary()[0] and "Restored" not in found.summary()[0]


def test_a_search_that_ends_well_has_no_errors() -> None:
    """The compiler prints what failed at every step of its search."""
    found = parse_log(TOO_LARGE + "Try to compile segment with 236 ops\n" + PARTIAL)
    assert found.succeeded and not found.errors and found.mapped == 61


def test_the_last_table_counts_once() -> None:
    """The log file repeats what went to the terminal."""
    assert parse_log(PARTIAL + WHOLE).total == 5
    assert parse_log(WHOLE + "\n" + WHOLE[WHOLE.index("Operator  ") :]).total == 5


@pytest.mark.parametrize("text", ["", "no such file", "Operator                       Count      Status\n"])
def test_nothing_to_read(text: str) -> None:
    found = parse_log(text)
    assert not found.succeeded and found.total == 0
    assert found.summary() == ("edgetpu_compiler failed: it gave no reason",)


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    found = parse_log(text)
    assert CompilerReport.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("text", [WHOLE, PARTIAL, TOO_LARGE])
def test_a_report_survives_json(text: str) -> None:
    found = parse_log(text)
    assert CompilerReport.from_dict(json.loads(json.dumps(found.to_dict()))) == found
