"""A network in a process of its own, whose outputs are decoded. For processors that are emulated.

Started with ``{"backend", "path", "info", "raw", "threads", "precision", "exact_sums"}``; tells the runtime's version;
see ``core.image_process``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Tuple

from ..backends import BackendOptions, open_backend
from ..core.bundle_manifest import info_from_dict
from ..core.image_process import Network, answer_images


def _load() -> Tuple[bytes, Network]:
    request = json.loads(sys.argv[1])
    options = BackendOptions(
        threads=request["threads"],
        raw=request["raw"],
        precision=request["precision"],
        exact_sums=request["exact_sums"],
    )
    backend = open_backend(request["backend"], Path(request["path"]), info_from_dict(request["info"]), options)
    return backend.version.encode(), backend


if __name__ == "__main__":
    sys.exit(answer_images(_load))
