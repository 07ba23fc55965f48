"""The rest of an evaluation: other pairs of modalities, subgroups, calibration, confounds, genes, fingerprints.

Glossary: P people in the rows of the aligned vectors · O width of the shared space.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float32

from align.config import Evaluate
from align.evaluate import GALLERIES, rooms, score_gallery
from align.fingerprint import fingerprint
from align.knowledge import explained_by_confounds, leave_one_gene_out
from align.model import pair_name
from align.pairs import Joined, Pairs
from align.retrieval import DIRECTIONS
from align.subgroups import calibration, subgroups
from align.verdict import verdict
from encoders.vectors import SubjectVectors

Aligned = Mapping[str, Float32[np.ndarray, "P O"]]


def further(
    joined: Joined,
    aligned: Aligned,
    ids: list[str],
    *,
    vectors: Mapping[str, SubjectVectors],
    runs: SubjectVectors | None,
    confound_terms: list[str],
    config: Evaluate,
) -> dict[str, Any]:
    """`other_pairs`, `subgroups`, `calibration`, `confounds_in_space`, `genes` and `fingerprint` of `evaluation.json`.

    Args:
        joined: People with two modalities or more.
        aligned: `MODALITY_raw` and `MODALITY_adjusted` -> aligned vectors.
        ids: People of their rows.
        vectors: What was aligned.
        runs: Brain vectors per run, if the study has them.
        confound_terms: Of the confound design.
        config: Numbers of permutations and resamples, seed.
    """
    row = {name: k for k, name in enumerate(ids)}
    first, second = joined.modalities[:2]
    pairs = joined.pair(first, second)
    test, train = pairs.rows("test"), pairs.rows("train")
    frame = pairs.frame.iloc[test]
    where = rooms(frame, pairs.frame.iloc[train], [pairs.groups[k] for k in test])
    similarity = similarities_of(aligned, [row[pairs.ids[k]] for k in test], first, second)["matched"]
    strict = where.galleries["matched"]
    space = {
        f"{m}_{kind}": explained_by_confounds(
            aligned[f"{m}_{kind}"][[row[name] for name in pairs.ids]],
            pairs.frame,
            train,
            test,
            terms=confound_terms,
        )
        for m in (first, second)
        for kind in ("raw", "adjusted")
    }
    return {
        "other_pairs": {
            pair_name(left, right): _other_pair(joined.pair(left, right), aligned, row, left, right, config)
            for left, right in combinations(joined.modalities, 2)
            if (left, right) != (first, second)
        },
        "subgroups": subgroups(similarity, strict, frame, num_bootstraps=config.bootstraps, seed=config.seed),
        "calibration": calibration(similarity, strict),
        "confounds_in_space": space,
        "genes": leave_one_gene_out(
            pairs, vectors[second].blocks, confound_terms=confound_terms, seed=config.seed
        ),
        "fingerprint": None
        if runs is None
        else fingerprint(
            runs,
            joined.frame,
            train=[joined.ids[k] for k in joined.rows("train")],
            test=[joined.ids[k] for k in joined.rows("test")],
            families=dict(zip(joined.ids, joined.groups, strict=True)),
            confound_terms=confound_terms,
            permutations=config.permutations,
            bootstraps=config.bootstraps,
            seed=config.seed,
        ),
    }


def similarities_of(aligned: Aligned, rows: list[int], left: str, right: str) -> dict[str, dict[str, Any]]:
    """Gallery -> direction -> cosines of the people in ``rows``; the matched gallery scores the adjusted vectors."""
    found = {
        kind: dict.fromkeys(DIRECTIONS, aligned[f"{left}_{kind}"][rows] @ aligned[f"{right}_{kind}"][rows].T)
        for kind in ("raw", "adjusted")
    }
    return found | {"matched": found["adjusted"]}


def _other_pair(
    pairs: Pairs, aligned: Aligned, row: dict[str, int], left: str, right: str, config: Evaluate
) -> dict[str, Any]:
    """Galleries and verdict of a pair of modalities other than the leading one; the two directions by their names."""
    test = pairs.rows("test")
    names = dict(zip(DIRECTIONS, (f"{left}_to_{right}", f"{right}_to_{left}"), strict=True))
    if len(test) < 2:
        return {"people": len(test), "directions": names}
    where = rooms(
        pairs.frame.iloc[test], pairs.frame.iloc[pairs.rows("train")], [pairs.groups[k] for k in test]
    )
    similarities = similarities_of(aligned, [row[pairs.ids[k]] for k in test], left, right)
    galleries = {g: score_gallery(similarities[g], where, g, config, only_auc=False) for g in GALLERIES}
    galleries["matched"]["variables"] = list(where.galleries["matched"].variables)
    said = verdict(galleries, {}, None)
    return {"people": len(test), "directions": names, "galleries": galleries, "verdict": said.label}
