"""Genotypes without phase: refused, or read by a declared rule."""

import numpy as np
import pytest

from encoders.genetics.dosage_windows import dosage_window
from encoders.genetics.genomes import read_genomes
from encoders.genetics.haplotypes import RefCheck, window_haplotypes
from encoders.genetics.pooling import window_vectors
from encoders.genetics.reference import Reference
from encoders.genetics.variants import PhasedVariants
from encoders.genetics.windows import Window
from encoders.runs.errors import InputError

PEOPLE = ["a", "b", "c"]
BASES = "ACGTACGTACGTACGTACGT"
WINDOW = Window(name="w", contig="chr1", start=0, end=20)
RECORDS = [
    ("chr1", 3, "G", "A", ["0/1", "1/0", "1/1"]),
    ("chr1", 6, "C", "T,G", ["1/2", "0|1", "0/0"]),
    ("chr1", 9, "ACG", "A", ["0/1", "0/0", "0|1"]),
    ("chr1", 13, "A", "ATT", ["0/0", "1/0", "0/1"]),
]


def build(files, records=RECORDS, *, unphased="refuse", window=WINDOW, layout="GT"):
    fasta = files.fasta({"chr1": BASES})
    vcf = files.vcf(records, samples=PEOPLE, contigs={"chr1": 20}, layout=layout)
    with Reference(fasta) as reference, PhasedVariants(vcf) as variants:
        if unphased == "dosage":
            built = dosage_window(window, reference, variants, PEOPLE, check=RefCheck())
        else:
            built = window_haplotypes(
                window, reference, variants, PEOPLE, missing="n", check=RefCheck(), unphased=unphased
            )
    return built, fasta, vcf


def test_by_default_they_are_refused_and_the_rules_are_named(files):
    with pytest.raises(
        InputError,
        match=r"E_UNPHASED: 6 of 8 .* in 3 of 3 people.*--unphased=ref_alt or --unphased=dosage",
    ):
        build(files)


def test_ref_alt_equals_bcftools_haplotypes_r_and_a(files, bcftools_consensus):
    biallelic = [record for record in RECORDS if "," not in record[3]]
    biallelic = [(*r[:4], [g.replace("|", "/") for g in r[4]]) for r in biallelic]
    built, fasta, vcf = build(files, biallelic, unphased="ref_alt")
    jobs = [(fasta, vcf, person, kind, []) for person in PEOPLE for kind in ("R", "A")]
    ours = [built.sequences[k] for pair in built.index for k in pair]
    assert ours == bcftools_consensus(jobs)
    assert built.counts["unphased_genotypes"] == 6
    turned = [(*r[:4], [g[::-1] for g in r[4]]) for r in biallelic]
    np.testing.assert_array_equal(build(files, turned, unphased="ref_alt")[0].index, built.index)


def test_ref_alt_leaves_phased_genotypes_where_they_are(files):
    records = [("chr1", 3, "G", "A", ["1|0", "0/1", "0|0"]), ("chr1", 6, "C", "T", ["0|1", "2/1", "0|0"])]
    records[1] = ("chr1", 6, "C", "T,G", ["0|1", "2/1", "0|0"])
    built, _, _ = build(files, records, unphased="ref_alt")
    assert [built.sequences[k][2] + built.sequences[k][5] for k in built.index[:2].reshape(-1)] == [
        "AC",
        "GT",
        "GT",
        "AG",
    ]


def test_iupac_letters_equal_bcftools(files, bcftools_consensus):
    snvs = [("chr1", 3, "G", "A", ["0/1", "1/0", "1/1"]), ("chr1", 6, "C", "T,G", ["1/2", "0|1", "0/0"])]
    built, fasta, vcf = build(files, snvs, unphased="iupac")
    jobs = [(fasta, vcf, person, haplotype, []) for person in PEOPLE for haplotype in ("1pIu", "2pIu")]
    ours = [built.sequences[k] for pair in built.index for k in pair]
    assert ours == bcftools_consensus(jobs)
    assert ours[0] == ours[1] == "ACRTAKGTACGTACGTACGT"
    indel, _, _ = build(files, RECORDS, unphased="iupac")
    assert indel.counts["unphased_indels_as_reference"] == 3


def test_iupac_is_refused_for_a_model_that_does_not_know_the_letters(files):
    with pytest.raises(InputError, match=r"E_UNPHASED: .*\[UNK\].*<oov>"):
        read_genomes(
            variants=files.vcf(RECORDS, samples=PEOPLE),
            reference=files.fasta({"chr1": BASES}),
            windows=files.bed("1\t0\t20\tw"),
            people=PEOPLE,
            missing="n",
            max_n_share=0.1,
            unphased="iupac",
        )


def test_a_window_across_two_phase_sets_is_unphased(files):
    def records(second: str) -> list:
        return [
            ("chr1", 3, "G", "A", ["0|1:3", "0|1:3", "0|0:3"]),
            ("chr1", 6, "C", "T", [f"0|1:{second}", "1|1:6", "0|1:6"]),
            ("chr1", 9, "A", "T", ["0|1:3", "0|1:3", "0|1:6"]),
        ]

    built, _, _ = build(files, records("3"), layout="GT:PS")  # only homozygous genotypes lie in another set
    assert len(built.sequences) == 4
    for second in ("6", "."):
        with pytest.raises(
            InputError, match=r"E_UNPHASED: 3 of 7 .* in 1 of 3 people, .*3 are of several phase sets, PS"
        ):
            build(files, records(second), layout="GT:PS")
    both, _, _ = build(files, records("6"), layout="GT:PS", unphased="ref_alt")
    assert both.counts["genotypes_of_several_phase_sets"] == 3
    alone = Window(name="w", contig="chr1", start=4, end=7)
    build(files, records("6"), layout="GT:PS", window=alone)  # one set only


def test_dosages_take_each_allele_by_itself(files):
    built, _, _ = build(files, unphased="dosage")
    assert built.sequences == [
        BASES,
        "ACATACGTACGTACGTACGT",
        "ACGTATGTACGTACGTACGT",
        "ACGTAGGTACGTACGTACGT",
        "ACGTACGTATACGTACGT",
        "ACGTACGTACGTATTCGTACGT",
    ]
    assert built.dosages.tolist() == [[0, 1, 1, 1, 1, 0], [0, 1, 1, 0, 0, 1], [0, 2, 0, 0, 1, 1]]
    assert built.varies
    vectors = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    pooled = window_vectors(built, vectors, pooling="difference", combine="mean")
    effects = vectors - vectors[0]
    np.testing.assert_allclose(pooled[2], effects[1] + (effects[4] + effects[5]) / 2, rtol=1e-5)


def test_with_one_variant_dosage_and_haplotypes_agree(files):
    records = [("chr1", 9, "ACG", "A", ["0|1", "1|1", "0|0"])]
    by_haplotype, _, _ = build(files, records)
    by_dosage, _, _ = build(files, records, unphased="dosage")
    assert by_haplotype.sequences == by_dosage.sequences
    vectors = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    pooled = [
        window_vectors(b, vectors, pooling="difference", combine="mean") for b in (by_haplotype, by_dosage)
    ]
    np.testing.assert_allclose(*pooled, rtol=1e-6)


def test_missing_and_symbolic_dosages_are_counted(files):
    records = [
        ("chr1", 3, "G", "A", ["./.", "0/1", "."]),
        ("chr1", 6, "C", "<DEL>,T", ["0/1", "1/2", "0/0"]),
    ]
    built, _, _ = build(files, records, unphased="dosage")
    assert built.missing.tolist() == [2, 0, 2]
    assert built.counts["missing_calls"] == 4
    assert built.counts["calls_of_symbolic_alleles_skipped"] == 2
    assert built.skipped == ["chr1:6 C><DEL>"]
    assert built.dosages.tolist() == [[0, 0, 0], [0, 1, 1], [0, 0, 0]]


def test_read_genomes_reads_dosages_where_asked(files):
    genomes = read_genomes(
        variants=files.vcf(RECORDS, samples=PEOPLE),
        reference=files.fasta({"chr1": BASES}),
        windows=files.bed("1\t0\t20\tw\t0\t-"),
        people=PEOPLE,
        missing="n",
        max_n_share=0.1,
        unphased="dosage",
    )
    assert genomes.rules["unphased"] == "dosage"
    assert genomes.windows[0].dosages is not None
    assert genomes.ties == 0
