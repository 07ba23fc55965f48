"""Writes a study as `align` and `evaluate` leave it, from simulated vectors: input of `retrieve` and `report`.

No stage is run: people share a few latent dimensions between two simulated towers, and sex shifts both, so that
the raw gallery looks better than the matched one, as it does in life.
"""

import json
from pathlib import Path

import numpy as np

from align.index import build_index
from encoders.runs.artifact import save_json, save_tensors

DIRECTIONS = ("brain_to_gene", "gene_to_brain")
FOLDS = ("train", "val", "test")
WIDTH = 24  # of the shared space
K = 50


def write_finished_study(
    folder: Path, *, people: tuple[int, int, int] = (300, 60, 160), signal: float = 0.3, seed: int = 0
) -> Path:
    """Write runs/, index/ and vectors of a made-up study of `people` in train, val and test; returns the folder."""
    rng = np.random.default_rng(seed)
    ids = [f"sub-{i + 1:04d}" for i in range(sum(people))]
    folds = [str(f) for f in rng.permutation(np.repeat(FOLDS, people))]
    sex = rng.integers(0, 2, len(ids))
    vectors = simulate_vectors(sex, signal, rng)
    test = [i for i, fold in enumerate(folds) if fold == "test"]
    vectors["brain_raw"][test[0]] = vectors["brain_adjusted"][test[0]] = np.nan
    vectors["genetics_raw"][test[1]] = vectors["genetics_adjusted"][test[1]] = np.nan
    provenance = {"brain": BRAIN, "genetics": GENETICS, "split_digest": "5f" * 32, "random_weights": True}
    aligned = folder / "runs" / "align" / "aligned.safetensors"
    metadata = {
        "ids": ids,
        "folds": folds,
        "modalities": ["brain", "genetics"],
        "validation": {"raw": 0.7, "adjusted": 0.65},
        "unknown_training": [],
        "provenance": provenance,
    }
    digest = save_tensors(aligned, "neurohelix.aligned", 2, vectors, metadata)
    build_index(folder / "index", ids=ids, folds=folds, vectors=vectors, source_digest=digest)
    write_evaluation(folder, vectors, test[2:], sex, people, provenance, rng)
    write_runs(folder, rng)
    return folder


def simulate_vectors(sex: np.ndarray, signal: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Unit rows of both modalities, raw (sex left in) and adjusted."""
    shared = rng.normal(size=(len(sex), WIDTH))
    towers = {
        name: np.sqrt(signal) * shared + rng.normal(size=shared.shape) for name in ("brain", "genetics")
    }
    shift = 1.2 * (sex[:, None] - 0.5) * np.ones(WIDTH)
    vectors = {}
    for name, tower in towers.items():
        for kind, values in (("raw", tower + shift), ("adjusted", tower)):
            rows = values / np.linalg.norm(values, axis=1, keepdims=True)
            vectors[f"{name}_{kind}"] = rows.astype(np.float32)
    return vectors


def write_evaluation(folder, vectors, evaluated, sex, people, provenance, rng):
    """evaluation.json and figures.safetensors of the people in `evaluated`."""
    raw = vectors["brain_raw"][evaluated] @ vectors["genetics_raw"][evaluated].T
    adjusted = vectors["brain_adjusted"][evaluated] @ vectors["genetics_adjusted"][evaluated].T
    everyone = np.ones((len(evaluated), len(evaluated)), dtype=bool)
    same_sex = sex[evaluated][:, None] == sex[evaluated][None]
    galleries, figures = {}, {"similarity_adjusted": adjusted.astype(np.float32)}
    for name, scores, allowed in (
        ("raw", raw, everyone),
        ("adjusted", adjusted, everyone),
        ("matched", adjusted, same_sex),
    ):
        galleries[name], drawn = score_gallery(scores, allowed, rng)
        figures[f"null_{name}"] = drawn["null"]
        if name != "adjusted":
            for key in ("recall", "recall_chance", "recall_null_low", "recall_null_high"):
                figures[f"{key}_{name}"] = drawn[key]
    models = {"neurohelix": {g: {d: v[d]["auc2afc"] for d in DIRECTIONS} for g, v in galleries.items()}}
    models["ridge_cca"] = {g: {d: shifted(v[d], -0.04) for d in v} for g, v in models["neurohelix"].items()}
    models["oracle"] = {g: {d: shifted(v[d], 0.07) for d in v} for g, v in models["neurohelix"].items()}
    models["confounds_only"] = {
        g: {d: around(c, p) for d in DIRECTIONS}
        for g, c, p in (("raw", 0.74, 0.001), ("adjusted", 0.51, 0.31), ("matched", 0.497, 0.62))
    }
    evaluation = {
        "synthetic": True,
        "arm": "signal",
        "people": dict(zip(FOLDS, people, strict=True))
        | {"evaluated": len(evaluated), "without_brain": 1, "without_genetics": 1},
        "galleries": galleries,
        "matching": {
            "variables": ["sex", "site"],
            "dropped": ["mean_fd", "age"],
            "share_with_enough": 0.93,
            "wanted_distractors": 9,
        },
        "confounds": {
            "used": ["age", "age^2", "sex", "age x sex", "site", "mean_fd", "head_size", *PCS],
            "absent": ["batch"],
            "unseen": {"site": 2},
        },
        "num_permutations": 100,
        "num_bootstraps": 1000,
        "models": models,
        "oracle_share": {"raw": 0.75, "adjusted": 0.7, "matched": 0.77},
        "relatives": {"pairs": 12, "auc2afc": 0.71, "retrieved_instead": 5},
        "verdict": {
            "label": "beyond confounds",
            "sentence": "Brain and genome are aligned beyond confounds: people are told apart from others of the "
            "same sex and site in 77-78 % of pairs (chance 50 %).",
            "reasons": [
                "Raw gallery, 2AFC: brain → gene 0.861 [0.83, 0.89], p = 0.001.",
                "Matched gallery, 2AFC: brain → gene 0.775 [0.74, 0.81], p = 0.001.",
            ],
            "comparison": "Against linear ridge CCA in the matched gallery: 0.775 to 0.735 (0.040 above it).",
        },
        "provenance": provenance,
    }
    runs = folder / "runs" / "evaluate"
    save_json(runs / "evaluation.json", "neurohelix.evaluation", 1, evaluation)
    save_tensors(
        runs / "figures.safetensors", "neurohelix.figures", 1, figures, {"directions": list(DIRECTIONS)}
    )


def score_gallery(scores, allowed, rng, num_permutations=100):
    """Metrics in the evaluation's format, and what the figures draw, of one gallery."""
    size = allowed.sum(axis=1)
    found = {"num_anchors": len(scores), "num_without_distractors": 0, "median_gallery": int(np.median(size))}
    top = min(K, int(size.min()))
    kinds = ("null", "recall", "recall_null_low", "recall_null_high")
    drawn = {kind: [] for kind in kinds}
    for direction, matrix in zip(DIRECTIONS, (scores, scores.T), strict=True):
        ranks = rank_of_partner(matrix, allowed, np.arange(len(scores)))
        nulls = [
            rank_of_partner(matrix, allowed, permuted(allowed, rng), fake=True)
            for _ in range(num_permutations)
        ]
        metrics = {
            "auc2afc": lambda r: np.mean(1 - (r - 1) / (size - 1)),
            **{f"R@{k}": lambda r, k=k: np.mean(r <= k) for k in (1, 5, 10)},
            "median_rank": np.median,
            "mrr": lambda r: np.mean(1 / r),
        }
        found[direction] = {}
        for name, metric in metrics.items():
            null = np.array([metric(r) for r in nulls])
            value, chance = float(metric(ranks)), float(null.mean())
            spread = 1.96 * float(null.std())
            exceed = (null <= value) if name == "median_rank" else (null >= value)
            found[direction][name] = {
                "value": value,
                "ci_low": max(value - spread, 1.0 if name == "median_rank" else 0.0),
                "ci_high": value + spread,
                "p_perm": (1 + int(exceed.sum())) / (1 + len(null)),
                "chance": chance,
                "lift": chance / value if name == "median_rank" else value / chance,
            }
        curves = np.array([[np.mean(r <= k) for k in range(1, top + 1)] for r in nulls])
        drawn["null"].append([metrics["auc2afc"](r) for r in nulls])
        drawn["recall"].append([np.mean(ranks <= k) for k in range(1, top + 1)])
        drawn["recall_null_low"].append(np.quantile(curves, 0.025, axis=0))
        drawn["recall_null_high"].append(np.quantile(curves, 0.975, axis=0))
    arrays = {kind: np.array(rows, dtype=np.float32) for kind, rows in drawn.items()}
    chance = [np.mean(np.minimum(1, k / size)) for k in range(1, top + 1)]
    return found, arrays | {"recall_chance": np.array(chance, dtype=np.float32)}


def permuted(allowed, rng):
    """A pairing that stays within each person's gallery."""
    partners = np.arange(len(allowed))
    for row in np.unique(allowed, axis=0):
        members = np.flatnonzero(row)
        partners[members] = rng.permutation(members)
    return partners


def rank_of_partner(matrix, allowed, partners, fake=False):
    """Rank of each row's partner among the people allowed to that row."""
    own = matrix[np.arange(len(matrix)), partners]
    return 1 + ((matrix > own[:, None]) & allowed).sum(axis=1)


def around(value, p):
    """An interval of plausible width."""
    return {"value": value, "ci_low": value - 0.035, "ci_high": value + 0.035, "p_perm": p}


def shifted(metric, by):
    """The same metric of a better or worse model."""
    keys = ("value", "ci_low", "ci_high")
    return {**metric, **{key: min(1.0, metric[key] + by) for key in keys}}


def write_runs(folder: Path, rng: np.random.Generator) -> None:
    """metrics.jsonl and stage.json of the stages before."""
    pretrain = [
        {
            "step": s,
            "epoch": s // 40,
            "train_loss": 0.3 + 0.9 * np.exp(-s / 120) + 0.03 * rng.normal(),
            "lr": 1e-3,
        }
        | (
            {"val_r": 0.55 * (1 - np.exp(-s / 150)), "val_mse": 0.55 + 0.5 * np.exp(-s / 120)}
            if s % 40 == 0
            else {}
        )
        for s in range(10, 401, 10)
    ]
    align = [
        {
            "step": s,
            "epoch": s // 20,
            "model": model,
            "train_loss": 1.5 + 2.5 * np.exp(-s / 90) + 0.04 * rng.normal(),
        }
        | (
            {"val_loss": 2.2 + 1.6 * np.exp(-s / 80), "val_auc2afc_matched": top - 0.2 * np.exp(-s / 70)}
            if s % 20 == 0
            else {}
        )
        for model, top in (("raw", 0.74), ("adjusted", 0.78))
        for s in range(5, 301, 5)
    ]
    for stage, lines in (("pretrain_brainmt", pretrain), ("align", align)):
        path = folder / "runs" / stage / "metrics.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for stage, seconds in SECONDS.items():
        record = {
            "stage": stage,
            "version": "0.1.0",
            "command": [f"{stage}.py", "--study", str(folder), f"--participants={folder}/raw/p.tsv", "--k=3"],
            "asked": {
                "config": {},
                "inputs": {"participants": {"path": str(folder / "raw/participants.tsv")}},
            },
            "outputs": {str(folder / "store"): 520},
            "seconds": seconds,
            "summary": {"people": 520},
        }
        save_json(folder / "runs" / stage / "stage.json", "neurohelix.stage", 1, record)


PCS = [f"pcs_{k}" for k in range(1, 11)]
SECONDS = {
    "make_cohort": 14.2,
    "make_splits": 0.4,
    "prepare_fmri": 21.0,
    "pretrain_brainmt": 64.3,
    "embed_fmri": 9.8,
    "embed_genome": 22.5,
    "align": 18.1,
    "evaluate": 6.4,
}
BRAIN = {
    "encoder": "brainmt",
    "weights_sha256": "9a" * 32,
    "config": {"dim": 64, "layers": 4, "root": "/home/somebody/studies/demo"},
    "trained_on": {"split_digest": "5f" * 32, "ids": ["sub-0001", "sub-0002", "sub-0003"]},
}
GENETICS = {
    "encoder": "caduceus-ph",
    "weights_sha256": "c4" * 32,
    "random_weights": True,
    "config": {"d_model": 64, "n_layer": 2, "pool": "spans"},
}
