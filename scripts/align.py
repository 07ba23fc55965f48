"""Align brains and genomes: train both projectors, embed everybody, build the retrieval index.

accelerate launch scripts/align.py --study my-study
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from align.config import Align
from encoders.runs import Stage, Study, command
from encoders.runs.artifact import write_text


@command
def main(config: Align) -> int:
    study = Study(config.study)
    files = {"brain": config.brain, "genetics": config.genetics} | config.files
    inputs = {m: study.need_vectors(m, files.get(m)) for m in config.modalities}
    inputs |= {
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
    from align.pairs import join
    from align.run import align_study, people_of, save_aligned
    from encoders.cohort import Cohort, Split, read_kinship
    from encoders.runs.devices import accelerator as make_accelerator
    from encoders.vectors import SubjectVectors

    vectors = {m: SubjectVectors.load(inputs[m]) for m in config.modalities}
    cohort, split = Cohort.load(inputs["participants"]), Split.load(inputs["splits"])
    joined = join(
        vectors,
        split=split,
        cohort=cohort,
        related=read_kinship(inputs["kinship"]) if "kinship" in inputs else [],
        accept_unknown=config.unknown_training == "accept",
    )
    accelerator = make_accelerator(seed=config.seed)
    aligned = align_study(
        vectors,
        joined,
        cohort=cohort,
        split=split,
        config=config,
        folder=stage.folder,
        accelerator=accelerator,
    )
    listed = study.private / "missing_modality.tsv"
    if accelerator.is_main_process:
        ids = people_of(split, cohort)
        folds = [split.fold(i) for i in ids]
        sources = {m: str(inputs[m]) for m in config.modalities}
        digest = save_aligned(
            aligned_path, aligned, vectors, ids=ids, folds=folds, split=split, config=config, sources=sources
        )
        build_index(index_folder, ids=ids, folds=folds, vectors=aligned.vectors, source_digest=digest)
        lines = [
            f"{m}\t{f}\t{i}\n"
            for m, by_fold in joined.missing.items()
            for f, names in by_fold.items()
            for i in names
        ]
        write_text(listed, "modality\tfold\tsubject\n" + "".join(lines), mode=0o600)
    accelerator.wait_for_everyone()
    missing = {m: sum(map(len, folds.values())) for m, folds in joined.missing.items()}
    words = {"genetics": "genome"}
    return stage.end(
        pairs=f"{len(joined.rows('train'))} train, {len(joined.rows('val'))} validation, "
        f"{len(joined.rows('test'))} test",
        **{f"without_{words.get(m, m)}_vector": number for m, number in missing.items()},
        **({"listed_in": str(listed)} if any(missing.values()) else {}),
    )


if __name__ == "__main__":
    sys.exit(main())
