"""Options of a run -> genomes: annotations, rules and sexes arrive where they are used."""

import pytest

from encoders.genetics.config import EmbedGenome
from encoders.genetics.genomes import cohort_genomes
from encoders.runs.errors import InputError

PEOPLE = ["a", "b", "c"]
BASES = "ACGTTGCAAC" * 10
GTF = """\
chr1\tx\tgene\t21\t60\t.\t-\t.\tgene_id "G1"; gene_name "ONE";
chr1\tx\texon\t41\t60\t.\t-\t.\tgene_id "G1"; transcript_id "T1";
chr1\tx\texon\t21\t30\t.\t-\t.\tgene_id "G1"; transcript_id "T1";
chr1\tx\tgene\t71\t90\t.\t+\t.\tgene_id "G2"; gene_name "TWO";
X\tx\tgene\t11\t60\t.\t+\t.\tgene_id "G3"; gene_name "THREE";
"""
RECORDS = [
    ("chr1", 25, "T", "A", ["0|1", "0|0", "1|1"]),
    ("chr1", 45, "T", "C", ["0|0", "0|1", "0|0"]),
    ("chr1", 75, "T", "C", ["0|0", "0|1", "0|0"]),
    ("chrX", 25, "T", "C", ["1|1", "0|1", "0|0"]),
]


@pytest.fixture
def inputs(files):
    table = files.folder / "participants.tsv"
    table.write_text("participant_id\tsex\na\tM\nb\tF\nc\tn/a\n")
    gtf = files.folder / "genes.gtf"
    gtf.write_text(GTF)
    return {
        "participants": table,
        "windows": gtf,
        "reference": files.fasta({"chr1": BASES, "chrX": BASES}),
        "variants": files.vcf(RECORDS, samples=PEOPLE, contigs={"chr1": 100, "chrX": 100}),
    }


def test_genes_of_an_annotation(inputs):
    genomes = cohort_genomes(EmbedGenome(genes="TWO,G1", flank=10), inputs)
    assert [(w.window.name, w.window.place, w.window.strand) for w in genomes.windows] == [
        ("TWO", "chr1:61-100", "+"),
        ("ONE", "chr1:11-70", "-"),
    ]
    assert genomes.rules["windows"]["genes"] == ["TWO", "G1"]
    everything = cohort_genomes(EmbedGenome(), inputs)
    assert [w.window.name for w in everything.windows] == ["ONE", "TWO"]
    assert everything.left_out == ["THREE"]


def test_exons_with_flanks_have_their_exon_as_focus(inputs):
    genomes = cohort_genomes(EmbedGenome(genes=["ONE"], window_kind="exon", flank=5), inputs)
    assert [(w.window.name, w.focus[0]) for w in genomes.windows] == [
        ("ONE|T1|exon1", (5, 25)),
        ("ONE|T1|exon2", (5, 15)),
    ]
    assert genomes.rules["exons_by_transcript"] == {"longest": 2}
    assert genomes.rules["focus"]["ONE|T1|exon2"] == [20, 30]


def test_windows_around_variants(inputs, files):
    sites = files.folder / "sites.tsv"
    sites.write_text("chr1:25\nchr1:95\n")
    options = {"window_kind": "variant", "flank": 8, "focus_flank": 2}
    with pytest.raises(InputError, match=r"E_DEGENERATE: 1 of 2 .*'chr1:95'"):
        cohort_genomes(EmbedGenome(**options), inputs | {"windows": sites})
    sites.write_text("chr1:25\nchr1:45\n")
    genomes = cohort_genomes(EmbedGenome(**options), inputs | {"windows": sites})
    assert genomes.windows[0].focus[0] == (6, 11)


def test_windows_cut_at_the_start_of_a_contig_are_flagged(inputs):
    genomes = cohort_genomes(EmbedGenome(genes="ONE", flank=30), inputs)
    assert genomes.summary()["windows_clipped_at_the_start_of_a_contig"] == "'ONE'"


def test_sex_comes_from_the_table_of_people(inputs, files):
    genomes = cohort_genomes(EmbedGenome(genes="THREE,ONE", sex_chromosomes=True, build="GRCh38"), inputs)
    assert genomes.windows[0].haploid.tolist() == [True, False, False]
    inputs["participants"].write_text("participant_id\na\nb\nc\n")
    with pytest.raises(InputError, match="E_SEX: .*no column 'sex'"):
        cohort_genomes(EmbedGenome(genes="THREE", sex_chromosomes=True, build="GRCh38"), inputs)
    cohort_genomes(EmbedGenome(genes="ONE"), inputs)  # nobody's sex matters


def test_a_list_of_genes_is_part_of_the_options_however_it_is_given(tmp_path):
    path = tmp_path / "genes.txt"
    path.write_text("ONE\nTWO\n")
    assert EmbedGenome(genes=str(path)) == EmbedGenome(genes=["ONE", "TWO"]) == EmbedGenome(genes="ONE,TWO")


def test_the_rule_for_genotypes_without_phase_is_passed_on(inputs, files):
    records = [(*r[:4], [text.replace("|", "/") for text in r[4]]) for r in RECORDS]
    inputs["variants"] = files.vcf(records, samples=PEOPLE, contigs={"chr1": 100, "chrX": 100})
    with pytest.raises(InputError, match="E_UNPHASED"):
        cohort_genomes(EmbedGenome(), inputs)
    pair = cohort_genomes(EmbedGenome(unphased="ref_alt"), inputs)
    assert pair.rules["unphased"] == "ref_alt"
    assert pair.summary()["unphased_genotypes"] == 3
    assert cohort_genomes(EmbedGenome(unphased="dosage"), inputs).windows[0].dosages is not None
    with pytest.raises(InputError, match="does not know"):
        cohort_genomes(EmbedGenome(unphased="iupac"), inputs)
    letters = cohort_genomes(EmbedGenome(unphased="iupac"), inputs, iupac=True)
    assert any("R" in s or "W" in s for s in letters.sequences)
