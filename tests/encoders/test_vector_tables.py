"""Tables of vectors as the knowledge base and other programs write them."""

import numpy as np
import pandas as pd
import pytest

from encoders.import_config import ImportVectors
from encoders.runs.errors import InputError
from encoders.vector_tables import read_vector_table
from encoders.vectors import SubjectVectors
from scripts.import_vectors import main

VALUES = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
IDS = ["007", "1000012", "sub-3"]


def read(table, **options):
    return read_vector_table(ImportVectors(table=table, **options))


def test_the_knowledge_bases_parquet_file_is_read_as_it_is(tmp_path):
    frame = pd.DataFrame(
        {"eid": IDS, "embedding_dim": 4, "source_model": "caduceus-ps", "layer": 12, "vector": list(VALUES)}
    )
    frame.to_parquet(tmp_path / "genetics_embeddings.parquet")
    vectors, told = read(tmp_path / "genetics_embeddings.parquet", trained_on="nobody")
    assert vectors.ids == IDS and (vectors.values == VALUES).all() and not vectors.blocks
    assert vectors.provenance["trained_on"] is None
    assert vectors.provenance["selected"] == {"source_model": "caduceus-ps", "layer": "12"}
    assert told == {"people": 3, "numbers_per_person": 4}


def test_ids_stored_as_numbers_with_a_point_are_the_same_people(tmp_path):
    pd.DataFrame({"eid": [1000012.0, 1000025.0], "vector": list(VALUES[:2])}).to_parquet(
        tmp_path / "t.parquet"
    )
    assert read(tmp_path / "t.parquet")[0].ids == ["1000012", "1000025"]


def test_rows_per_gene_become_blocks_in_the_order_of_the_table(tmp_path):
    rows = [(i, g, VALUES[k] + d) for k, i in enumerate(IDS) for d, g in enumerate(("DRD2", "BDNF"))]
    frame = pd.DataFrame(rows, columns=["eid", "gene_id", "embedding"])
    frame.sample(frac=1, random_state=1).sort_values("gene_id", ascending=False, kind="stable").to_parquet(
        tmp_path / "g.parquet"
    )
    vectors, told = read(tmp_path / "g.parquet")
    assert vectors.blocks == {"DRD2": (0, 4), "BDNF": (4, 8)} and told["genes"] == 2
    assert (vectors.select(IDS) == np.concatenate([VALUES, VALUES + 1], axis=1)).all()
    frame.iloc[:-1].to_parquet(tmp_path / "g.parquet")
    with pytest.raises(InputError, match="1 of 3 people lack some of the 2 genes"):
        read(tmp_path / "g.parquet")


@pytest.mark.parametrize("separator", [",", "\t"])
def test_numbered_columns_are_a_vector_in_the_order_of_their_numbers(tmp_path, separator):
    frame = pd.DataFrame({"subject_id": IDS, "age": 50, **{f"emb_{k}": VALUES[:, k] for k in (3, 1, 0, 2)}})
    frame.to_csv(tmp_path / "t.csv", sep=separator, index=False)
    vectors, _ = read(tmp_path / "t.csv")
    assert vectors.ids == IDS and np.allclose(vectors.values, VALUES, atol=1e-6)
    assert read(tmp_path / "t.csv", columns=["emb_2", "emb_0"])[0].values.shape == (3, 2)


@pytest.mark.parametrize("cell", ["[1.5, -2, 3e-1]", "1.5 -2 3e-1", "1.5,-2,3e-1", "[1.5 -2 3e-1]"])
def test_vectors_written_as_text_are_understood(tmp_path, cell):
    pd.DataFrame({"eid": ["a"], "vector": [cell]}).to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    assert np.allclose(read(tmp_path / "t.tsv")[0].values, [[1.5, -2, 0.3]])


def test_several_layers_or_sessions_must_be_chosen_from(tmp_path):
    frame = pd.DataFrame({"eid": IDS * 2, "layer": [6] * 3 + [12] * 3, "vector": [*VALUES, *(VALUES + 1)]})
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"2 layers \(12, 6\); choose one with --select.layer"):
        read(tmp_path / "t.parquet")
    assert (read(tmp_path / "t.parquet", select={"layer": "12"})[0].values == VALUES + 1).all()
    with pytest.raises(InputError, match="no row of .* has it; there are: 12, 6"):
        read(tmp_path / "t.parquet", select={"layer": "7"})


def test_repeated_people_are_refused_or_averaged(tmp_path):
    pd.DataFrame({"eid": [*IDS, "007"], "vector": [*VALUES, VALUES[0] + 2]}).to_parquet(
        tmp_path / "t.parquet"
    )
    with pytest.raises(InputError, match="1 further rows of a person it already has"):
        read(tmp_path / "t.parquet")
    vectors, told = read(tmp_path / "t.parquet", repeats="mean")
    assert np.allclose(vectors.values[0], VALUES[0] + 1) and told["rows_averaged"] == 1


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"name": ["a"], "vector": ["1 2"]}, "no column of subject ids"),
        ({"eid": ["a"], "age": ["3"]}, "no column of vectors"),
        ({"eid": ["a", "b"], "vector": ["1 2", "1 2 3"]}, "vectors of shapes"),
        ({"eid": ["a", ""], "vector": ["1 2", "1 2"]}, "1 rows have no subject id"),
        ({"eid": ["a"], "vector": ["1 nan"]}, "1 of 1 rows hold NaN"),
        ({"eid": ["a"], "vector": ["one two"]}, "row 1 holds 'one two'"),
        ({"eid": ["a", "b"], "e0": ["1", "x"], "e1": ["1", "2"]}, "column 'e0' holds 'x' in 1 rows"),
        ({"eid": ["a"], "e0": ["1"], "f0": ["1"]}, "several families of numbered columns"),
    ],
)
def test_what_cannot_be_a_table_of_vectors_is_said(tmp_path, frame, message):
    pd.DataFrame(frame).to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "t.tsv")


def test_the_command_writes_vectors_once_and_refuses_another_table(tmp_path, capsys):
    frame = pd.DataFrame({"eid": IDS, "vector": [" ".join(map(str, row)) for row in VALUES]})
    frame.to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    (tmp_path / "seen.txt").write_text("007\n")
    command = [f"--study={tmp_path / 'study'}", f"--table={tmp_path / 't.tsv'}", "--name=structure"]
    assert main([*command, f"--trained_on={tmp_path / 'seen.txt'}"]) == 0
    written = tmp_path / "study" / "vectors" / "structure.safetensors"
    vectors = SubjectVectors.load(written)
    assert vectors.provenance["trained_on"] == {"split_digest": "unknown", "ids": ["007"], "complete": True}
    assert written.stat().st_mode & 0o777 == 0o600
    assert main([*command, f"--trained_on={tmp_path / 'seen.txt'}"]) == 0
    assert "already done" in capsys.readouterr().out
    assert main([*command, "--trained_on=nobody"]) == 2
    assert "another configuration" in capsys.readouterr().err
