"""Where golden inputs come from: the data set that was named, or pictures that are at hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from colour_model import draw_data

from yoloquant.bundle.images import candidates, data_set, host_pictures


def test_photos_are_read_where_opencv_cannot_open_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {path.stem for path in host_pictures()}
    monkeypatch.setattr(cv2, "imread", lambda *_: None)  # as on Windows, where it takes one code page alone
    assert wanted and wanted <= {name for name, _ in candidates(None, (64, 64))}


def test_a_folder_with_a_yaml_is_what_the_yaml_says(tmp_path: Path) -> None:
    data = draw_data(tmp_path / "data", 3)
    (tmp_path / "data" / "images" / "val" / "2.png").rename(tmp_path / "data" / "cover.png")
    for named in (data, data.parent):
        found = data_set(named)
        assert [image.path.name for image in found.images] == ["0.png", "1.png"] and found.labelled
    assert len(data_set(data.parent / "images").images) == 2 and not data_set(data.parent / "images").labelled
