"""`scripts/evaluate.py` with rivals' vectors and phenotypes, on a small study at vector level."""

import numpy as np
import pytest

from encoders.cohort import Cohort, groups_of, make_split
from encoders.cohort.synthetic import SyntheticCohort, vector_cohort
from encoders.runs import Study, load_json
from encoders.vectors import SubjectVectors
from scripts.align import main as align
from scripts.evaluate import main as evaluate

pytestmark = pytest.mark.slow  # aligns once, evaluates twice


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = Study(tmp_path_factory.mktemp("studies") / "study")
    made = vector_cohort(SyntheticCohort(people=300, seed=2))
    frame = made.frame.drop(columns=[c for c in made.frame if c.startswith("pcs_")])
    liability = frame["trait_1"] + frame["trait_2"]
    frame["diagnosis"] = np.where(liability > liability.median(), "patient", "control")
    study.path("participants").parent.mkdir(parents=True)
    frame.to_csv(study.path("participants"), sep="\t", na_rep="n/a", index_label="participant_id")
    cohort = Cohort.load(study.path("participants"))
    split = make_split(
        cohort, groups_of(cohort, []), val_fraction=0.15, test_fraction=0.3, stratify=["sex"], seed=0
    )
    split.save(study.path("splits"))
    SubjectVectors(ids=made.ids, values=made.brain).save(study.path("brain"))
    SubjectVectors(ids=made.ids, values=made.gene).save(study.path("genetics"))
    assert align(["--study", str(study.folder), "--epochs=2", "--eval_every=2"]) == 0
    return study, made


OPTIONS = ("--permutations=49", "--bootstraps=50")


def test_rivals_and_phenotypes_stand_beside_the_alignment(study, capsys):
    study, made = study
    run = ["--study", str(study.folder), *OPTIONS, "--phenotypes=[diagnosis]"]
    assert evaluate(run) == 0
    before = load_json(study.path("evaluation"), "neurohelix.evaluation", 1)
    assert set(before["models"]) == {"neurohelix", "ridge_cca", "pls", "confounds_only", "chance"}
    assert before["phenotypes"]["diagnosis"]["models"]["average_boosting"]["auroc"]["value"] > 0.6
    assert before["gate"]["passed"] is not True and before["gate"]["fusion_gain"] is not None
    assert before["linear"]["cca"]["p"][0] == 1 / 50

    SubjectVectors(ids=made.ids[5:], values=made.gene[5:]).save(study.folder / "vectors/snps.safetensors")
    capsys.readouterr()
    assert evaluate(run) == 2  # the result would be another one: said, not done silently
    assert "inputs.rival linear_snps: (absent) ->" in capsys.readouterr().err
    assert evaluate([*run, "--redo=true"]) == 0
    after = load_json(study.path("evaluation"), "neurohelix.evaluation", 1)
    assert after["models"]["neurohelix"] == before["models"]["neurohelix"]
    assert sum(after["rivals"]["without_vectors"]["linear_snps"].values()) == 5
    people = after["paired"]["linear_snps"]["matched"]["people"]
    assert people == after["people"]["evaluated"] - after["rivals"]["without_vectors"]["linear_snps"]["test"]


def test_a_phenotype_that_is_not_there_is_refused_before_anything_is_discarded(study, capsys):
    study, _ = study
    before = study.path("evaluation").read_bytes() if study.path("evaluation").exists() else b""
    assert evaluate(["--study", str(study.folder), *OPTIONS, "--phenotypes=[diagnosi]", "--redo=true"]) == 2
    assert "did you mean diagnosis?" in capsys.readouterr().err
    assert (study.path("evaluation").read_bytes() if study.path("evaluation").exists() else b"") == before
