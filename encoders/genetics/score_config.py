"""Options of `scripts/embed_scores.py`. Imports nothing heavy."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from encoders.runs.study import DEMO

VECTORS = "vectors/polygenic.safetensors"  # below the study


@dataclass(frozen=True, kw_only=True)
class EmbedScores:
    """Polygenic scores, z-scored by the training people, as genome vectors: one number per score.

    Tables of plink2 (.sscore), PLINK 1.9 (.profile), PRSice-2 (.best, .all_score) and the PGS Catalog calculator
    (aggregated_scores.txt.gz, *_pgs.txt.gz) are known by their headers; of any other table name the columns.

    Args:
        study: Study folder; the vectors go to its vectors/polygenic.safetensors.
        scores: Table of scores, one row per person (the calculator's: one per person and score); CSV, TSV, spaces or
            Parquet, gzipped or not. Several tables as [a,b,c]: scores are then named TABLE.SCORE.
        participants: Table of people (TSV or CSV); default: the study's own.
        splits: Split file; default: the study's own.
        columns: Scores to take from every table, in order; default: all of a known program's.
        id_column: Column of subject ids; default: IID, eid, participant_id, ...
        value: Which number of a person and score to take from the calculator's tables, such as Z_norm2; default: AVG,
            else SUM.
        missing: A missing score becomes the training people's mean ("mean"), or its person gets no vector and is
            listed ("drop"). Who has no score at all gets no vector either way.
        trained_on: Whose phenotypes the weights of the scores were estimated from: "nobody" of this study (an
            independent GWAS), "unknown", or a file with one subject id per line. Align refuses scores that have seen
            held-out people, and unknown ones.
        control: Folder of a study to make in which these vectors are the genome vectors: people, split, settings and
            brain vectors are links to this study's, so that align, evaluate and report run there unchanged.
        redo: Discard an earlier run with other options.
    """

    scores: list[Path] | Path
    study: Path = DEMO
    participants: Path | None = None
    splits: Path | None = None
    columns: list[str] = field(default_factory=list)
    id_column: str = ""
    value: str = ""
    missing: Literal["mean", "drop"] = "mean"
    trained_on: str = "unknown"
    control: Path | None = None
    redo: bool = False
