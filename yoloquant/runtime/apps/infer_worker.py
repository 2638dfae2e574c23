"""A network in a process of its own, whose outputs are decoded. For processors that are emulated.

It takes images as networks do, or as they were read (uint8): those are prepared here, as on a device of this processor.

Started with ``{"backend", "path", "info", "raw", "threads", "precision", "exact_sums"}``; tells the runtime's version;
see ``core.image_process``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Sequence, Tuple

import numpy as np

from ..backends import BackendOptions, open_backend
from ..core.bundle_manifest import info_from_dict
from ..core.image_process import Network, answer_images
from ..tasks import spec_of


def _load() -> Tuple[bytes, Network]:
    request = json.loads(sys.argv[1])
    options = BackendOptions(
        threads=request["threads"],
        raw=request["raw"],
        precision=request["precision"],
        exact_sums=request["exact_sums"],
    )
    backend = open_backend(request["backend"], Path(request["path"]), info_from_dict(request["info"]), options)
    prepare = spec_of(backend.info.task).prepare

    def run(image: np.ndarray) -> Sequence[np.ndarray]:
        return backend(prepare(image, backend.info.imgsz)[0] if image.dtype == np.uint8 else image)

    return backend.version.encode(), run


if __name__ == "__main__":
    sys.exit(answer_images(_load))
