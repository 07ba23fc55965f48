"""scripts/align.py --redo: what there is goes only once the files have proved sound."""

from pathlib import Path

import numpy as np

from encoders.cohort import Cohort, groups_of, make_split
from encoders.cohort.synthetic import SyntheticCohort, vector_cohort
from encoders.vectors import SubjectVectors


def test_a_leak_found_at_a_redo_leaves_the_earlier_alignment_in_place(tmp_path, capfd):
    from scripts.align import main as align

    made = vector_cohort(SyntheticCohort(arm="signal", people=120, seed=0))
    cohort = Cohort(frame=made.frame, path=Path("participants.tsv"))
    split = make_split(
        cohort, groups_of(cohort, made.related), val_fraction=0.2, test_fraction=0.2, stratify=["sex"], seed=0
    )
    (tmp_path / "splits").mkdir()
    split.save(tmp_path / "splits/splits.json")
    SubjectVectors(ids=made.ids, values=made.brain).save(tmp_path / "vectors/brain.safetensors")
    SubjectVectors(ids=made.ids, values=made.gene.astype(np.float32)).save(
        tmp_path / "vectors/genetics.safetensors"
    )
    table = tmp_path / "people.tsv"
    made.frame.to_csv(table, sep="\t", index_label="participant_id", na_rep="n/a")
    told = [f"--study={tmp_path}", f"--participants={table}", "--epochs=1", "--confounds=[age,sex]"]
    assert align(told) == 0
    aligned = tmp_path / "runs/align/aligned.safetensors"
    before = aligned.read_bytes()
    leaking = made.frame.copy()
    leaking.loc[[split.train[0], split.test[0]], "family_id"] = "one family"
    leaking.to_csv(table, sep="\t", index_label="participant_id", na_rep="n/a")
    assert align([*told, "--redo=true"]) == 2
    assert "lie in different folds" in capfd.readouterr().err
    assert aligned.read_bytes() == before
