"""The report: says the verdict, stands alone, names nobody, and can be read in a browser."""

import base64
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from align import plots
from align import report_words as words
from align.report import Findings, draw, gather, leaks, people_of, render, write_report
from encoders.runs import InputError, Study

VOID = {"meta", "img", "br"}


@pytest.fixture(scope="module")
def found(finished_study_master):
    return gather(Study(finished_study_master))


@pytest.fixture(scope="module")
def drawn(found):
    return draw(found)


@pytest.fixture(scope="module")
def page(found, drawn):
    return render(found, drawn, min_count=5)


def changed(found, **evaluation):
    """The same findings with other parts of evaluation.json."""
    return Findings(**{**vars(found), "evaluation": {**found.evaluation, **evaluation}})


class Page(HTMLParser):
    """Checks that tags nest, and keeps text, attributes and images."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.words, self.tags = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_the_verdict_comes_first_with_its_reasons(found, page):
    said, text = found.evaluation["verdict"], Page(page).text
    assert (
        text.index("Beyond confounds")
        < text.index(said["sentence"])
        < text.index("Results on held-out people")
    )
    assert all(reason in text for reason in said["reasons"]) and said["comparison"] in text


def test_every_number_of_the_table_is_there(found, page):
    text = Page(page).text
    for gallery in ("raw", "adjusted", "matched"):
        for direction in plots.DIRECTIONS:
            for metric, score in found.evaluation["galleries"][gallery][direction].items():
                assert words.number(score["value"], metric) in text
                assert words.cell(score, metric)["interval"] in text
        for model in found.evaluation["models"].values():
            assert f"{model[gallery]['brain_to_gene']['value']:.3f}" in text
        assert f"among {found.evaluation['galleries'][gallery]['median_gallery']}" in text
    assert "77 %" in text and "Share of the oracle" in text


def test_it_stands_alone(page):
    parsed = Page(page)
    assert "script" not in parsed.tags and "link" not in parsed.tags and "iframe" not in parsed.tags
    sources = [value for tag, name, value in parsed.attributes if name == "src"]
    assert len(sources) == 8 and all(
        s.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,")) for s in sources
    )
    assert all(value.startswith("#") for tag, name, value in parsed.attributes if name == "href")
    assert not re.search(r"url\(|@import|https?:", re.sub(r'"data:[^"]*"', "", page))
    for source in sources:
        if source.startswith("data:image/svg"):
            drawing = base64.b64decode(source.partition(",")[2]).decode()
            assert not re.search(r'(href|src)="(?!#|data:)', drawing)
    assert len(page) < 3 * 2**20
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_it_names_nobody_and_no_place(finished_study_master, page):
    images = re.findall(r'"data:[^,"]*,([^"]*)"', page)
    everything = page + "".join(base64.b64decode(image).decode(errors="replace") for image in images)
    assert not re.search(r"sub-\d+", everything)
    for private in (
        str(finished_study_master),
        str(Path.home()) + "/",
        "/home/",
        "/tmp/",
        "participants.tsv",
    ):
        assert private not in everything
    assert "scripts/align.py --study &lt;path&gt; --participants=&lt;path&gt; --k=3" in page


def test_a_report_with_an_id_or_a_home_path_is_not_written(finished_study_master, found, drawn, tmp_path):
    people = people_of(Study(finished_study_master))
    assert leaks(render(found, drawn, min_count=5), people) == ""
    for private, told in ((people[3], "ids of 1 person"), (f"{Path.home()}/raw", "path of a home folder")):
        verdict = {**found.evaluation["verdict"], "reasons": [f"see {private}"]}
        with pytest.raises(InputError, match=f"E_PRIVACY: .*{told}") as error:
            write_report(
                tmp_path / "r.html",
                render(changed(found, verdict=verdict), drawn, min_count=5),
                people=people,
            )
        assert private not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    assert leaks("<p>1000 permutations of 300 people</p>", ["1000", "300"]) == ""
    assert leaks("<p>1234567</p>", ["1234567"]) == "the ids of 1 person"


def test_small_counts_are_held_back_and_cannot_be_subtracted(found, drawn):
    people = {
        "train": 300,
        "val": 60,
        "test": 160,
        "evaluated": 158,
        "without_brain": 2,
        "without_genetics": 0,
    }
    rows = dict(words.people_rows(people, 5))
    assert rows["Without a brain vector"] == "< 5" and rows["Without a genome vector"] == "0"
    assert rows["Held out"] == "158 or a few more" and rows["Training"] == "300"
    galleries = {name: {**gallery} for name, gallery in found.evaluation["galleries"].items()}
    galleries["matched"] |= {"num_anchors": 27, "num_without_distractors": 3}
    text = Page(render(changed(found, galleries=galleries), drawn, min_count=5)).text
    assert "all but < 5 people sought" in text and "< 5 without anybody to compare with" in text
    assert "27 people sought" not in text
    assert "relatives among the evaluated people, too few" in words.relatives_sentence({"pairs": 3}, 5)
    told = words.relatives_sentence({"pairs": 12, "auc2afc": 0.7, "retrieved_instead": 2}, 5)
    assert "for < 5 people" in told
    matching = found.evaluation["matching"] | {"share_with_enough": 0.98}
    assert "More than 95 % of people" in " ".join(words.matching_sentences(matching, 100, 5))


def test_random_weights_are_told_only_where_they_are(found, drawn, page):
    assert "The genome encoder ran with random, untrained weights" in Page(page).text
    provenance = {"brain": {"encoder": "brainmt"}, "genetics": {"encoder": "evo2", "random_weights": False}}
    text = Page(render(changed(found, provenance=provenance), drawn, min_count=5)).text
    assert "untrained weights" not in text


def test_a_real_study_speaks_of_no_oracle_and_no_synthetic_people(found, drawn):
    models = {name: model for name, model in found.evaluation["models"].items() if name != "oracle"}
    real = changed(found, synthetic=False, arm=None, oracle_share=None, models=models)
    text = Page(render(real, drawn, min_count=5)).text.lower()
    assert "oracle" not in text and "synthetic" not in text and "simulated" not in text


def test_an_unfinished_study_still_has_a_report(found):
    """No training curves, nobody matched, metrics that are not numbers, no names of stages."""
    galleries = {name: {**gallery} for name, gallery in found.evaluation["galleries"].items()}
    for direction in plots.DIRECTIONS:
        del galleries["matched"][direction]
        galleries["raw"][direction] = {**galleries["raw"][direction]}
        del galleries["raw"][direction]["R@10"]
        galleries["raw"][direction]["mrr"] = dict.fromkeys(
            ("value", "ci_low", "ci_high", "chance", "lift"), np.nan
        ) | {"p_perm": 1.0}
    models = {"neurohelix": {"raw": found.evaluation["models"]["neurohelix"]["raw"]}}
    poor = changed(found, galleries=galleries, models=models, relatives={"pairs": 0})
    poor = Findings(**{**vars(poor), "pretraining": [], "alignment": [], "stages": []})
    text = Page(render(poor, draw(poor), min_count=5)).text
    assert "not shown: needs 50 people" in text and "not computed" in text and "no pairs of relatives" in text
    assert "nan" not in text.lower().split()


def test_the_same_findings_give_the_same_bytes(found, drawn, page):
    assert render(found, drawn, min_count=5) == page
    assert plots.as_svg(plots.recall_curve, found.arrays, "raw") == drawn["recall_raw"]
    assert plots.as_png(plots.similarity_matrix, found.arrays["similarity_adjusted"]) == drawn["matrix"]


def test_figures_can_be_read(found):
    """Letters of at least 10 points, units on the axes, and more than colour to tell lines apart."""
    arrays, said = found.arrays, found.evaluation
    all_figures = (
        (plots.comparison_chart, said["models"]),
        (plots.null_histogram, arrays, said["galleries"]),
        (plots.recall_curve, arrays, "raw"),
        (plots.recall_curve, arrays, "matched"),
        (plots.similarity_matrix, arrays["similarity_adjusted"]),
        (plots.own_against_others, arrays["similarity_adjusted"]),
        (plots.supervised_curve, found.pretraining),
        (plots.alignment_curve, found.alignment),
    )
    for figure_of, *data in all_figures:
        with matplotlib.rc_context(plots.STYLE):
            figure = figure_of(*data)
            figure.canvas.draw()
            texts = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text() and t.get_visible()]
        assert min(t.get_fontsize() for t in texts) >= 10, figure_of.__name__
        assert figure.axes[0].get_xlabel() or figure.axes[-1].get_xlabel(), figure_of.__name__
    looks = [(style, marker, filled) for _, _, style, marker, filled in plots.DIRECTIONS.values()]
    assert all(a != b for a, b in zip(*looks, strict=True))


def test_the_alignments_own_folders_are_read_too(finished_study):
    """One metrics.jsonl per model, as `align` writes them, gives the same curves as one file naming the model."""
    runs = finished_study / "runs" / "align"
    lines = (runs / "metrics.jsonl").read_text().splitlines(keepends=True)
    before = gather(Study(finished_study)).alignment
    (runs / "metrics.jsonl").unlink()
    for model in ("raw", "adjusted"):
        (runs / model).mkdir()
        kept = [re.sub(f'"model": "{model}", ', "", line) for line in lines if f'"model": "{model}"' in line]
        (runs / model / "metrics.jsonl").write_text("".join(kept))
    assert gather(Study(finished_study)).alignment == before


def browser():
    """Path of a Chromium; skips without one, or fails if NEUROHELIX_BROWSER=required."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((path for name in names if (path := shutil.which(name))), None)
    if path is None and os.environ.get("NEUROHELIX_BROWSER") == "required":
        pytest.fail("NEUROHELIX_BROWSER=required, but no Chromium was found")
    return path or pytest.skip("no Chromium found (install chromium, or set NEUROHELIX_BROWSER=required)")


def browse(folder, page, *options):
    """Open a page in headless Chromium without network; returns what it prints."""
    command = [
        browser(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
        *options,
        page.as_uri(),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return ended.stdout


# The report itself may run no script; a copy of it may, and writes down how it was laid out.
MEASURE = """<script>
onload = () => {
  const images = [...document.images].map(i => [i.naturalWidth, i.naturalHeight, i.clientWidth, i.clientHeight]);
  document.body.dataset.images = JSON.stringify(images);
  document.body.dataset.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
};
</script></body>"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 400])
def test_it_opens_in_a_browser(found, page, tmp_path, width):
    report = tmp_path / "report.html"
    report.write_text(page, encoding="utf-8")
    picture = tmp_path / "picture.png"
    dom = browse(tmp_path, report, "--dump-dom", f"--screenshot={picture}", f"--window-size={width},4000")
    assert found.evaluation["verdict"]["sentence"] in dom
    colours = Image.open(picture).convert("RGB").getcolors(maxcolors=2**24)
    assert len(colours) > 200
    assert max(count for count, _ in colours) < 0.97 * width * 4000

    measured = tmp_path / "measured.html"
    copy = re.sub(r"<meta http-equiv[^>]*>", "", page).replace("</body>", MEASURE)
    measured.write_text(copy, encoding="utf-8")
    dom = browse(tmp_path, measured, "--dump-dom", f"--window-size={width},4000")
    images = re.search(r'data-images="(\[\[.*?\]\])"', dom)[1]
    sizes = [tuple(map(int, size.split(","))) for size in re.findall(r"\[([\d,]+)\]", images)]
    assert len(sizes) == 8 and all(min(size) > 100 for size in sizes)
    assert 'data-overflow="0"' in dom  # nothing sticks out sideways


def test_what_the_embedding_knows_is_told_and_small_groups_are_not(found, drawn):
    page = render(
        changed(
            found,
            subgroups={
                "site": {
                    "groups": {"a": {"value": 0.7, "ci_low": 0.6, "ci_high": 0.8, "people": 40}},
                    "hidden": 2,
                    "hidden_people": 7,
                }
            },
            calibration={
                "lift": [0.1 * k for k in range(10)],
                "edges": [k / 10 for k in range(9)],
                "pooled_auc": 0.6,
            },
            confounds_in_space={"brain_raw": {"all": 0.12, "sex": 0.1}, "brain_adjusted": {"all": -0.01}},
            genes={"folds": 10, "whole": 0.71, "genes": {"XPC": {"drop": 0.05, "p": 0.001, "q": 0.006}}},
            fingerprint={"people": 3},
            linear={"cca": {"p": [0.001], "out_of_fold": [0.4]}},
            gate={"sentence": "Escalation gate passed: by these numbers."},
            phenotypes={"mdd": {"reason": "3 people have a label"}},
            unknown_training=["brain"],
        ),
        drawn,
        min_count=5,
    )
    text = " ".join(Page(page).words)
    assert "Groups too small to be shown: 2 of site" in text and "0.700 (0.600 to 0.800)" in text
    assert "a cosine must not be read across people" in text and "12.0 %" in text and "-1.0 %" in text
    assert "XPC" in text and "+0.050" in text and "Escalation gate passed: by these numbers." in text
    assert "< 5 held-out people have two runs" in text and "3 people have a label" in text
    assert "The brain encoder does not say whom it was trained on" in text
    assert "Unknown training" not in render(found, drawn, min_count=5)
