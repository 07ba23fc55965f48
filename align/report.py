"""The report of a study: one HTML file that explains itself, needs nothing from outside and names nobody.

It is written from `evaluation.json` and the arrays beside it; training curves and timings come from the run
folders. Before it is written it is searched for subject ids and for the path of this machine.
"""

import html
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align import plots
from align import report_further as further
from align import report_rivals as rivals
from align import report_words as words
from encoders.runs import InputError, load_json, load_tensors
from encoders.runs.artifact import load_tensor_metadata, write_text
from encoders.runs.stage import release
from encoders.runs.study import Study
from encoders.runs.tracking import read_metrics

TEMPLATES = Path(__file__).with_name("templates")
STAGES = (
    "make_cohort",
    "make_splits",
    "prepare_fmri",
    "pretrain_brainmt",
    "embed_fmri",
    "embed_genome",
    "align",
    "evaluate",
)
SHORTEST_ID, SHORTEST_NUMBER = (
    4,
    6,
)  # letters; digits: shorter ids cannot be told from the report's own numbers


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the report is written from; counts and scores only, no person.

    Args:
        evaluation: Content of `evaluation.json`.
        arrays: Arrays of `figures.safetensors`.
        pretraining: Lines of BrainMT's `metrics.jsonl`; may be empty.
        alignment: Lines of the alignment's `metrics.jsonl`, each with its `model`; may be empty.
        stages: Records of the finished stages, in the order of the chain.
    """

    evaluation: dict[str, Any]
    arrays: dict[str, np.ndarray]
    pretraining: list[dict[str, Any]]
    alignment: list[dict[str, Any]]
    stages: list[dict[str, Any]]


def gather(study: Study) -> Findings:
    """Read what the stages of a study left behind."""
    path = study.need("evaluation")
    arrays, _ = load_tensors(path.with_name("figures.safetensors"), "neurohelix.figures", 1)
    return Findings(
        evaluation=load_json(path, "neurohelix.evaluation", 1),
        arrays=arrays,
        pretraining=read_metrics(study.run_folder("pretrain_brainmt")),
        alignment=alignment_metrics(study.run_folder("align")),
        stages=stage_records(study),
    )


def alignment_metrics(folder: Path) -> list[dict[str, Any]]:
    """Metrics of both models: one folder each, or one file whose lines name the model."""
    lines: list[dict[str, Any]] = list(read_metrics(folder))
    for model in ("raw", "adjusted"):
        lines += [{"model": model, **line} for line in read_metrics(folder / model)]
    return lines


def stage_records(study: Study) -> list[dict[str, Any]]:
    """Records of all finished stages but the report itself; known stages first, in order."""
    found = {path.parent.name: path for path in study.folder.glob("runs/*/stage.json")}
    names = [*(s for s in STAGES if s in found), *sorted(set(found) - {*STAGES, "report"})]
    return [load_json(found[name], "neurohelix.stage", 1) for name in names]


def people_of(study: Study) -> list[str]:
    """Every subject id of the study: what must not occur in the report."""
    metadata, _ = load_tensor_metadata(study.need("aligned"), "neurohelix.aligned", 2)
    return metadata["ids"]


def render(findings: Findings, figures: dict[str, str], *, min_count: int) -> str:
    """The report as HTML text.

    Args:
        findings: What to report.
        figures: What :func:`draw` made of them.
        min_count: Smallest count of people that is printed.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(view(findings, min_count), figures=figures)


def view(findings: Findings, least: int) -> dict[str, Any]:
    """Everything the template shows besides figures, as text."""
    said, provenance = findings.evaluation, findings.evaluation["provenance"]
    verdict, galleries = said["verdict"], said["galleries"]
    return {
        "verdict": verdict,
        "slug": re.sub(r"[^a-z]+", "-", verdict["label"].lower()),
        "synthetic": said.get("synthetic", False),
        "arm": said.get("arm"),
        "headline": headline(galleries),
        "metrics": words.metric_rows(galleries),
        "sizes": words.gallery_sizes(galleries, least),
        "models": words.model_rows(said["models"]),
        "paired": rivals.paired_rows(said.get("paired", {}), least),
        "rivals": rivals.rival_sentences(said.get("rivals", {}), least),
        "further": further.sections(said, least),
        "unknown": further.unknown_sentence(said.get("unknown_training", [])),
        "shares": words.share_cells(said.get("oracle_share")),
        "matching": words.matching_sentences(said["matching"], galleries["raw"]["num_anchors"], least),
        "dropped": words.listed([words.variable(name) for name in said["matching"]["dropped"]]),
        "confounds": words.confound_sentences(said["confounds"]),
        "people": words.people_rows(said["people"], least),
        "relatives": words.relatives_sentence(said["relatives"], least),
        "random": words.listed(words.random_encoders(provenance)),
        "encoders": words.encoder_facts(provenance),
        "split": words.short(provenance.get("split_digest", "not recorded")),
        "release": release(),
        "python": platform.python_version(),
        "software": words.software(),
        "stages": [stage_row(record) for record in findings.stages],
        "seconds": f"{sum(record['seconds'] for record in findings.stages):.0f}",
        "num_permutations": f"{said['num_permutations']:,}",
        "smallest_p": f"{1 / (1 + said['num_permutations']):.2g}",
        "num_bootstraps": f"{said['num_bootstraps']:,}",
        "num_evaluated": words.count(said["people"]["evaluated"], least),
        "min_count": least,
    }


def headline(galleries: dict[str, Any]) -> list[dict[str, Any]]:
    """The two numbers that decide: matched 2AFC in both directions."""
    matched = galleries["matched"]
    return [
        {"direction": text, **(words.cell(matched[direction]["auc2afc"], "auc2afc") or {})}
        for direction, text in words.DIRECTIONS.items()
        if direction in matched
    ]


def stage_row(record: dict[str, Any]) -> dict[str, str]:
    """Name, command and duration of one stage."""
    return {
        "name": record["stage"].replace("_", " "),
        "command": words.command_words(record["command"]),
        "seconds": f"{record['seconds']:.1f} s",
        "version": record["version"],
    }


def draw(findings: Findings) -> dict[str, str]:
    """Name of each figure that could be drawn -> its data URI."""
    arrays, said = findings.arrays, findings.evaluation
    similarity = arrays["similarity_adjusted"]
    drawn = {
        "comparison": plots.as_svg(plots.comparison_chart, said["models"]),
        "null": plots.as_svg(plots.null_histogram, arrays, said["galleries"]),
        "recall_raw": plots.as_svg(plots.recall_curve, arrays, "raw"),
        "recall_matched": plots.as_svg(plots.recall_curve, arrays, "matched"),
        "matrix": plots.as_png(plots.similarity_matrix, similarity),
        "own": plots.as_svg(plots.own_against_others, similarity),
        "pretraining": plots.as_svg(plots.supervised_curve, findings.pretraining),
        "alignment": plots.as_svg(plots.alignment_curve, findings.alignment),
    }
    return {name: uri for name, uri in drawn.items() if uri is not None}


def write_report(path: Path, text: str, *, people: Iterable[str]) -> None:
    """Write the report, unless it would tell who took part or where this machine keeps its files.

    Args:
        path: The HTML file.
        text: Its content.
        people: Subject ids that must not occur in it.

    Raises:
        InputError: an id or a private path was found; nothing is written.
    """
    if leaked := leaks(text, people):
        raise InputError(
            f"the report would hold {leaked}, so it was not written; keep ids and paths out of stage options and "
            "encoder configurations, then evaluate again",
            code="E_PRIVACY",
        )
    write_text(path, text)


def leaks(text: str, people: Iterable[str]) -> str:
    """What private text the visible part of a page holds, in words without repeating it; empty if none."""
    visible = html.unescape(re.sub(r'"data:[^"]*"', "", text))
    tokens = set(re.findall(r"[\w-]+", visible))
    found = sum(
        name in tokens and len(name) >= (SHORTEST_NUMBER if name.isdigit() else SHORTEST_ID)
        for name in people
    )
    home = str(Path.home())
    if found:
        return f"the ids of {found} {'person' if found == 1 else 'people'}"
    return (
        "the path of a home folder" if len(home) > 1 and re.search(re.escape(home) + r"\b", visible) else ""
    )
