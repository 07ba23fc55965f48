"""Several files as one: chromosomes, blocks of a chromosome, folders, patterns, lists."""

import numpy as np
import pysam.bcftools
import pytest

from encoders.genetics import joined_variants
from encoders.genetics.variant_source import VariantSource, open_variants, variant_files
from encoders.runs.errors import InputError

LENGTHS = {"chr1": 9_000, "chr2": 9_000}


def _record(contig: str, at: int, *genotypes: str, ref: str = "A") -> tuple:
    return (contig, at, ref, "C", list(genotypes))


@pytest.fixture
def blocks(files):
    """Two blocks of chr1, whose border is crossed by a deletion that both hold, and chr2; people in two orders."""
    shared = _record("chr1", 100, "0|1", "1|1", ref="ATTT")
    files.vcf([_record("chr1", 10, "0|1", "0|0"), shared], name="c_c1_b0.vcf.gz", contigs=LENGTHS)
    swapped = ("chr1", 100, "ATTT", "C", shared[4][::-1])
    files.vcf(
        [swapped, _record("chr1", 200, "1|0", "0|0")],
        name="c_c1_b10.vcf.gz", samples=("p2", "p1"), contigs=LENGTHS,
    )  # fmt: skip
    files.vcf([_record("chr2", 7, "0|1", "1|1")], name="c_c2_b0.vcf.gz", contigs=LENGTHS)
    return files.folder


def test_a_window_may_span_blocks_and_people_may_stand_in_another_order(blocks):
    with open_variants(blocks) as source:
        assert isinstance(source, VariantSource)
        assert source.samples == ["p1", "p2"]
        assert source.contigs == ["chr1", "chr2"]
        assert source.lengths == LENGTHS
        found = source.fetch(source.find("1", "w"), 0, 9_000, ["p2", "p1"])
        assert found.positions == [9, 99, 199]
        assert found.calls.tolist() == [[[0, 0], [0, 1]], [[1, 1], [0, 1]], [[1, 0], [0, 0]]]
        assert found.unphased.shape == found.haploid.shape == (3, 2)
        assert source.dosages("chr1", 0, 9_000, ["p1"]).values.tolist() == [[1], [1], [0]]
        assert source.fetch("chr2", 0, 99, ["p1"]).positions == [6]
        assert source.fetch("chr2", 50, 99, ["p1"]).calls.shape == (0, 1, 2)
        assert [s[0] for s in source.first_sites("chr1", 2, 9_000)] == [9, 99]
        told = " ".join(source.remarks)
        assert "3 files" in told and "2 records of chr1 lie in two files that agree" in told


def test_a_window_that_spans_blocks_is_told(blocks):
    with open_variants(blocks) as variants:
        variants.fetch("chr1", 0, 20, ["p1"])
        assert not any("several files" in remark for remark in variants.remarks)
        variants.fetch("chr1", 0, 300, ["p1"])
        assert any("1 windows reach into several files" in remark for remark in variants.remarks)


def test_few_files_are_open_at_a_time(blocks, monkeypatch):
    with open_variants(blocks) as source:
        expected = source.fetch("chr1", 0, 9_000, ["p1", "p2"])
    monkeypatch.setattr(joined_variants, "MAX_OPEN", 1)
    with open_variants(blocks) as source:
        found = source.fetch("chr1", 0, 9_000, ["p1", "p2"])
        assert len(source._open) == 1
    np.testing.assert_array_equal(found.calls, expected.calls)


def test_records_that_two_files_tell_differently_are_an_error(blocks, files):
    files.vcf([_record("chr1", 100, "0|1", "0|1", ref="ATTT")], name="c_c1_b20.vcf.gz", contigs=LENGTHS)
    with open_variants(blocks) as source:
        with pytest.raises(InputError, match=r"E_DUPLICATE: .*chr1:100 ATTT/C with different genotypes"):
            source.fetch("chr1", 0, 9_000, ["p1", "p2"])
        with pytest.raises(InputError, match="E_DUPLICATE"):
            source.dosages("chr1", 0, 9_000, ["p1", "p2"])


def test_a_record_twice_in_one_file_is_left_as_it_is(files):
    twice = [_record("chr1", 10, "0|1", "0|0"), _record("chr1", 10, "1|1", "0|0")]
    one = files.vcf(twice, name="a.vcf.gz", contigs=LENGTHS)
    two = files.vcf([_record("chr1", 50, "0|1", "0|0")], name="b.vcf.gz", contigs=LENGTHS)
    with open_variants([one, two]) as source:
        assert source.fetch("chr1", 0, 99, ["p1"]).positions == [9, 9, 49]


def test_files_must_hold_the_same_people_and_one_build(blocks, files):
    files.vcf([_record("chr2", 9, "0|1", "1|1")], name="z.vcf.gz", samples=("p1", "p3"), contigs=LENGTHS)
    with pytest.raises(InputError, match=r"E_SAMPLE: .*z.vcf.gz .*1 of 2 are absent and 1 are new"):
        open_variants(blocks)
    files.vcf([_record("chr2", 9, "0|1", "1|1")], name="z.vcf.gz", contigs={"2": 8_000})
    with pytest.raises(InputError, match=r"E_BUILD: contig 'chr2' has 8000 bases in .*z.vcf.gz, 9000"):
        open_variants(blocks)


def test_phase_sets_are_kept(files):
    one = files.vcf([_record("chr1", 10, "0|1:5", "0|0:7")], layout="GT:PS", name="a.vcf.gz")
    two = files.vcf([_record("chr1", 50, "0|1", "0|0")], name="b.vcf.gz")
    with open_variants([one, two]) as source:
        assert source.fetch("chr1", 0, 99, ["p2", "p1"]).phase_sets.tolist() == [[7, 5], [-1, -1]]


def test_contigs_may_be_spelled_differently_in_each_file(files):
    one = files.vcf([_record("chr1", 10, "0|1", "0|0")], name="a.vcf.gz", contigs={"chr1": 99})
    two = files.vcf([_record("1", 50, "0|1", "0|0")], name="b.vcf.gz", contigs={"1": 99})
    with open_variants(f"{one},{two}") as source:
        assert source.contigs == ["chr1"]
        assert source.fetch("chr1", 0, 99, ["p1"]).positions == [9, 49]


def test_files_by_folder_pattern_and_list(blocks, files):
    names = ["c_c1_b0.vcf.gz", "c_c1_b10.vcf.gz", "c_c2_b0.vcf.gz"]
    (blocks / "notes.txt").write_text("no variants")
    files.bed("chr1\t1\t2\tgene", name="genes.bed")
    assert [p.name for p in variant_files(blocks)] == names
    assert [p.name for p in variant_files(blocks / "c_c1_*.vcf.gz*")] == names[:2]
    both = f"{blocks}/c_c2_b0.vcf.gz, {blocks}/c_c1_*.gz"
    assert [p.name for p in variant_files(both)] == [names[2], *names[:2]]
    assert [p.name for p in variant_files([blocks / names[1], str(blocks)])] == [names[1], names[0], names[2]]
    for number in (2, 10, 1):
        (blocks / f"x{number}.bcf").touch()
    assert [p.name for p in variant_files(blocks / "x*.bcf")] == ["x1.bcf", "x2.bcf", "x10.bcf"]


def test_a_pattern_may_name_folders(blocks):
    assert len(variant_files(blocks.parent / "*" / "c_c1_*.vcf.gz")) == 2


def test_nothing_there_is_said(blocks, tmp_path):
    with pytest.raises(InputError, match=r"E_VARIANTS: .*/c_c2 does not exist.*pass .*c_c2_b0.vcf.gz"):
        open_variants(blocks / "c_c2")
    with pytest.raises(InputError, match="E_VARIANTS: .*d\\*.bcf does not exist"):
        open_variants(blocks / "d*.bcf")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="E_VARIANTS: the folder .*empty holds no files of variants"):
        open_variants(empty)


def test_only_blocks_that_reach_into_a_window_are_opened(files, monkeypatch):
    """Opening a block of half a million people takes longer than reading a window of it."""
    for block in range(6):
        rows = [_record("chr1", 40_000 * block + at, "0|1", "0|0") for at in (1, 20_000, 39_990)]
        files.vcf(rows, name=f"b{block}.vcf.gz", contigs={"chr1": 240_000})
    monkeypatch.setattr(joined_variants, "MAX_OPEN", 1)
    with open_variants(files.folder) as source:
        opened = []
        real = source._opened
        source._opened = lambda path: opened.append(path.name) or real(path)
        assert source.fetch("chr1", 125_000, 150_000, ["p1"]).positions == [139_999]
        assert "b3.vcf.gz" in opened and len(opened) <= 3
        assert source.extent("chr1")[1] >= 239_990
        assert len(source.fetch("chr1", 0, 240_000, ["p1"])) == 18


def test_every_reader_knows_where_its_records_end(files):
    one = files.vcf(
        [_record("chr1", 10, "0|1", "0|0"), _record("chr1", 70_000, "0|1", "0|0", ref="ACG")],
        contigs={"chr1": 90_000},
    )
    with open_variants(one) as source:
        start, end = source.extent("chr1")
        assert start <= 9 and 70_002 <= end < 90_000
        assert source.extent("chr2") == (0, 0)
    bcf = files.folder / "x.bcf"
    pysam.bcftools.view("-Ob", "-o", str(bcf), str(one), catch_stdout=False)
    with open_variants(bcf) as source:
        assert source.extent("chr1") == (start, end)


def test_what_lies_beside_variants_is_told_apart_from_them(files, tmp_path):
    for name, message in (
        ("c.pvar", "is a table that lies beside genotypes, but there is no c.pgen"),
        ("c.sample", "no c.bgen"),
        ("c.vcf.gz.tbi", r"is an index; pass the file of variants that it belongs to \(c.vcf.gz\)"),
    ):
        (tmp_path / name).write_text("x")
        with pytest.raises(InputError, match=f"E_VARIANTS: .*{message}"):
            open_variants(tmp_path / name)
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "a.vcf").write_text("##fileformat=VCFv4.2")
    with pytest.raises(InputError, match="E_VARIANTS: .*compress a.vcf with: bgzip a.vcf"):
        open_variants(folder)
