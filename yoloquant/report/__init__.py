"""Reports of a validation: JSON, JUnit XML, Markdown and one self-contained HTML page.

Importing this package loads neither matplotlib nor jinja2; each format loads what it needs when it is asked for.
"""

from __future__ import annotations

from .json_report import from_json, json_schema, to_json
from .junit import to_junit
from .markdown import to_markdown
from .overview import write_overview
from .page import to_html
from .write import ReportPaths, report_or_error, write_report

__all__ = [
    "ReportPaths",
    "from_json",
    "json_schema",
    "report_or_error",
    "to_html",
    "to_json",
    "to_junit",
    "to_markdown",
    "write_overview",
    "write_report",
]
