"""Write aligned vectors as a phenotype file of REGENIE or PLINK: to ask which variants move along with them.

python scripts/export.py --study my-study --modality brain --format regenie
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from align.export_config import Export
from encoders.runs import Study, command
from encoders.runs.errors import InputError


@command
def main(config: Export) -> int:
    study = Study(config.study)
    source = study.need("aligned")

    from align.export import phenotype_table, read_sample, write_table
    from align.index import SOURCE_FORMAT, SOURCE_KIND
    from encoders.runs.artifact import load_tensors

    tensors, metadata = load_tensors(source, SOURCE_KIND, SOURCE_FORMAT)
    if config.modality not in metadata["modalities"]:
        raise InputError(f"--modality={config.modality}: {source} holds {', '.join(metadata['modalities'])}")
    if f"{config.modality}_{config.vectors}" not in tensors:
        raise InputError(f"{source} holds no {config.vectors} vectors; align again without --kinds")
    families = None
    if config.fid == "family":
        from encoders.cohort import Cohort

        column = Cohort.load(study.need("participants")).column("family_id").dropna()
        families = dict(zip(column.index, column, strict=True))
    text, told = phenotype_table(
        tensors[f"{config.modality}_{config.vectors}"],
        metadata["ids"],
        metadata["folds"],
        config=config,
        families=families,
        sample=None if config.sample is None else read_sample(config.sample),
    )
    default = study.private / "export" / f"{config.modality}_{config.vectors}.{config.format}.txt"
    output = (config.output or default).expanduser().resolve()
    write_table(output, text)
    print("export: done")
    for name, value in told.items():
        print(f"  {name.replace('_', ' ')}: {value}")
    print(f"  output: {output} (participant-level data)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
