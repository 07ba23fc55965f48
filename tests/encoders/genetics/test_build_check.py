"""Variants and reference of two genome builds are refused before anything is built."""

import random

import pytest

from encoders.genetics.build_check import check_build, ref_differs
from encoders.genetics.reference import Reference
from encoders.genetics.variant_source import open_variants
from encoders.runs.errors import InputError

BASES = "".join(random.Random(3).choices("ACGT", k=3_000))
GRCH37, GRCH38 = {"chr21": 48_129_895}, {"chr21": 46_709_983}


def _records(wrong: int, right: int, contig: str = "chr21") -> list[tuple]:
    rows = []
    for k in range(wrong + right):
        there = BASES[10 * k]
        ref = there if k >= wrong else "ACGT"["TGCA".index(there)]
        rows.append((contig, 10 * k + 1, ref, "A" if ref != "A" else "T", ["0|1", "0|0"]))
    return rows


def _check(files, lengths, bases, records):
    fasta = files.fasta({"21": bases})
    with Reference(fasta) as reference, open_variants(files.vcf(records, contigs=lengths)) as variants:
        return check_build(variants, reference, ["21"])


def test_a_shorter_fasta_is_a_declared_cut_out_and_ref_decides(files):
    found = _check(files, GRCH38, BASES, _records(0, 200))
    assert (found.checked, found.wrong, found.cutouts) == (200, [], ["21"])
    assert "cut out of '21'" in found.remarks[0]
    with pytest.raises(
        InputError,
        match=r"E_REF: REF differs from the reference at 150 of 200 records \(75.0%\), first 21:1 .*"
        r"the variants are GRCh37 and the FASTA is of an unknown build",
    ):
        _check(files, GRCH37, BASES, _records(150, 50))


def test_few_wrong_ones_are_told_and_left_to_the_windows(files):
    found = _check(files, GRCH38, BASES, _records(3, 97))
    assert len(found.wrong) == 3
    assert "REF differs from the reference at 3 of the first 100 records, first 21:1" in found.remarks[1]


def test_a_longer_fasta_is_another_genome(files):
    with pytest.raises(InputError, match=r"E_BUILD: contig '21' has 3000 bases in .*but 2999 by the header"):
        _check(files, {"chr21": 2_999}, BASES, _records(0, 5))


def test_full_lengths_of_two_builds_are_named_at_once(files, tmp_path):
    fasta = files.folder / "whole.fa"
    length = GRCH38["chr21"]
    with open(fasta, "wb") as file:  # a hole reads as zeros: only the index is needed here
        file.write(b">chr21\n")
        file.truncate(7 + length)
    fasta.with_name("whole.fa.fai").write_text(f"chr21\t{length}\t7\t{length}\t{length}\n")
    with (
        Reference(fasta) as reference,
        open_variants(files.vcf(_records(0, 5), contigs=GRCH37)) as variants,
        pytest.raises(InputError, match=r"E_BUILD: .*is of GRCh37 and .*whole.fa of GRCh38; pass the FASTA"),
    ):
        check_build(variants, reference, ["chr21"])


def test_records_beyond_a_cut_out_are_not_compared(files):
    found = _check(files, GRCH38, BASES[:100], _records(0, 200))
    assert found.checked == 10
    beyond = [*_records(0, 3), ("chr21", 98, BASES[97:100] + "GGG", "A", ["0|1", "0|0"])]
    assert _check(files, GRCH38, BASES[:100], beyond).checked == 3


def test_a_thousand_records_are_enough(files):
    assert _check(files, {}, BASES, [("chr21", k + 1, BASES[k], "A" if BASES[k] != "A" else "C", ["0|1", "0|0"])
                                     for k in range(2_000)]).checked == 1_000  # fmt: skip


def test_a_contig_that_the_variants_lack_is_left_to_the_windows(files):
    fasta = files.fasta({"21": BASES, "22": BASES})
    with Reference(fasta) as reference, open_variants(files.vcf(_records(0, 5), contigs=GRCH38)) as variants:
        assert check_build(variants, reference, ["22", "21", "21"]).checked == 5


def test_advice_depends_on_how_many_are_wrong(files):
    with (
        Reference(files.fasta({"chr21": BASES})) as reference,
        open_variants(files.vcf(_records(1, 9), contigs={"chr21": len(BASES)})) as variants,
    ):
        assert "bcftools norm --check-ref x" in str(ref_differs(variants, reference, ["21:1 A, FASTA C"], 10))
        assert "check-ref" not in str(ref_differs(variants, reference, ["21:1 A, FASTA C"], 2))
