"""Text in any script: which font draws it, and what is drawn where no font has it."""

import sys

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image, ImageDraw

from striate.datamodules.images import fonts
from striate.datamodules.images.fonts import TextFont, chart_fonts, drawable, drawable_name, has_glyphs, shorten
from striate.tests.helpers.text_fonts import DEJAVU, use_fonts, write_font


@pytest.fixture
def blocks(tmp_path, monkeypatch):
    """A font with two Chinese characters, as blocks."""
    path = write_font(tmp_path / "blocks.ttf", "犬猫")
    use_fonts(monkeypatch, path)
    return path


@pytest.fixture
def only_latin(monkeypatch):
    use_fonts(monkeypatch)


def ink(text, size=20):
    """Which pixels a text has, on a page of 40 by 120 pixels."""
    page = Image.new("L", (120, 40), 255)
    TextFont(size).draw(ImageDraw.Draw(page), (5, 5), text, (0,))
    return np.asarray(page) < 128


def test_the_first_font_that_has_a_character_draws_it(blocks):
    assert fonts.find_fonts("aß犬") == [fonts.PILLOW, DEJAVU, blocks]
    assert fonts.find_fonts("虎") == [None]
    assert ink("犬").sum() == 20 * 20  # a block of one em
    assert TextFont(20).getlength("犬猫") == 40


@pytest.mark.parametrize("text", ["Größe", "кошка", "γάτα", "חתול", "قطة", "čeština"])
def test_scripts_of_dejavu_need_no_other_font(text, only_latin):
    assert has_glyphs(text) and set(fonts.find_fonts(text)) <= {fonts.PILLOW, DEJAVU}
    assert not np.array_equal(ink(text), ink("?" * len(text)))


def test_a_text_in_two_scripts_is_drawn_in_parts_on_one_baseline(blocks):
    alone, both = ink("x"), ink("x犬")
    end = 5 + int(TextFont(20).getlength("x"))
    np.testing.assert_array_equal(both[:, : end - 1], alone[:, : end - 1])
    assert np.flatnonzero(both[:, end + 5]).max() == np.flatnonzero(alone.any(axis=1)).max()  # both stand on the line
    assert both.sum() == pytest.approx(alone.sum() + 400, abs=25)


def test_unknown_and_invisible_characters_leave_no_boxes(only_latin):
    assert drawable("犬 a") == "? a" and not has_glyphs("犬 a")
    assert drawable("e\u0301") == "é"  # composed
    assert drawable("a\u200d\ufe0fb\u202e") == "ab"
    assert drawable("two\nlines\t") == "two lines "
    assert drawable("\udce9.jpg") == "?.jpg"  # a file name in another encoding
    assert not has_glyphs("") and not has_glyphs("\u200d ")


def test_a_class_without_a_font_is_drawn_as_its_number(only_latin):
    names = ["cat", "犬", "", "虎"]
    message = r"3 of 4 class names drawn as numbers .*'犬'; pip install \"striate\[fonts\]\""
    with pytest.warns(UserWarning, match=message):
        assert drawable_name(1, names) == "class 1"
    assert [drawable_name(k, names) for k in range(5)] == [
        "cat",
        *(f"class {k}" for k in range(1, 5)),
    ]  # and no second warning


def test_a_class_with_a_font_is_drawn_by_name(blocks):
    assert drawable_name(0, ["犬"]) == "犬"


def test_long_names_are_shortened_in_the_middle(blocks):
    font = TextFont(13)
    cut = shorten("a very long class name, left", font, 90)
    assert cut.startswith("a ver") and cut.endswith("left") and "…" in cut
    assert 75 < font.getlength(cut) <= 90
    assert shorten("cat", font, 80) == "cat" and shorten("cat", font, 1) == "…"
    wide = shorten("犬" * 20, font, 70)
    assert wide == "犬犬…犬犬" and font.getlength(wide) <= 70


def test_plain_fonts_come_first(monkeypatch):
    system = ["/f/A-Bold.ttf", "/f/B-Sans.ttf", "/f/A.ttf", "/f/LastResort.otf", "/f/ASans-Italic.ttf"]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: system)
    monkeypatch.setattr(fonts, "FONT_PACKAGES", ())
    expected = (fonts.PILLOW, DEJAVU, "/f/B-Sans.ttf", "/f/A.ttf", "/f/ASans-Italic.ttf", "/f/A-Bold.ttf")
    assert fonts.font_files.__wrapped__() == expected


def test_installed_font_packages_are_found(tmp_path, monkeypatch):
    files = [write_font(tmp_path / "some_fonts" / "sub" / name, "犬") for name in ("a-Bold.otf", "b-Regular.ttc")]
    (tmp_path / "some_fonts" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(fonts, "FONT_PACKAGES", ("no_such_fonts", "some_fonts"))
    assert fonts.packaged_fonts() == files[::-1]
    assert "some_fonts" not in sys.modules


def test_a_file_that_is_not_a_font_has_no_characters(tmp_path):
    (tmp_path / "a.ttf").write_bytes(b"no font")
    assert fonts.code_points(str(tmp_path / "a.ttf")).size == 0
    assert fonts.code_points(str(tmp_path / "missing.ttf")).size == 0


def test_charts_get_the_fonts_of_their_texts(blocks):
    before = mpl.rcParams["font.family"]
    with chart_fonts(["cat", "犬"]):
        assert mpl.rcParams["font.family"] == ["sans-serif", "Blocks"] and not mpl.rcParams["text.parse_math"]
    with chart_fonts(["Größe"]):
        assert mpl.rcParams["font.family"] == ["sans-serif"]
    assert mpl.rcParams["font.family"] == before
