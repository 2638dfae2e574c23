"""How options are defined: once, as a frozen model beside the code that they configure.

A field's description is the help text of the command and of the reference, its constraints are the checks, and its type
is what the command, a recipe and a Python caller may give.
"""

from __future__ import annotations

from .flat import FlatOption, build, canonical, flatten, gather, nest
from .kinds import ImageSize, Names, PathOrNone, Text, TextOrNone
from .model import option, option_model, shared_option
from .sentences import sentences

__all__ = [
    "FlatOption",
    "ImageSize",
    "Names",
    "PathOrNone",
    "Text",
    "TextOrNone",
    "build",
    "canonical",
    "flatten",
    "gather",
    "nest",
    "option",
    "option_model",
    "sentences",
    "shared_option",
]
