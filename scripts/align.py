"""Align brains and genomes: train both projectors, embed everybody, build the retrieval index.

accelerate launch scripts/align.py --study my-study
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from align.config import Align
from encoders.runs import Stage, Study, command
from encoders.runs.artifact import save_tensors, write_text


@command
def main(config: Align) -> int:
    study = Study(config.study)
    inputs = {
        "brain": study.need("brain", config.brain),
        "genetics": study.need("genetics", config.genetics),
        "participants": study.need("participants", config.participants),
        "splits": study.need("splits"),
    }
    if study.path("kinship").exists():
        inputs["kinship"] = study.path("kinship")
    aligned_path, index_folder = study.path("aligned"), study.path("index")
    outputs = [aligned_path, index_folder]
    stage = Stage(
        "align", config, study=study, inputs=inputs, outputs=outputs, ignore=("wandb",), redo=config.redo
    )
    if stage.finished:
        return stage.report()
    stage.begin()

    from encoders.runs.cpu import tune_cpu

    tune_cpu()
    from align.index import build_index
    from align.pairs import pair
    from align.run import ALIGNED, ALIGNED_FORMAT, align_study, people_of
    from encoders.cohort import Cohort, Split, read_kinship
    from encoders.runs.devices import accelerator as make_accelerator
    from encoders.vectors import SubjectVectors

    vectors = {m: SubjectVectors.load(inputs[m]) for m in ("brain", "genetics")}
    cohort, split = Cohort.load(inputs["participants"]), Split.load(inputs["splits"])
    related = read_kinship(inputs["kinship"]) if "kinship" in inputs else []
    pairs = pair(
        vectors["brain"],
        vectors["genetics"],
        split=split,
        cohort=cohort,
        related=related,
        accept_unknown=config.unknown_training == "accept",
    )
    accelerator = make_accelerator(seed=config.seed)
    aligned, confounds = align_study(
        vectors,
        pairs,
        cohort=cohort,
        split=split,
        config=config,
        folder=stage.folder,
        accelerator=accelerator,
    )
    if accelerator.is_main_process:
        ids = people_of(split, cohort)
        folds = [split.fold(i) for i in ids]
        provenance = {
            m: {k: v for k, v in vectors[m].provenance.items() if k != "trained_on"} for m in vectors
        }
        metadata = {
            "ids": ids,
            "folds": folds,
            "confounds": confounds,
            "confound_terms": list(config.confounds),
            "provenance": provenance | {"split_digest": split.digest},
        }
        digest = save_tensors(aligned_path, ALIGNED, ALIGNED_FORMAT, aligned, metadata)
        build_index(index_folder, ids=ids, folds=folds, vectors=aligned, source_digest=digest)
        lines = [
            f"{m}\t{f}\t{i}\n"
            for m, folds in pairs.missing.items()
            for f, names in folds.items()
            for i in names
        ]
        write_text(
            study.private / "missing_modality.tsv", "modality\tfold\tsubject\n" + "".join(lines), mode=0o600
        )
    accelerator.wait_for_everyone()
    missing = {m: sum(map(len, folds.values())) for m, folds in pairs.missing.items()}
    listed = {"listed_in": str(study.private / "missing_modality.tsv")} if any(missing.values()) else {}
    return stage.end(
        pairs=f"{len(pairs.rows('train'))} train, {len(pairs.rows('val'))} validation, {len(pairs.rows('test'))} test",
        without_brain_vector=missing["brain"],
        without_genome_vector=missing["genetics"],
        **listed,
    )


if __name__ == "__main__":
    sys.exit(main())
