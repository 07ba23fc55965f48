import pytest

from encoders.genetics.contigs import build_of, canonical, find_contig, spellings


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("chr1", "1"),
        ("1", "1"),
        ("NC_000001.11", "1"),
        ("CHR07", "7"),
        ("nc_000023.10", "X"),
        ("chrX", "X"),
        ("24", "24"),
        ("NC_000024.9", "Y"),
        ("chrM", "MT"),
        ("NC_012920.1", "MT"),
        ("chr", "chr"),
        ("chr1_KI270706v1_random", "chr1_KI270706v1_random"),
        ("NC_000025.1", "NC_000025.1"),
        ("scaffold_12", "scaffold_12"),
    ],
)
def test_canonical_names(spelling, name):
    assert canonical(spelling) == name


def test_find_contig_prefers_the_same_spelling_and_never_guesses():
    assert find_contig("chr2", ["1", "2", "chr2"]) == "chr2"
    assert find_contig("NC_000002.12", ["1", "2"]) == "2"
    assert find_contig("3", ["2", "chr2"]) is None
    assert find_contig("NC_000002.12", ["2", "chr2"]) is None  # two candidates: refuse rather than pick


def test_messages_name_all_conventions():
    assert spellings("chrX") == "'X', 'chrX' and 'NC_000023'"
    assert spellings("scaffold_12") == "'scaffold_12'"


def test_build_by_contig_lengths():
    assert build_of({"chr1": 248956422, "chrX": 156040895}) == "GRCh38"
    assert build_of({"1": 249250621}) == "GRCh37"
    assert build_of({"1": 30000, "scaffold": 7}) is None
