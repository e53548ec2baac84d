"""The HTML report needs no other file and escapes names; its table lists the findings."""

import base64
import re

import cv2
import numpy as np

from striate.datamodules import CocoDetection
from striate.datamodules.doctor import check
from striate.datamodules.doctor.html_report import write_html
from striate.tests.helpers import small_datasets


def test_the_page_is_self_contained(tmp_path):
    def change(content):
        content["annotations"][0]["bbox"] = [60, 6, 20, 24]
        content["categories"][0]["name"] = "<cat> & co"

    for file in (small_datasets.write_coco(tmp_path), tmp_path / "annotations/instances_val2017.json"):
        small_datasets.edit(file, lambda content: content["categories"][0].update(name="<cat> & co"))
    small_datasets.edit(tmp_path / "annotations/instances_train2017.json", change)
    report = check(CocoDetection(str(tmp_path), num_workers=0), processes=0, name="<mine>")
    table = write_html(report, tmp_path / "deep" / "page.html")
    page = (tmp_path / "deep" / "page.html").read_text()
    assert (
        not re.search(r"(src|href)=\"(?!data:image/jpeg;base64,|#)", page)
        and "<script" not in page
        and "@import" not in page
    )
    assert "<h1>&lt;mine&gt;</h1>" in page and "&lt;cat&gt; &amp; co" in page and "<cat>" not in page
    assert "1 error in 6 images." in page and 'id="box-outside"' in page
    picture = re.search(r"data:image/jpeg;base64,([^\"]+)", page)[1]
    assert cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR).shape[1] == 220
    lines = table.read_text().splitlines()
    assert len(lines) == 2 and lines[1].startswith("error,box-outside,train,")
    # classes twice, and objects: how many, how large, of what shape; the images are all of one size
    charts = re.findall(r'<svg role="img" aria-label="(.*?)".*?</svg>', page, re.DOTALL)
    objects = ["Objects per image", "Size of objects", "Shape of objects"]
    assert charts == ["Classes (objects)", "Classes (images with it)", *objects]
    assert "#0" not in re.sub(r"(id|href)=\S+|url\(\S+", "", page[page.index("<svg") :])  # colors are the page's
    assert page.count("var(--first)") > len(charts)
