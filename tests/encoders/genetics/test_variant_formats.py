"""One small cohort in every format, written by the formats' own writers: the same haplotypes and dosages."""

import random
from pathlib import Path

import numpy as np
import pysam
import pysam.bcftools
import pytest
from bed_reader import to_bed
from bgen import BgenWriter
from pgenlib import PgenWriter

from encoders.genetics.haplotypes import RefCheck, window_haplotypes
from encoders.genetics.reference import Reference
from encoders.genetics.variant_source import VariantSource, open_variants
from encoders.genetics.windows import Window
from encoders.runs.errors import InputError

SAMPLES = ["p1", "007", "sub-ä", "p4", "p5", "p6"]
FORMATS = ["vcf", "bcf", "pgen", "bgen"]
BASES = "".join(random.Random(5).choices("ACGT", k=400))
OTHER = {"A": "C", "C": "G", "G": "T", "T": "A"}


def _snv(at: int, *genotypes: str, alts: int = 1) -> tuple:
    ref = BASES[at]
    names = [b for b in "ACGT" if b != ref][:alts]
    return ("chr7", at + 1, ref, ",".join(names), genotypes)


def _cohort() -> list[tuple]:
    """SNVs, insertion, deletion, multi-allelic (mixed too), missing, overlapping, several at one place."""
    deletion = ("chr7", 51, BASES[50:54], BASES[50], ("0|1", "0|0", "1|1", "1|0", "0|0", ".|."))
    insertion = ("chr7", 71, BASES[70], BASES[70] + "GATTACA", ("1|0", "1|1", "0|0", "0|0", "0|1", "0|0"))
    mixed = (
        "chr7", 91, BASES[90:92], f"{BASES[90]},{OTHER[BASES[90]]}{BASES[91]}",
        ("1|2", "2|0", "0|1", "0|0", "2|2", "1|1"),
    )  # fmt: skip
    overlapped = ("chr7", 53, BASES[52], OTHER[BASES[52]], ("1|1", "0|1", "1|0", "0|0", "0|0", "0|0"))
    return [
        _snv(20, "0|1", "1|0", "0|0", "1|1", ".|.", "0|0"),
        _snv(30, "1|2", "3|0", "0|0", "2|2", "0|3", "0|0", alts=3),
        deletion,
        overlapped,
        insertion,
        mixed,
        _snv(300, "0|0", "0|0", "0|1", "0|0", "0|0", "1|0"),
    ]


def _alleles(record: tuple) -> list[str]:
    return [record[2], *record[3].split(",")]


def _codes(record: tuple) -> list[list[int]]:
    """Alleles per haplotype, -1 if missing; a haploid genotype stays one number."""
    return [[-1 if a == "." else int(a) for a in g.replace("/", "|").split("|")] for g in record[4]]


def write(files, records: list[tuple], form: str, *, name: str = "cohort", samples=SAMPLES, **kw) -> Path:
    path = files.folder / f"{name}.{form}"
    if form == "vcf":
        return files.vcf(records, name=f"{name}.vcf.gz", samples=samples, contigs={"chr7": 400})
    if form == "bcf":
        vcf = files.vcf(records, name="for_bcf.vcf.gz", samples=samples, contigs={"chr7": 400})
        pysam.bcftools.view("-Ob", "-o", str(path), str(vcf), catch_stdout=False)
        pysam.bcftools.index(str(path))
        vcf.unlink()
        return path
    return {"pgen": _write_pgen, "bgen": _write_bgen, "bed": _write_bed}[form](path, records, samples, **kw)


def _write_pgen(path: Path, records, samples, *, phased: bool = True) -> Path:
    rows = ["##fileformat=VCFv4.3", "##contig=<ID=chr7,length=400>", "#CHROM\tPOS\tID\tREF\tALT"]
    rows += ["\t".join([r[0], str(r[1]), ".", r[2], r[3]]) for r in records]
    path.with_suffix(".pvar").write_text("\n".join(rows) + "\n")
    path.with_suffix(".psam").write_text("#IID\tSEX\n" + "".join(f"{s}\tNA\n" for s in samples))
    most = max(len(_alleles(r)) for r in records)
    with PgenWriter(
        str(path).encode(), len(samples), variant_ct=len(records), nonref_flags=False,
        allele_ct_limit=most, hardcall_phase_present=phased,
    ) as out:  # fmt: skip
        for record in records:
            pairs = [codes * (3 - len(codes)) for codes in _codes(record)]
            pairs = [[-9, -9] if -1 in pair else pair for pair in pairs]
            known = np.asarray(["/" not in g for g in record[4]], np.uint8)
            flat = np.asarray(pairs, np.int32).reshape(-1)
            if phased:
                out.append_partially_phased(flat, known, len(_alleles(record)))
            else:
                out.append_alleles(flat, False, len(_alleles(record)))
    return path


def _write_bgen(
    path: Path, records, samples, *, ref_last=(), chrom=None, phased: bool = True, named=True
) -> Path:
    with BgenWriter(str(path), len(samples), samples=list(samples) if named else None) as out:
        for number, record in enumerate(records):
            names = _alleles(record)
            order = list(range(len(names)))
            if ref_last is True or number in ref_last:
                order = [*order[1:], 0]
            ploidy = np.asarray([len(codes) for codes in _codes(record)], np.uint8)
            table = np.full((len(samples), 2 * len(names)), np.nan)
            for row, codes in enumerate(_codes(record)):
                for haplotype, allele in enumerate(codes):
                    if -1 not in codes:
                        at = haplotype * len(names)
                        table[row, at : at + len(names)] = 0
                        table[row, at + order.index(allele)] = 1
            if not phased:
                table = table.reshape(len(samples), 2, len(names)).sum(axis=1)
                table = np.stack([table[:, 0] == 2, table[:, 0] == 1, table[:, 1] == 2], axis=1) / 1.0
            out.add_variant(
                f"v{number}", f"r{9 - number}", record[0] if chrom is None else chrom, record[1],
                [names[k] for k in order], table, ploidy=ploidy, phased=phased,
            )  # fmt: skip
    return path


def _write_bed(path: Path, records, samples, *, ref_is_a1=()) -> Path:
    values = np.full((len(samples), len(records)), np.nan)
    lines = []
    for column, record in enumerate(records):
        ref, alt = _alleles(record)
        for row, codes in enumerate(_codes(record)):
            if -1 not in codes:
                values[row, column] = sum(codes) * (3 - len(codes))
        if column in ref_is_a1:
            values[:, column] = 2 - values[:, column]
        a1, a2 = (ref, alt) if column in ref_is_a1 else (alt, ref)
        lines.append(f"{record[0].removeprefix('chr')}\tr{column}\t0\t{record[1]}\t{a1}\t{a2}\n")
    to_bed(path, values, count_A1=True)
    path.with_suffix(".bim").write_text("".join(lines))
    path.with_suffix(".fam").write_text("".join(f"f {s} 0 0 0 -9\n" for s in samples))
    return path


def _haplotypes(source: VariantSource, fasta: Path, people=SAMPLES, window=None) -> tuple:
    window = window or Window(name="g", contig="chr7", start=10, end=390)
    check = RefCheck()
    with Reference(fasta) as reference:
        built = window_haplotypes(window, reference, source, people, missing="n", check=check)
    assert not check.wrong
    return tuple((built.sequences[a], built.sequences[b]) for a, b in built.index.tolist())


@pytest.fixture
def fasta(files) -> Path:
    return files.fasta({"chr7": BASES})


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_haplotypes_of_bcftools(files, fasta, form, bcftools_consensus):
    path = write(files, _cohort(), form)
    with Reference(fasta) as reference, open_variants(path, reference=reference) as source:
        assert isinstance(source, VariantSource)
        assert source.samples == SAMPLES
        window = Window(name="g", contig="chr7", start=0, end=400)
        ours = _haplotypes(source, fasta, window=window)
        back = _haplotypes(source, fasta, people=SAMPLES[::-2], window=window)
    assert back == ours[::-2]
    vcf = write(files, _cohort(), "vcf", name="theirs")
    jobs = [(fasta, vcf, sample, h, ["-M", "N"]) for sample in SAMPLES for h in (1, 2)]
    theirs = bcftools_consensus(jobs)
    assert [bases for pair in ours for bases in pair] == theirs
    assert len(set(theirs)) > 5


@pytest.mark.parametrize("form", [*FORMATS, "bed"])
def test_every_format_gives_the_same_dosages(files, fasta, form):
    records = [r for r in _cohort() if form != "bed" or "," not in r[3]]
    path = write(files, records, form)
    with Reference(fasta) as reference, open_variants(path, reference=reference) as source:
        people = ["p6", "p1", "sub-ä"]
        found = source.dosages(source.find("7", "w"), 0, 400, people)
    expected = []
    for record in records:
        for allele, name in enumerate(_alleles(record)[1:], 1):
            codes = [_codes(record)[SAMPLES.index(p)] for p in people]
            copies = [np.nan if -1 in c else float(c.count(allele)) for c in codes]
            expected.append((record[1] - 1, (record[2], name), copies))
    assert found.positions == [e[0] for e in expected]
    assert found.alleles == [e[1] for e in expected]
    np.testing.assert_array_equal(found.values, np.asarray([e[2] for e in expected], np.float32))


@pytest.mark.parametrize("form", FORMATS)
def test_a_stretch_takes_every_record_that_reaches_into_it(files, fasta, form):
    path = write(files, _cohort(), form)
    with Reference(fasta) as reference, open_variants(path, reference=reference) as source:
        assert source.fetch("chr7", 53, 60, SAMPLES).positions == [50]  # a deletion of three bases
        assert source.fetch("chr7", 54, 60, SAMPLES).positions == []
        assert source.fetch("chr7", 20, 31, SAMPLES).positions == [20, 30]
        assert source.fetch("chr7", 20, 20, SAMPLES).positions == []
        assert source.fetch("chr7", 0, 400, []).calls.shape == (7, 0, 2)
        assert source.dosages("chr7", 53, 60, SAMPLES).positions == [50]
        assert [s[0] for s in source.first_sites("chr7", 3, 400)] == [20, 30, 50]
        assert [s[0] for s in source.first_sites("chr7", 9, 50)] == [20, 30]


def _males(coding: str) -> list[tuple]:
    genotype = {"haploid": ("0", "1"), "diploid": ("0|0", "1|1")}[coding]
    rows = [_snv(at, "0|1", "1|1", genotype[at % 2], genotype[1], "0|0", genotype[0]) for at in (20, 41, 61)]
    return [("chrX", *row[1:]) for row in rows]


@pytest.mark.parametrize("coding", ["haploid", "diploid"])
@pytest.mark.parametrize("form", FORMATS)
def test_males_on_x_are_the_same_however_they_are_coded(files, form, coding):
    fasta = files.fasta({"chrX": BASES})
    window = Window(name="g", contig="chrX", start=0, end=400)
    reference = Reference(fasta)
    with reference, open_variants(write(files, _males("diploid"), "vcf", name="d"), reference=reference) as s:
        expected = _haplotypes(s, fasta, window=window)
        dosages = s.dosages("chrX", 0, 400, SAMPLES).values
    with (
        Reference(fasta) as reference,
        open_variants(write(files, _males(coding), form), reference=reference) as s,
    ):
        assert _haplotypes(s, fasta, window=window) == expected
        np.testing.assert_array_equal(s.dosages("chrX", 0, 400, SAMPLES).values, dosages)
        records = s.fetch("chrX", 0, 400, SAMPLES)
        single = coding == "haploid" and form != "pgen"  # a .pgen cannot say so
        assert records.haploid[:, [2, 3, 5]].all() == single
        assert not records.haploid[:, [0, 1, 4]].any()


def test_what_pgen_and_bgen_cannot_hold_is_missing_as_a_whole(files, fasta):
    records = [_snv(20, "0|.", ".|1", "0|1", "1|0", "0|0", "0|0")]
    kept = {"vcf": [[0, -1], [-1, 1]], "bcf": [[0, -1], [-1, 1]]}
    for form in FORMATS:
        with (
            Reference(fasta) as reference,
            open_variants(write(files, records, form), reference=reference) as s,
        ):
            calls = s.fetch("chr7", 0, 400, SAMPLES).calls[0].tolist()
            assert calls[:2] == kept.get(form, [[-1, -1], [-1, -1]]), form
            assert calls[2:4] == [[0, 1], [1, 0]]
            assert np.isnan(s.dosages("chr7", 0, 400, SAMPLES).values[0, :2]).all()


@pytest.mark.parametrize("form", ["vcf", "bcf", "pgen"])
def test_unphased_genotypes_are_told_apart_and_refused(files, fasta, form):
    records = [_snv(20, "0/1", "1|0", "0/0", "1/1", "./.", "0|1")]
    with open_variants(write(files, records, form)) as source:
        found = source.fetch("chr7", 0, 400, SAMPLES)
        assert found.unphased.tolist() == [[True, False, False, False, False, False]]
        with pytest.raises(InputError, match=r"E_UNPHASED: 1 of 3 heterozygous genotypes"):
            _haplotypes(source, fasta)
        assert source.dosages("chr7", 0, 400, SAMPLES).values[0, 0] == 1
