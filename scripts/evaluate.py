"""Score an alignment on held-out people: raw, confound-adjusted and confound-matched, with a verdict in words.

python scripts/evaluate.py --study my-study
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from align.config import Evaluate
from align.rival_files import FROM_FILES, vector_files
from encoders.runs import Stage, Study, command, load_json, load_tensors, save_json, save_tensors
from encoders.runs.artifact import load_tensor_metadata
from encoders.runs.errors import InputError

# Held-out people below whom threads inside an operation mostly wait for each other: 9 s of processor time instead of 52
# for the demo.
MANY = 2000


@command
def main(config: Evaluate) -> int:
    study = Study(config.study)
    ending = f"_{config.name}" if config.name else ""
    aligned_path = study.run_folder(f"align{ending}") / study.path("aligned").name
    inputs = {"aligned": study.need("aligned", aligned_path if config.name else None)}
    inputs |= {name: study.need(name) for name in ("splits", "participants")}
    from align.index import SOURCE_FORMAT, SOURCE_KIND

    told, _ = load_tensor_metadata(inputs["aligned"], SOURCE_KIND, SOURCE_FORMAT)
    sources = {m: study.need_vectors(m, study.folder / path) for m, path in told["sources"].items()}
    inputs |= sources
    if study.path("truth").exists():
        inputs["truth"] = study.path("truth")
    first, second = told["modalities"][:2]
    runs = study.folder / "vectors" / "brain_runs.safetensors"
    if runs.exists() and first == "brain":
        inputs["brain_runs"] = runs
    if missing := [k for k in ("raw", "adjusted") if k not in told["validation"]]:
        raise InputError(
            f"{inputs['aligned']} holds no {missing[0]} vectors; align again without --kinds: evaluation compares both"
        )
    rivals = vector_files(study.folder, (first, second))
    inputs |= {f"rival {name}": path for name, path in rivals.items()}
    output = study.run_folder(f"evaluate{ending}") / study.path("evaluation").name
    figures_path = output.with_name("figures.safetensors")
    stage = Stage(
        f"evaluate{ending}",
        config,
        study=study,
        inputs=inputs,
        outputs=[output, figures_path, output.with_name("metrics.json")],
        redo=config.redo,
    )
    if stage.finished:
        return stage.report()

    from threadpoolctl import threadpool_limits

    from align.beyond_retrieval import beyond_retrieval, wanted_phenotypes
    from align.evaluate import evaluate
    from align.flat_metrics import METRICS, METRICS_FORMAT, flat_metrics
    from align.further import further, similarities_of
    from align.harmonised import harmonised, harmonised_vectors, refuse_kept_targets
    from align.pairs import join
    from align.repeats import split_of
    from align.retrieval import DIRECTIONS
    from encoders.cohort import Cohort, Split
    from encoders.cohort.ancestry import with_ancestry
    from encoders.vectors import SubjectVectors

    vectors = {m: SubjectVectors.load(path) for m, path in sources.items()}
    cohort = Cohort.load(inputs["participants"])
    split = split_of(Split.load(inputs["splits"]), told["provenance"]["split_digest"], inputs["aligned"])
    # whether encoders may be used that do not say whom they have seen was decided by the alignment
    cohort, _ = with_ancestry(cohort, split.train)
    joined = join(vectors, split=split, cohort=cohort, accept_unknown=True)
    sites_out = told["confounds"].get("harmonised", {})  # rivals see what our model saw
    joined = harmonised(joined, sites_out)
    pairs = joined.pair(first, second)
    phenotypes = wanted_phenotypes(pairs, config, synthetic="truth" in inputs)
    refuse_kept_targets(sites_out, [one.name for one in phenotypes])
    stage.begin()
    if len(pairs.rows("test")) < MANY:
        threadpool_limits(1)
    aligned, told = load_tensors(inputs["aligned"], SOURCE_KIND, SOURCE_FORMAT)
    row = {name: k for k, name in enumerate(told["ids"])}
    test = [row[pairs.ids[k]] for k in pairs.rows("test")]
    similarities = similarities_of(aligned, test, first, second)

    truth = load_json(inputs["truth"], "neurohelix.truth", 1) if "truth" in inputs else None
    oracle = None
    if truth and truth["heritability"] > 0:  # without heritability there is nothing for an oracle to find
        from encoders.cohort.synthetic.oracle import oracle_similarity

        ids = {fold: [pairs.ids[k] for k in pairs.rows(fold)] for fold in ("train", "test")}
        oracle = oracle_similarity(truth, ids["train"], ids["test"])
    terms = told["confound_terms"]
    rival_vectors = {name: SubjectVectors.load(path) for name, path in rivals.items()}
    for name, one in rival_vectors.items():
        if (of := FROM_FILES[name][1]) in sites_out:
            rival_vectors[name] = harmonised_vectors(one, cohort, split.train, sites_out[of])
    content, figures = evaluate(
        pairs,
        similarities,
        confound_terms=terms,
        oracle=oracle,
        config=config,
        rival_vectors=rival_vectors,
        split=split,
        modalities=(first, second),
    )
    content |= beyond_retrieval(pairs, phenotypes, confound_terms=terms, config=config, names=(first, second))
    content |= further(
        joined,
        aligned,
        told["ids"],
        vectors=vectors,
        runs=SubjectVectors.load(inputs["brain_runs"]) if "brain_runs" in inputs else None,
        confound_terms=terms,
        config=config,
    )
    content |= {
        "unknown_training": told["unknown_training"],
        "synthetic": truth is not None,
        "arm": truth and truth["arm"],
        "confounds": told["confounds"],
        "provenance": told["provenance"],
    }
    save_json(output.with_name("metrics.json"), METRICS, METRICS_FORMAT, flat_metrics(content["galleries"]))
    save_json(output, "neurohelix.evaluation", 1, content)
    save_tensors(figures_path, "neurohelix.figures", 1, figures, {"directions": list(DIRECTIONS)})
    return stage.end(verdict=content["verdict"]["label"], **summary(content))


def summary(content: dict) -> dict[str, str]:
    """The lines that a person wants to see first."""
    from align.verdict import p_words

    lines = {}
    for name, gallery in content["galleries"].items():
        parts = []
        for direction in ("brain_to_gene", "gene_to_brain"):
            if direction in gallery:
                auc = gallery[direction]["auc2afc"]
                parts.append(
                    f"{direction} {auc['value']:.3f} [{auc['ci_low']:.3f}, {auc['ci_high']:.3f}] {p_words(auc['p_perm'])}"
                )
        lines[f"2AFC_{name}"] = "; ".join(parts) or "nobody has a distractor"
    if content["oracle_share"]:
        shares = {name: share for name, share in content["oracle_share"].items() if share is not None}
        lines["share_of_the_oracle's_excess"] = ", ".join(
            f"{name} {share:.0%}" for name, share in shares.items()
        )
    return lines | {"in_words": content["verdict"]["sentence"]}


if __name__ == "__main__":
    sys.exit(main())
