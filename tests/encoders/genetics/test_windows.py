import pytest

from encoders.genetics.reference import Reference
from encoders.genetics.windows import Window, digest_windows, place_windows, read_windows
from encoders.runs.errors import InputError


def test_reads_bed_columns(files):
    path = files.bed(
        "# a comment",
        "track name=genes",
        "chr1\t10\t20\tAPOE\t0\t-",
        "2 5 9 BRCA|T1|exon1",
        "X\t0\t3",
    )
    assert read_windows(path) == [
        Window(name="APOE", contig="chr1", start=10, end=20, strand="-"),
        Window(name="BRCA|T1|exon1", contig="2", start=5, end=9),
        Window(name="X:1-3", contig="X", start=0, end=3),
    ]
    assert read_windows(path)[1].gene == "BRCA"
    assert read_windows(path)[0].place == "chr1:11-20"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "holds no windows"),
        (("chr1\t10",), "line 1: 2 columns"),
        (("chr1\t0\t5\ta", "chr1\t9\t9\tb"), "line 2: start '9' and end '9'"),
        (("chr1\t-3\t9\ta",), "start '-3'"),
        (("chr1\t0\t5\ta\t0\t?",), "strand '?'"),
        (("chr1\t0\t5\ta", "chr2\t0\t5\ta"), "1 window names appear twice, first 'a'"),
    ],
)
def test_bad_lines_are_named(files, lines, message):
    with pytest.raises(InputError, match=message):
        read_windows(files.bed(*lines).replace(files.folder / "bad.bed"))


def test_other_files_of_that_suffix(tmp_path):
    (tmp_path / "plink.bed").write_bytes(b"\x6c\x1b\x01\xff")
    with pytest.raises(InputError, match="PLINK genotypes"):
        read_windows(tmp_path / "plink.bed")
    (tmp_path / "binary.bed").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="is not text"):
        read_windows(tmp_path / "binary.bed")
    with pytest.raises(InputError, match="does not exist"):
        read_windows(tmp_path / "none.bed")


def test_placing_translates_clips_and_refuses(files):
    fasta = files.fasta({"chr1": "ACGT" * 10, "chr2": "ACGTACGTNN"})
    with Reference(fasta) as reference:
        placed = place_windows(
            read_windows(files.bed("1\t30\t55\ta\t0\t-", "NC_000002.12\t0\t8\tb")), reference, max_n_share=0.1
        )
        assert [(w.contig, w.start, w.end, w.clipped, w.strand) for w in placed] == [
            ("chr1", 30, 40, 15, "-"),
            ("chr2", 0, 8, 0, "+"),
        ]
        with pytest.raises(InputError, match=r"E_WINDOW: window 'a' .* which has 40 bases"):
            place_windows(read_windows(files.bed("1\t40\t50\ta")), reference, max_n_share=0.1)
        with pytest.raises(InputError, match="E_CONTIG: contig '9'"):
            place_windows(read_windows(files.bed("9\t40\t50\ta")), reference, max_n_share=0.1)
        rich = read_windows(files.bed("1\t0\t9\tfine", "2\t0\t10\trich"))
        with pytest.raises(InputError, match=r"E_NRICH: 1 of 2 windows .* 'rich \(20%\)'"):
            place_windows(rich, reference, max_n_share=0.1)
        assert len(place_windows(rich, reference, max_n_share=0.2)) == 2


def test_digest_depends_on_what_windows_are():
    a = Window(name="a", contig="1", start=0, end=5)
    b = Window(name="a", contig="1", start=0, end=6)
    assert digest_windows([a]) == digest_windows([a])
    assert digest_windows([a]) != digest_windows([b])
