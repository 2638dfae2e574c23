"""Which images people are shown of an artifact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from validation_fakes import FakeRunner, label_rows

from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation.evaluate import EvaluateOptions, evaluate
from yoloquant.evaluation.examples import pick_examples
from yoloquant.runtime.core.letterbox import place


def test_what_is_found_where_the_baseline_finds_nothing_is_shown(dataset: Path) -> None:
    data = ValidationSet.from_yaml(dataset)
    where = place((48, 64), (64, 64))
    before = label_rows([(i.classes, where.to_input(i.boxes)) for i in data.images])
    before[2] = before[2][:0]
    after = [each.copy() for each in before]
    after[2] = np.array([[x, 20, x + 8, 30, 0.9, 1] for x in (2, 20, 40)], np.float32)
    evaluation = evaluate({"fp32": FakeRunner(before), "int8": FakeRunner(after)}, data, EvaluateOptions(warmup=0))
    first, *others = pick_examples(evaluation, "int8", 3)
    assert first.image == str(data.images[2].path) and len(first.quantized) == 3 and not first.fp32
    assert others and all(each.fp32 for each in others)
