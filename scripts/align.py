"""Align brains and genomes: train both projectors, embed everybody, build the retrieval index.

accelerate launch scripts/align.py --study my-study
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from align.config import Align
from encoders.runs import Stage, Study, command, load_json, save_json
from encoders.runs.artifact import write_text

if TYPE_CHECKING:
    from align.pairs import Joined
    from align.run import Aligned


@command
def main(config: Align) -> int:
    study = Study(config.study)
    if config.fold is None:
        files_of_vectors(config, study)  # the first thing that a new study lacks
    splits = study.need("splits")

    from align.repeats import SCORES, SCORES_FORMAT, repeats, stage_name, summarised

    if config.fold is None and len(config.seeds) < 2:
        (one,) = repeats(config, 0)
        return align_once(one, study, splits)

    from encoders.cohort import Split

    single = repeats(config, len(Split.load(splits).folds))
    for one in single:
        align_once(one, study, splits)
    if int(os.environ.get("RANK", "0")) == 0:
        scores = [
            load_json(study.run_folder(stage_name(one)) / "scores.json", SCORES, SCORES_FORMAT)
            for one in single
        ]
        print(f"align: {len(single)} runs, mean ± standard deviation")
        for name, line in summarised(scores).items():
            print(f"  {name.replace('_', ' ')}: {line}")
    return 0


def files_of_vectors(config: Align, study: Study) -> dict[str, Path]:
    """Modality -> the file of its vectors; `{fold}` in a path is replaced."""
    given = {"brain": config.brain, "genetics": config.genetics} | config.files
    named = {
        m: str(path).replace("{fold}", str(config.fold)) for m, path in given.items() if path is not None
    }
    return {m: study.need_vectors(m, named.get(m)) for m in config.modalities}


def align_once(config: Align, study: Study, splits: Path) -> int:
    """One training of both models, on the hold-out split or with one fold held out."""
    from align.repeats import SCORES, SCORES_FORMAT, stage_name

    inputs = files_of_vectors(config, study)
    inputs |= {"participants": study.need("participants", config.participants), "splits": splits}
    if study.path("kinship").exists():
        inputs["kinship"] = study.path("kinship")
    name = stage_name(config)
    main_run = name == "align"  # the one that retrieve asks
    aligned_path = study.run_folder(name) / study.path("aligned").name
    outputs = [aligned_path, study.path("index")] if main_run else [aligned_path]
    stage = Stage(
        name, config, study=study, inputs=inputs, outputs=outputs, ignore=("wandb",), redo=config.redo
    )
    if stage.finished:
        return stage.report()

    from encoders.runs.cpu import tune_cpu

    tune_cpu()
    from align.index import build_index
    from align.pairs import join
    from align.run import align_study, people_of, save_aligned
    from encoders.cohort import Cohort, Split, read_kinship
    from encoders.cohort.ancestry import with_ancestry
    from encoders.runs.devices import accelerator as make_accelerator
    from encoders.vectors import SubjectVectors

    vectors = {m: SubjectVectors.load(inputs[m]) for m in config.modalities}
    cohort, split = Cohort.load(inputs["participants"]), Split.load(inputs["splits"])
    if config.fold is not None:
        split = split.held_out(config.fold)
    cohort, clustered = with_ancestry(cohort, split.train)
    joined = join(
        vectors,
        split=split,
        cohort=cohort,
        related=read_kinship(inputs["kinship"]) if "kinship" in inputs else [],
        accept_unknown=config.unknown_training == "accept",
    )
    stage.begin()  # not before the files proved sound: --redo discards what there is
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
    if clustered:
        aligned.confounds["ancestry_from_pcs"] = True
    listed = study.private / "missing_modality.tsv"
    if accelerator.is_main_process:
        ids = people_of(split, cohort)
        folds = [split.fold(i) for i in ids]
        sources = {m: study.relative(inputs[m]) for m in config.modalities}
        digest = save_aligned(
            aligned_path, aligned, vectors, ids=ids, folds=folds, split=split, config=config, sources=sources
        )
        if main_run:
            build_index(
                study.path("index"), ids=ids, folds=folds, vectors=aligned.vectors, source_digest=digest
            )
        save_json(
            stage.folder / "scores.json", SCORES, SCORES_FORMAT, scores_of(config, aligned, joined, ids)
        )
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


def scores_of(config: Align, aligned: "Aligned", joined: "Joined", ids: list[str]) -> dict[str, float]:
    """Matched validation 2AFC of each model; of repeats, which choose nothing, also that of held-out people."""
    from align.repeats import held_out_scores

    scores = {f"val_auc2afc_matched_{kind}": value for kind, value in aligned.validation.items()}
    if (config.fold is None and not config.seeds) or "adjusted" not in config.kinds:
        return scores
    row = {name: k for k, name in enumerate(ids)}
    rows = [row[name] for name in joined.ids]
    vectors = {name: values[rows] for name, values in aligned.vectors.items()}
    return scores | held_out_scores(vectors, joined, *config.modalities[:2])


if __name__ == "__main__":
    sys.exit(main())
