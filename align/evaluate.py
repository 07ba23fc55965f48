"""The evaluation: every result three times (raw, adjusted, matched), beside its rivals, then the verdict.

- raw: the raw model among all held-out people.
- adjusted: the model whose inputs and outputs were residualised, among all held-out people.
- matched: the adjusted model among people of the same sex, site, ..., relatives excluded. Both defences at
  once: what matching leaves within a bin, or had to drop, is residualised.

Glossary: N evaluated people · S people with both modalities · K largest rank of a recall curve.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from align.config import Evaluate
from align.galleries import ENOUGH_DISTRACTORS, Gallery, everyone, matched
from align.paired import PairedTests, restricted
from align.pairs import Pairs
from align.retrieval import DIRECTIONS, auc2afc, compare, evaluate_gallery, mean, recall_at
from align.rivals import Similarities, line_up
from align.verdict import verdict
from encoders.cohort import Split
from encoders.stats import block_permutations
from encoders.vectors import SubjectVectors

GALLERIES = ("raw", "adjusted", "matched")
MAX_K = 50


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """The galleries of the held-out people and the strata within which each may be permuted.

    Args:
        galleries: `raw`, `adjusted`, `matched`.
        permute_within: Gallery name -> exchangeability stratum of each person.
    """

    galleries: dict[str, Gallery]
    permute_within: dict[str, list[str]]

    def of(self, rows: Int[np.ndarray, " M"]) -> "Rooms":
        """The same galleries of some of the people."""
        return Rooms(
            galleries={name: restricted(gallery, rows) for name, gallery in self.galleries.items()},
            permute_within={name: [within[i] for i in rows] for name, within in self.permute_within.items()},
        )


def rooms(frame: pd.DataFrame, train: pd.DataFrame, families: list[str]) -> Rooms:
    """Galleries of evaluated people. Permutations of the adjusted gallery stay within a site."""
    strict = matched(frame, train, families)
    open_to_all = everyone(families)
    site = [str(s) for s in frame["site"]] if "site" in frame else ["all"] * len(frame)
    return Rooms(
        galleries={"raw": open_to_all, "adjusted": open_to_all, "matched": strict},
        permute_within={"raw": ["all"] * len(frame), "adjusted": site, "matched": strict.strata},
    )


def evaluate(
    pairs: Pairs,
    similarities: Similarities,
    *,
    confound_terms: list[str],
    oracle: Float[np.ndarray, "N N"] | None,
    config: Evaluate,
    rival_vectors: Mapping[str, SubjectVectors] | None = None,
    split: Split | None = None,
    modalities: tuple[str, str] = ("brain", "genetics"),
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Score held-out people.

    Args:
        pairs: People with both modalities.
        similarities: Of the test people in the order of `pairs`.
        confound_terms: Terms of the confound design of the adjusted model.
        oracle: Similarity of a reader that knows the truth, in a synthetic cohort.
        config: Numbers of permutations and resamples, seed.
        rival_vectors: Of the rivals in `rivals.FROM_FILES` that the study has.
        split: Needed with ``rival_vectors``.
        modalities: Names of the pair's two sides.

    Returns:
        The evaluation as JSON values, and the arrays behind the figures.
    """
    test, train = pairs.rows("test"), pairs.rows("train")
    frame = pairs.frame.iloc[test]
    families = [pairs.groups[i] for i in test]
    where = rooms(frame, pairs.frame.iloc[train], families)
    galleries = {
        name: score_gallery(similarities[name], where, name, config, only_auc=False) for name in GALLERIES
    }
    galleries["matched"]["variables"] = list(where.galleries["matched"].variables)

    tests = PairedTests(similarities, where.galleries, num_bootstraps=config.bootstraps, seed=config.seed)
    field = line_up(pairs, confound_terms, rival_vectors, split=split, modalities=modalities)
    models, paired = {"neurohelix": _aucs(galleries)}, {}
    for name, rival in field.rivals.items():
        part = where.of(rival.rows)
        models[name] = _aucs({g: score_gallery(rival.similarities[g], part, g, config) for g in GALLERIES})
        paired[name] = tests.against(rival.similarities, rival.rows)
    shares = None
    if oracle is not None:
        both = dict.fromkeys(DIRECTIONS, oracle)
        models["oracle"] = _aucs({g: score_gallery(both, where, g, config) for g in GALLERIES})
        shares = {g: _share(models["neurohelix"].get(g), models["oracle"].get(g)) for g in GALLERIES}
    said = verdict(galleries, models, shares, paired)
    strict = where.galleries["matched"]
    content = {
        "people": {fold: len(pairs.rows(fold)) for fold in ("train", "val", "test")}
        | {"evaluated": len(test)}
        | {f"without_{m}": sum(map(len, folds.values())) for m, folds in pairs.missing.items()},
        "galleries": galleries,
        "matching": {
            "variables": list(strict.variables),
            "dropped": list(strict.dropped),
            "share_with_enough": strict.share_with_enough,
            "wanted_distractors": ENOUGH_DISTRACTORS,
        },
        "models": models,
        "paired": paired,
        "rivals": {
            "without_vectors": {
                name: r.without for name, r in field.rivals.items() if any(r.without.values())
            },
            "unfitted": field.unfitted,
        },
        "oracle_share": shares,
        "relatives": relatives_control(similarities["raw"], families),
        "verdict": asdict(said),
        "num_permutations": config.permutations,
        "num_bootstraps": config.bootstraps,
    }
    return content, _figures(similarities, where, config)


def relatives_control(similarity: dict[str, Float[np.ndarray, "N N"]], families: list[str]) -> dict[str, Any]:
    """Positive control: a brain should find the genomes of relatives more often than those of strangers.

    Returns:
        Number of pairs of relatives, 2AFC of relative against stranger, and how many people's nearest genome other
        than their own is a relative's.
    """
    scores = similarity["brain_to_gene"]
    family = np.unique(families, return_inverse=True)[1]
    related = family[:, None] == family[None, :]
    np.fill_diagonal(related, False)
    pairs = int(related.sum()) // 2
    if not pairs:
        return {"pairs": 0}
    aucs, first = [], 0
    for i in np.flatnonzero(related.any(axis=1)):
        strangers = scores[i][~related[i] & (np.arange(len(scores)) != i)]
        for score in scores[i][related[i]]:
            aucs.append(np.mean(score > strangers) + np.mean(score == strangers) / 2)
        first += bool(scores[i][related[i]].max() > strangers.max())
    return {"pairs": pairs, "auc2afc": float(np.mean(aucs)), "retrieved_instead": int(first)}


def score_gallery(
    similarity: dict[str, Float[np.ndarray, "N N"]],
    where: Rooms,
    name: str,
    config: Evaluate,
    *,
    only_auc: bool = True,
) -> dict[str, Any]:
    scored = {
        id(matrix): evaluate_gallery(
            matrix,
            where.galleries[name],
            permute_within=where.permute_within[name],
            num_permutations=config.permutations,
            num_bootstraps=config.bootstraps,
            seed=config.seed,
            only_auc=only_auc,
        )
        for matrix in similarity.values()
    }
    first = dict(next(iter(scored.values())))
    return first | {d: scored[id(similarity[d])][d] for d in DIRECTIONS if d in first}


def _aucs(galleries: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {d: result[d]["auc2afc"] for d in DIRECTIONS}
        for name, result in galleries.items()
        if all(d in result for d in DIRECTIONS)
    }


def _share(ours: dict[str, Any] | None, oracle: dict[str, Any] | None) -> float | None:
    if not ours or not oracle:
        return None
    excess = [sum(model[d]["value"] for d in DIRECTIONS) / 2 - 0.5 for model in (ours, oracle)]
    return excess[0] / excess[1] if excess[1] > 0.02 else None


def _figures(similarities: Similarities, where: Rooms, config: Evaluate) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(config.seed)
    num = len(where.permute_within["raw"])
    order = rng.permutation(num)  # so that a row of the picture cannot be traced to a row of a table
    figures = {"similarity_adjusted": similarities["adjusted"]["brain_to_gene"][np.ix_(order, order)]}
    for name in GALLERIES:
        gallery = where.galleries[name]
        permutations = block_permutations(
            where.permute_within[name], gallery.families, config.permutations, rng
        )
        own = np.arange(num)[None]
        compared = []
        for direction in DIRECTIONS:
            scores = similarities[name][direction]
            compared.append(compare(scores if direction == DIRECTIONS[0] else scores.T, gallery))
        nulls = [c.paired(permutations) for c in compared]
        figures[f"null_{name}"] = np.stack([mean(auc2afc(n), n.weight) for n in nulls])
        if name == "adjusted":
            continue
        sizes = gallery.others().sum(axis=1) + 1
        ks = range(1, min(MAX_K, int(np.median(sizes))) + 1)
        observed = [c.paired(own) for c in compared]
        figures[f"recall_{name}"] = np.array(
            [[mean(recall_at(k)(o), o.weight)[0] for k in ks] for o in observed]
        )
        spread = np.array([[mean(recall_at(k)(n), n.weight) for k in ks] for n in nulls])  # (2, K, P)
        figures[f"recall_null_low_{name}"], figures[f"recall_null_high_{name}"] = np.percentile(
            spread, [2.5, 97.5], axis=2
        )
        others = sizes[sizes > 1]
        figures[f"recall_chance_{name}"] = np.array([np.mean(np.minimum(k / others, 1)) for k in ks])
    return {key: value.astype(np.float32) for key, value in figures.items()}
