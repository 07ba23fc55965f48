"""Options of `scripts/import_vectors.py`."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from encoders.runs.errors import InputError
from encoders.runs.study import DEMO


@dataclass(frozen=True, kw_only=True)
class ImportVectors:
    """Vectors that another program made, from a table to one vector per person.

    Args:
        study: Study folder.
        table: Parquet, CSV or TSV. One row per person, or one per person and gene.
        name: Name of the modality: "brain" and "genetics" are what align reads by itself; another name lands in
            vectors/NAME.safetensors, to be passed with --brain or --genetics.
        id_column: Column of subject ids; default: eid, subject_id, participant_id, ...
        vector_column: Column that holds a whole vector per row (a list, or text such as "0.1 0.2"); default: vector or
            embedding, where there is one.
        columns: Columns that hold one number of the vector each, in order, where there is no vector column; default:
            all whose names end in a number, such as emb_0, emb_1, ...
        gene_column: Column that names the gene of a row; default: gene_id or gene, where there is one. Genes are laid
            side by side in the order of their first appearance.
        select: Column -> value of the rows to take, where the table holds several models, layers or sessions, e.g.
            --select.layer=12.
        repeats: Several rows of one person (and gene): "refuse" them, or take their "mean".
        trained_on: Whom the encoder was trained on: "nobody" of this study (a foundation model), "unknown", or a file
            with one subject id per line. Align refuses encoders that have seen held-out people, and unknown ones.
        redo: Discard an earlier import with other options.
    """

    table: Path
    study: Path = DEMO
    name: str = "genetics"
    id_column: str = ""
    vector_column: str = ""
    columns: list[str] = field(default_factory=list)
    gene_column: str = ""
    select: dict[str, str] = field(default_factory=dict)
    repeats: Literal["refuse", "mean"] = "refuse"
    trained_on: str = "unknown"
    redo: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise InputError(f"--name={self.name!r}; small letters, digits and _ were wanted")
        if self.vector_column and self.columns:
            raise InputError("pass --vector_column or --columns, not both")
