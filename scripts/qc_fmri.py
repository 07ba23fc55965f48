"""Quality report of the fMRI store: distributions, sites, outliers and refusals on one page that can be shared.

python scripts/qc_fmri.py --study my-study
python scripts/qc_fmri.py --study my-study --thumbnails=true     # and every scan, on a page that cannot
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.brainmt.preparation.qc_config import QCFMRI
from encoders.runs import Stage, Study, command, load_json

PAGE, SCANS = "qc.html", "qc_scans.html"


@command
def main(config: QCFMRI) -> int:
    study = Study(config.study)
    inputs = {"store": study.need("store")}
    if (participants := study.path("participants")).exists():
        inputs["participants"] = participants
    page, private = study.folder / "reports" / PAGE, study.private / SCANS
    stage = Stage(
        "qc_fmri",
        config,
        study=study,
        inputs=inputs,
        outputs=[page, private] if config.thumbnails else [page],
        redo=config.redo,
    )
    if stage.finished:
        return stage.report()
    stage.begin()

    from align.plots import as_png, as_svg
    from align.report import TEMPLATES, write_report
    from encoders.brainmt.preparation.qc import quality_of
    from encoders.brainmt.preparation.qc_page import figures_of, render, render_scans, scan_rows
    from encoders.brainmt.store import STORE_FORMAT, STORE_KIND, FMRIStore
    from encoders.runs.artifact import PRIVATE, write_text

    manifest = load_json(inputs["store"], STORE_KIND, STORE_FORMAT)
    quality = quality_of(manifest, sites_of(inputs), threshold=config.threshold)
    style = (TEMPLATES / "style.html").read_text(encoding="utf-8")
    figures = figures_of(quality, config.min_count, as_svg)
    text = render(quality, manifest, figures, threshold=config.threshold, least=config.min_count, style=style)
    write_report(page, text, people={*quality.people, *(row["subject"] for row in manifest["quarantine"])})
    shown = 0
    if config.thumbnails and quality.runs:
        rows = list(scan_rows(FMRIStore(inputs["store"]), quality, as_png, most=config.most_scans))
        write_text(private, render_scans(rows, len(quality.runs), style=style), mode=PRIVATE)
        shown = len(rows)
    unusual = sum(any(found[k] for found in quality.outliers.values()) for k in range(len(quality.runs)))
    return stage.end(
        scans=len(quality.runs),
        refused=len(manifest["quarantine"]),
        unusual_scans=unusual,
        figures=len(figures),
        scans_shown_one_by_one=shown,
    )


def sites_of(inputs: dict[str, Path]) -> dict[str, str]:
    """Subject -> site, where the participants table has one; ids match with or without `sub-`."""
    if "participants" not in inputs:
        return {}
    from encoders.cohort import Cohort

    table = Cohort.load(inputs["participants"])
    if "site" not in table.frame:
        return {}
    known = table.column("site").dropna()
    bare = {str(name).removeprefix("sub-"): str(site) for name, site in known.items()}
    return bare | {f"sub-{name}": site for name, site in bare.items()}


if __name__ == "__main__":
    sys.exit(main())
