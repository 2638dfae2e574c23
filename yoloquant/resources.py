"""Files that ship with the project: in a checkout at its top, in an installed package inside it."""

from __future__ import annotations

from pathlib import Path

from .errors import ArtifactError

_PACKAGE = Path(__file__).resolve().parent


def resource(*parts: str) -> Path:
    """Path of a shipped file or folder, for instance ``resource('configs', 'gates')``.

    Raises:
        ArtifactError: The installation is incomplete.
    """
    for root in (_PACKAGE, _PACKAGE.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise ArtifactError(f"{'/'.join(parts)} is missing from this installation of yoloquant; install it again")
