"""Write the report of a study: one HTML file with the verdict, the tables and the figures.

python scripts/report.py --study my-study
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from align.report_config import Report
from encoders.runs import InputError, Stage, Study, command


@command
def main(config: Report) -> int:
    study = Study(config.study)
    evaluation, output = study.need("evaluation"), study.path("report")
    figures = evaluation.with_name("figures.safetensors")
    if not figures.exists():
        raise InputError(f"{figures} does not exist; make it with: {study.maker('evaluation')} --redo=true")
    inputs = {"evaluation": evaluation, "figures": figures}
    curves = [
        study.run_folder("pretrain_brainmt"),
        *(study.run_folder("align") / m for m in ("", "raw", "adjusted")),
    ]
    inputs |= {
        f"curve_of_{folder.name}": path for folder in curves if (path := folder / "metrics.jsonl").exists()
    }
    stage = Stage("report", config, study=study, inputs=inputs, outputs=[output], redo=config.redo)
    if stage.finished:
        return stage.report()
    stage.begin()

    from align.report import draw, gather, people_of, render, write_report

    findings = gather(study)
    text = render(findings, draw(findings), min_count=config.min_count)
    write_report(output, text, people=people_of(study))
    return stage.end(
        verdict=findings.evaluation["verdict"]["sentence"],
        figures=text.count("<figure"),
        size=f"{len(text) / 2**20:.1f} MiB",
    )


if __name__ == "__main__":
    sys.exit(main())
