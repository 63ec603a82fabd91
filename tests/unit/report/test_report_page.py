"""The page stands alone, shows names as they are, and its figures are plotly's."""

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from polytask import UserError
from polytask.report import collect, page, write_figures
from polytask.report._page import figures_json
from polytask.report._plotly import figures
from polytask.report._sections import sections
from tests.report_folders import write_comparison, write_run

EVIL = (
    "a<script>alert(1)<script>",
    'b"onmouseover="alert(2)',
    "c&lt;img src=x onerror=alert(3)>",
    "d{{ 7*7 }}$x$",
)


class Page(HTMLParser):
    """Elements and text as a browser sees them; scripts and styles are no text."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.text, self.scripts = [], "", []
        self._raw = None
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._raw = tag if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        self._raw = None

    def handle_data(self, data):
        if self._raw == "script":
            self.scripts.append(data)
        elif self._raw is None:
            self.text += data


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """Runs whose tasks, configs and folders have names that would like to be run."""
    root = tmp_path_factory.mktemp("evil")
    config = {"<b>key</b>": "</script><script>alert(4)</script>"}
    names = ("<i>one<i>", "{{ two }}")
    return collect([write_run(root / name, EVIL, seed, config) for seed, name in enumerate(names)])


def test_names_are_shown_and_not_run(evil):
    found = Page(page(evil))
    for name in (*EVIL, "<i>one<i>", "{{ two }}", "<b>key</b>", "</script><script>alert(4)</script>"):
        assert name in found.text, name
    assert sum(tag == "script" for tag, _ in found.elements) == 3
    assert not [tag for tag, _ in found.elements if tag in ("i", "b", "img")]
    assert not [name for _, attributes in found.elements for name in attributes if name.startswith("on")]


def test_figures_cannot_leave_their_script(evil):
    text = str(figures_json(sections(evil)))
    assert not set("<>&") & set(text)
    json.loads(text)


def test_plotly_is_given_names_as_text(evil):
    traces = [
        trace for part in sections(evil) for chart in part.charts for trace in figures(chart)[0]["data"]
    ]
    names = {trace.get("name", "") for trace in traces}
    assert "a&lt;script&gt;alert(1)&lt;script&gt;" in names
    assert not [name for name in names if "<" in name]


def test_the_page_loads_nothing(evil):
    found = Page(page(evil))
    loads = [
        (tag, name, value)
        for tag, attributes in found.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action") and not (value or "").startswith(("#", "data:"))
    ]
    assert loads == []
    policy = next(attributes["content"] for tag, attributes in found.elements if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'")
    assert "connect-src" not in policy


def test_only_a_live_page_may_ask_its_server(evil):
    live = Page(page(evil, refresh_ms=2000))
    assert "connect-src 'self'" in next(each["content"] for _, each in live.elements if "http-equiv" in each)
    assert next(each for tag, each in live.elements if tag == "body")["data-live"] == "2000"


def test_every_link_leads_into_the_page_and_every_input_is_labelled(evil):
    source = page(evil)
    found = Page(source)
    ids = {attributes["id"] for _, attributes in found.elements if "id" in attributes}
    targets = {attributes["href"][1:] for tag, attributes in found.elements if tag == "a"}
    assert targets <= ids
    bare = re.sub(r"<label.*?</label>", "", source.split("<script")[0], flags=re.DOTALL)
    assert not re.search(r"<(input|select)", bare)


def test_the_same_records_give_the_same_page(evil):
    assert page(evil) == page(evil)


def test_every_figure_is_one_that_plotly_knows(tmp_path):
    plotly = pytest.importorskip("plotly.graph_objects")
    found = collect([write_comparison(tmp_path / "cmp", methods=("equal", "uw"), seeds=2)])
    drawn = [figure for part in sections(found) for chart in part.charts for figure in figures(chart)]
    assert len(drawn) > 20
    for figure in drawn:
        plotly.Figure(figure)


def test_a_comparison_shows_its_table_and_sentences(tmp_path):
    found = Page(page(collect([write_comparison(tmp_path / "cmp", methods=("equal",), seeds=2)])))
    for text in ("digit/Accuracy ↑", "delta_m % ↑", "positive is good", "2 seeds: no verdict", "plain_sum"):
        assert text in found.text


def test_what_is_missing_is_said(tmp_path):
    run = tmp_path / "new"
    run.mkdir()
    (run / "config.yaml").write_text("seed: 0\n")
    (run / "checkpoints").mkdir()
    text = Page(page(collect([run]))).text
    for words in (
        "none known yet",
        "No losses yet",
        "No metrics",
        "GradientRecorder",
        "polytask.diagnostics.Affinity",
    ):
        assert words in text


def test_values_that_are_no_numbers_are_gaps(tmp_path):
    run = write_run(tmp_path / "one", records=False)
    text = (run / "metrics.csv").read_text().splitlines()
    text.append(
        ",".join(
            ["6", "279"] + ["nan" if index % 2 else "inf" for index in range(len(text[0].split(",")) - 2)]
        )
    )
    (run / "metrics.csv").write_text("\n".join(text) + "\n")
    found = json.loads(str(figures_json(sections(collect([run])))))
    assert found[0][0]["data"][0]["y"][-1] is None


def test_many_tasks_and_runs_have_a_page(tmp_path):
    tasks = [f"task_{number}" for number in range(14)]
    runs = [write_run(tmp_path / f"run{number}", tasks, number, records=number == 0) for number in range(8)]
    found = collect(runs)
    lines = losses_of_first_task(found)
    looks = {(line["line"]["color"], line["line"]["dash"]) for line in lines}
    assert len(looks) == len(lines) == 8
    assert "task_13" in page(found)


def losses_of_first_task(found):
    return figures(sections(found)[0].charts[0])[0]["data"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A small comparison of evil tasks, and its figures in a folder."""
    root = tmp_path_factory.mktemp("drawn")
    tasks = (EVIL[0], EVIL[3])
    found = collect([write_comparison(root / "cmp", tasks, ("equal",), seeds=1)])
    return found, write_figures(found, root / "figures")


@pytest.mark.slow
def test_figures_are_files_named_by_their_charts(drawn):
    _, files = drawn
    assert {file.suffix for file in files} == {".png", ".svg"}
    assert len(set(files)) == len(files)
    assert all(re.fullmatch(r"[a-z0-9_-]+\.(png|svg)", file.name) for file in files)
    assert {file.read_bytes()[:4] for file in files if file.suffix == ".png"} == {b"\x89PNG"}
    kinds = (
        "loss-of",
        "accuracy-of",
        "two-tasks",
        "weights",
        "gradient-norms",
        "gradient-cosines",
        "affinity",
    )
    assert all(any(file.name.startswith(kind) for file in files) for kind in kinds)


def test_names_are_text_in_figures(drawn):
    _, files = drawn
    file = next(file for file in files if file.name == "weights-equal.svg")
    shown = "".join(ElementTree.parse(file).getroot().itertext())
    assert EVIL[0] in shown
    assert EVIL[3] in shown


def test_figures_of_names_that_a_file_cannot_tell_apart_are_all_kept(tmp_path):
    run = tmp_path / "one"
    run.mkdir()
    (run / "config.yaml").write_text("seed: 0\n")
    (run / "metrics.csv").write_text("step,val/loss/Digit/epoch,val/loss/digit/epoch\n9,1.0,2.0\n")
    files = write_figures(collect([run]), tmp_path / "figures")
    assert {"loss-of-digit.png", "loss-of-digit-2.png"} <= {file.name for file in files}


@pytest.mark.slow
def test_the_same_records_give_the_same_figures(tmp_path):
    run = write_run(tmp_path / "one", ("digit",), records=False)
    found = collect([run])
    first, second = (write_figures(found, tmp_path / name) for name in ("a", "b"))
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_figures_need_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--figures .*file: must be a writable folder"):
        write_figures(collect([write_run(tmp_path / "one", records=False)]), tmp_path / "file")
