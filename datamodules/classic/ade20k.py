"""ADE20K's scene parsing benchmark: semantic segmentation of everyday scenes."""

from pathlib import Path

from ..annotations.annotation_errors import AbsentSplitError
from ..annotations.dataset_layout import check_files_exist, encode_paths, image_names, layout_error
from ..annotations.mask_files import MaskedFiles, class_lookup
from ..annotations.text_files import read_text
from ..base import LoaderOptions, Unpack, VisionDataModule

NUM_CLASSES = 150

_FOLDERS = {"train": "training", "val": "validation", "test": "validation"}


class ADE20K(VisionDataModule):
    """The 150 most frequent classes of ADE20K, as in the scene parsing benchmark of 2016.

    Expected layout::

        ROOT/ADEChallengeData2016/objectInfo150.txt                                (or ROOT/objectInfo150.txt, …)
        ROOT/ADEChallengeData2016/images/training/ADE_train_00000001.jpg …
        ROOT/ADEChallengeData2016/images/validation/ADE_val_00000001.jpg …
        ROOT/ADEChallengeData2016/annotations/training/ADE_train_00000001.png …
        ROOT/ADEChallengeData2016/annotations/validation/ADE_val_00000001.png …

    In the mask files, 0 stands for everything outside the 150 classes and is ignored; 1 to 150 become classes 0 to 149.
    A class is named by its first synonym in ``objectInfo150.txt``, or by all synonyms where two classes share the
    first. There are 20,210 images for training and 2,000 for validation. The masks of the test set are not public, so
    the test split here is the validation set.

    Args:
        root: Folder that contains ``ADEChallengeData2016``, or that folder itself.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Folders, class names or masks are missing; the message shows the expected layout.
        ValueError: The list of class names is not ADE20K's (with file and line), or a mask has a value above 150.

    Batches are `SemanticSegmentationBatch`.

    Reference: Zhou et al., "Scene parsing through ADE20K dataset", CVPR 2017.
    """

    def __init__(self, root: str, **kwargs: Unpack[LoaderOptions]) -> None:
        super().__init__(**kwargs)
        self.root = Path(root).expanduser()
        self._names: list[str] | None = None

    @property
    def class_names(self) -> list[str]:
        """Names of the classes: the first synonym of each."""
        if self._names is None:
            file = self._folder / "objectInfo150.txt"
            if not file.is_file():
                raise layout_error(f"no file {str(file)!r}, which names the classes", type(self), self.root)
            self._names = read_names(file)
        return list(self._names)

    def make_source(self, split: str) -> MaskedFiles:
        """Return the images and masks of a split; ``test`` is ``val``."""
        part, base = _FOLDERS[split], self._folder
        for kind in ("images", "annotations"):
            if not (base / kind / part).is_dir():
                raise layout_error(f"no folder {str(base / kind / part)!r}", type(self), self.root, AbsentSplitError)
        names = image_names(base / "images" / part)
        if not names:
            raise layout_error(f"no images in {str(base / 'images' / part)!r}", type(self), self.root, AbsentSplitError)
        images = [f"images/{part}/{name}" for name in names]
        masks = [f"annotations/{part}/{Path(name).stem}.png" for name in names]
        check_files_exist(base, masks, f"ADE20K, {part}", "masks")
        lookup = class_lookup({k + 1: k for k in range(NUM_CLASSES)}, NUM_CLASSES, ignore=0)
        return MaskedFiles(base, encode_paths(images), encode_paths(masks), lookup)

    @property
    def _folder(self) -> Path:
        inner = self.root / "ADEChallengeData2016"
        return inner if inner.is_dir() else self.root


def read_names(file: Path) -> list[str]:
    """Read the names of the 150 classes from a tab-separated table with the columns ``Idx`` and ``Name``.

    Raises:
        ValueError: A column is missing, a row is out of order, or there are not 150 rows; the message has the line.
    """
    lines = read_text(file).splitlines()
    headings = [heading.strip() for heading in lines[0].split("\t")] if lines else []
    if missing := [heading for heading in ("Idx", "Name") if heading not in headings]:
        raise ValueError(f"{file}, line 1: no column {missing[0]!r}, got {headings}; use ADE20K's objectInfo150.txt")
    number_column, name_column = headings.index("Idx"), headings.index("Name")
    synonyms: list[str] = []
    for line, text in enumerate(lines[1:], start=2):
        if not text.strip():
            continue
        cells = [cell.strip() for cell in text.split("\t")]
        expected = str(len(synonyms) + 1)
        if len(cells) <= max(number_column, name_column) or cells[number_column] != expected or not cells[name_column]:
            raise ValueError(f"{file}, line {line}: must have class {expected} and its name, got {cells}")
        synonyms.append(cells[name_column])
    if len(synonyms) != NUM_CLASSES:
        raise ValueError(f"{file}: must have {NUM_CLASSES} classes, got {len(synonyms)}")
    first = [names.split(",")[0].strip() for names in synonyms]
    return [name if first.count(name) == 1 else every for name, every in zip(first, synonyms, strict=True)]
