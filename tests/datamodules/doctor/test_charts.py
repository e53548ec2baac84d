"""Charts of the page: names of classes in any script."""

import numpy as np

from striate.datamodules.doctor.charts import class_bars
from striate.tests.helpers.text_fonts import use_fonts


def test_names_stay_text_which_the_browser_draws_with_its_own_fonts(monkeypatch):
    use_fonts(monkeypatch)  # none for Chinese, of which matplotlib would warn
    names = ["犬", "$x$ & <y>", "a very long name " * 9 + "left"]
    page = class_bars(names, [("train", np.array([3, 2, 1]))], "objects")
    assert "犬" in page and "$x$ &amp; &lt;y&gt;" in page and "a very long n" in page and "… " not in page
    assert "me left" in page and names[2] not in page
