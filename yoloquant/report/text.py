"""Strings from outside made fit for a report: class names, paths and error messages may hold anything."""

from __future__ import annotations

import re

# What XML 1.0 forbids (section 2.2, production Char); lone surrogates come from paths that are not UTF-8.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# $ too: GitHub sets what stands between two of them as a formula
_MARKDOWN = re.compile(r"([\\`*_\[\]|~$])")


def clean(text: str) -> str:
    """Text that every report format can hold: what XML forbids becomes U+FFFD."""
    return _FORBIDDEN.sub("\ufffd", text)


def encodable(text: str) -> str:
    """Text that UTF-8 can hold: lone surrogates become U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)


def shorten(text: str, limit: int) -> str:
    """Text of at most ``limit`` characters; its end is kept, since a traceback says there what went wrong."""
    if len(text) <= limit:
        return text
    head = limit // 3
    return f"{text[:head]} … {text[len(text) - (limit - head - 3) :]}"


def markdown(text: str) -> str:
    """Text on one line, safe in a Markdown table cell: no markup, no HTML, no mention of a user."""
    line = " ".join(clean(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # a zero-width space: an image called @name.jpg must not send somebody a notice
    return _MARKDOWN.sub(r"\\\1", line).replace("@", "@\u200b")
