"""A font with a few characters, as solid blocks, and the fonts that a machine has, for tests of text."""

from pathlib import Path

import matplotlib as mpl
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from striate.datamodules.images import fonts

DEJAVU = str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


def write_font(path: Path, characters: str, family: str = "Blocks") -> str:
    """Write a font that draws each of the characters as a block of one em by one em, and return its path."""
    names = {ord(character): f"block{number}" for number, character in enumerate(characters)}
    glyphs = {}
    for name in (".notdef", *names.values()):
        pen = TTGlyphPen(None)
        side = 100 if name == ".notdef" else 1000
        for move, point in ((pen.moveTo, (0, 0)), (pen.lineTo, (0, side)), (pen.lineTo, (side, side)),
                            (pen.lineTo, (side, 0))):  # fmt: skip
            move(point)
        pen.closePath()
        glyphs[name] = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap(names)
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path.parent.mkdir(parents=True, exist_ok=True)
    builder.save(path)
    return str(path)


def use_fonts(monkeypatch, *paths: str) -> None:
    """Make these fonts, after Pillow's and DejaVu Sans, all that the machine has."""
    monkeypatch.setattr(fonts, "font_files", lambda: (fonts.PILLOW, DEJAVU, *paths))
    monkeypatch.setattr(fonts, "_FONT_OF", {chr(code): fonts.PILLOW for code in range(32, 127)})
    fonts._warn_of_numbers.cache_clear()
