"""The verdict in words, by stated rules, from the three galleries.

- *beyond confounds*: in the matched gallery the lower bound of the 2AFC interval is above 0.5 and p <= 0.05, in
  both directions.
- *explained by confounds*: raw p <= 0.05 in a direction, and matched upper bounds below 0.55.
- *no signal*: raw and matched upper bounds below 0.55.
- *inconclusive*: anything else, with the sample size that would decide.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

from align.retrieval import DIRECTIONS

ALPHA = 0.05
CHANCE = 0.5
NEGLIGIBLE = 0.55  # a 2AFC below this is too small to matter

Label = Literal["beyond confounds", "explained by confounds", "no signal", "inconclusive"]
ARROWS = {"brain_to_gene": "brain → gene", "gene_to_brain": "gene → brain"}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the numbers allow one to say.

    Args:
        label: One of four.
        sentence: The label as a sentence with its numbers.
        reasons: The numbers that decided, one sentence each.
        comparison: How it compares with linear CCA and, in a synthetic cohort, the oracle.
    """

    label: Label
    sentence: str
    reasons: list[str]
    comparison: str


def verdict(
    galleries: dict[str, Any],
    models: dict[str, Any],
    oracle_share: dict[str, float] | None,
    paired: dict[str, Any] | None = None,
) -> Verdict:
    """Apply the rules of this module.

    Args:
        galleries: `raw`, `adjusted`, `matched` as `evaluate_gallery` returns them.
        models: 2AFC of each model in each gallery.
        oracle_share: Our share of the oracle's excess per gallery, in a synthetic cohort.
        paired: Paired tests of our model against each rival.
    """
    if any(direction not in galleries["matched"] for direction in DIRECTIONS):
        return Verdict(
            label="inconclusive",
            sentence="Inconclusive: nobody in the held-out set has a matched distractor, so confounds cannot be excluded.",
            reasons=["Hold out more people, or match on fewer variables."],
            comparison=_comparison(models, oracle_share, paired),
        )
    raw = {d: galleries["raw"][d]["auc2afc"] for d in DIRECTIONS}
    matched = {d: galleries["matched"][d]["auc2afc"] for d in DIRECTIONS}
    raw_small = all(raw[d]["ci_high"] < NEGLIGIBLE for d in DIRECTIONS)
    matched_small = all(matched[d]["ci_high"] < NEGLIGIBLE for d in DIRECTIONS)
    if all(matched[d]["ci_low"] > CHANCE and matched[d]["p_perm"] <= ALPHA for d in DIRECTIONS):
        label: Label = "beyond confounds"
        sentence = (
            "Brain and genome are aligned beyond confounds: people are told apart from others of the same "
            + (f"{_variables(galleries)} in {_percent(matched)} of pairs (chance 50 %).")
        )
    elif matched_small and any(raw[d]["p_perm"] <= ALPHA for d in DIRECTIONS):
        label = "explained by confounds"
        sentence = (
            f"What looks like alignment is explained by confounds: {_percent(raw)} of pairs are right in the raw "
            f"gallery, but {_percent(matched)} among people of the same {_variables(galleries)} (chance 50 %)."
        )
    elif raw_small and matched_small:
        label = "no signal"
        sentence = f"No signal: {_percent(raw)} of pairs are right, and chance is 50 %."
    else:
        label = "inconclusive"
        sentence = f"Inconclusive: the matched gallery gives {_percent(matched)} of pairs right. {_needed(galleries)}"
    reasons = [_reason("raw", raw), _reason("matched", matched)]
    comparison = _comparison(models, oracle_share, paired)
    return Verdict(label=label, sentence=sentence, reasons=reasons, comparison=comparison)


def people_needed(auc: dict[str, float], num_people: int) -> int | None:
    """People held out so that the interval would exclude 0.5, if the value stayed: width falls with 1/sqrt(n).

    None where the value is at or below chance.
    """
    excess = auc["value"] - CHANCE
    if excess <= 0:
        return None
    half_width = auc["value"] - auc["ci_low"]
    return math.ceil(num_people * max(1.0, (half_width / excess) ** 2))


def _needed(galleries: dict[str, Any]) -> str:
    matched = galleries["matched"]
    needed = [people_needed(matched[d]["auc2afc"], matched["num_anchors"]) for d in DIRECTIONS]
    if None in needed:
        # then only a tighter upper bound can decide: the width that brings it under the negligible effect
        widths = [matched[d]["auc2afc"] for d in DIRECTIONS]
        ratio = max((w["ci_high"] - w["value"]) / max(NEGLIGIBLE - w["value"], 0.01) for w in widths)
        return f"About {math.ceil(matched['num_anchors'] * max(1.0, ratio**2))} held-out people would decide."
    if max(needed) <= matched["num_anchors"]:
        return "The interval and the permutation test disagree; more permutations or people would decide."
    return f"About {max(needed)} held-out people would decide."


def _percent(aucs: dict[str, dict[str, float]]) -> str:
    values = [100 * aucs[d]["value"] for d in DIRECTIONS]
    low, high = sorted(round(v) for v in values)
    return f"{low} %" if low == high else f"{low}-{high} %"


def _reason(name: str, aucs: dict[str, dict[str, float]]) -> str:
    parts = [
        f"{ARROWS[d]} {aucs[d]['value']:.3f} [{aucs[d]['ci_low']:.3f}, {aucs[d]['ci_high']:.3f}], "
        f"{p_words(aucs[d]['p_perm'])}"
        for d in DIRECTIONS
    ]
    return f"{name.capitalize()} gallery, 2AFC: {'; '.join(parts)}."


def p_words(p: float) -> str:
    """`p = 0.012`; `p < 0.001` where three digits would show nothing."""
    return f"p = {p:.3f}" if p >= 0.0005 else "p < 0.001"


def _variables(galleries: dict[str, Any]) -> str:
    names = {"mean_fd": "head motion", "age": "age bin"}
    words = [names.get(v, v) for v in galleries["matched"]["variables"]]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words) or "kind"


def _comparison(
    models: dict[str, Any], oracle_share: dict[str, float] | None, paired: dict[str, Any] | None
) -> str:
    sentences = []
    if "ridge_cca" in models and "matched" in models["ridge_cca"]:
        ours = [models["neurohelix"]["matched"][d]["value"] for d in DIRECTIONS]
        linear = [models["ridge_cca"]["matched"][d]["value"] for d in DIRECTIONS]
        gain = sum(ours) / 2 - sum(linear) / 2
        word = "above" if gain > 0 else "below"
        sentences.append(
            f"Against linear ridge CCA in the matched gallery: {sum(ours) / 2:.3f} to {sum(linear) / 2:.3f} "
            f"({abs(gain):.3f} {word} it{_tested(paired)})."
        )
    if oracle_share and oracle_share.get("matched") is not None:
        sentences.append(f"That is {100 * oracle_share['matched']:.0f} % of the oracle's excess over chance.")
    return " ".join(sentences)


def _tested(paired: dict[str, Any] | None) -> str:
    """What the paired tests against ridge CCA in the matched gallery say of the difference."""
    found = ((paired or {}).get("ridge_cca") or {}).get("matched") or {}
    if any(d not in found for d in DIRECTIONS):
        return ""
    if all(found[d]["ci_low"] > 0 for d in DIRECTIONS):
        return "; the paired intervals of both directions say that it is better"
    if all(found[d]["ci_high"] < 0 for d in DIRECTIONS):
        return "; the paired intervals of both directions say that it is worse"
    return "; the paired intervals of the two directions do not both exclude 0"
