"""Shares of missing calls by window and person."""

from encoders.genetics.genomes import read_genomes
from encoders.genetics.missing_calls import missing_shares, missing_table, skipped_table

PEOPLE = ["a", "b"]


def genomes(files, records):
    return read_genomes(
        variants=files.vcf(records, samples=PEOPLE),
        reference=files.fasta({"chr1": "ACGTACGTAC" * 2}),
        windows=files.bed("1\t0\t10\tA", "1\t10\t20\tB"),
        people=PEOPLE,
        missing="n",
        max_n_share=0.1,
    )


def test_shares_by_window_and_person(files):
    found = genomes(
        files,
        [
            ("chr1", 3, "G", "T,<DEL>", ["0|1", ".|."]),
            ("chr1", 5, "A", "T", ["2|0".replace("2", "."), "0|1"]),
            ("chr1", 13, "G", "T,<CN0>", ["0|1", "2|0"]),
        ],
    )
    assert missing_shares(found.windows) == {
        "missing_share": "25.00% of all calls; most in window 'A': 37.50%; most in one person: 33.33%"
    }
    assert found.summary()["missing_share"].startswith("25.00%")
    assert missing_table(found.windows, found.people) == (
        "participant_id\tall\tA\tB\na\t0.166667\t0.25\t0\nb\t0.333333\t0.5\t0\n"
    )
    assert skipped_table(found.windows) == "window\trecord\nB\tchr1:13 G><CN0>\n"


def test_nothing_is_said_where_nothing_is_missing(files):
    found = genomes(files, [("chr1", 3, "G", "T", ["0|1", "0|0"]), ("chr1", 13, "G", "T", ["0|1", "0|0"])])
    assert missing_shares(found.windows) == {}
