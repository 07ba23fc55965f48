"""Prove on the files of a study that no relative, repeat visit or fitted statistic crosses its folds.

python scripts/check.py --study my-study

Exit code 0: clean. 3: a leak was found, or the files do not tell.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from align.check_config import Check
from encoders.runs import Study, command


@command
def main(config: Check) -> int:
    study = Study(config.study)
    participants = study.need("participants", config.participants)
    splits = study.need("splits")
    kinship = (
        study.need("kinship", config.kinship) if config.kinship or study.path("kinship").exists() else None
    )
    files = [study.need("vectors", path) for path in config.vectors] or sorted(
        (study.folder / "vectors").glob("*.safetensors")
    )

    from align.index import SOURCE_FORMAT, SOURCE_KIND
    from align.leakage import DUPLICATE, Finding, check_aligned, check_split, check_vectors
    from encoders.cohort import Cohort, Split, read_kinship
    from encoders.runs.artifact import PRIVATE, load_tensor_metadata, write_text
    from encoders.vectors import SubjectVectors

    cohort, split = Cohort.load(participants), Split.load(splits)
    related = read_kinship(kinship, threshold=config.kinship_threshold) if kinship else []
    duplicates = read_kinship(kinship, threshold=DUPLICATE) if kinship else []
    findings = check_split(split, cohort, related, duplicates)
    if not kinship and "family_id" not in cohort.frame:
        told = (
            "no kinship table and no family_id column: relatives may lie in different folds; give --kinship"
        )
        findings.append(Finding(question="relatives", state="unknown", sentence=told))
    for path in files:
        accept = config.unknown_training == "accept"
        findings += check_vectors(path, SubjectVectors.load(path), split, accept_unknown=accept)
    if study.path("aligned").exists():
        metadata, _ = load_tensor_metadata(study.path("aligned"), SOURCE_KIND, SOURCE_FORMAT)
        findings.append(check_aligned(metadata, split))

    width = max(len(finding.question) for finding in findings)
    for finding in findings:
        print(f"  {finding.state:<8}{finding.question:<{width}}  {finding.sentence}")
    concerned = [(finding, people) for finding in findings for people in finding.people]
    if concerned:
        listed = study.private / "check.tsv"
        rows = "".join(f"{finding.question}\t{' '.join(people)}\n" for finding, people in concerned)
        write_text(listed, "question\tpeople\n" + rows, mode=PRIVATE)
        print(f"  people concerned: {listed}")
    bad = {state: sum(finding.state == state for finding in findings) for state in ("LEAK", "unknown")}
    if any(bad.values()):
        print(f"check: {bad['LEAK']} leaks, {bad['unknown']} questions that the files do not answer")
        return 3
    print(f"check: clean, {len(findings)} questions, {len(files)} files of vectors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
