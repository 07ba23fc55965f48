"""`check` on real files: a clean study is clean, each planted leak is found, and only that one."""

import numpy as np
import pytest

from encoders.cohort import Split
from encoders.runs.artifact import save_tensors
from encoders.vectors import SubjectVectors
from scripts.check import main

IDS = [f"p{k}" for k in range(20)]
PARTS = {"train": IDS[:12], "val": IDS[12:15], "test": IDS[15:]}


class Files:
    def __init__(self, folder):
        self.folder = folder
        (folder / "raw").mkdir()
        self.split()
        self.people()
        self.kinship("p0 p1 0.25")
        self.vectors("brain", trained_on=self.trained_on(PARTS["train"]))
        self.vectors("genetics")
        self.aligned()

    def split(self, folds=None, **parts):
        self.made = Split(**(PARTS | parts), groups={i: i for i in IDS}, seed=0, folds=folds or [])
        self.made.save(self.folder / "splits" / "splits.json")

    def people(self, families=None, ids=IDS):
        rows = "".join(f"{i}\t{(families or {}).get(i, '')}\n" for i in ids)
        (self.folder / "raw" / "participants.tsv").write_text("participant_id\tfamily_id\n" + rows)

    def kinship(self, *rows):
        (self.folder / "raw" / "kinship.tsv").write_text("\n".join(["ID1 ID2 Kinship", *rows]) + "\n")

    def trained_on(self, ids, digest=None, complete=True):
        return {"split_digest": digest or self.made.digest, "ids": ids, "complete": complete}

    def vectors(self, name, trained_on=None, same=()):
        values = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
        for one, other in same:
            values[IDS.index(other)] = values[IDS.index(one)]
        vectors = SubjectVectors(ids=IDS, values=values, provenance={"trained_on": trained_on})
        vectors.save(self.folder / "vectors" / f"{name}.safetensors")

    def aligned(self, test=PARTS["test"], digest=None):
        folds = ["test" if i in test else "train" for i in IDS]
        metadata = {"ids": IDS, "folds": folds, "provenance": {"split_digest": digest or self.made.digest}}
        path = self.folder / "runs" / "align" / "aligned.safetensors"
        save_tensors(path, "neurohelix.aligned", 2, {"brain_raw": np.zeros((20, 2), np.float32)}, metadata)


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def check(files, capsys, *options):
    code = main([f"--study={files.folder}", *options])
    return code, capsys.readouterr().out


def test_a_clean_study_is_clean(files, capsys):
    code, out = check(files, capsys)
    assert code == 0 and "LEAK" not in out and "check: clean" in out
    assert "12 people of this split" in out
    assert not (files.folder / "private" / "check.tsv").exists()


@pytest.mark.parametrize(
    ("plant", "question"),
    [
        (lambda f: f.kinship("p0 p15 0.06"), "relatives by kinship"),
        (lambda f: f.people({"p3": "F1", "p13": "F1", "p4": "F2", "p5": "F2"}), "relatives by family_id"),
        (lambda f: f.vectors("brain", f.trained_on(["p0", "p16"])), "training of brain"),
        (lambda f: f.vectors("snps", f.trained_on(["p0", "p16"], digest="0" * 64)), "training of snps"),
        (
            lambda f: f.vectors("brain", f.trained_on(PARTS["train"]), same=[("p2", "p17")]),
            "one scan twice in brain",
        ),
        (lambda f: f.aligned(test=IDS[:5], digest="0" * 64), "the alignment"),
        (
            lambda f: f.split(folds=[IDS[:1] + IDS[2:7], [IDS[1], *IDS[7:14]], IDS[14:]]),
            "relatives by kinship",
        ),
    ],
    ids=["kinship", "family", "encoder", "fitted statistic", "one scan twice", "old alignment", "k folds"],
)
def test_a_planted_leak_is_found_and_only_that(files, capsys, plant, question):
    plant(files)
    code, out = check(files, capsys)
    leaks = [line for line in out.splitlines() if line.strip().startswith("LEAK")]
    assert code == 3 and len(leaks) == 1 and question in leaks[0]
    assert not any(f" {name} " in out for name in IDS)  # persons are listed in the private file alone


def test_one_person_under_two_ids_is_found_by_kinship_and_by_name(files, capsys):
    files.kinship("p0 p15 0.49")
    code, out = check(files, capsys)
    assert code == 3 and "LEAK    one person twice, by kinship" in out
    listed = files.folder / "private" / "check.tsv"
    assert "p0 p15" in listed.read_text() and listed.stat().st_mode & 0o777 == 0o600


def test_repeat_visits_are_known_by_their_names():
    from align.leakage import _visits

    assert _visits(
        ["s1_ses-1", "s1_ses-2", "s2_visit3", "1000012-2.0", "1000012-3.0", "sub-0001", "sub-0002"]
    ) == {
        "s1": ["s1_ses-1", "s1_ses-2"],
        "s2": ["s2_visit3"],
        "1000012": ["1000012-2.0", "1000012-3.0"],
        "sub-0001": ["sub-0001"],
        "sub-0002": ["sub-0002"],
    }


def test_what_the_files_do_not_tell_is_not_called_clean(files, capsys):
    files.vectors("brain", {"split_digest": "unknown", "ids": None, "complete": False})
    code, out = check(files, capsys)
    assert code == 3 and "unknown training of brain" in out
    code, out = check(files, capsys, "--unknown_training=accept")
    assert code == 0 and "accepted without proof" in out
    files.people(ids=IDS[:-1])
    assert check(files, capsys, "--unknown_training=accept")[0] == 3
