"""VOC's XML: encodings, flags, numbers of any size, and damage, which is read right or reported with its file."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.datamodules import VOCDetection, VOCLocalization
from striate.datamodules.annotations.annotation_errors import DataError, record_faults
from striate.datamodules.voc.annotation_table import read_voc_table
from striate.datamodules.voc.xml import read_annotation, read_xml
from striate.tests.helpers.coco_voc import voc_xml, write_voc
from striate.tests.helpers.faults import stops_at
from striate.tests.helpers.fixtures import noise, write_image

LABELS = {"猫": 0, "café": 1}
XML = voc_xml("a", (90, 80), [("猫", (1, 2, 30, 40), 0)])


def declared(encoding, text=XML):
    return f'<?xml version="1.0" encoding="{encoding}"?>\n{text}'


@pytest.mark.parametrize(
    "data",
    [
        XML.encode(),
        XML.encode("utf-8-sig"),
        XML.encode("utf-16"),
        declared("utf8").encode(),
        declared("UTF-8").encode("utf-8-sig"),
        declared("utf-16").encode("utf-16"),
        declared("utf-16").encode("utf-16-le"),
        declared("utf-16").encode(),  # as .NET writes text that is saved in UTF-8
        declared("gb2312").encode("gbk"),
        declared("GBK").encode("gbk"),
        declared("big5", XML.replace("猫", "貓")).encode("big5"),
        declared("shift_jis").encode("shift_jis"),
        declared("windows-1252", XML.replace("猫", "café")).encode("cp1252"),
    ],
)
def test_encodings(tmp_path, data):
    (tmp_path / "a.xml").write_bytes(data)
    content = read_annotation(tmp_path / "a.xml", (LABELS | {"貓": 0}).get)
    assert content.labels in ([0], [1]) and content.boxes == [[1, 2, 30, 40]] and not content.unknown


@pytest.mark.parametrize(
    "data, message",
    [
        (XML.replace("猫", "café").encode("cp1252"), r"a\.xml, line 10: must be UTF-8, got .*Windows-1252"),
        (XML.replace("猫", "狗").encode("gbk"), r"a\.xml, line 10: must be UTF-8, got .*GBK"),
        (declared("utf-8").replace("猫", "狗").encode("gbk"), r"line 11: must be UTF-8, as it declares.*GBK"),
        (declared("gb9999").encode("gbk"), r"a\.xml, line 1: declares an unknown encoding, got 'gb9999'"),
        (declared("hex").encode(), r"a\.xml, line 1: declares an unknown encoding, got 'hex'"),
        (declared("").encode(), r"a\.xml, line 1"),
    ],
)
def test_other_encodings_are_named(tmp_path, data, message):
    (tmp_path / "a.xml").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_xml(tmp_path / "a.xml")


@pytest.mark.parametrize("text, flag", [("True", True), ("false", False), (" 1 ", True), ("0.0", False), ("", False)])
def test_flags_are_read_as_what_they_say(tmp_path, text, flag):
    (tmp_path / "a.xml").write_text(voc_xml("a", (90, 80), [("cat", (1, 2, 3, 4), text)]))
    assert read_annotation(tmp_path / "a.xml", {"cat": 0}.get).difficult == [flag]


def test_another_flag_is_a_fault_of_its_object(tmp_path):
    write_voc(tmp_path, {"000005": [("car", (1, 2, 30, 40), 0), ("car", (1, 2, 30, 40), "maybe")]})
    data = VOCDetection(str(tmp_path), "2007", num_workers=0)
    with stops_at("unusable-annotation", r"000005\.xml, object 2: difficult must be 0, 1, .*got 'maybe'"):
        data.make_source("train")
    with record_faults() as faults:
        assert len(data.make_source("train")[0]["boxes"]) == 1
    assert [fault.code for fault in faults] == ["unusable-annotation"]


@pytest.mark.parametrize("text", ["9" * 30, "9" * 5000, "1e400", "-1", "0", "1_0", "nan", "40.5", "[40]", ""])
def test_a_width_that_is_no_number_of_pixels(tmp_path, text):
    write_voc(tmp_path, {"000005": [("car", (1, 2, 30, 40), 0)]})
    file = tmp_path / "VOCdevkit/VOC2007/Annotations/000005.xml"
    file.write_text(file.read_text().replace("<width>500<", f"<width>{text}<"))
    with stops_at("annotation-file", r"000005\.xml: .*size/width must be a positive number of pixels"):
        VOCDetection(str(tmp_path), "2007", num_workers=0).make_source("train")


@pytest.mark.parametrize("stated", ["", "<size><width>0</width><height>0</height><depth>3</depth></size>"])
@pytest.mark.filterwarnings("ignore:.*clipped, reaching beyond")
def test_a_size_that_is_not_stated_is_that_of_the_image(tmp_path, stated):
    write_voc(tmp_path, {"000005": [("car", (1, 2, 30, 90), 0)]})
    file = tmp_path / "VOCdevkit/VOC2007/Annotations/000005.xml"
    file.write_text(re.sub(r"<size>.*</size>", stated, file.read_text(), flags=re.DOTALL))
    write_image(tmp_path / "VOCdevkit/VOC2007/JPEGImages/000005.jpg", noise(70, 50))
    source = VOCDetection(str(tmp_path), "2007", num_workers=0).make_source("train")
    assert source.images.sizes.tolist() == [[70, 50]] and source[0]["boxes"].tolist() == [[0, 1, 30, 50]]
    layout = VOCDetection(str(tmp_path), "2007").layout
    table = read_voc_table(layout, layout.image_sets("train")[0], {"car": 0}.get, ())
    assert [image.size for image in table.images] == [(70, 50)]


def test_whole_numbers_with_a_point_are_pixels(tmp_path):
    (tmp_path / "a.xml").write_text(voc_xml("a", ("90.0", 80), []))
    assert read_annotation(tmp_path / "a.xml", {}.get).size == (90, 80)


def test_fractions_are_rejected(tmp_path):
    write_voc(tmp_path, {"000005": [("car", (0.1, 0.2, 0.5, 0.9), 0)], "000007": [("car", (0, 0, 1, 1), 0)]})
    data = VOCDetection(str(tmp_path), "2007", num_workers=0)
    with stops_at("box-normalized", r"bndbox: boxes are fractions of the image.*all 2 .*0\.1, 0\.2, 0\.5, 0\.9"):
        data.make_source("train")
    with record_faults() as faults:
        assert not data.make_source("train").objects.counts().any()
    assert [fault.code for fault in faults] == ["box-normalized"]


def test_some_fractions_are_warned_of(tmp_path):
    write_voc(tmp_path, {"000005": [("car", (0.1, 0.2, 0.5, 0.9), 0)], "000007": [("car", (1, 1, 30, 40), 0)]})
    data = VOCDetection(str(tmp_path), "2007", num_workers=0)
    with pytest.warns(UserWarning, match=r"^1 of 2 lie in 0 to 1.*pixels.*/000005.xml, object 1, got 0\.1, 0\.2"):
        data.make_source("train")
    with record_faults() as faults:
        data.make_source("train")
    assert [fault.code for fault in faults] == ["box-mixed-units"]


CVAT = '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><image name="a.jpg"/></annotations>'


@pytest.mark.filterwarnings("ignore:1 images of .* left out")
def test_the_xml_of_cvat_is_named(tmp_path):
    (tmp_path / "annotations.xml").write_text(CVAT)
    write_image(tmp_path / "a.jpg", noise(20, 20))
    message = r"annotations.xml: must be Pascal VOC's XML.*got <annotations>: CVAT's XML; export it from there as COCO"
    for names in (None, ["car"], "auto"):
        with pytest.raises(DataError, match=message):
            VOCDetection(str(tmp_path), class_names=names, num_workers=0).setup("fit")
    with pytest.raises(DataError, match=message):
        read_annotation(tmp_path / "annotations.xml", {}.get)


def test_points_are_warned_of(tmp_path):
    write_voc(tmp_path, {"000005": [("car", (9, 2, 9, 40), 0), ("car", (1, 2, 30, 40), 0), ("car", (5, 5, 5, 5), 0)]})
    with pytest.warns(UserWarning, match=r"2 of 3 boxes .*one pixel wide.*000005\.xml, object 1\)"):
        source = VOCDetection(str(tmp_path), "2007", num_workers=0).make_source("train")
    assert source[0]["boxes"].tolist() == [[8, 1, 9, 40], [0, 1, 30, 40], [4, 4, 5, 5]]


TEXTS = st.sampled_from(
    ["", " 7 ", "7.5", "-3", "9" * 25, "1e999", "nan", "inf", "x", "[1]", "{}", "true", "1_0", "７", "1,5", "\x00", "&"]
)
DAMAGE = st.one_of(
    st.tuples(st.just("text"), st.integers(0, 8), TEXTS),
    st.tuples(st.just("cut"), st.integers(0, 600), st.integers(1, 80)),
    st.tuples(st.just("insert"), st.integers(0, 600), st.binary(min_size=1, max_size=3)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(DAMAGE, min_size=1, max_size=3))
def test_damaged_files_are_read_right_or_reported_with_their_file(tmp_path_factory, damages):
    file = tmp_path_factory.getbasetemp() / "fuzz.xml"
    data = voc_xml("a", (90, 80), [("cat", (11, 12, 33, 44), 0)]).encode()
    fields = (b"90", b"80", b"cat", b"11", b"12", b"33", b"44", b"Rear", b"3")
    for kind, place, value in damages:
        if kind == "text":
            data = data.replace(b">" + fields[place] + b"<", b">" + value.encode() + b"<")
        else:
            data = data[:place] + (value if kind == "insert" else b"") + data[place + (value if kind == "cut" else 0) :]
    file.write_bytes(data)
    try:
        content = read_annotation(file, {"cat": 0}.get)
    except ValueError as error:
        assert str(file) in str(error), error
        return
    assert content.size == (0, 0) or 0 < content.size[0] < 2**31  # 0, 0: not stated
    for box, number in zip(content.boxes, content.numbers, strict=True):
        item = read_xml(file).findall("object")[number - 1]
        written = [item.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        assert box == pytest.approx([float(text) for text in written], nan_ok=True)


def test_two_images_of_one_annotation_are_warned_of(tmp_path):
    write_voc(tmp_path, {"000005": [("car", (1, 2, 30, 40), 0)], "000007": [("car", (1, 1, 30, 40), 0)]})
    images = tmp_path / "VOCdevkit/VOC2007/JPEGImages"
    write_image(images / "000005.png", noise(20, 20))
    write_image(images / "000009.png", noise(20, 20))  # in no image set
    data = VOCDetection(str(tmp_path), "2007", num_workers=0)
    message = (
        r"^1 annotation files belong to several images, of which the .jpg.*JPEGImages, first: 000005.jpg and 000005.png"
    )
    with pytest.warns(UserWarning, match=message):
        assert data.make_source("train").path(0).endswith("000005.jpg")
    with record_faults() as faults:
        data.make_source("train")
    assert [(fault.code, fault.names) for fault in faults] == [("same-stem", ["000005.jpg and 000005.png"])]


@pytest.mark.parametrize("tag", ["bndbox", "name"])
def test_a_second_box_of_an_object_is_a_fault(tmp_path, tag):
    text = voc_xml("a", (90, 80), [("猫", (1, 2, 30, 40), 0)])
    start, end = text.index(f"<{tag}>"), text.index(f"</{tag}>") + len(tag) + 3
    (tmp_path / "a.xml").write_text(text[:end] + text[start:end] + text[end:], encoding="utf-8")
    with stops_at("unusable-annotation", rf"a.xml, object 1: {tag} must occur once, got 2"):
        read_annotation(tmp_path / "a.xml", LABELS.get)


@pytest.mark.parametrize(
    "data, message",
    [
        (declared("utf8", XML.replace("猫", "Größe")).encode("cp1252"), "must be UTF8, as it declares.*Windows-1252"),
        (XML.replace("猫", "狗").encode("big5"), "must be UTF-8.*Big5"),
        (declared("klingon").encode(), "declares an unknown encoding, got 'klingon'"),
    ],
)
def test_names_of_unreadable_files_are_refused_with_the_cause(tmp_path, data, message):
    devkit = write_voc(tmp_path, {"000005": [("car", (1, 1, 30, 40), 0)]})
    for file in (devkit / "VOC2007" / "Annotations").glob("*.xml"):
        file.write_bytes(data)
    with pytest.raises(DataError, match=rf"class_names: cannot be read from .*\.xml, line \d+: {message}"):
        VOCDetection(str(tmp_path), "2007", class_names="auto", num_workers=0).make_source("train")


def test_names_that_differ_in_case_are_refused_or_merged(tmp_path):
    write_voc(tmp_path, {"000005": [("Cat", (1, 1, 30, 40), 0)], "000007": [("cat", (1, 1, 30, 40), 0)]})
    with stops_at("similar-classes", "class_names: .*only in case.*'Cat' and 'cat'"):
        _ = VOCDetection(str(tmp_path), "2007", class_names="auto", num_workers=0).class_names
    options = {"num_workers": 0, "merge_similar_classes": True}
    for names, expected in (("auto", [0, 0]), (["bus", "CAT"], [1, 1])):
        data = VOCDetection(str(tmp_path), "2007", class_names=names, **options)
        source = data.make_source("train")
        assert [source[index]["labels"].tolist() for index in range(2)] == [[label] for label in expected]
    assert VOCDetection(str(tmp_path), "2007", class_names="auto", **options).class_names == ["Cat"]
    one = VOCLocalization(str(tmp_path), "2007", class_names="auto", **options)
    assert one.class_names == ["Cat"] and one.make_source("train").labels.tolist() == [0, 0]


def test_difficult_objects_are_trained_on_unless_skipped(tmp_path):
    write_voc(tmp_path, {"000005": [("car", (1, 1, 30, 40), 1)], "000007": [("car", (1, 1, 30, 40), 1)]})
    source = VOCDetection(str(tmp_path), "2007", num_workers=0).make_source("train")
    assert source.absence(training=True) is None
    assert "2 are difficult, which no metric counts" in str(source.absence())
    skipping = VOCDetection(str(tmp_path), "2007", skip_difficult=True, num_workers=0).make_source("train")
    assert "2 x difficult (skip_difficult: true)" in str(skipping.absence(training=True))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda text: text.replace("bndbox", "robndbox"), "robndbox is a rotated box; write the smallest upright box"),
        (lambda text: text.replace("bndbox", "polygon"), "no bndbox, got name, .*polygon; write"),
    ],
)
def test_objects_without_an_upright_box(tmp_path, change, message):
    (tmp_path / "a.xml").write_text(change(XML))
    with stops_at("unusable-annotation", f"a.xml, object 1: {message}"):
        read_annotation(tmp_path / "a.xml", LABELS.get)
