"""Fonts for text on images and in charts: each character is drawn by the first font that has its glyph.

The order is Pillow's font, matplotlib's DejaVu Sans, font packages (``pip install "striate[fonts]"``), and the fonts of
the system. Fonts are searched when a text needs them, and only then is matplotlib imported.
"""

import contextlib
import functools
import importlib.util
import io
import itertools
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageDraw, ImageFont

FONT_PACKAGES = (
    "noto_cjk_sans_otc", "manimgx_fonts", "matplotlib_fontja", "japanize_matplotlib", "koreanize_matplotlib"
)  # fmt: skip
"""Packages with font files, the two of the extra ``fonts`` first."""

UNKNOWN = "?"
"""Stands for a character that no font has."""

PILLOW = ""
"""Stands for the font that is part of Pillow, which has ASCII and some punctuation."""

_STYLES = ("bold", "black", "heavy", "thin", "light", "italic", "oblique", "condensed", "mono", "serif", "display")
_VARIATION_SELECTORS = {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}


@functools.cache
def font_files() -> tuple[str, ...]:
    """Paths of all fonts, in the order in which they are tried; `PILLOW` stands for Pillow's."""
    from matplotlib import font_manager

    system = [path for path in font_manager.findSystemFonts() if "lastresort" not in Path(path).name.lower()]
    return (PILLOW, font_manager.findfont("DejaVu Sans"), *packaged_fonts(), *sorted(system, key=_plainness))


def packaged_fonts() -> list[str]:
    """Paths of the fonts of all installed `FONT_PACKAGES`, upright ones of normal weight first."""
    found = []
    for package in FONT_PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            files = [path for path in Path(folder).rglob("*") if path.suffix.lower() in (".ttf", ".otf", ".ttc")]
            found += sorted(map(str, files), key=_plainness)
    return found


def _plainness(path: str) -> tuple[int, bool, str]:
    """Sort key that puts plain sans-serif fonts first."""
    name = Path(path).name.lower()
    return sum(style in name for style in _STYLES), "sans" not in name, path


@functools.cache
def code_points(path: str) -> np.ndarray:
    """The characters that a font has, as sorted code points ``[N]`` int64; none if it cannot be read or scaled."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path) if path != PILLOW else FT2Font(io.BytesIO(_pillow_bytes()))
    except (OSError, RuntimeError):
        return np.zeros(0, np.int64)
    points = np.fromiter(font.get_charmap(), np.int64) if font.scalable else np.zeros(0, np.int64)
    return np.sort(points)


def _pillow_bytes() -> bytes:
    font: Any = ImageFont.load_default(12)
    content: bytes = font.font_bytes
    return content


_FONT_OF: dict[str, str | None] = {chr(code): PILLOW for code in range(32, 127)}
"""Character -> the font that draws it; None: no font has it."""


def find_fonts(text: str) -> list[str | None]:
    """The font of each character of a text: a path, `PILLOW`, or None if no font has the character."""
    missing = sorted(set(text) - _FONT_OF.keys())
    for path in font_files() if missing else ():
        found = np.isin([ord(character) for character in missing], code_points(path), kind="sort")
        _FONT_OF.update((character, path) for character, here in zip(missing, found, strict=True) if here)
        missing = [character for character, here in zip(missing, found, strict=True) if not here]
        if not missing:
            break
    _FONT_OF.update(dict.fromkeys(missing))
    return [_FONT_OF[character] for character in text]


def _cleaned(text: str) -> str:
    """One line of text in composed form, without characters that have no shape of their own."""
    characters = []
    for character in unicodedata.normalize("NFC", text):
        category = unicodedata.category(character)
        if category in ("Cc", "Zl", "Zp", "Zs"):
            characters.append(" ")
        elif category != "Cf" and ord(character) not in _VARIATION_SELECTORS:
            characters.append(character)
    return "".join(characters)


def has_glyphs(text: str) -> bool:
    """Whether a text is not blank and each of its characters is in some font."""
    cleaned = _cleaned(text)
    return cleaned.strip() != "" and None not in find_fonts(cleaned)


def drawable(text: str) -> str:
    """The text on one line, with ``?`` for each character that no font has.

    >>> drawable("two\\nlines")
    'two lines'
    """
    cleaned = _cleaned(text)
    return "".join(UNKNOWN if font is None else c for c, font in zip(cleaned, find_fonts(cleaned), strict=True))


def drawable_name(label: int, names: Sequence[str]) -> str:
    """The name of a class as it is drawn: ``class 2`` if it has no name, or one with characters that no font has."""
    if label >= len(names):
        return f"class {label}"
    if has_glyphs(names[label]):
        return drawable(names[label])
    _warn_of_numbers(tuple(names))
    return f"class {label}"


@functools.cache
def _warn_of_numbers(names: tuple[str, ...]) -> None:
    """Say once for a list of class names which of them are drawn as numbers."""
    undrawable = [name for name in names if not has_glyphs(name)]
    warnings.warn(
        f"{len(undrawable)} of {len(names)} class names drawn as numbers (no font has all of their characters), the "
        f'first: {undrawable[0]!r}; pip install "striate[fonts]", or install a font of this script, such as Noto Sans',
        stacklevel=3,
    )


class TextFont:
    """A font of one size for any text, which takes each character from a font that has it.

    A text is drawn with one font if one has all of it. Texts on one line share their baseline.

    Args:
        size: Size in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.ascent: int = _load(PILLOW, size).getmetrics()[0]

    def getlength(self, text: str) -> float:
        """The width of a text in pixels."""
        return float(sum(font.getlength(part) for font, part in self._parts(text)))

    def draw(
        self,
        draw: ImageDraw.ImageDraw,
        corner: tuple[float, float],
        text: str,
        fill: tuple[int, ...],
        outline: tuple[int, ...] | None = None,
    ) -> None:
        """Draw a text with its upper left at `corner`, with an outline of one pixel if it has a color."""
        x, y = corner
        for font, part in self._parts(text):
            more: dict[str, Any] = {} if outline is None else {"stroke_width": 1, "stroke_fill": outline}
            draw.text((x, y + self.ascent), part, fill=fill, font=font, anchor="ls", **more)
            x += font.getlength(part)

    def _parts(self, text: str) -> list[tuple[Any, str]]:
        """The text in parts from left to right, each with the font that has all of it."""
        text = drawable(text)
        leftward = [n for n, character in enumerate(text) if unicodedata.bidirectional(character) in ("R", "AL")]
        # on their own, words that run from right to left do not draw the score behind them along
        first, last = (leftward[0], leftward[-1] + 1) if leftward else (0, len(text))
        return [part for piece in (text[:first], text[first:last], text[last:]) for part in self._runs(piece)]

    def _runs(self, text: str) -> list[tuple[Any, str]]:
        fonts = [font or PILLOW for font in find_fonts(text)]
        for path in dict.fromkeys(fonts):
            if len(set(fonts)) > 1 and np.isin([ord(character) for character in text], code_points(path)).all():
                return [(_load(path, self.size), text)]
        pairs = itertools.groupby(zip(fonts, text, strict=True), key=lambda pair: pair[0])
        return [(_load(path, self.size), "".join(character for _, character in part)) for path, part in pairs]


@functools.lru_cache(256)
def _load(path: str, size: int) -> Any:
    return ImageFont.load_default(size) if path == PILLOW else ImageFont.truetype(path, size)


def shorten(text: str, font: TextFont, width: float) -> str:
    """Shorten a text to a width in pixels, with an ellipsis in its middle: names often differ at their end."""
    text = _cleaned(text)
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        shorter = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
        if font.getlength(shorter) <= width:
            return shorter
    return "…"


@contextlib.contextmanager
def chart_fonts(texts: Iterable[str]) -> Iterator[None]:
    """Give matplotlib the fonts for texts that DejaVu Sans does not have; ``$`` is a character, not mathematics."""
    import matplotlib as mpl
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    paths = dict.fromkeys(find_fonts("".join(map(_cleaned, texts))))
    families = ["sans-serif"]
    for path in paths:
        if path not in (None, PILLOW, font_files()[1]):
            font_manager.fontManager.addfont(path)
            families.append(FT2Font(path).family_name)
    with mpl.rc_context({"font.family": families, "text.parse_math": False}), warnings.catch_warnings():
        # in SVG charts, where names stay as they are
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
