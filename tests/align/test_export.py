"""Phenotype tables for REGENIE and PLINK."""

import io

import numpy as np
import pandas as pd
import pytest

from align.export import phenotype_table, read_sample
from align.export_config import Export
from encoders.runs.errors import InputError

RNG = np.random.default_rng(0)
IDS = [f"p{k}" for k in range(12)]
FOLDS = ["train"] * 6 + ["val"] * 2 + ["test"] * 4
VALUES = RNG.normal(size=(12, 3)).astype(np.float32)
VALUES[9] = np.nan


def table(**options):
    extra = {k: options.pop(k) for k in ("families", "sample") if k in options}
    text, told = phenotype_table(VALUES, IDS, FOLDS, config=Export(**options), **extra)
    return pd.read_csv(io.StringIO(text), sep=r"\s+", dtype={0: str, 1: str}), told


def test_held_out_people_with_a_vector_are_written_and_nobody_else():
    frame, told = table()
    assert list(frame.columns) == ["FID", "IID", "brain_adjusted_1", "brain_adjusted_2", "brain_adjusted_3"]
    assert list(frame.IID) == ["p8", "p10", "p11"] == list(frame.FID)
    assert np.allclose(frame.iloc[:, 2:], VALUES[[8, 10, 11]], rtol=1e-6)
    assert told == {"people": 3, "phenotypes": 3, "without_brain_vector": 1}


def test_training_people_come_with_a_warning():
    frame, told = table(folds=["train", "test"])
    assert len(frame) == 9 and "circular" in told["warning"]


def test_plink_form_families_and_a_list_of_genotyped_people():
    frame, told = table(format="plink2", fid="family", families={"p8": "F1"}, sample={"p8", "p11", "someone"})
    assert list(frame.columns[:2]) == ["#FID", "IID"]
    assert list(frame["#FID"]) == ["F1", "p11"] and list(frame.IID) == ["p8", "p11"]
    assert told["not_among_the_genotypes"] == 1
    assert list(table(fid="0")[0].FID) == ["0"] * 3


def test_components_are_those_of_training_people():
    from sklearn.decomposition import PCA

    frame, told = table(components=2)
    expected = PCA(2).fit(VALUES[:6]).transform(VALUES[[8, 10, 11]])
    assert np.allclose(np.abs(frame.iloc[:, 2:]), np.abs(expected), atol=1e-5)
    assert frame.columns[2] == "brain_adjusted_PC1" and told[
        "variance_of_training_people_explained"
    ].endswith("%")
    with pytest.raises(InputError, match="have only 3"):
        table(components=4)


@pytest.mark.parametrize(
    "text",
    [
        "F1 p1 0 0 1 -9\nF2 p2 0 0 2 -9\n",
        "#FID IID SEX\nF1 p1 1\nF2 p2 2\n",
        "#IID\np1\np2\n",
        "ID_1 ID_2 missing sex\n0 0 0 D\np1 p1 0 1\np2 p2 0 2\n",
        "p1\np2\n",
    ],
    ids=["fam", "psam", "psam of ids", "sample", "list"],
)
def test_every_form_of_sample_file_names_the_same_people(tmp_path, text):
    (tmp_path / "people").write_text(text)
    assert read_sample(tmp_path / "people") == {"p1", "p2"}


def test_nobody_left_and_ids_with_blanks_are_errors():
    with pytest.raises(InputError, match="none of these among the 1 people"):
        table(sample={"someone"})
    with pytest.raises(InputError, match="holds a blank"):
        phenotype_table(VALUES[:2], ["a b", "c"], ["test", "test"], config=Export())
