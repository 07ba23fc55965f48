"""`scripts/embed_scores.py` on tables as plink2, PLINK 1.9, PRSice-2 and the PGS Catalog calculator write them."""

import gzip
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from align.pairs import check_leakage
from encoders.cohort import Split
from encoders.genetics.score_table import read_score_table
from encoders.runs.errors import InputError
from encoders.runs.study import Study
from encoders.vectors import SubjectVectors
from scripts.embed_scores import main

ROOT = Path(__file__).resolve().parents[2]
PEOPLE = ["007", *(f"p{k}" for k in range(1, 12))]
TRAIN = PEOPLE[:8]
VALUES = np.random.default_rng(0).normal(3, 2, (12, 2)).round(4)


def write(path: Path, header: str, rows: list[str], *, packed: bool = False) -> Path:
    text = "\n".join([header, *rows]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path


def plink2(path: Path, values: np.ndarray = VALUES, people: list[str] = PEOPLE) -> Path:
    header = "#FID\tIID\tALLELE_CT\tNAMED_ALLELE_DOSAGE_SUM\tSCORE1_AVG\tSCORE2_AVG"
    return write(
        path, header, [f"0\t{i}\t60\t31\t{a}\t{b}" for i, (a, b) in zip(people, values, strict=True)]
    )


@pytest.fixture
def study(tmp_path):
    study = Study(tmp_path / "my study")
    (study.folder / "raw").mkdir(parents=True)
    study.path("participants").write_text("\n".join(["participant_id", *PEOPLE]) + "\n")
    split(study, TRAIN)
    return study


def split(study, train):
    rest = [name for name in PEOPLE if name not in train]
    made = Split(train=train, val=rest[:2], test=rest[2:], groups={i: i for i in PEOPLE}, seed=0)
    made.save(study.path("splits"))
    return made


def embed(study, *options):
    code = main(["--study", str(study.folder), *map(str, options)])
    path = study.folder / "vectors/polygenic.safetensors"
    return code, SubjectVectors.load(path) if path.exists() else None


def by_hand(values=VALUES):
    return (values - values[:8].mean(axis=0)) / values[:8].std(axis=0)


def test_scores_are_scaled_by_training_people_alone(study, tmp_path, capsys):
    table = plink2(tmp_path / "height.sscore")
    code, vectors = embed(study, "--scores", table)
    out = capsys.readouterr().out
    assert code == 0 and vectors.ids == PEOPLE
    assert vectors.blocks == {"SCORE1_AVG": (0, 1), "SCORE2_AVG": (1, 2)}
    np.testing.assert_allclose(vectors.values, by_hand(), rtol=1e-5)
    assert "scores: 2 ('SCORE1_AVG', 'SCORE2_AVG'), written by plink2" in out and "8 training people" in out
    for path in ("vectors/polygenic.safetensors", "private/score_people.tsv"):
        assert stat.S_IMODE((study.folder / path).stat().st_mode) == 0o600
    assert embed(study, "--scores", table)[0] == 0 and "already done" in capsys.readouterr().out
    changed = VALUES.copy()
    changed[-1] += 100
    plink2(table, changed)
    assert embed(study, "--scores", table)[0] == 2
    code, after = embed(study, "--scores", table, "--redo")
    np.testing.assert_array_equal(after.values[:-1], vectors.values[:-1])
    assert (after.values[-1] > vectors.values[-1] + 10).all()
    assert after.provenance["weights_sha256"] == vectors.provenance["weights_sha256"]


def _plink1(path, v):
    rows = [f"  0 {i}   -9   60   31  {a}" for i, (a, _) in zip(PEOPLE, v, strict=True)]
    return write(path, "   FID       IID  PHENO    CNT   CNT2    SCORE", rows), ["SCORE"]


def _best(path, v):
    rows = [f"0 {i} Yes {a} {b}" for i, (a, b) in zip(PEOPLE, v, strict=True)]
    return write(path, "FID IID In_Regression Base Synapse", rows), ["Base", "Synapse"]


def _all_score(path, v):
    rows = [f"0 {i} {a} {b}" for i, (a, b) in zip(PEOPLE, v, strict=True)]
    return write(path, "FID IID Pt_5e-08 Pt_1", rows), ["Pt_5e-08", "Pt_1"]


def _sums(path, v):
    rows = [f"{i}\t60\t31\t{a}\t{b}" for i, (a, b) in zip(PEOPLE, v, strict=True)]
    header = "#IID\tALLELE_CT\tNAMED_ALLELE_DOSAGE_SUM\theight_SUM\tbmi_SUM"
    return write(path, header, rows), ["height_SUM", "bmi_SUM"]


def _calculator(path, v):
    rows = [
        f"{sample}\t{i}\t{name}\t{60 * x}\t60\t{x}"
        for sample, people in (("reference", [f"HG{k}" for k in range(5)]), ("mine", PEOPLE))
        for i, pair in zip(people, v, strict=False)
        for name, x in zip(("PGS000001", "PGS000002"), pair, strict=True)
    ]
    return write(path, "sampleset\tIID\tPGS\tSUM\tDENOM\tAVG", rows, packed=True), ["PGS000001", "PGS000002"]


KINDS = {
    "scores.profile": (_plink1, "PLINK 1.9"),
    "PRSice.best": (_best, "PRSice-2"),
    "PRSice.all_score": (_all_score, "PRSice-2"),
    "sums.sscore": (_sums, "plink2"),
    "aggregated_scores.txt.gz": (_calculator, "the PGS Catalog calculator"),
}


@pytest.mark.parametrize("name", KINDS)
def test_tables_of_known_programs_need_no_options(study, tmp_path, name):
    make, program = KINDS[name]
    path, names = make(tmp_path / name, VALUES)
    code, vectors = embed(study, "--scores", path)
    assert code == 0 and list(vectors.blocks) == names and vectors.provenance["programs"] == [program]
    np.testing.assert_allclose(vectors.values, by_hand()[:, : len(names)], rtol=1e-5)


def test_another_number_of_the_calculator_can_be_taken(tmp_path):
    path = write(
        tmp_path / "run_pgs.txt.gz",
        "sampleset\tIID\tPGS\tSUM\tZ_norm2",
        ["a\tp1\tX\t1.5\t0.25", "a\tp2\tX\t2.5\tNA"],
        packed=True,
    )
    assert read_score_table(path, columns=[]).values.tolist() == [[1.5], [2.5]]
    assert np.isnan(read_score_table(path, columns=[], value="Z_norm2").values[1, 0])
    with pytest.raises(InputError, match="--value=Z: .* has no such column"):
        read_score_table(path, columns=[], value="Z")


@pytest.mark.parametrize("kind", ["csv", "parquet", "indexed"])
def test_plain_tables_name_their_columns_and_ids_stay_text(study, tmp_path, kind, capsys):
    frame = pd.DataFrame({"eid": PEOPLE, "age": 50.0, "a": VALUES[:, 0], "b": VALUES[:, 1]})
    path = tmp_path / ("scores.csv" if kind == "csv" else "scores.parquet")
    if kind == "csv":
        frame.to_csv(path, index=False)
    else:
        pytest.importorskip("pyarrow")
        (frame.set_index("eid") if kind == "indexed" else frame).to_parquet(path)
    assert embed(study, "--scores", path) == (2, None)
    assert "pass --columns=[...] (it has 'age', 'a', 'b')" in capsys.readouterr().err
    code, vectors = embed(study, "--scores", path, "--columns=[b,a]")
    assert code == 0 and vectors.ids[0] == "007" and list(vectors.blocks) == ["b", "a"]
    np.testing.assert_allclose(vectors.values, by_hand()[:, ::-1], rtol=1e-5)


def test_whole_numbers_as_ids_of_a_parquet_file_join(study, tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "scores.parquet"
    pd.DataFrame({"eid": [1234567.0, 2.0], "a": [1.0, 2.0]}).to_parquet(path)
    assert read_score_table(path, columns=["a"]).people == ["1234567", "2"]


def test_several_tables_are_joined_by_person(study, tmp_path, capsys):
    tables = [plink2(tmp_path / "height.sscore"), plink2(tmp_path / "bmi.sscore", VALUES[::-1], PEOPLE[::-1])]
    code, vectors = embed(study, f"--scores=[{tables[0]},{tables[1]}]", "--columns=[SCORE1_AVG]")
    assert code == 0 and list(vectors.blocks) == ["height.SCORE1_AVG", "bmi.SCORE1_AVG"]
    np.testing.assert_allclose(vectors.values, by_hand()[:, [0, 0]], rtol=1e-5)
    (tmp_path / "more").mkdir()
    same = plink2(tmp_path / "more/height.sscore")
    assert embed(study, f"--scores=[{tables[0]},{same}]", "--redo")[0] == 2
    assert "two tables of scores are called 'height'" in capsys.readouterr().err


def test_missing_scores_and_people_are_counted_and_listed(study, tmp_path, capsys):
    path = tmp_path / "s.sscore"
    rows = [f"{i}\t60\t{a}\t{b}" for i, (a, b) in zip(PEOPLE, VALUES, strict=True)]
    rows[2] = f"p2\t60\tNA\t{VALUES[2, 1]}"
    rows[9] = "p9\t60\tnan\t."
    rows[10] = "stranger\t60\t1\t2"
    write(path, "#IID\tALLELE_CT\tA_AVG\tB_AVG", rows)
    code, vectors = embed(study, "--scores", path)
    out = capsys.readouterr().out
    assert code == 0 and vectors.ids == [i for i in PEOPLE if i not in ("p9", "p10")]
    for line in (
        "people: 10",
        "people in table without scores: 1",
        "people with missing scores left out: 1",
        "people with scores not in table: 1",
        "missing scores set to the mean: 1",
    ):
        assert line in out
    assert vectors.values[2, 0] == 0
    known = np.delete(VALUES[:8, 0], 2)
    assert vectors.values[0, 0] == pytest.approx((VALUES[0, 0] - known.mean()) / known.std(), rel=1e-5)
    assert (study.private / "score_people.tsv").read_text().splitlines()[1:] == [
        "p10\tin the table of people, not in the scores",
        "p9\t2 of 2 scores missing",
        "stranger\tin the scores, not in the table of people",
    ]
    code, vectors = embed(study, "--scores", path, "--missing=drop", "--redo")
    assert code == 0 and "p2" not in vectors.ids
    assert "people with missing scores left out: 2" in capsys.readouterr().out


def test_align_asks_whose_phenotypes_made_the_weights(study, tmp_path, capsys):
    table = plink2(tmp_path / "s.sscore")
    _, vectors = embed(study, "--scores", table)
    assert "align takes these vectors only with --unknown_training=accept" in capsys.readouterr().out
    now = Split.load(study.path("splits"))
    with pytest.raises(InputError, match="does not name all the people it was trained on"):
        check_leakage(vectors, now, "genetics")
    check_leakage(vectors, now, "genetics", accept_unknown=True)
    _, vectors = embed(study, "--scores", table, "--trained_on=nobody", "--redo")
    check_leakage(vectors, now, "genetics")
    gwas = tmp_path / "gwas.txt"
    gwas.write_text("p11\nsomebody else\n")
    _, vectors = embed(study, "--scores", table, f"--trained_on={gwas}", "--redo")
    with pytest.raises(InputError, match="trained on 1 of the 2 held-out families"):
        check_leakage(vectors, now, "genetics")
    _, vectors = embed(study, "--scores", table, "--trained_on=nobody", "--redo")
    with pytest.raises(InputError, match="trained on 2 of the 2 held-out families"):
        check_leakage(vectors, split(study, PEOPLE[4:]), "genetics")


def _twice(path):
    plink2(path, VALUES[[*range(12), 3]], [*PEOPLE, "p3"])


def _words(path):
    write(path, "IID\tA_AVG", [*(f"{i}\t1.{k}" for k, i in enumerate(PEOPLE[:-1])), "p11\t1,5"])


def _infinite(path):
    write(path, "IID\tA_AVG", ["p1\t1", "p2\tinf"])


def _no_ids(path):
    write(path, "name\tA_AVG", ["p1\t1", "p2\t2"])


def _empty_id(path):
    write(path, "IID\tA_AVG", ["p1\t1", "\t2"])


def _short(path):
    write(path, "IID\tA_AVG\tB_AVG", ["p1\t1\t2", "p2\t2"])


def _alike(path):
    plink2(path, np.c_[np.r_[np.ones(8), np.arange(4)], VALUES[:, 1]])


def _others(path):
    plink2(path, VALUES, [f"sub-{i}" for i in PEOPLE])


def _held_out(path):
    plink2(path, VALUES[8:], PEOPLE[8:])


def _cut(path):
    path.write_bytes(gzip.compress(b"IID\tA_AVG\np1\t1\n" * 99)[:-9])


def _no_rows(path):
    write(path, "IID\tA_AVG", [])


def _long_twice(path):
    write(path, "sampleset\tIID\tPGS\tSUM", ["a\tp1\tX\t1", "b\tp1\tX\t1"])


def _damaged(path):
    pytest.importorskip("pyarrow")
    pd.DataFrame({"IID": PEOPLE, "A_AVG": VALUES[:, 0]}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_twice, "'p3' stands on lines 5 and 14; keep one line per person"),
        (_words, "line 13: column 'A_AVG' holds '1,5'; a number was wanted"),
        (_infinite, "line 3: column 'A_AVG' holds 'inf'"),
        (_no_ids, "has no column of subject ids"),
        (_empty_id, "line 3 has no subject id"),
        (_short, "line 3 has 2 cells, the header 3"),
        (
            _alike,
            "E_DEGENERATE: 1 of 2 scores do not differ between the 8 training people \\('SCORE1_AVG'\\)",
        ),
        (_others, "E_SAMPLE: none of the 12 people .* near misses: "),
        (_held_out, "E_SAMPLE: 0 of the 8 training people"),
        (_cut, "is not a readable table"),
        (_no_rows, "has no rows"),
        (_long_twice, "line 3: a second X of 'p1'"),
        (_damaged, "is a damaged Parquet file"),
    ],
)
def test_a_wrong_table_is_one_line_and_leaves_no_trace(study, tmp_path, capsys, make, words):
    path = tmp_path / "table"
    make(path)
    assert embed(study, "--scores", path) == (2, None)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and re.search(words, errors[0]), errors
    assert not (study.folder / "runs").exists() and not study.private.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--columns=[SCORE9_AVG]"], "has no column 'SCORE9_AVG'; it has: "),
        (["--id_column=eid"], "has no column 'eid'"),
        (["--trained_on=somebody"], "somebody does not exist"),
        (["--missing=zero"], "missing"),
    ],
)
def test_wrong_options_are_one_line(study, tmp_path, capsys, options, words):
    assert embed(study, "--scores", plink2(tmp_path / "s.sscore"), *options) == (2, None)
    assert words in capsys.readouterr().err


def test_a_control_study_has_these_as_genome_vectors(study, tmp_path):
    control = Study(tmp_path / "control")
    assert embed(study, "--scores", plink2(tmp_path / "s.sscore"), f"--control={control.folder}")[0] == 0
    assert SubjectVectors.load(control.path("genetics")).provenance["encoder"] == "polygenic scores"
    assert control.path("participants").samefile(study.path("participants"))


def test_help_imports_neither_torch_nor_pandas():
    code = (
        "import sys; from scripts.embed_scores import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'sklearn', 'pyarrow', 'pandas'} & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
