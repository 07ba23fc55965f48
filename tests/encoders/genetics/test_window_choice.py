"""Windows of a run: from BED, annotations and lists of variants."""

import pysam
import pytest

from encoders.genetics.reference import Reference
from encoders.genetics.window_choice import WindowChoice, choose_windows, read_names
from encoders.genetics.windows import Window, digest_windows, place_windows
from encoders.runs.errors import InputError

GTF = """\
1\tx\tgene\t101\t200\t.\t-\t.\tgene_id "ENSG9.3"; gene_name "ALPHA";
1\tx\ttranscript\t101\t200\t.\t-\t.\tgene_id "ENSG9.3"; transcript_id "T1"; tag "MANE_Select";
1\tx\texon\t171\t200\t.\t-\t.\tgene_id "ENSG9.3"; transcript_id "T1";
1\tx\texon\t101\t130\t.\t-\t.\tgene_id "ENSG9.3"; transcript_id "T1";
1\tx\tgene\t301\t350\t.\t+\t.\tgene_id "ENSG8.1"; gene_name "BETA";
X\tx\tgene\t11\t60\t.\t+\t.\tgene_id "ENSG7.1"; gene_name "SHARED";
Y\tx\tgene\t21\t70\t.\t+\t.\tgene_id "ENSG6.1"; gene_name "SHARED";
2\tx\tgene\t11\t60\t.\t+\t.\tgene_id "ENSG5.1"; gene_name "Y_RNA";
2\tx\tgene\t111\t160\t.\t+\t.\tgene_id "ENSG4.1"; gene_name "Y_RNA";
HSCHR1_PATCH\tx\tgene\t1\t50\t.\t+\t.\tgene_id "ENSG3.1"; gene_name "BETA";
"""


@pytest.fixture
def gtf(tmp_path):
    path = tmp_path / "genes.gtf"
    path.write_text(GTF)
    return path


def test_genes_with_flanks_in_the_order_asked_for(gtf):
    windows = choose_windows(gtf, WindowChoice(genes=("BETA", "ALPHA"), flank=150))
    assert windows == [
        Window(name="BETA", contig="1", start=150, end=500, strand="+"),
        Window(name="ALPHA", contig="1", start=0, end=350, strand="-", clipped_start=50),
    ]
    assert [w.name for w in choose_windows(gtf, WindowChoice(genes=("ENSG8", "ENSG9.3", "ENSG5.1")))] == [
        "BETA",
        "ALPHA",
        "Y_RNA",
    ]


def test_without_names_all_genes_with_unique_names(gtf):
    names = [window.name for window in choose_windows(gtf)]
    assert names == ["ALPHA", "ENSG8.1", "ENSG7.1", "ENSG6.1", "ENSG5.1", "ENSG4.1", "ENSG3.1"]


def test_the_start_of_transcription_depends_on_the_strand(gtf):
    minus, plus = choose_windows(gtf, WindowChoice(genes=("ALPHA", "BETA"), flank=20, centre="tss"))
    assert (minus.start, minus.end) == (199 - 20, 200 + 20)  # base 200 is the first one transcribed
    assert (plus.start, plus.end) == (300 - 20, 301 + 20)


def test_exons_are_numbered_as_transcribed_and_stay_the_focus_of_flanked_windows(gtf):
    bare = choose_windows(gtf, WindowChoice(kind="exon", genes=("ALPHA",)))
    assert [(w.name, w.start, w.end, w.focus, w.rule) for w in bare] == [
        ("ALPHA|T1|exon1", 170, 200, None, "MANE Select"),
        ("ALPHA|T1|exon2", 100, 130, None, "MANE Select"),
    ]
    assert {w.gene for w in bare} == {"ALPHA"}
    wide = choose_windows(gtf, WindowChoice(kind="exon", genes=("ALPHA",), flank=10))
    assert [(w.start, w.end, w.focus) for w in wide] == [(160, 210, (170, 200)), (90, 140, (100, 130))]
    assert digest_windows(bare) != digest_windows(wide)
    with pytest.raises(InputError, match=r"E_GENE: 1 of 1 genes have no exons .*'BETA'"):
        choose_windows(gtf, WindowChoice(kind="exon", genes=("BETA",)))


def test_unknown_and_ambiguous_genes_are_named(gtf):
    with pytest.raises(
        InputError,
        match=r"E_GENE: 2 genes are not in .*: 'alpha', 'BETAA' .*'alpha' and 'ALPHA'; 'BETAA' and 'BETA'",
    ):
        choose_windows(gtf, WindowChoice(genes=("alpha", "BETAA", "BETA")))
    with pytest.raises(
        InputError, match=r"'Y_RNA' stands for 2 genes .*ENSG5.1 at 2:11-60 \(\+\); ENSG4.1 at 2:111-160"
    ):
        choose_windows(gtf, WindowChoice(genes=("Y_RNA",)))
    (shared,) = choose_windows(gtf, WindowChoice(genes=("SHARED",)))
    assert shared.contig == "X"  # not the copy that Y has


def test_bed_windows_can_be_chosen_and_flanked_too(files):
    bed = files.bed("1\t100\t110\tA|T|exon1\t0\t-", "1\t200\t220\tB", "1\t300\t310\tA|T|exon2\t0\t-")
    chosen = choose_windows(bed, WindowChoice(kind="exon", genes=("B", "A"), flank=5))
    assert [(w.name, w.start, w.end, w.focus) for w in chosen] == [
        ("B", 195, 225, (200, 220)),
        ("A|T|exon1", 95, 115, (100, 110)),
        ("A|T|exon2", 295, 315, (300, 310)),
    ]
    with pytest.raises(InputError, match=r"1 genes are not in .*windows.bed: 'C'"):
        choose_windows(bed, WindowChoice(genes=("C",)))


def test_bed_may_be_gzipped(files):
    plain = files.bed("1\t100\t110\tA\t0\t-")
    pysam.tabix_compress(str(plain), f"{plain}.gz", force=True)
    assert choose_windows(plain.with_suffix(".bed.gz")) == choose_windows(plain)


def test_around_variants_of_a_vcf_or_a_table(files, tmp_path):
    records = [("chr1", 50, "AC", "A", ["0|1", "0|0"]), ("chr1", 50, "AC", "G", ["0|1", "0|0"]), ("chr1", 9, "T", "C", ["0|1", "0|0"])]  # fmt: skip
    choice = WindowChoice(kind="variant", flank=20, focus_flank=3)
    vcf = files.vcf(sorted(records, key=lambda r: r[1]))
    windows = choose_windows(vcf, choice)
    assert [(w.name, w.start, w.end, w.focus, w.clipped_start) for w in windows] == [
        ("chr1:9", 0, 29, (5, 12), 12),
        ("chr1:50", 29, 71, (46, 54), 0),
    ]
    table = tmp_path / "variants.tsv"
    table.write_text("contig\tposition\tname\nchr1\t9\trs1\nchr1\t50\t.\n")
    assert [(w.name, w.start, w.end) for w in choose_windows(table, choice)] == [
        ("rs1", 0, 29),
        ("chr1:50", 29, 70),
    ]
    table.write_text("chr1:9\nchr2:50\n")
    assert [w.name for w in choose_windows(table, choice)] == ["chr1:9", "chr2:50"]
    table.write_text("chr1 9\nchr1 nine\n")
    with pytest.raises(InputError, match="line 2: 'chr1 nine' is no variant"):
        choose_windows(table, choice)


def test_a_focus_is_cut_with_its_window(files):
    with Reference(files.fasta({"chr1": "ACGT" * 10})) as reference:
        window = Window(name="v", contig="1", start=20, end=60, focus=(30, 50))
        (placed,) = place_windows([window], reference, max_n_share=0.1)
        assert (placed.end, placed.clipped, placed.focus) == (40, 20, (30, 40))
        beyond = Window(name="v", contig="1", start=20, end=60, focus=(45, 50))
        with pytest.raises(InputError, match=r"E_WINDOW: .*window 'v' \(1:46-50\)"):
            place_windows([beyond], reference, max_n_share=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flank": -1}, "flank is -1"),
        ({"centre": "tss"}, "pass --flank"),
        ({"kind": "variant"}, "need --flank"),
        ({"kind": "variant", "flank": 5, "genes": ("A",)}, "belong to no gene"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(InputError, match=message):
        WindowChoice(**options)


def test_names_come_from_a_list_or_a_file(tmp_path):
    path = tmp_path / "genes.txt"
    path.write_text("# ours\nBRCA2\n\nTP53  # tumour\n")
    assert read_names(str(path)) == read_names([str(path)]) == ("BRCA2", "TP53")
    assert read_names("BRCA2,TP53") == read_names(["BRCA2", "TP53"]) == ("BRCA2", "TP53")
    assert read_names(None) == ()
    path.write_text("# none\n")
    with pytest.raises(InputError, match="names no gene"):
        read_names(str(path))


def test_other_files_are_refused(tmp_path, files):
    (tmp_path / "plink.bed").write_bytes(b"\x6c\x1b\x01\xff")
    with pytest.raises(InputError, match="PLINK genotypes"):
        choose_windows(tmp_path / "plink.bed")
    with pytest.raises(InputError, match="does not exist"):
        choose_windows(tmp_path / "none.gtf")
    vcf = files.vcf([("chr1", 9, "A", "C", ["0|1", "1|1"])])
    with pytest.raises(InputError, match="holds variants; .*--window_kind=variant and --flank"):
        choose_windows(vcf)
