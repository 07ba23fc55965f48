import pytest

from encoders.genetics.contigs import (
    build_of,
    canonical,
    find_contig,
    header_contigs,
    plink_contig,
    spellings,
)


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


def test_plink_numbers_are_found_where_nothing_else_fits():
    assert find_contig("chrX", ["22", "23"]) == "23"
    assert find_contig("X", ["23", "chrX"]) == "chrX"
    assert find_contig("X", ["23", "25"]) is None  # and XY: two candidates
    assert find_contig("chrM", ["26"]) == "26"
    assert find_contig("22", ["23", "24"]) is None
    assert [plink_contig(code) for code in ("23", "chr25", "XY", "par1", "26", "7", "chrX")] == [
        "X", "X", "X", "X", "MT", "7", "chrX",
    ]  # fmt: skip


def test_contigs_of_a_header_in_any_order_of_their_fields():
    header = [
        "##fileformat=VCFv4.2",
        "##contig=<ID=chr1,length=99>",
        "##contig=<length=7,ID=chr2,assembly=x>",
        "##contig=<ID=HLA-A*01:01,md5=ID5>",
    ]
    assert header_contigs(header) == {"chr1": 99, "chr2": 7, "HLA-A*01:01": None}
