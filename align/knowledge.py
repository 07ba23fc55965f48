"""What the aligned space knows: how much of it confounds explain, and which genes carry the alignment.

Glossary: N people · O width of the shared space · K folds · G genes.
"""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import false_discovery_control, wilcoxon

from align.baselines import RidgeCCA
from align.galleries import matched
from align.pairs import Pairs
from align.retrieval import auc2afc, compare
from encoders.cohort import ConfoundDesign, Residualizer

FOLDS = 10
FEWEST_FOLDS = 10
FEWEST_PEOPLE = 100  # for leaving genes out: ten people per fold
MAX_GENES = 100


def explained_by_confounds(
    vectors: Float[np.ndarray, "N O"],
    frame: pd.DataFrame,
    train: np.ndarray,
    test: np.ndarray,
    *,
    terms: list[str],
) -> dict[str, float]:
    """Share of the variance of held-out aligned vectors that confounds explain, by a regression fitted on train.

    R² on people whom the regression has not seen, so that noise is not called confounding; below 0 means none. For all
    terms together (`all`) and for each of them alone.

    Args:
        vectors: Aligned vectors.
        frame: Their rows of the table.
        train: Row numbers of training people.
        test: Row numbers of held-out people.
        terms: Of the confound design.
    """
    shares = {}
    usable = ConfoundDesign(terms=tuple(terms)).fit(frame.iloc[train]).used_
    for name, chosen in (("all", terms), *((term, [term]) for term in usable if len(usable) > 1)):
        design = ConfoundDesign(terms=tuple(chosen))
        if not design.fit(frame.iloc[train]).used_:
            continue
        cleaner = Residualizer(design=design).fit(vectors[train], frame.iloc[train])
        left = cleaner.transform(vectors[test], frame.iloc[test])
        total = ((vectors[test] - vectors[train].mean(axis=0)) ** 2).sum()
        shares[name] = float(1 - (left**2).sum() / total) if total > 0 else float("nan")
    return shares


def leave_one_gene_out(
    pairs: Pairs,
    blocks: dict[str, tuple[int, int]],
    *,
    confound_terms: list[str],
    num_folds: int = FOLDS,
    ridge: float = 0.1,
    seed: int = 0,
) -> dict[str, Any]:
    """How much matched 2AFC falls without each gene, over family-wise folds, with a Wilcoxon test and FDR.

    A linear ridge CCA stands in for the projectors, since G + 1 models are fitted in each of K folds. Fitted on the
    other folds, confounds out, scored on the fold among matched people. Only training and validation people are used:
    the held-out people stay out of questions that lead to choices.

    Args:
        pairs: People with both modalities.
        blocks: Gene -> its columns of the genome vectors.
        confound_terms: Of the confound design.
        num_folds: K, ten at least: fewer cannot reach a small p in a Wilcoxon test.
        ridge: Ridge of the CCA.
        seed: Seed of the folds.

    Returns:
        `genes`: gene -> mean drop of the 2AFC, p, q (Benjamini-Hochberg); `folds`, `whole`: the 2AFC with all genes.
        Only `reason` where it cannot be done.
    """
    rows = np.concatenate([pairs.rows("train"), pairs.rows("val")])
    if len(blocks) < 2:
        return {"reason": "the genome vectors have no parts named after genes"}
    if len(blocks) > MAX_GENES:
        return {"reason": f"{len(blocks)} genes are more than {MAX_GENES}"}
    if len(rows) < FEWEST_PEOPLE:
        return {"reason": f"{len(rows)} training and validation people are fewer than {FEWEST_PEOPLE}"}
    if num_folds < FEWEST_FOLDS:
        raise ValueError(f"{num_folds} folds; {FEWEST_FOLDS} at least were wanted")
    groups = np.array([pairs.groups[k] for k in rows])
    labels = np.unique(groups, return_inverse=True)[1]
    order = np.random.default_rng(seed).permutation(labels.max() + 1)
    fold_of = order[labels] % num_folds
    drops: dict[str, list[float]] = {gene: [] for gene in blocks}
    whole = []
    for fold in range(num_folds):
        fit, held = rows[fold_of != fold], rows[fold_of == fold]
        frames = pairs.frame.iloc[fit], pairs.frame.iloc[held]
        sides = []
        for values in (pairs.brain, pairs.genetics):
            cleaner = Residualizer(design=ConfoundDesign(terms=tuple(confound_terms))).fit(
                values[fit], frames[0]
            )
            sides.append(
                (cleaner.transform(values[fit], frames[0]), cleaner.transform(values[held], frames[1]))
            )
        gallery = matched(frames[1], frames[0], [pairs.groups[k] for k in held])
        (brain, brain_held), (genome, genome_held) = sides

        def score(columns: np.ndarray) -> float:
            model = RidgeCCA(ridge=ridge).fit(brain, genome[:, columns])  # noqa: B023 (used at once)
            similarity = model.similarity(brain_held, genome_held[:, columns])  # noqa: B023
            own = np.arange(len(similarity))[None]
            counts = [compare(s, gallery).paired(own) for s in (similarity, similarity.T)]  # noqa: B023
            values = [np.average(auc2afc(c)[0], weights=c.weight[0]) for c in counts if c.weight.any()]
            return float(np.mean(values)) if values else float("nan")

        every = np.ones(genome.shape[1], dtype=bool)
        base = score(every)
        whole.append(base)
        for gene, (first, last) in blocks.items():
            without = every.copy()
            without[first:last] = False
            drops[gene].append(base - score(without))
    kept = [k for k, value in enumerate(whole) if np.isfinite(value)]
    if len(kept) < FEWEST_FOLDS:
        return {"reason": f"only {len(kept)} of {num_folds} folds have people with matched distractors"}
    p = [
        float(wilcoxon(values, alternative="greater").pvalue) if np.any(values := np.array(d)[kept]) else 1.0
        for d in drops.values()
    ]
    q = false_discovery_control(p)
    return {
        "folds": len(kept),
        "whole": float(np.mean([whole[k] for k in kept])),
        "genes": {
            gene: {"drop": float(np.mean(np.array(d)[kept])), "p": p[k], "q": float(q[k])}
            for k, (gene, d) in enumerate(drops.items())
        },
    }
