"""Take vectors that another program made, from a Parquet, CSV or TSV table, into a study.

python scripts/import_vectors.py --study my-study --table genetics_embeddings.parquet --name genetics --trained_on nobody
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.import_config import ImportVectors
from encoders.runs import Stage, Study, command


@command
def main(config: ImportVectors) -> int:
    study = Study(config.study)
    inputs = {"table": study.need("table", config.table)}
    if config.trained_on not in ("nobody", "unknown"):
        inputs["trained_on"] = study.need("trained_on", config.trained_on)
    target = study.folder / "vectors" / f"{config.name}.safetensors"
    stage = Stage(
        f"import_vectors_{config.name}",
        config,
        study=study,
        inputs=inputs,
        outputs=[target],
        redo=config.redo,
    )
    if stage.finished:
        return stage.report()

    from encoders.vector_tables import read_vector_table

    if target.exists() and not stage.folder.exists() and not config.redo:
        from encoders.runs.errors import InputError

        raise InputError(
            f"{target} was made by another command; pass another --name, or --redo=true to replace it"
        )
    vectors, told = read_vector_table(config)
    stage.begin()
    vectors.save(target)
    return stage.end(**told)


if __name__ == "__main__":
    sys.exit(main())
