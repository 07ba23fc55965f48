import pysam
import pytest

from encoders.genetics.reference import Reference, share_of_n
from encoders.runs.errors import InputError

BASES = "ACGTNacgtnACGT" * 30


def test_fetch_is_zero_based_capital_and_cut_at_the_ends(files):
    with Reference(files.fasta({"chr1": BASES, "chr2": "TTTT"})) as reference:
        assert reference.lengths == {"chr1": len(BASES), "chr2": 4}
        assert reference.fetch("chr1", 3, 8) == "TNACG"
        assert reference.fetch("chr1", 0, len(BASES)) == BASES.upper()
        assert reference.fetch("chr2", -2, 99) == "TTTT"
        assert reference.fetch("chr2", 5, 9) == ""


def test_aliases_and_unknown_contigs(files):
    with Reference(files.fasta({"NC_000007.14": "ACGT"})) as reference:
        assert reference.find("chr7") == reference.find("7") == "NC_000007.14"
        with pytest.raises(InputError, match=r"E_CONTIG: contig 'chr8' .* '8', 'chr8' and 'NC_000008'"):
            reference.find("chr8")


def test_a_missing_index_is_made_in_a_temporary_folder(files):
    path = files.fasta({"chr1": BASES})
    with Reference(path) as reference:
        assert reference.rebuilt_index
        assert reference.fetch("chr1", 0, 4) == "ACGT"
    assert sorted(p.name for p in files.folder.iterdir()) == ["reference.fa"]


def test_a_fitting_index_is_used_and_a_stale_one_is_not(files):
    path = files.fasta({"chr1": BASES})
    pysam.faidx(str(path))
    with Reference(path) as reference:
        assert not reference.rebuilt_index
    for changed in ({"chr1": "GATTACA" + BASES}, {"chrZ": BASES}, {"chr1": BASES, "chr2": "ACGT"}):
        files.fasta(changed)  # the index stays behind, newer or not
        with Reference(path) as reference:
            assert reference.rebuilt_index
            name = next(iter(changed))
            assert reference.fetch(name, 0, 7) == changed[name][:7].upper()


def test_bgzipped(files):
    plain = files.fasta({"chr1": BASES})
    pysam.tabix_compress(str(plain), f"{plain}.gz", force=True)
    with Reference(files.folder / "reference.fa.gz") as reference:
        assert reference.fetch("chr1", 2, 6) == "GTNA"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>not found</html>", "does not begin with '>'"),
        (b">chr1\nACGT\nAC\nACGT\n", "lines of equal length"),
        (b"\x1f\x8b\x08\x00" + b"\0" * 40, "gzipped in one piece"),
    ],
)
def test_what_is_no_fasta_is_refused(tmp_path, content, message):
    path = tmp_path / "reference.fa"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        Reference(path)


def test_share_of_n():
    assert share_of_n("ANNT") == 0.5
    assert share_of_n("") == 1.0
