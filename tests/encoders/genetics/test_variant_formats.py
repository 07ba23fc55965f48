"""One small cohort in every format, written by the formats' own writers: the same haplotypes and dosages."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pysam
import pysam.bcftools
import pytest
from bed_reader import to_bed
from bgen import BgenWriter
from pgenlib import PgenWriter

from encoders.genetics import bgen_variants
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
                first, second = table.T  # copies of each of two alleles
                table = np.stack([first == 2, first == 1, second == 2], axis=1) * 1.0
                table[np.isnan(first)] = np.nan
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


# --- BGEN: which allele is REF, which chromosome, who ---


@pytest.mark.parametrize("ref_last", [(), True, (0, 6)])
def test_bgen_haplotypes_are_right_wherever_ref_stands(files, fasta, ref_last, bcftools_consensus):
    records = [r for r in _cohort() if ref_last in ((), True) or "," not in r[3]]
    path = write(files, records, "bgen", ref_last=ref_last)
    with Reference(fasta) as reference, open_variants(path, reference=reference) as source:
        if ref_last == (0, 6):  # now first, now last: single bases can tell, the deletion fits both ways
            with pytest.raises(
                InputError, match=r"E_ALLELES: .*chr7:51 .*more than one of them fits.*ref-first"
            ):
                _haplotypes(source, fasta)
            pure = source.fetch("chr7", 0, 45, SAMPLES)
            assert pure.alleles == [(records[0][2], records[0][3]), tuple(_alleles(records[1]))][: len(pure)]
            assert "mixed" in source.remarks[0]
            return
        ours = _haplotypes(source, fasta, window=Window(name="g", contig="chr7", start=0, end=400))
        values = source.dosages("chr7", 0, 400, SAMPLES)
        assert ("last" if ref_last else "first") in source.remarks[0]
    vcf = write(files, records, "vcf", name="theirs")
    theirs = bcftools_consensus([(fasta, vcf, s, h, ["-M", "N"]) for s in SAMPLES for h in (1, 2)])
    assert [bases for pair in ours for bases in pair] == theirs
    with open_variants(vcf) as source:
        np.testing.assert_array_equal(values.values, source.dosages("chr7", 0, 400, SAMPLES).values)


def test_a_wrong_ref_in_a_bgen_of_one_order_is_not_turned_round(files, fasta, monkeypatch):
    """A late site whose ALT is the FASTA's base: where REF comes first, that is a mismatch, not another order."""
    monkeypatch.setattr(bgen_variants, "VOTERS", 7)
    carriers = ("0|1", "0|0", "0|0", "0|0", "0|0", "0|0")
    wrong = ("chr7", 350, OTHER[BASES[349]], BASES[349], carriers)
    path = write(files, [*_cohort(), wrong], "bgen")
    check = RefCheck()
    window = Window(name="g", contig="chr7", start=0, end=400)
    with Reference(fasta) as reference, open_variants(path, reference=reference) as source:
        assert source.fetch("chr7", 349, 350, SAMPLES).alleles == [(OTHER[BASES[349]], BASES[349])]
        window_haplotypes(window, reference, source, SAMPLES, missing="n", check=check)
    assert len(check.wrong) == 1 and "chr7:350" in check.wrong[0]


def test_bgen_without_a_reference_genome(files, fasta):
    path = write(files, _cohort(), "bgen", ref_last=True)
    with open_variants(path) as source:
        with pytest.raises(InputError, match=r"E_ALLELES: .*chr7:21 .*no reference genome was given"):
            source.fetch("chr7", 0, 400, SAMPLES)
        assert "unknown" in source.remarks[0]
        assert len(source.dosages("chr7", 0, 400, SAMPLES)) == 10
    with (
        open_variants(path, ref_allele="last") as stated,
        open_variants(write(files, _cohort(), "vcf")) as vcf,
    ):
        np.testing.assert_array_equal(
            stated.fetch("chr7", 0, 400, SAMPLES).calls, vcf.fetch("chr7", 0, 400, SAMPLES).calls
        )


def test_a_blank_chromosome_is_named_by_the_file_or_the_user(files, fasta):
    with Reference(fasta) as reference:
        path = write(files, _cohort(), "bgen", chrom="", name="ukb_hap_chr7_v2")
        with open_variants(path, reference=reference) as source:
            assert source.find("chr7", "w") == "7"
            assert len(source.fetch("7", 0, 400, SAMPLES)) == 7
        with open_variants(
            write(files, _cohort(), "bgen", chrom="", name="ukb22438_c7_b0_v2"), reference=reference
        ) as s:
            assert s.contigs == ["7"]
        path = write(files, _cohort(), "bgen", chrom="", name="haplotypes")
        with pytest.raises(InputError, match="E_CONTIG: .*blank.*does not say which"):
            open_variants(path, reference=reference)
        with open_variants(path, reference=reference, contig="chr7") as source:
            assert len(source.fetch("chr7", 0, 400, SAMPLES)) == 7
        named = write(files, _cohort(), "bgen", chrom="", name="ukb_c7_b0")
        with pytest.raises(InputError, match="E_CONTIG: .*by its name it is '7', by --contig 'chr8'"):
            open_variants(named, reference=reference, contig="chr8")
        for code in ("07", "chr7", "NC_000007.14"):
            with open_variants(
                write(files, _cohort(), "bgen", chrom=code, name=code), reference=reference
            ) as s:
                assert len(s.fetch(s.find("chr7", "w"), 0, 400, SAMPLES)) == 7


def test_bgen_without_phase_holds_dosages_only(files, fasta):
    records = [r for r in _cohort() if "," not in r[3]]
    path = write(files, records, "bgen", phased=False)
    with Reference(fasta) as reference, open_variants(path, reference=reference) as source:
        with pytest.raises(InputError, match=r"E_UNPHASED: .*chr7:21 holds probabilities.*without phase"):
            source.fetch("chr7", 0, 400, SAMPLES)
        found = source.dosages("chr7", 0, 400, SAMPLES)
    with open_variants(write(files, records, "vcf")) as vcf:
        np.testing.assert_array_equal(found.values, vcf.dosages("chr7", 0, 400, SAMPLES).values)


def test_bgen_probabilities_become_expected_copies_and_uncertain_alleles_are_missing(files, fasta):
    path = files.folder / "soft.bgen"
    alts = [b for b in "ACGT" if b != BASES[20]]
    with BgenWriter(str(path), 2, samples=["a", "b"]) as out:
        genotypes = np.asarray([[0.1, 0.2, 0.3, 0.1, 0.2, 0.1], [0, 0, 0, 0, 1, 0]])  # 00 01 11 02 12 22
        out.add_variant("v", "r", "chr7", 21, [BASES[20], *alts[:2]], genotypes, bit_depth=16)
        soft = np.asarray([[0.95, 0.05, 0.4, 0.6], [0.0, 1.0, 0.2, 0.8]])
        out.add_variant("w", "s", "chr7", 31, [BASES[30], OTHER[BASES[30]]], soft, phased=True, bit_depth=16)
    with Reference(fasta) as reference, open_variants(path, reference=reference) as source:
        found = source.dosages("chr7", 0, 400, ["b", "a"])
        np.testing.assert_allclose(found.values, [[1, 1.0], [1, 0.5], [1.8, 0.65]], atol=1e-4)
        assert source.fetch("chr7", 29, 40, ["a", "b"]).calls.tolist() == [[[0, -1], [1, -1]]]


def test_the_first_version_of_bgen_holds_dosages_only(files, fasta):
    path = files.folder / "old.bgen"
    with BgenWriter(str(path), 3, layout=1, compression="zlib") as out:
        genotypes = np.asarray([[1, 0, 0], [0, 0.5, 0.5], [0, 0, 0]], float)
        out.add_variant("v", "r", "07", 21, [BASES[20], OTHER[BASES[20]]], genotypes)
    path.with_suffix(".sample").write_text("ID_1 ID_2 missing\n0 0 0\na a 0\nb b 0\nc c 0\n")
    with Reference(fasta) as reference, open_variants(path, reference=reference) as source:
        found = source.dosages(source.find("chr7", "w"), 0, 400, ["a", "b", "c"])
        np.testing.assert_allclose(found.values, [[0, 1.5, np.nan]], atol=1e-3)
        with pytest.raises(InputError, match="E_UNPHASED"):
            source.fetch("07", 0, 400, ["a"])


def test_names_of_people_come_from_the_sample_file_where_the_bgen_has_none(files, fasta):
    path = write(files, _cohort(), "bgen", named=False)
    with pytest.raises(InputError, match=r"E_SAMPLE: .*names of its 6 people.*cohort.sample"):
        open_variants(path)
    rows = ["ID_1 ID_2 missing sex", "0 0 0 D", *(f"{s} {s} 0 1" for s in SAMPLES)]
    beside = path.with_suffix(".sample")
    beside.write_text("\n".join(rows) + "\n")
    with open_variants(path) as source:
        assert source.samples == SAMPLES
    other = files.folder / "ukb1_s6.sample"
    other.write_text("\n".join(["ID", "0", *SAMPLES[:5]]) + "\n")
    with pytest.raises(InputError, match=r"E_SAMPLE: .*ukb1_s6.sample names 5 people.*holds 6"):
        open_variants(path, sample_file=other)
    other.write_text("\n".join(SAMPLES) + "\n")
    with pytest.raises(InputError, match="E_SAMPLE: .*two header lines"):
        open_variants(path, sample_file=other)


def test_an_index_of_a_bgen_is_used_only_if_it_belongs_to_it(files, fasta):
    path = write(files, _cohort(), "bgen")
    index = Path(f"{path}.bgi")
    with open_variants(path) as source:
        assert source.index_state == "as found"
    stale = index.read_bytes()
    for command, state in (
        ("DROP TABLE Metadata", "as found"),  # by an early bgenix
        ("UPDATE Variant SET size_in_bytes = size_in_bytes - 1", "rebuilt: stale"),
    ):
        index.write_bytes(stale)
        with closing(sqlite3.connect(index)) as base, base:
            base.execute(command)
        with open_variants(path) as source:
            assert source.index_state == state
    index.unlink()
    with Reference(fasta) as reference, open_variants(path, reference=reference) as source:
        assert source.index_state == "rebuilt: missing"
        assert len(source.fetch("chr7", 0, 400, SAMPLES)) == 7
    assert not index.exists()
    write(files, [*_cohort(), _snv(330, *["0|1"] * 6)], "bgen")
    for content in (stale, b"no database"):
        index.write_bytes(content)
        with Reference(fasta) as reference, open_variants(path, reference=reference) as source:
            assert source.index_state == "rebuilt: stale"
            assert len(source.fetch("chr7", 0, 400, SAMPLES)) == 8


def test_records_at_one_place_keep_the_order_of_the_file(files, fasta):
    """bgenix sorts by rsid; the first of two overlapping records wins, so the order decides the haplotypes."""
    at = _snv(40, *["1|1"] * 6)
    both = [at, (at[0], at[1], at[2], OTHER[OTHER[at[2]]], at[4])]
    for form in FORMATS:
        path = write(files, both, form)
        with Reference(fasta) as reference, open_variants(path, reference=reference) as source:
            assert [a[1] for a in source.fetch("chr7", 0, 400, SAMPLES).alleles] == [both[0][3], both[1][3]]


# --- PLINK ---


def test_a_bed_file_holds_no_phase_and_says_so(files):
    path = write(files, [_snv(20, *["0|1"] * 6)], "bed")
    with (
        open_variants(path) as source,
        pytest.raises(InputError, match=r"E_UNPHASED: .*PLINK \.bed file, which holds no phase"),
    ):
        source.fetch("7", 0, 400, SAMPLES)


def test_the_reference_genome_decides_which_allele_of_a_bed_is_ref(files, fasta):
    records = [_snv(at, "0|1", "1|1", "0|0", ".|.", "0|1", "0|0") for at in (20, 40, 60)]
    path = write(files, records, "bed", ref_is_a1=(1,))
    with Reference(fasta) as reference, open_variants(path, reference=reference) as source:
        found = source.dosages("7", 0, 400, SAMPLES)
        assert found.alleles == [(r[2], r[3]) for r in records]
        np.testing.assert_array_equal(found.values, np.asarray([[1, 2, 0, np.nan, 1, 0]] * 3, np.float32))
        assert "mixed" in source.remarks[0]
    with open_variants(path) as source:
        assert source.dosages("7", 0, 400, SAMPLES).alleles[1] == (records[1][3], records[1][2])


def test_alleles_of_a_bed_that_both_fit_are_counted(files, fasta):
    """A deletion: the FASTA has the long allele, and with it the short one."""
    deletion = ("chr7", 51, BASES[50:54], BASES[50], ("0|1", "0|0", "1|1", "1|0", "0|0", ".|."))
    snvs = [_snv(at, "0|1", "1|1", "0|0", ".|.", "0|1", "0|0") for at in (20, 40, 60)]
    path = write(files, [*snvs[:2], deletion, snvs[2]], "bed", ref_is_a1=(1, 2))
    with Reference(fasta) as reference, open_variants(path, reference=reference) as source:
        for _ in range(2):  # reading twice counts once
            assert source.dosages("7", 0, 400, SAMPLES).alleles[2] == (BASES[50], BASES[50:54])
        assert "at 1 records more than one allele fits the FASTA" in source.remarks[1]


def test_pgen_tables_by_any_of_their_names(files, fasta):
    path = write(files, _cohort(), "pgen")
    table = path.with_suffix(".pvar")
    with open_variants(table) as source:  # the table means its genotypes
        assert source.path == path
        assert source.lengths == {"chr7": 400}
        expected = source.fetch("chr7", 0, 400, SAMPLES).calls
    from backports import zstd

    Path(f"{table}.zst").write_bytes(zstd.compress(table.read_bytes()))
    table.unlink()
    with open_variants(path) as source:
        assert source.lengths == {"chr7": 400}
        np.testing.assert_array_equal(source.fetch("chr7", 0, 400, SAMPLES).calls, expected)
    path.with_suffix(".psam").unlink()
    with pytest.raises(
        InputError, match=r"E_PGEN: .*no table of people.*'cohort.psam', 'cohort.fam'.*put it there"
    ):
        open_variants(path)
    path.with_suffix(".fam").write_text("".join(f"f {s} 0 0 0 -9\n" for s in SAMPLES))
    with open_variants(path) as source:
        assert source.samples == SAMPLES


def test_x_of_plink_is_one_contig_whatever_its_numbers(files):
    records = [("25", *_snv(20, *["0|1"] * 6)[1:]), ("23", *_snv(40, *["1|0"] * 6)[1:])]
    path = write(files, records, "pgen")
    with open_variants(path) as source:
        assert source.find("chrX", "w") == "X"
        assert source.fetch("X", 0, 400, SAMPLES).positions == [20, 40]


def test_a_pvar_header_may_spell_contigs_otherwise_than_the_records(files, fasta):
    path = write(files, _cohort(), "pgen")
    table = path.with_suffix(".pvar")
    table.write_text(table.read_text().replace("\nchr7\t", "\n7\t"))
    with open_variants(path) as variants:
        assert variants.find("chr7", "gene") == "7"
        assert variants.lengths == {"7": 400}


def test_a_pgen_without_phase_marks_every_heterozygous_genotype(files, fasta):
    path = write(files, [_snv(20, "0|1", "1|0", "1|1", "0|0", ".|.", "0|0")], "pgen", phased=False)
    with open_variants(path) as source:
        assert source.fetch("chr7", 0, 400, SAMPLES).unphased[0].tolist() == [True, True, *[False] * 4]
        with pytest.raises(InputError, match="E_UNPHASED: 2 of 2 heterozygous"):
            _haplotypes(source, fasta)


# --- files that cannot be used ---


@pytest.mark.parametrize(
    ("form", "code"),
    [("vcf", "E_VCF"), ("bcf", "E_VCF"), ("pgen", "E_PGEN"), ("bgen", "E_BGEN"), ("bed", "E_BED")],
)
def test_damaged_files_are_one_sentence_in_every_format(files, fasta, form, code):
    records = [r for r in _cohort() if "," not in r[3]]
    path = write(files, records, form)
    whole = path.read_bytes()
    for content in (b"", b"<html><body>404 not found</body></html>", whole[: len(whole) // 2], whole[:-3]):
        path.write_bytes(content)
        with (
            pytest.raises(
                InputError, match=f"^{code}: .*{path.name}.*(copy|download|pass|restore)"
            ) as caught,
            Reference(fasta) as reference,
            open_variants(path, reference=reference) as source,
        ):
            source.dosages(source.contigs[0], 0, 400, SAMPLES)
        assert "\n" not in str(caught.value)


def test_files_without_people_or_records(files):
    with BgenWriter(str(files.folder / "none.bgen"), 2, samples=["a", "b"]):
        pass
    with pytest.raises(InputError, match="E_BGEN: .*holds no records"):
        open_variants(files.folder / "none.bgen")
    with pytest.raises(InputError, match="E_VCF: .*no people"):
        open_variants(files.vcf([("chr7", 10, "A", "C", [])], samples=()))
    path = write(files, _cohort(), "pgen")
    path.with_suffix(".psam").write_text("#IID\tSEX\n")
    with pytest.raises(InputError, match="E_PGEN: .*lists no people"):
        open_variants(path)
    path.with_suffix(".psam").write_text("#IID\n" + "p1\n" * 6)
    with pytest.raises(InputError, match="E_PGEN: .*5 individual ids .* more than once"):
        open_variants(path)
    path.with_suffix(".psam").write_text("#IID\n" + "".join(f"{k}\n" for k in range(5)))
    with pytest.raises(InputError, match="E_PGEN: .*with 5 people"):
        open_variants(path)
    path.with_suffix(".pvar").write_text("<html>")
    path.with_suffix(".psam").write_text("#IID\n" + "".join(f"{k}\n" for k in range(6)))
    with pytest.raises(InputError, match="E_PGEN: .*cohort.pvar cannot be read"):
        open_variants(path)


@pytest.mark.parametrize("form", [*FORMATS, "bed"])
def test_an_unknown_contig_is_an_error_in_every_format(files, form):
    path = write(files, [_snv(20, *["0|1"] * 6)], form)
    with open_variants(path) as source:
        assert source.find("NC_000007.14", "w") == source.contigs[0]
        with pytest.raises(InputError, match="E_CONTIG: window 'w' lies on contig '8'"):
            source.find("8", "w")


def _random_cohort(seed: int) -> list[tuple]:
    """Records of every kind, crowded, several at one place, with alleles of any length."""
    chance = random.Random(seed)
    records = []
    for at in sorted(chance.choices(range(5, 390), k=40)):
        ref = BASES[at : at + chance.choice([1, 1, 1, 2, 5])]
        names = {ref}
        while len(names) < chance.choice([2, 2, 3, 5]):
            names.add(ref[0] + "".join(chance.choices("ACGT", k=chance.choice([0, 0, 2, 7]))))
            names.add(chance.choice("ACGT") + ref[1:])
        alts = sorted(names - {ref})
        shares = [8, *[1] * len(alts)]
        pairs = [chance.choices(range(len(shares)), shares, k=2) for _ in SAMPLES]
        texts = [".|." if chance.random() < 0.05 else f"{a}|{b}" for a, b in pairs]
        records.append(("chr7", at + 1, ref, ",".join(alts), tuple(texts)))
    return records


@pytest.mark.parametrize("seed", range(4))
def test_random_cohorts_are_read_alike_from_every_format(files, fasta, seed):
    records = _random_cohort(seed)
    people = random.Random(seed).sample(SAMPLES, 4)
    found = {}
    for form in FORMATS:
        path = write(files, records, form, **({"ref_last": True} if form == "bgen" and seed % 2 else {}))
        with Reference(fasta) as reference, open_variants(path, reference=reference) as source:
            window = Window(name="g", contig="chr7", start=60, end=333, strand="-")
            read = source.fetch("chr7", 60, 333, people)
            dosages = source.dosages("chr7", 60, 333, people)
            found[form] = (
                _haplotypes(source, fasta, people, window),
                read.positions,
                read.alleles,
                read.calls.tolist(),
                dosages.alleles,
                np.nan_to_num(dosages.values, nan=-1).tolist(),
            )
    assert found["bcf"] == found["vcf"]
    assert found["pgen"] == found["vcf"]
    assert found["bgen"] == found["vcf"]
