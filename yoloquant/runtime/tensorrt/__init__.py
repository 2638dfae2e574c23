"""TensorRT on the device: building engines, checking them, and the verb ``build_engine``.

Importing this loads neither TensorRT nor CUDA. Everything but the branch for strongly typed networks was tested against
stand-ins of TensorRT's Python API only: no Jetson and no TensorRT library was at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ..core.bundle_manifest import BundleManifest
    from .build import BuiltEngine, Request
    from .build_options import BuildOptions

__all__ = ["main", "request_for"]

PASS, FAIL, BAD_INPUT, COULD_NOT_RUN = 0, 1, 2, 4


def main(arguments: dict[str, str], say: Callable[[str], None]) -> int:
    """The verb ``build_engine``: build the engine of a bundle on this device.

    Args:
        arguments: ``bundle`` (its folder; the current one by default), ``output`` (another place for the engine) and
            the fields of ``BuildOptions``, as text.
        say: Prints a line.

    Returns:
        0 if an engine is ready, 1 if planned layers do not run in Int8, 2 for bad input, 4 if it could not be built.
    """
    from ..errors import ArtifactError, UsageError, YoloquantError
    from .layers import Int8Error

    try:
        return _main(dict(arguments), say)
    except (ArtifactError, UsageError) as exc:
        say(f"error: {exc}")
        return BAD_INPUT
    # Before its base class below: a planned layer in another type is a verdict, and no failure to run.
    except Int8Error as exc:
        say(f"error: {exc}")
        return FAIL
    except YoloquantError as exc:
        say(f"error: {exc}")
        return COULD_NOT_RUN


def _main(arguments: dict[str, str], say: Callable[[str], None]) -> int:
    from pathlib import Path

    from ..core.bundle_manifest import read
    from .build import build_engine
    from .build_options import parse_options
    from .header import write_whole

    folder = Path(arguments.pop("bundle", "") or ".")
    output = arguments.pop("output", "")
    options = parse_options(arguments)
    request = request_for(folder, read(folder), options)
    say(f"building an engine from {request.sources.onnx.name}; this takes minutes")
    built = build_engine(request)
    _tell(built, say)
    if output:
        # A copy: the other one stays where the next start looks for it.
        write_whole(Path(output), built.path.read_bytes())
        say(f"copied to {output}")
    return PASS


def request_for(folder: Path, manifest: BundleManifest, options: BuildOptions | None = None) -> Request:
    """What to build for a bundle.

    Args:
        folder: The bundle.
        manifest: Its manifest.
        options: How to build.

    Raises:
        UsageError: It is no bundle for a Jetson.
    """
    from ..errors import UsageError
    from .build import Request
    from .build_options import BuildOptions, Sources

    if manifest.backend != "tensorrt" or not manifest.model.endswith(".onnx"):
        raise UsageError(
            f"this bundle is for {manifest.device} and runs with {manifest.backend}; only a jetson needs an engine"
        )
    sources = Sources.beside(folder / manifest.model)
    return Request(sources, manifest.info, manifest.expected_int8, options or BuildOptions())


def _tell(built: BuiltEngine, say: Callable[[str], None]) -> None:
    from .compile import fallback_lines

    say(f"{'built' if built.fresh else 'already there'}: {built.path}")
    if built.int8 is not None:
        say(built.int8.summary())
    if built.compiled is not None and built.compiled.dla is not None:
        for line in fallback_lines(built.compiled.dla):
            say(line)
