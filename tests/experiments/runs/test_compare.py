"""``striate runs compare``: one page for runs of any kind, parsed here and opened in a browser where there is one."""

import base64
import io
import json
import math
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from PIL import Image

from striate.experiments.runs.commands import run as runs_command
from striate.experiments.runs.comparison import (
    MAX_POINTS,
    PICTURE_WIDTH,
    curves,
    epoch_position,
    make_page,
    metric_names,
    metric_rows,
    picture_files,
    steps_per_epoch,
    thin,
)
from striate.experiments.runs.reading import Point, read_run
from striate.tests.helpers.run_folders import config_with, make_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """Collects what a page contains: tables by id, attributes that load something, the data of the script."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.sources, self.images, self.open = {}, [], [], []
        self.data, self._reads_data, self._table = None, False, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in ("meta", "input", "br", "img", "line"):
            self.open.append(tag)
        self.sources += [values[key] for key in ("src", "href", "action", "data", "poster") if key in values]
        if tag == "img":
            self.images.append(values)
        if tag == "table":
            self._table = self.tables.setdefault(values.get("id"), [])
        if tag == "tr" and self._table is not None:
            self._table.append([])
        if tag in ("td", "th") and self._table is not None:
            self._table[-1].append("")
        self._reads_data = values.get("id") == "data"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self._reads_data = False
        self._table = None if tag == "table" else self._table

    def handle_data(self, text):
        if self._reads_data:
            self.data = json.loads(text)
        elif self._table and self._table[-1]:
            self._table[-1][-1] += text.strip()


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A working folder with runs of many kinds below ``runs``."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "runs"
    both = {"val/acc": [0.5, 0.7, 0.6], "train/loss": [3.0, 2.0, 1.0]}
    make_run(root / "a/fit-1", metrics=both, pictures=["val_epoch_002.png", "val_epoch_010.png"], state="finished")
    other = {"val/acc": [0.4, 0.9], "val/<script>": [1, 2]}
    notes = "</script><b>&"
    make_run(root / "a/fit-2", config_with(lr=0.01, notes=notes), other, ["val_epoch_000.png"], state="running")
    make_run(root / "b/fit-1", metrics={"val/map": ["nan"]}, state="failed", monitor="val/map", error="loss: is <NaN>")
    make_run(root / "b/fit-2", None, None, state="interrupted")  # killed at its start
    (make_run(root / "b/fit-3", pictures=["val.png"]) / "config.yaml").write_text("a: [")
    picture = root / "b/fit-3/pictures/val.png"
    picture.write_bytes(picture.read_bytes()[:60])  # killed while it was written
    return root


def compare(root, *names):
    """The page that ``striate runs compare`` writes."""
    runs_command(["compare", *names])
    return Page((root / "compare.html").read_text(encoding="utf-8"))


def test_a_page_for_runs_of_any_kind(root, capsys):
    page = compare(root, "a", "b")
    output = capsys.readouterr()
    assert output.out == "runs/compare.html: 5 runs; open it in a browser\n"
    assert output.err == (
        "striate: b/fit-2: config.yaml: missing\nstriate: b/fit-3: config.yaml: not valid YAML in line 2\n"
    )
    assert not page.open
    assert all(source.startswith("data:image/webp;base64,") for source in page.sources)
    rows = {row[0]: row[1:] for row in page.tables["runs"][1:]}
    assert [row[0] for row in rows.values()] == ["finished", "running", "failed", "interrupted", "unknown"]
    assert rows["a/fit-1"][1:4] == ["3 of 3", "val/acc 0.7", "1"]
    assert rows["a/fit-2"][6] == "</script><b>&"
    assert "loss: is <NaN>" in rows["b/fit-1"][6] and "no metrics" in rows["b/fit-2"][6]
    assert page.tables["differences"][1:] == [["model.optimizer.lr", "0.1", "0.01", "0.1", "—", "—"]]
    metrics = {row[0]: row[1:] for row in page.tables["metrics"][1:]}
    assert metrics["best val/acc"] == ["0.7", "0.9", "—", "—", "—"]
    assert metrics["last val/acc"] == ["0.6", "0.9", "—", "—", "—"]
    assert metrics["last val/map"] == ["—", "—", "nan", "—", "—"]
    assert page.data["metrics"] == ["val/acc", "val/map", "val/<script>", "train/loss"]
    assert page.data["runs"][2]["curves"]["val/map"]["value"] == []
    assert page.data["runs"][0]["curves"]["train/loss"] == {
        "step": [9, 19, 29],
        "epoch": [1.0, 2.0, 3.0],
        "value": [3.0, 2.0, 1.0],
    }


def test_the_last_picture_of_each_kind(root):
    page = compare(root, "a/fit-1", "a/fit-2", "b/fit-3")
    assert [image["alt"] for image in page.images] == ["val_epoch_010.png of a/fit-1", "val_epoch_000.png of a/fit-2"]
    text = (root / "compare.html").read_text()
    assert "val.png cannot be read" in text
    image = Image.open(io.BytesIO(base64.b64decode(page.images[0]["src"].partition(",")[2])))
    assert image.size == (60, 40) and abs(image.convert("RGB").getpixel((30, 20))[0] - 90) < 6


def test_large_pictures_are_made_smaller(root):
    Image.new("RGB", (3 * PICTURE_WIDTH, 300)).save(root / "a/fit-1/pictures/val_epoch_011.png")
    (image,) = compare(root, "a/fit-1").images
    assert Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))).size == (PICTURE_WIDTH, 100)


def test_kinds_of_pictures(root):
    for name in ("val_confusion", "val_epoch_003", "lr_finder"):
        (root / f"a/fit-1/pictures/{name}.png").write_bytes(b"")
    files = {kind: path.name for kind, path in picture_files(root / "a/fit-1").items()}
    assert files == {"val": "val_epoch_010.png", "val_confusion": "val_confusion.png", "lr_finder": "lr_finder.png"}


def test_only_the_best_of_monitored_metrics_is_marked(root):
    runs = [read_run(root / name, name) for name in ("a/fit-1", "a/fit-2")]
    marks = {row["title"]: [best for _, best in row["cells"]] for row in metric_rows(runs)}
    assert marks["best val/acc"] == [False, True] and marks["last val/acc"] == [False, True]
    assert marks["last train/loss"] == [False, False]


def test_a_lower_loss_is_better(tmp_path):
    for number, values in ((1, [0.5, 0.2]), (2, [0.1, 0.4])):
        make_run(tmp_path / f"fit-{number}", metrics={"val/loss": values}, state="finished", monitor="val/loss", mode="min")
    runs = [read_run(tmp_path / name, name) for name in ("fit-1", "fit-2")]
    marks = {row["title"]: row["cells"] for row in metric_rows(runs)}
    assert marks["best val/loss"] == [("0.2", False), ("0.1", True)]
    assert marks["last val/loss"] == [("0.2", True), ("0.4", False)]
    assert metric_names(runs) == ["val/loss"]


def test_twenty_runs_at_most(root, capsys):
    for number in range(21):
        make_run(root / f"c/fit-{number}", metrics={"val/acc": [number / 20]}, state="finished")
    page = compare(root, *(f"c/fit-{number}" for number in range(20)))
    assert len(page.tables["runs"]) == 21 and len(page.data["runs"]) == 20
    assert refused(capsys, "c").startswith("compare: at most 20 runs fit on a page, got 21; ")


def test_one_run(root):
    page = compare(root, "a/fit-1", "runs/a/fit-1")
    assert len(page.tables["runs"]) == 2 and "differences" not in page.tables


def refused(capsys, *names):
    """The one-line message with which ``compare`` refuses arguments."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        runs_command(["compare", *names])
    (line,) = capsys.readouterr().err.splitlines()
    assert exit_.value.code in (1, 2)
    return line.removeprefix("striate: ")


def test_wrong_calls_are_one_line(root, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    assert refused(capsys, "a/fit-7").startswith("compare: no such run or experiment, got 'a/fit-7'; did you mean 'a/fit")
    assert refused(capsys, "empty").startswith("compare: no runs in this folder, got 'empty'; ")
    assert refused(capsys).startswith("compare: needs the names of runs")
    assert refused(capsys, "a", "--output", "page.txt") == "--output: must end in .html, got 'page.txt'"
    (tmp_path / "file").write_text("")
    assert refused(capsys, "a", "--output", "file/page.html").startswith("--output: cannot write there (")
    assert refused(capsys, "a", "--json").startswith("runs compare: unknown argument, got --json; did you mean '--root'?")


def test_of_an_experiment_the_training_runs_are_compared(root):
    make_run(root / "a/validate-1", metrics={"val/acc": [0.9]})
    assert [row[0] for row in compare(root, "a").tables["runs"][1:]] == ["a/fit-1", "a/fit-2"]
    assert [row[0] for row in compare(root, "a/validate-1").tables["runs"][1:]] == ["a/validate-1"]


def test_runs_elsewhere(root, tmp_path):
    make_run(tmp_path / "copied/fit-3", metrics={"val/acc": [0.9]})
    assert [row[0] for row in compare(root, "copied", "a/fit-1").tables["runs"][1:]] == ["copied/fit-3", "a/fit-1"]


def test_thinning_keeps_the_ends_and_the_extremes():
    points = [Point(step, 0, math.sin(step / 7)) for step in range(10_000)]
    points[4321], points[6000] = Point(4321, 0, 50.0), Point(6000, 0, -50.0)
    kept = thin(points)
    assert len(kept) <= MAX_POINTS and kept == sorted(kept, key=lambda point: point.step)
    assert {points[0], points[-1], points[4321], points[6000]} <= set(kept)
    assert thin(points[:MAX_POINTS]) == points[:MAX_POINTS]


def test_positions_in_epochs(tmp_path):
    folder = make_run(tmp_path / "fit-1")
    (folder / "metrics.csv").write_text("epoch,step,train/loss,val/acc\n0,4,3.0,\n0,9,2.0,0.5\n1,14,1.0,\n")
    run = read_run(folder, "fit-1")
    assert steps_per_epoch(run) == 10
    assert curves(run)["train/loss"]["epoch"] == [0.5, 1.0, 1.5]
    assert epoch_position(Point(7, 2, 0.0), None) == 3 and epoch_position(Point(7, None, 0.0), None) is None


CLICKS = """
<script>
const results = {errors: [], plots: document.querySelectorAll(".plot:not(.off)").length};
const paths = () => [...document.querySelector(".plot").querySelectorAll("path")].map(path => path.getAttribute("d"));
results.before = paths();
document.querySelector("[value=epoch]").click();
results.tick = document.querySelector(".plot svg").textContent;
const svg = document.querySelector(".plot svg"), box = svg.getBoundingClientRect();
svg.dispatchEvent(new PointerEvent("pointermove", {clientX: box.right - 12, clientY: box.top + 20}));
results.tip = [...document.querySelector(".plot .tip").children].map(row => row.textContent);
results.hidden = document.querySelector(".plot .tip").hidden;
document.querySelector("[data-run='1']").click();
results.after = paths().length;
results.cells = [...document.querySelectorAll("[data-of='1']")].every(cell => getComputedStyle(cell).display === "none");
document.getElementById("filter").value = "train";
document.getElementById("filter").dispatchEvent(new Event("input"));
results.filtered = [...document.querySelectorAll(".plot:not(.off) h4")].map(heading => heading.textContent);
results.images = [...document.images].map(image => image.naturalWidth);
document.title = JSON.stringify(results);
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no browser")
def test_in_a_browser(root, tmp_path):
    """Hovering shows the values of all runs; the boxes hide runs; the axis and the filter work; pictures are decoded."""
    compare(root, "a", "b")
    page = tmp_path / "clicks.html"
    page.write_text((root / "compare.html").read_text().replace("</body>", CLICKS + "</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", f"--user-data-dir={tmp_path}/c"]
    done = subprocess.run(
        [CHROMIUM, *options, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"HOME": str(tmp_path)},
    )
    title = re.search("<title>(.*?)</title>", done.stdout)
    assert title, done.stderr
    results = json.loads(title[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert results["plots"] == 3  # val/map has no finite value
    assert len(results["before"]) == 2 and results["after"] == 1
    first, second = ([tuple(map(float, one.split(" "))) for one in re.split("[ML]", path)[1:]] for path in results["before"])
    assert len(first) == 3 and len(second) == 2
    assert first[1][1] < first[2][1] < first[0][1]  # 0.7 is above 0.6, which is above 0.5
    assert second[1][1] < first[1][1] and first[0][0] == second[0][0] and first[1][0] == second[1][0]
    assert results["tip"] == ["0.9  (epoch 2)  a/fit-2", "0.6  (epoch 3)  a/fit-1"] and results["hidden"] is False
    assert results["cells"] and results["filtered"] == ["train/loss"] and results["images"] == [60, 60]
    assert "1.5" in results["tick"]


def test_a_page_without_metrics_and_pictures(tmp_path):
    make_run(tmp_path / "fit-1", None, state="interrupted")
    page = make_page([read_run(tmp_path / "fit-1", "fit-1")])
    assert "No run has logged a metric" in page and "No run has pictures" in page and Page(page).data["metrics"] == []
