"""Images that no decoder complains about loudly are still refused, and good ones of odd kinds are not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from yoloquant.bridge.val import read_image
from yoloquant.data.image_check import check_images
from yoloquant.errors import DataError

PICTURE = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)


def jpeg(path: Path) -> Path:
    cv2.imwrite(str(path), PICTURE)
    return path


def test_a_jpeg_that_ends_well_and_is_corrupt_inside(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = jpeg(tmp_path / "a.jpg")
    check_images([path])
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = b"\xff\xd3" * 20  # restart markers where there are none
    path.write_bytes(content)
    assert content[-2:] == b"\xff\xd9"
    with pytest.raises(DataError, match=r"a\.jpg is corrupt \(.*JPEG"):
        check_images([path])
    assert "JPEG" not in capfd.readouterr().err, "it is said once, in the sentence"


def test_bytes_behind_the_end_of_a_jpeg_do_no_harm(tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes() + b"\0" * 8)  # some cameras pad
    check_images([path])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"404: not found", "it holds text: '404: not found'"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"\x00\xff\xfe" * 20, "no known image format"),
    ],
)
@pytest.mark.parametrize("host", [False, True], ids=["alone", "with Ultralytics' patches"])
def test_files_that_are_no_image_say_what_they_are(tmp_path: Path, content: bytes, message: str, host: bool) -> None:
    if host:
        import ultralytics.utils.patches  # noqa: F401 - it replaces Image.open by one that wants pi-heif
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        check_images([tmp_path / "a.jpg"])
    assert "heif" not in str(error.value)


def _tiff(path: Path, array: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), array)
    return path


GREY16 = (np.arange(64 * 96).reshape(64, 96) * 10).astype(np.uint16)
TIFFS = {
    "16-bit grey": GREY16,
    "16-bit colour": np.stack([GREY16, GREY16[::-1], GREY16[:, ::-1]], -1),
    "8-bit grey": PICTURE[..., 0],
    "colour": PICTURE,
    "with alpha": np.dstack([PICTURE, np.full((64, 96), 128, np.uint8)]),
}


@pytest.mark.parametrize("kind", TIFFS)
@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".png"])
def test_images_of_every_depth_read_as_the_host_reads_them(tmp_path: Path, kind: str, suffix: str) -> None:
    from ultralytics.utils.patches import imread

    path = tmp_path / f"a{suffix}"
    path.write_bytes(cv2.imencode(suffix.lower(), TIFFS[kind])[1].tobytes())
    check_images([path])
    image = read_image(path)
    assert image is not None and image.dtype == np.uint8 and image.shape == (64, 96, 3) and image.std() > 10
    np.testing.assert_array_equal(image, imread(str(path), cv2.IMREAD_COLOR))
    array = TIFFS[kind] if TIFFS[kind].dtype == np.uint8 else (TIFFS[kind] >> 8).astype(np.uint8)
    wanted = np.repeat(array[..., None], 3, -1) if array.ndim == 2 else array[..., :3]
    assert np.abs(image.astype(int) - wanted.astype(int)).max() <= 1


def test_several_pages_give_the_first(tmp_path: Path) -> None:
    path = tmp_path / "pages.tif"
    pages = [Image.fromarray(PICTURE), Image.fromarray(PICTURE[::-1].copy())]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    image = read_image(path)
    assert image is not None
    np.testing.assert_array_equal(image[..., ::-1], PICTURE)


def test_what_cannot_be_decoded_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0 broken")
    (tmp_path / "b.png").write_bytes(b"")
    cv2.imwrite(str(tmp_path / "float.tif"), PICTURE.astype(np.float32))
    assert [read_image(tmp_path / n) for n in ("a.tif", "b.png", "none.png")] == [None] * 3
    assert read_image(tmp_path / "float.tif") is None, "float pixels have no range that one could know"
