"""Names of files as annotations write them, resolved to names as they are on disk."""

import os
import posixpath
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), by which names are compared.

    The same letter has two forms: macOS and some archives write a letter and its accent as two characters (NFD).

    >>> composed("e\\N{COMBINING ACUTE ACCENT}.png") == "\\N{LATIN SMALL LETTER E WITH ACUTE}.png"
    True
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


class FileNames:
    """Resolves names of files below a folder. Each folder is listed once; no file is opened.

    A name that exists is returned as it is. Otherwise its backslashes are read as slashes, each of its parts may be in
    another Unicode form, and codes of addresses are decoded (``%20``). The case of letters always counts, since it does
    on most servers; `hint` reports it.

    Args:
        root: Folder that the names are relative to.
    """

    def __init__(self, root: str | Path = "") -> None:
        self.root = str(root)
        self._listed: dict[str, frozenset[str]] = {}
        self._by_form: dict[str, dict[str, str]] = {}

    def resolve(self, name: str) -> str | None:
        """Return the name of the existing file or folder that a name means; None if there is none.

        Args:
            name: Path relative to the root, or absolute, with ``/`` between folder and file.
        """
        if (found := self._find(name)) is None and "\\" in name:
            found = self._find(name.replace("\\", "/"))
        if found is None and "%" in name:
            parts = name.split("/")
            decoded = [unquote(part) for part in parts]
            # what was encoded must be no step out of the folder
            if all(
                new == old or (new != ".." and not {*new} & {*"/\\"}) for old, new in zip(parts, decoded, strict=True)
            ):
                found = self._find("/".join(decoded))
        return found

    def hint(self, name: str) -> str:
        """Return ``"; there is 'A.JPG'"`` for a missing name that differs from a file in case alone, or an empty text.

        >>> FileNames("").hint("missing.jpg")
        ''
        """
        folder, file = posixpath.split(name.replace("\\", "/"))
        wanted = composed(file).casefold()
        similar = (other for other in sorted(self._names(folder)) if composed(other).casefold() == wanted)
        return next((f"; there is {other!r}" for other in similar if other != file), "")

    def _names(self, folder: str) -> frozenset[str]:
        if folder not in self._listed:
            try:
                names = frozenset(os.listdir(os.path.join(self.root, folder) or "."))  # noqa: PTH118, PTH208
            except OSError:
                names = frozenset()
            self._listed[folder] = names
        return self._listed[folder]

    def _find(self, name: str) -> str | None:
        folder, file = posixpath.split(name)
        names = self._names(folder)
        if not names and folder not in ("", "/"):  # the folder itself may be in another form
            if (resolved := self._find(folder)) is None or resolved == folder:
                return None
            folder, names = resolved, self._names(resolved)
        if file in names or file in (".", ".."):
            return name if folder == posixpath.dirname(name) else posixpath.join(folder, file)
        if folder not in self._by_form:
            self._by_form[folder] = {composed(other): other for other in names if not other.isascii()}
        other = self._by_form[folder].get(composed(file))
        return None if other is None else posixpath.join(folder, other)


def resolve_names(root: str | Path, names: Iterable[str]) -> list[str]:
    """Return each name as it is on disk (see `FileNames`); a name without a file is returned as it is.

    Args:
        root: Folder that the names are relative to.
        names: Paths relative to it, or absolute ones.
    """
    files = FileNames(root)
    return [files.resolve(name) or name for name in names]
