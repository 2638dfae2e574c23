"""Pascal VOC: one XML file for each image, with boxes in pixels that count from 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

from ...bridge import val as host
from ...errors import DataError
from ...runtime.tasks.base import Drawn
from ..image_files import is_without_yaml
from .base import Contents, DataFormat, Found, Picture, Thing, split_of, stated_size, undivided


class PascalVoc(DataFormat):
    """A folder with ``Annotations/*.xml`` and ``JPEGImages``, or XML files beside images in a folder of each split."""

    title: ClassVar[str] = "Pascal VOC"

    def find(self, data: str) -> Found | None:
        """See ``DataFormat.find``."""
        root = Path(data)
        # a converted set often keeps its XML files; the yaml is what its owner trains by
        if not is_without_yaml(root):
            return None
        if (root / "Annotations").is_dir():
            return Found(data, root, _listed(root))
        found: dict[str, tuple[Path, ...]] = {}
        for folder in sorted(f for f in root.iterdir() if f.is_dir()):
            split, files = split_of(folder.name), tuple(sorted(folder.glob("*.xml")))
            # two folders may be of one split, for instance "test" and "test_night"
            if split is not None and files:
                found[split] = (*found.get(split, ()), *files)
        if found:
            return Found(data, root, found)
        beside = tuple(sorted(root.glob("*.xml")))
        return Found(data, root, undivided(beside)) if beside else None

    def read(self, found: Found, *, keypoints: bool) -> Contents:
        """See ``DataFormat.read``."""
        # all at once: class names stand in the objects alone, and indices must be known before the first image
        trees = {file: _parsed(file) for files in found.splits.values() for file in files}
        # sorted: the format has no order of classes
        names = sorted({_text(thing, "name", file) for file, tree in trees.items() for thing in tree.iter("object")})
        if not names:
            raise DataError(f"data '{found.source}': no XML file labels an object")
        contents = Contents(tuple(names), frozenset(range(len(names))), {})
        contents.splits = {split: _pictures(files, trees, names, contents) for split, files in found.splits.items()}
        return contents


def _listed(root: Path) -> Mapping[str, tuple[Path, ...]]:
    """Splits as ``ImageSets/Main`` lists them; one for all without such lists."""
    splits = {}
    for split in ("train", "val", "test"):
        file = root / "ImageSets" / "Main" / f"{split}.txt"
        names = (
            # lists of single classes have a second column, 1 or -1
            [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
            if (file.is_file())
            else []
        )
        if names:
            splits[split] = tuple(root / "Annotations" / f"{name}.xml" for name in names)
    if not splits:
        splits = undivided(tuple(sorted((root / "Annotations").glob("*.xml"))))
    missing = next((f for files in splits.values() for f in files if not f.is_file()), None)
    if missing is not None:
        raise DataError(f"{missing} is listed in {root / 'ImageSets' / 'Main'}, but does not exist")
    return splits


def _parsed(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError) as exc:
        raise DataError(f"{file} cannot be read as XML: {exc}") from exc


def _text(element: ElementTree.Element, place: str, file: Path) -> str:
    text = (element.findtext(place) or "").strip()
    if not text:
        raise DataError(f"{file}: an object has no <{place.replace('/', '><')}>")
    return text


def _pictures(
    files: Sequence[Path], trees: Mapping[Path, ElementTree.Element], names: Sequence[str], contents: Contents
) -> Iterator[Picture]:
    for file in files:
        tree = trees[file]
        image = _image(file, (tree.findtext("filename") or "").strip())
        size = stated_size(tree.findtext("size/height"), tree.findtext("size/width"))
        things = []
        for thing in tree.iter("object"):
            # left out already in its scores: VOC's own evaluation ignores them
            if (thing.findtext("difficult") or "0").strip() == "1":
                contents.note("objects marked difficult are left out, as Ultralytics does")
                continue
            label = names.index(_text(thing, "name", file))
            try:
                left, top, right, bottom = (
                    # all four sides, as Ultralytics' VOC.yaml converts them (8.4.190): the box keeps its size
                    float(_text(thing, f"bndbox/{side}", file)) - 1
                    for side in ("xmin", "ymin", "xmax", "ymax")
                )
            except ValueError as exc:
                raise DataError(f"{file}: a side of a <bndbox> is no number ({exc})") from exc
            things.append(Thing(label, Drawn((left, top, right, bottom)), str(file)))
        yield Picture(image.name, image, size=size, things=tuple(things))


def _image(file: Path, name: str) -> Path:
    """The image that an XML file describes: the one it names, or the one called like itself."""
    # VOC's own layout first, then those of labelling tools
    folders = [file.parent.parent / "JPEGImages", file.parent, file.parent.parent / "images", file.parent.parent]
    suffixes = sorted(host.image_suffixes())
    # its last part: tools write the path of the machine that labelled
    named = [folder / Path(name).name for folder in folders if name]
    tried = [*named, *(folder / f"{file.stem}.{suffix}" for folder in folders for suffix in suffixes)]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        raise DataError(
            f"{file}: its image '{name or file.stem}' is missing (looked in {', '.join(f.name for f in folders[:2])})"
        )
    return found
