"""What the report says beyond retrieval of the leading pair: groups, calibration, genes, scans, inference, phenotypes.

Everything here takes plain JSON values and returns text or tables of text for the template. A table is a title, one
sentence, column names and rows.
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from align import report_words as words

MOST_ROWS = 40


def sections(said: Mapping[str, Any], least: int) -> list[dict[str, Any]]:
    """The sections that this evaluation has something to say in, in order.

    Args:
        said: The content of `evaluation.json`.
        least: Smallest count of people that is printed.
    """
    made = (
        _other_pairs(said.get("other_pairs") or {}, least),
        _subgroups(said.get("subgroups") or {}, least),
        _calibration(said.get("calibration") or {}, said),
        _fingerprint(said.get("fingerprint"), least),
        _space(said.get("confounds_in_space") or {}),
        _genes(said.get("genes") or {}),
        _linear(said.get("linear") or {}, said.get("gate") or {}),
        _phenotypes(said.get("phenotypes") or {}, least),
    )
    return [section for section in made if section]


def unknown_sentence(unknown: list[str]) -> str:
    """A warning where encoders were accepted that do not say whom they were trained on; empty otherwise."""
    if not unknown:
        return ""
    return (
        f"The {words.listed(unknown)} encoder does not say whom it was trained on, and was accepted without proof "
        f"(--unknown_training=accept). If held-out people were among them, every number here is too good."
    )


def _table(title: str, text: str, columns: list[str], rows: list[list[str]]) -> dict[str, Any]:
    return {"title": title, "text": text, "columns": columns, "rows": rows}


def _interval(found: Mapping[str, Any]) -> str:
    return f"{words.number(found['value'], 'auc')} ({words.number(found['ci_low'], 'auc')} to {words.number(found['ci_high'], 'auc')})"


def _other_pairs(pairs: Mapping[str, Any], least: int) -> dict[str, Any] | None:
    rows = []
    for name, found in pairs.items():
        for ours, theirs in found["directions"].items():
            cells = []
            for gallery in words.GALLERIES:
                auc = found.get("galleries", {}).get(gallery, {}).get(ours, {}).get("auc2afc")
                cells.append("–" if auc is None else f"{_interval(auc)}, p = {auc['p_perm']:.2g}")
            people = words.count(found["people"], least)
            rows.append([theirs.replace("_to_", " → "), people, *cells, found.get("verdict", "–")])
        del name
    if not rows:
        return None
    columns = ["Direction", "People", *words.GALLERIES.values(), "Verdict"]
    text = "2AFC accuracy of the further pairs of modalities, each among the held-out people who have both."
    return _table("Other pairs of modalities", text, columns, rows)


def _subgroups(groups: Mapping[str, Any], least: int) -> dict[str, Any] | None:
    rows, hidden = [], []
    for variable, found in groups.items():
        for level, group in found["groups"].items():
            rows.append(
                [words.variable(variable), level, words.count(group["people"], least), _interval(group)]
            )
        if found["hidden"]:
            hidden.append(f"{found['hidden']} of {words.variable(variable)}")
    if not rows:
        return None
    text = "Matched 2AFC of each group's people, both directions averaged. Does it work for everyone?"
    if hidden:
        text += f" Groups too small to be shown: {words.listed(hidden)}."
    return _table("By sex, site and ancestry", text, ["Variable", "Group", "People", "2AFC (95 %)"], rows)


def _calibration(found: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any] | None:
    if not found:
        return None
    lift = found["lift"]
    own = [
        said["galleries"]["matched"][d]["auc2afc"]["value"]
        for d in words.DIRECTIONS
        if d in said["galleries"]["matched"]
    ]
    within = sum(own) / len(own) if own else float("nan")
    text = (
        f"Pairs of the matched gallery in ten bins by cosine: in the highest, a true pair is {lift[-1]:.1f} times as "
        f"frequent as overall, in the lowest {lift[0]:.1f} times. Cosines of different people compared: "
        f"{found['pooled_auc']:.3f} (within one person's gallery: {within:.3f}"
        + (
            "; much less, so a cosine must not be read across people)."
            if found["pooled_auc"] < within - 0.05
            else ")."
        )
    )
    edges = [f"{edge:.2f}" for edge in found["edges"]]
    bounds = [
        f"below {edges[0]}",
        *(f"{a} to {b}" for a, b in pairwise(edges)),
        f"above {edges[-1]}",
    ]
    rows = [[bound, f"{value:.2f}×"] for bound, value in zip(bounds, lift, strict=True)]
    return _table(
        "Does a higher similarity mean more?",
        text,
        ["Cosine", "True pairs against their share overall"],
        rows,
    )


def _fingerprint(found: Mapping[str, Any] | None, least: int) -> dict[str, Any] | None:
    if not found:
        return None
    title = "A person's second scan"
    if "raw" not in found:
        text = (
            f"{words.count(found['people'], least)} held-out people have two runs; too few to ask whether the second scan "
            f"is found from the first, which bounds what a genome can find."
        )
        return _table(title, text, [], [])
    rows = []
    for direction, arrow in (("run_1_to_2", "run 1 → run 2"), ("run_2_to_1", "run 2 → run 1")):
        for gallery in ("raw", "matched"):
            metrics = found[gallery].get(direction)
            if metrics:
                recall = words.number(metrics.get("R@1", {}).get("value"), "R@1")
                rows.append([arrow, words.GALLERIES[gallery], _interval(metrics["auc2afc"]), recall])
    text = (
        f"Run 2 of the same person sought from run 1, by the brain tower alone, {words.count(found['people'], least)} "
        f"held-out people: the brain side's ceiling."
    )
    return _table(title, text, ["Direction", "Gallery", "2AFC (95 %)", "R@1"], rows)


def _space(space: Mapping[str, Any]) -> dict[str, Any] | None:
    if not any(space.values()):
        return None
    terms = list(dict.fromkeys(term for shares in space.values() for term in shares))[:MOST_ROWS]
    rows = [
        [
            term,
            *(
                f"{round(100 * shares[term], 1) + 0.0:.1f} %" if term in shares else "–"
                for shares in space.values()
            ),
        ]
        for term in terms
    ]
    columns = ["Confound", *(name.replace("_", " ") for name in space)]
    text = (
        "Share of the variance of held-out aligned vectors that confounds explain, by a regression fitted on training "
        "people; below 0: worse than their mean."
    )
    return _table("What confounds explain of the aligned space", text, columns, rows)


def _genes(found: Mapping[str, Any]) -> dict[str, Any] | None:
    if not found:
        return None
    title = "Which genes carry the alignment"
    if "reason" in found:
        return _table(title, f"Not asked: {found['reason']}.", [], [])
    ranked = sorted(found["genes"].items(), key=lambda item: (item[1]["q"], -item[1]["drop"]))[:MOST_ROWS]
    rows = [[gene, f"{one['drop']:+.3f}", f"{one['p']:.2g}", f"{one['q']:.2g}"] for gene, one in ranked]
    text = (
        f"Fall of matched 2AFC (from {found['whole']:.3f}) without each gene, by linear ridge CCA over {found['folds']} "
        f"family-wise folds of training and validation people; Wilcoxon test, q by Benjamini and Hochberg."
    )
    return _table(title, text, ["Gene", "Fall of 2AFC", "p", "q (FDR)"], rows)


def _linear(linear: Mapping[str, Any], gate: Mapping[str, Any]) -> dict[str, Any] | None:
    rows = []
    for name in ("cca", "pls"):
        modes = linear.get(name) or {}
        for k, p in enumerate(modes.get("p", [])[:5]):
            rows.append([name.upper(), str(k + 1), f"{modes['out_of_fold'][k]:.3f}", f"{p:.2g}"])
    if not rows and "reason" not in linear:
        return None
    text = (
        f"Not tested: {linear['reason']}."
        if "reason" in linear and not rows
        else "Modes between both modalities among training people, confounds out. p: permutations of the residual space "
        "within sites, families whole, stepwise. Correlations are out of fold: in-sample ones only measure size."
    )
    if gate:
        text += f" {gate['sentence']}"
    columns = ["Method", "Mode", "Out-of-fold correlation", "p"] if rows else []
    return _table("Linear association, and the escalation gate", text, columns, rows)


def _phenotypes(found: Mapping[str, Any], least: int) -> dict[str, Any] | None:
    rows = []
    for name, told in list(found.items())[:MOST_ROWS]:
        if "models" not in told:
            rows.append([name, "–", "–", told.get("reason", "not fitted")])
            continue
        for model, metrics in told["models"].items():
            shown = [
                f"{metric} {_interval(one)}"
                for metric, one in metrics.items()
                if metric in ("auroc", "auprc", "r2", "r") and math.isfinite(one["value"] or 0.0)
            ]
            people = told.get("people", {})
            held = people.get("test") if isinstance(people, Mapping) else people
            rows.append([name, model.replace("_", " "), words.count(int(held or 0), least), "; ".join(shown)])
    if not rows:
        return None
    text = "Simple models on the encoders' vectors of brain, genes and both, held-out people; intervals by families."
    return _table(
        "Phenotypes from brain, genes and both", text, ["Phenotype", "Model", "People", "Scores"], rows
    )
