import random

import numpy as np
import pytest

from encoders.genetics import haplotypes
from encoders.genetics.edits import Edit, apply_edits
from encoders.genetics.haplotypes import (
    RefCheck,
    diploid_kinds,
    reverse_complement,
    tie_rate,
    window_haplotypes,
)
from encoders.genetics.reference import Reference
from encoders.genetics.variants import PhasedVariants
from encoders.genetics.windows import Window
from encoders.runs.errors import InputError

LENGTH = 200
PEOPLE = ["a", "b", "c"]


def random_records(rng: random.Random, reference: str, count: int, *, missing: float = 0.05) -> list:
    """SNVs, MNPs, indels and replacements, multi-allelic, overlapping, at equal positions, at both ends."""
    records = []
    for at in sorted(rng.randrange(len(reference)) for _ in range(count)):
        size = min(rng.choice([1, 1, 1, rng.randint(1, 6)]), len(reference) - at)
        ref = reference[at : at + size]
        alts = []
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            word = "".join(rng.choices("ACGT", k=rng.randint(1, 6)))
            alt = rng.choice([word, word[:size].ljust(size, "A"), ref[0], ref[0] + word, ref + word])
            if alt != ref and alt not in alts:
                alts.append(alt)
        last = len(alts)

        def call(last: int = last) -> str:
            return "." if rng.random() < missing else str(rng.choice([0, rng.randint(0, last)]))

        records.append(("chr1", at + 1, ref, ",".join(alts) or ".", [f"{call()}|{call()}" for _ in PEOPLE]))
    return records


def build(fasta, vcf, window, *, missing="n", people=PEOPLE):
    check = RefCheck()
    with Reference(fasta) as reference, PhasedVariants(vcf) as variants:
        return window_haplotypes(window, reference, variants, people, missing=missing, check=check), check


def test_equal_to_bcftools_consensus_byte_for_byte(tmp_path, files, bcftools_consensus):
    jobs, ours, overlapping = [], [], 0
    for seed in range(40):
        rng = random.Random(seed)
        bases = "".join(rng.choices("ACGT", k=LENGTH))
        files.folder = tmp_path / f"{seed}"
        files.folder.mkdir()
        fasta = files.fasta({"chr1": bases})
        records = random_records(rng, bases, rng.choice([1, 8, 30, 80]))
        vcf = files.vcf(records, samples=PEOPLE, contigs={"chr1": LENGTH})
        for missing, options in (("n", ["-M", "N"]), ("reference", [])):
            built, check = build(
                fasta, vcf, Window(name="w", contig="chr1", start=0, end=LENGTH), missing=missing
            )
            assert not check.wrong
            assert check.checked == len(records)
            overlapping += built.counts["calls_overlapping_skipped"]
            for person, pair in zip(PEOPLE, built.index, strict=True):
                for haplotype in (1, 2):
                    jobs.append((fasta, vcf, person, haplotype, options))
                    ours.append(built.sequences[pair[haplotype - 1]])
    theirs = bcftools_consensus(jobs)
    assert len(theirs) == len(ours) == 480
    assert [k for k, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b] == []
    assert overlapping > 100  # the hard case was really there
    assert len(set(ours)) > 200


def test_windows_inside_a_contig_equal_bcftools_on_that_region(tmp_path, files, bcftools_consensus):
    """Records that cross either end of the window contribute the part that lies in it."""
    start, end = 50, 150
    jobs, ours = [], []
    for seed in range(40):
        rng = random.Random(seed)
        bases = "".join(rng.choices("ACGT", k=LENGTH))
        files.folder = tmp_path / f"{seed}"
        files.folder.mkdir()
        fasta = files.fasta({"chr1": bases})
        region = files.fasta({f"chr1:{start + 1}-{end}": bases[start:end]}, "region.fa")
        # bcftools 1.24 aborts where an allele that begins before the region ends before it
        records = [
            record
            for record in random_records(rng, bases, rng.choice([8, 40, 80]))
            if record[1] - 1 >= start
            or record[1] - 1 + len(record[2]) <= start
            or len(record[2]) == min(map(len, record[3].split(",")))
        ]
        vcf = files.vcf(records, samples=PEOPLE, contigs={"chr1": LENGTH})
        built, _ = build(fasta, vcf, Window(name="w", contig="chr1", start=start, end=end))
        for person, pair in zip(PEOPLE, built.index, strict=True):
            for haplotype in (1, 2):
                jobs.append((region, vcf, person, haplotype, ["-M", "N"]))
                ours.append(built.sequences[pair[haplotype - 1]])
    assert ours == bcftools_consensus(jobs)


@pytest.mark.parametrize(
    ("edits", "sequence"),
    [
        ([(1, Edit(span=1, bases="G", anchored=False))], "AGGTTGCA"),
        ([(1, Edit(span=3, bases="C", anchored=True))], "ACTGCA"),  # CGT -> C
        ([(1, Edit(span=1, bases="T", anchored=False)), (1, Edit(span=1, bases="CAA", anchored=True))], "ATAAGTTGCA"),
        ([(1, Edit(span=1, bases="CAA", anchored=True)), (1, Edit(span=1, bases="CT", anchored=True))], "ACAAGTTGCA"),
        ([(1, Edit(span=3, bases="C", anchored=True)), (2, Edit(span=1, bases="A", anchored=False))], "ACTGCA"),
        ([(1, Edit(span=3, bases="C", anchored=True)), (3, Edit(span=1, bases="TGG", anchored=True))], "ACGGTGCA"),
        ([(-2, Edit(span=4, bases="A", anchored=True))], "GTTGCA"),  # a deletion from before the window
        ([(-2, Edit(span=4, bases="AATT", anchored=False))], "TTGTTGCA"),
        ([(-2, Edit(span=1, bases="N", anchored=False))], "ACGTTGCA"),
        ([(6, Edit(span=4, bases="C", anchored=True))], "ACGTTGC"),  # a deletion beyond its end
        ([(7, Edit(span=2, bases="AGGG", anchored=True))], "ACGTTGCA"),
    ],
)  # fmt: skip
def test_edits_by_hand(edits, sequence):
    assert apply_edits("ACGTTGCA", edits).bases == sequence


def test_each_distinct_sequence_appears_once_and_the_reference_first(files):
    fasta = files.fasta({"chr1": "ACGTACGTAC"})
    vcf = files.vcf(
        [
            ("chr1", 3, "G", "T", ["1|0", "1|1", "0|0"]),
            ("chr1", 5, "A", "AT", ["0|0", "0|0", "0|0"]),
            ("chr1", 5, "AC", "ATC", ["0|1", "0|0", "1|0"]),
        ],
        samples=PEOPLE,
    )
    built, _ = build(fasta, vcf, Window(name="w", contig="chr1", start=0, end=10))
    assert built.sequences[0] == "ACGTACGTAC"
    assert set(built.sequences) == {"ACGTACGTAC", "ACTTACGTAC", "ACGTATCGTAC"}
    assert len(built.sequences) == 3
    carried = [[built.sequences[k] for k in pair] for pair in built.index]
    assert carried == [
        ["ACTTACGTAC", "ACGTATCGTAC"],
        ["ACTTACGTAC", "ACTTACGTAC"],
        ["ACGTATCGTAC", "ACGTACGTAC"],
    ]
    assert built.varies


def test_people_without_variants_carry_the_reference(files):
    built, _ = build(
        files.fasta({"chr1": "ACGTACGTAC"}),
        files.vcf([("chr1", 9, "A", "C", ["1|0", "0|0", "0|0"])], samples=PEOPLE),
        Window(name="w", contig="chr1", start=0, end=5),
    )
    assert built.sequences == ["ACGTA"]
    assert built.index.tolist() == [[0, 0]] * 3
    assert not built.varies
    assert built.counts["records"] == 0


def test_the_minus_strand_is_reverse_complemented_after_building(files):
    fasta = files.fasta({"chr1": "AACCGGTTNA"})
    vcf = files.vcf([("chr1", 3, "C", "CAG", ["1|0", "0|0", "0|1"])], samples=PEOPLE)
    plus, _ = build(fasta, vcf, Window(name="w", contig="chr1", start=1, end=9))
    minus, _ = build(fasta, vcf, Window(name="w", contig="chr1", start=1, end=9, strand="-"))
    assert plus.sequences == ["ACCGGTTN", "ACAGCGGTTN"]
    assert minus.sequences == ["NAACCGGT", "NAACCGCTGT"]
    np.testing.assert_array_equal(plus.index, minus.index)
    assert reverse_complement("ACGTNRYKMBVDH") == "DHBVKMRYNACGT"


def test_symbolic_alleles_and_haploid_calls_are_counted(files):
    fasta = files.fasta({"chr1": "ACGTACGTAC"})
    vcf = files.vcf(
        [
            ("chr1", 2, "C", "<DEL>,T", ["1|2", "0|0", "0|0"]),
            ("chr1", 4, "T", "*", ["1|1", "0|0", "0|0"]),
            ("chr1", 6, "C", "C[chr2:5[", ["0|0", "1|0", "0|0"]),
            ("chr1", 8, "T", "G", ["1", "0", "."]),
        ],
        samples=PEOPLE,
    )
    built, _ = build(fasta, vcf, Window(name="w", contig="chr1", start=0, end=10))
    assert [built.sequences[k] for k in built.index.reshape(-1)] == [
        "ACGTACGGAC",
        "ATGTACGGAC",
        "ACGTACGTAC",
        "ACGTACGTAC",
        "ACGTACGNAC",
        "ACGTACGNAC",
    ]
    assert built.counts["calls_of_symbolic_alleles_skipped"] == 4
    assert built.counts["haploid_calls"] == 2
    assert built.counts["missing_calls"] == 2


def test_unphased_heterozygotes_are_refused_with_their_share(files):
    fasta = files.fasta({"chr1": "ACGTACGTAC"})
    window = Window(name="APOE", contig="chr1", start=0, end=10)
    fine = files.vcf([("chr1", 2, "C", "T", ["1/1", "./.", "0|1"])], samples=PEOPLE)
    build(fasta, fine, window)
    mixed = files.vcf(
        [("chr1", 2, "C", "T", ["0/1", "1|0", "0|1"]), ("chr1", 5, "A", "T", ["0|1", "./1", "0/0"])],
        samples=PEOPLE,
    )
    with pytest.raises(
        InputError,
        match=r"E_UNPHASED: 2 of 5 heterozygous genotypes in window 'APOE' .*in 2 of 3 people.*SHAPEIT5",
    ):
        build(fasta, mixed, window)
    assert build(fasta, mixed, window, people=["c"])[0].index.tolist() == [[0, 1]]


def test_ref_is_compared_at_every_record_and_a_cut_out_fasta_is_reported(files):
    fasta = files.fasta({"chr1": "ACGTACGTAC"})
    vcf = files.vcf(
        [
            ("chr1", 2, "c", "t", ["0|1", "0|0", "0|0"]),
            ("chr1", 4, "G", "A", ["0|1", "0|0", "0|0"]),
            ("chr1", 10, "CA", "C", ["0|1", "0|0", "0|0"]),
            ("chr1", 12, "C", "G", ["0|1", "0|0", "0|0"]),
        ],
        samples=PEOPLE,
    )
    built, check = build(fasta, vcf, Window(name="w", contig="chr1", start=0, end=10, clipped=10))
    assert check.checked == 2
    assert check.wrong == ["chr1:4 G, FASTA T"]
    assert built.counts["records"] == 4
    assert built.counts["records_outside_fasta"] == 2
    assert built.sequences == ["ACGTACGTAC", "ATGTACGTAC"]


def test_ties_of_diploid_genotypes_ignore_the_order_of_haplotypes(files):
    fasta = files.fasta({"chr1": "ACGTACGTAC"})
    vcf = files.vcf([("chr1", 2, "C", "T", ["0|1", "1|0", "1|1"])], samples=PEOPLE)
    built, _ = build(fasta, vcf, Window(name="w", contig="chr1", start=0, end=10))
    kinds = diploid_kinds([built])
    assert kinds[0] == kinds[1] != kinds[2]
    assert tie_rate(kinds) == pytest.approx(2 / 3)
    assert tie_rate(np.arange(4, dtype=np.int32)) == 0.0


def test_each_kind_of_haplotype_is_built_once_however_many_carry_it(files, monkeypatch):
    rng = np.random.default_rng(0)
    people = [f"sub-{k:04d}" for k in range(520)]
    bases = "".join(rng.choice(list("ACGT"), 6000))
    founders = rng.random((180, 10)) < 0.3
    carried = rng.integers(0, 10, (6, 520, 2))
    records = []
    for k in range(180):
        at = k // 30 * 1000 + k % 30 * 33 + 3
        alt = {"A": "C", "C": "G", "G": "T", "T": "A"}[bases[at]]
        pairs = founders[k][carried[k // 30]].astype(int)
        records.append(("chr1", at + 1, bases[at], alt, [f"{a}|{b}" for a, b in pairs]))
    vcf, fasta = files.vcf(records, samples=people), files.fasta({"chr1": bases})
    calls = []
    monkeypatch.setattr(haplotypes, "apply_edits", lambda *a, **k: calls.append(a) or apply_edits(*a, **k))
    for w in range(6):
        built, _ = build(
            fasta,
            vcf,
            Window(name=f"g{w}", contig="chr1", start=w * 1000, end=w * 1000 + 1000),
            people=people,
        )
        assert 5 <= len(built.sequences) <= 11  # at most the founders and the reference
    assert len(calls) <= 6 * 11  # of 6,240 haplotypes


FOCUS = [
    ("chr1", 3, "G", "GTT", ["1|0", "0|0", "0|0"]),  # before the focus: moves it
    ("chr1", 6, "CGT", "C", ["0|1", "0|0", "0|0"]),  # takes away its first two bases
    ("chr1", 8, "T", "TCC", ["0|0", "1|0", "0|0"]),  # inside
    ("chr1", 11, "G", "GAA", ["0|0", "0|1", "0|0"]),  # behind its last base: belongs to it
    ("chr1", 14, "C", "T", ["0|0", "0|0", "1|0"]),  # after it
    ("chr1", 6, "CGTACG", "C", ["0|0", "0|0", "0|1"]),  # takes all of it away
]


@pytest.mark.parametrize("strand", ["+", "-"])
def test_the_focus_follows_the_edits(files, strand):
    bases = "ACGTACGTACGTACGTACGT"
    vcf = files.vcf(sorted(FOCUS, key=lambda r: r[1]), samples=PEOPLE)
    window = Window(name="w", contig="chr1", start=1, end=19, focus=(6, 11), strand=strand)
    built, _ = build(files.fasta({"chr1": bases}), vcf, window)
    stretches = [s[start:end] for s, (start, end) in zip(built.sequences, built.focus, strict=True)]
    carried = [[stretches[k] for k in pair] for pair in built.index]
    expected = [["GTACG", "ACG"], ["GTCCACG", "GTACGAA"], ["GTACG", ""]]
    if strand == "-":
        expected = [[reverse_complement(bases) for bases in pair] for pair in expected]
    assert carried == expected
    assert stretches[0] == expected[0][0]


def test_equal_bases_with_different_foci_are_different_sequences(files):
    """AA -> A at either base of a pair gives the same bases, but only one of the two lies in the focus."""
    fasta = files.fasta({"chr1": "CGTAAAAGCT"})
    vcf = files.vcf(
        [("chr1", 3, "TA", "T", ["1|0", "0|0", "0|0"]), ("chr1", 6, "AA", "A", ["0|1", "0|0", "0|0"])],
        samples=PEOPLE,
    )
    window = Window(name="w", contig="chr1", start=0, end=10, focus=(3, 5))
    built, _ = build(fasta, vcf, window)
    assert built.sequences == ["CGTAAAAGCT", "CGTAAAGCT", "CGTAAAGCT"]
    assert built.focus == [(3, 5), (3, 4), (3, 5)]
    assert len(build(fasta, vcf, Window(name="w", contig="chr1", start=0, end=10))[0].sequences) == 2


def test_a_haplotype_of_which_nothing_is_left_is_empty_and_counted(files):
    vcf = files.vcf([("chr1", 2, "CGTACGTA", "C", ["1|0", "0|0", "0|1"])], samples=PEOPLE)
    built, _ = build(
        files.fasta({"chr1": "ACGTACGTAC"}), vcf, Window(name="w", contig="chr1", start=4, end=8)
    )
    assert built.sequences == ["ACGT", ""]
    assert built.counts["haplotypes_wholly_deleted"] == 2


def test_records_with_symbolic_alleles_are_listed(files):
    records = [("chr1", 2, "C", "<DEL>,T", ["1|2", "0|0", "0|0"]), ("chr1", 4, "T", "*", ["0|0"] * 3)]
    built, _ = build(
        files.fasta({"chr1": "ACGTACGTAC"}),
        files.vcf(records, samples=PEOPLE),
        Window(name="w", contig="chr1", start=0, end=10),
    )
    assert built.skipped == ["chr1:2 C><DEL>"]  # nobody carries the other
