"""JSON: the machine-readable report, its schema, and the way back to a :class:`ValidationResult`.

One schema version stands for one exact set of fields. A number that was not finite is written as ``null``; reading
turns it into NaN where the field is a plain float and into None where the field is optional.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..errors import ArtifactError
from ..evaluation.results import SCHEMA_VERSION, ValidationResult
from .text import encodable

VERSION_KEY = "schema_version"


def to_json(result: ValidationResult) -> str:
    """The whole result as JSON, fields in the order in which the dataclasses declare them.

    Args:
        result: Outcome of a validation.

    Returns:
        Indented JSON in UTF-8 text, with ``schema_version`` first and without NaN or infinity.
    """
    data = {VERSION_KEY: SCHEMA_VERSION, **asdict(result)}
    # allow_nan: NaN is no JSON, and most readers stop at it
    return json.dumps(_plain(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> ValidationResult:
    """Read back what :func:`to_json` wrote.

    Args:
        text: Content of a ``report.json``.

    Returns:
        A result equal to the one that was written.

    Raises:
        ArtifactError: The text is no JSON, is of another schema version, or has missing, unknown or mistyped fields.
    """
    # only reading needs it
    from pydantic import TypeAdapter, ValidationError

    data = _parse(text)
    if data.get(VERSION_KEY) != SCHEMA_VERSION:
        raise ArtifactError(
            f"report has {VERSION_KEY} {data.get(VERSION_KEY)!r}, this version of yoloquant reads {SCHEMA_VERSION}; "
            "validate again, or read it with the version that wrote it"
        )
    body = {key: value for key, value in data.items() if key != VERSION_KEY}
    try:
        # as JSON again and strict: "1" for a number is damage, while lists still become tuples
        restored = json.dumps(_restore(body, ValidationResult, "report"))
        return TypeAdapter(ValidationResult).validate_json(restored, strict=True)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"report is damaged at '{where}': {first['msg']}; validate again to rewrite it") from exc
    except RecursionError as exc:
        raise ArtifactError("report is damaged: nested too deeply; validate again to rewrite it") from exc


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the report; the package ships it as ``schema/report-<version>.schema.json``."""
    from pydantic import TypeAdapter

    # derived, so that it cannot differ from what is written
    schema = TypeAdapter(ValidationResult).json_schema()
    types: dict[str, type] = {}
    _collect(ValidationResult, types)
    for name, node in [("ValidationResult", schema), *schema["$defs"].items()]:
        if name in types:
            _close(node, types[name])
    properties = {
        VERSION_KEY: {"const": SCHEMA_VERSION, "description": "Version of this schema."},
        **schema["properties"],
    }
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"yoloquant validation report, version {SCHEMA_VERSION}",
    }
    schema.update(properties=properties, required=list(properties))
    opened: dict[str, Any] = _nullable({**schema, **head})
    return opened


def _parse(text: str) -> dict[str, Any]:
    """JSON text to an object; constants that JSON does not have (NaN, Infinity) are damage."""
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise ArtifactError(f"report is no valid JSON: {exc}; validate again to rewrite it") from exc
    if not isinstance(data, dict):
        raise ArtifactError(f"report is a JSON {type(data).__name__}, not an object; is this the right file?")
    return data


def _refuse_constant(constant: str) -> float:
    raise ValueError(f"{constant} is not allowed")


def _plain(value: Any) -> Any:
    """Data that JSON can hold: non-finite numbers become None, foreign objects their text."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {encodable(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    if hasattr(value, "item"):  # a NumPy scalar
        return _plain(value.item())
    return encodable(str(value))


def _restore(value: Any, hint: Any, where: str) -> Any:
    """Turn null back into NaN where a plain float is declared, and refuse unknown or missing fields."""
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            return value  # the strict validation that follows names the mistake
        hints = get_type_hints(hint)
        names = [f.name for f in fields(hint)]
        _same_keys(set(value), set(names), where)
        return {name: _restore(value[name], hints[name], f"{where}.{name}") for name in names}
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        # optional fields alone: reports have no other unions
        inner = next(arg for arg in args if arg is not type(None))
        return None if value is None else _restore(value, inner, where)
    if origin is tuple and isinstance(value, list):
        return [_restore(item, args[0], f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {key: _restore(item, args[1], f"{where}.{key}") for key, item in value.items()}
    return math.nan if hint is float and value is None else value


def _same_keys(got: set[str], wanted: set[str], where: str) -> None:
    if got == wanted:
        return
    parts = []
    if wanted - got:
        parts.append(f"lacks {', '.join(sorted(wanted - got))}")
    if got - wanted:
        parts.append(f"has unknown {', '.join(sorted(got - wanted))}")
    raise ArtifactError(f"report is damaged: {where} {' and '.join(parts)}; validate again to rewrite it")


def _collect(hint: Any, found: dict[str, type]) -> None:
    """All dataclasses that a type mentions, by name."""
    if is_dataclass(hint) and isinstance(hint, type):
        found[hint.__name__] = hint
        for inner in get_type_hints(hint).values():
            _collect(inner, found)
    for inner in get_args(hint):
        _collect(inner, found)


def _close(node: dict[str, Any], cls: type) -> None:
    """Require every field, forbid others, and describe them with the docstring of their dataclass."""
    texts = _descriptions(cls.__doc__ or "")
    node["additionalProperties"] = False
    node["required"] = list(node["properties"])
    for name, prop in node["properties"].items():
        # everything is written, so that defaults would only tell readers that a key may be missing
        prop.pop("default", None)
        prop.pop("title", None)
        if name in texts:
            prop["description"] = texts[name]


def _descriptions(doc: str) -> dict[str, str]:
    """The ``Attributes`` section of a Google-style docstring, attribute by attribute."""
    _, _, section = doc.partition("Attributes:\n")
    entries = re.findall(r"^ {8}(\w+): (.*(?:\n {12,}.*)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _nullable(node: Any) -> Any:
    """Allow null wherever a number is declared: that is how a number that was not finite is written."""
    if isinstance(node, list):
        return [_nullable(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") == "number":
        return {**node, "type": ["number", "null"]}
    if [option.get("type") for option in node.get("anyOf", ())] == ["number", "null"]:
        return {**{k: v for k, v in node.items() if k != "anyOf"}, "type": ["number", "null"]}
    return {key: _nullable(item) for key, item in node.items()}
