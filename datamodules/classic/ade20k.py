"""ADE20K's scene parsing benchmark: a class for each pixel of everyday scenes."""

from pathlib import Path

from ..annotations.dataset_layout import check_there, encode_paths, image_names, layout_error
from ..annotations.mask_files import MaskedFiles, class_lookup
from ..base import LoaderOptions, Unpack, VisionDataModule

NUM_CLASSES = 150

_FOLDERS = {"train": "training", "val": "validation", "test": "validation"}


class ADE20K(VisionDataModule):
    """The 150 most frequent classes of ADE20K, as the scene parsing benchmark of 2016 has them.

    Expected layout::

        ROOT/ADEChallengeData2016/objectInfo150.txt                                (or ROOT/objectInfo150.txt, …)
        ROOT/ADEChallengeData2016/images/training/ADE_train_00000001.jpg …
        ROOT/ADEChallengeData2016/images/validation/ADE_val_00000001.jpg …
        ROOT/ADEChallengeData2016/annotations/training/ADE_train_00000001.png …
        ROOT/ADEChallengeData2016/annotations/validation/ADE_val_00000001.png …

    In the masks 0 is whatever is none of the 150, and is ignored; 1 to 150 become classes 0 to 149. The names are the
    first synonyms in ``objectInfo150.txt``, or all its synonyms where two classes share the first. 20,210 images to
    train on and 2,000 for validation, which are test too: the masks of the test set are not public.

    Args:
        root: the folder of ``ADEChallengeData2016``, or that one itself.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: when folders, names or masks are not there; the message shows that tree and what was found.
        ValueError: for a list of names that is not ADE20K's (file and line), or a value above 150 in a mask.

    Batches are `SemanticSegmentationBatch`.

    Reference: Zhou et al., "Scene parsing through ADE20K dataset", CVPR 2017.
    """

    def __init__(
        self,
        root: str,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.root = Path(root).expanduser()
        self._names: list[str] | None = None

    @property
    def class_names(self) -> list[str]:
        """The first synonym of each class."""
        if self._names is None:
            file = self._folder / "objectInfo150.txt"
            if not file.is_file():
                raise self._layout_error(f"no file {str(file)!r}, which names the classes")
            self._names = read_names(file)
        return list(self._names)

    def make_source(self, split: str) -> MaskedFiles:
        """The images of a split; ``test`` is ``val``."""
        part, base = _FOLDERS[split], self._folder
        for kind in ("images", "annotations"):
            if not (base / kind / part).is_dir():
                raise self._layout_error(f"no folder {str(base / kind / part)!r}")
        found = image_names(base / "images" / part)
        if not found:
            raise self._layout_error(f"no images in {str(base / 'images' / part)!r}")
        images = [f"images/{part}/{name}" for name in found]
        masks = [f"annotations/{part}/{Path(name).stem}.png" for name in found]
        check_there(base, masks, f"ADE20K, {part}", "masks")
        table = class_lookup({k + 1: k for k in range(NUM_CLASSES)}, NUM_CLASSES, ignore=0)
        return MaskedFiles(base, encode_paths(images), encode_paths(masks), table)

    @property
    def _folder(self) -> Path:
        inner = self.root / "ADEChallengeData2016"
        return inner if inner.is_dir() else self.root

    def _layout_error(self, problem: str) -> FileNotFoundError:
        return layout_error(problem, type(self), self.root)


def read_names(file: Path) -> list[str]:
    """The names of the 150 classes: of a table with tabs between its columns, ``Idx`` and ``Name`` among them.

    Raises:
        ValueError: when a column is not there, or a line is out of order; the message has the line.
    """
    lines = file.read_text(encoding="utf-8").splitlines()
    headings = [heading.strip() for heading in lines[0].split("\t")] if lines else []
    if lacking := [heading for heading in ("Idx", "Name") if heading not in headings]:
        raise ValueError(f"{file}, line 1: no column {lacking[0]!r} in {headings}; expected ADE20K's objectInfo150.txt")
    where = headings.index("Idx"), headings.index("Name")
    synonyms: list[str] = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) <= max(where) or cells[where[0]] != str(len(synonyms) + 1) or not cells[where[1]]:
            raise ValueError(f"{file}, line {number}: {cells} is not class {len(synonyms) + 1} and its name")
        synonyms.append(cells[where[1]])
    if len(synonyms) != NUM_CLASSES:
        raise ValueError(f"{file}: {len(synonyms)} classes, and ADE20K's benchmark has {NUM_CLASSES}")
    first = [names.split(",")[0].strip() for names in synonyms]
    return [name if first.count(name) == 1 else every for name, every in zip(first, synonyms, strict=True)]
