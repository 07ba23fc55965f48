"""The escalation gate: is there enough in the linear and simple models to be worth a larger one?

The rule is the users' own: the first mode of CCA significant (p below `gate_cca_p`) and, where there is a diagnosis,
brain and genes together better than the better one alone by more than `gate_fusion_gain` of AUROC. It only says;
nothing stops.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What the gate says.

    Args:
        passed: True or False; None where a part could not be tested.
        sentence: The same in words, with the numbers.
        cca_p: Of the first mode, families and sites kept; None if untested.
        fusion_gain: Mean over classification phenotypes of AUROC of the fusion minus AUROC of the better modality,
            both chosen on validation people; None without such a phenotype.
    """

    passed: bool | None
    sentence: str
    cca_p: float | None
    fusion_gain: float | None


def gate(
    linear: Mapping[str, Any], phenotypes: Mapping[str, Any], *, most_p: float, least_gain: float
) -> Gate:
    """Apply the rule.

    Args:
        linear: As :func:`align.linear_inference.linear_inference` returns it.
        phenotypes: As :func:`align.phenotypes.predict_phenotypes` returns them.
        most_p: The p-value must be below it.
        least_gain: The gain in AUROC must be above it (0.05 is five points of a hundred).
    """
    p = linear["cca"]["p"][0] if "cca" in linear else None
    fewest = 1 / (1 + linear["cca"]["permutations"]) if p is not None else 0.0
    gains = [told["fusion_gain_auroc"] for told in phenotypes.values() if "fusion_gain_auroc" in told]
    gains = [gain for gain in gains if math.isfinite(gain)]
    gain = sum(gains) / len(gains) if gains else None
    parts = [
        (None if p is None or most_p <= p <= fewest else p < most_p, _p_words(p, most_p, fewest)),
        (None if gain is None else gain > least_gain, _gain_words(gain, len(gains), least_gain)),
    ]
    held = [part for part, _ in parts]
    passed = False if False in held else None if None in held else True
    head = {
        True: "Escalation gate passed",
        False: "Escalation gate not passed",
        None: "Escalation gate undecided",
    }[passed]
    return Gate(
        passed=passed, sentence=f"{head}: {'; '.join(w for _, w in parts)}.", cca_p=p, fusion_gain=gain
    )


def _p_words(p: float | None, most: float, fewest: float) -> str:
    if p is None:
        return "CCA could not be tested"
    if most <= p <= fewest:
        return f"first mode of CCA p = {p:.3g}, and no smaller one is possible with so few permutations"
    return f"first mode of CCA p = {p:.3g} ({'below' if p < most else 'not below'} {most:g})"


def _gain_words(gain: float | None, phenotypes: int, least: float) -> str:
    if gain is None:
        return "no diagnosis to predict, so the gain of brain and genes together is unknown"
    return (
        f"brain and genes together {gain:+.3f} AUROC against the better one alone, over {phenotypes} "
        f"{'diagnosis' if phenotypes == 1 else 'diagnoses'} ({'above' if gain > least else 'not above'} {least:g})"
    )
