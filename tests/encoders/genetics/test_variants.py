import gzip
import os
import time

import numpy as np
import pysam
import pysam.bcftools
import pytest

from encoders.genetics import vcf_index
from encoders.genetics.variants import PhasedVariants
from encoders.runs.errors import InputError

RECORDS = [
    ("chr1", 10, "A", "C,G", ["0|1", "2|."]),
    ("chr1", 20, "AT", "A", ["1/1", "0/1"]),
    ("chr1", 30, "C", ".", ["0", "./."]),
    ("chr2", 5, "G", "<DEL>", ["1|0", "./1"]),
]


def test_genotypes_are_decoded(files):
    with PhasedVariants(files.vcf(RECORDS)) as variants:
        assert variants.samples == ["p1", "p2"]
        assert variants.index_state == "as found"
        records = variants.fetch("chr1", 0, 100, ["p1", "p2"])
        assert records.positions == [9, 19, 29]
        assert records.alleles == [("A", "C", "G"), ("AT", "A"), ("C",)]
        assert records.calls.tolist() == [[[0, 1], [2, -1]], [[1, 1], [0, 1]], [[0, 0], [-1, -1]]]
        assert records.unphased.tolist() == [[False, False], [False, True], [False, False]]
        assert records.haploid.tolist() == [[False, False], [False, False], [True, False]]
        half = variants.fetch("chr2", 0, 100, ["p2", "p1"])
        assert half.unphased.tolist() == [[True, False]]
        assert half.calls.tolist() == [[[-1, 1], [1, 0]]]


def test_records_overlap_the_stretch_and_people_keep_their_order(files):
    with PhasedVariants(files.vcf(RECORDS)) as variants:
        assert variants.fetch("chr1", 20, 21, ["p2"]).positions == [19]  # AT reaches to the second base
        assert variants.fetch("chr1", 21, 29, ["p2"]).positions == []
        assert variants.fetch("chr1", 9, 10, ["p2", "p1"]).calls.tolist() == [[[2, -1], [0, 1]]]


def test_other_fields_beside_the_genotype(files):
    for layout, cells in (("GT:DP", ["0|1:7", "1|1"]), ("DP:GT", ["7:0|1", "9:1|1"])):
        path = files.vcf([("1", 3, "A", "C", cells)], layout=layout)
        with PhasedVariants(path) as variants:
            assert variants.fetch("1", 0, 9, ["p1", "p2"]).calls.tolist() == [[[0, 1], [1, 1]]]


def test_bcf_gives_the_same(files):
    vcf = files.vcf(RECORDS)
    bcf = files.folder / "cohort.bcf"
    pysam.bcftools.view("-Ob", "-o", str(bcf), str(vcf), catch_stdout=False)
    with PhasedVariants(vcf) as one, PhasedVariants(bcf) as other:
        assert other.index_state == "rebuilt: missing"
        assert other.samples == one.samples
        for contig in ("chr1", "chr2"):
            a, b = (v.fetch(contig, 0, 100, ["p1", "p2"]) for v in (one, other))
            assert (a.positions, a.alleles) == (b.positions, b.alleles)
            np.testing.assert_array_equal(a.calls, b.calls)
            np.testing.assert_array_equal(a.unphased, b.unphased)


def test_contigs_by_any_name_or_an_error_with_all_names(files):
    with PhasedVariants(files.vcf(RECORDS)) as variants:
        assert variants.find("1", "w") == variants.find("NC_000001.11", "w") == "chr1"
        with pytest.raises(
            InputError, match=r"E_CONTIG: window 'APOE' lies on contig '19'.*'chr19' and 'NC_"
        ):
            variants.find("19", "APOE")
    no_header = files.vcf(RECORDS, contigs={})
    with PhasedVariants(no_header) as variants:
        assert variants.contigs == ["chr1", "chr2"]
        assert len(variants.fetch("chr1", 0, 100, ["p1"])) == 3


def test_a_contig_of_the_header_without_records_is_empty(files):
    with PhasedVariants(files.vcf(RECORDS, contigs={"chr1": 99, "chr2": 99, "chr3": 99})) as variants:
        assert variants.find("3", "w") == "chr3"
        assert len(variants.fetch("chr3", 0, 99, ["p1"])) == 0


def test_a_missing_index_is_rebuilt_outside_the_folder(files):
    path = files.vcf(RECORDS, index=False)
    with PhasedVariants(path) as variants:
        assert variants.index_state == "rebuilt: missing"
        assert len(variants.fetch("chr1", 0, 100, ["p1"])) == 3
    assert os.listdir(files.folder) == ["cohort.vcf.gz"]


@pytest.mark.parametrize("older", [True, False])
def test_a_stale_index_is_never_believed(files, older):
    path = files.vcf(RECORDS[:1])
    index = path.with_name("cohort.vcf.gz.tbi")
    stale = index.read_bytes()
    many = [("chr1", 100 + k, "A", "C", ["0|1", "1|0"]) for k in range(5000)]
    files.vcf(many)
    index.write_bytes(stale)
    if older:
        os.utime(index, (time.time() - 9999,) * 2)
    with PhasedVariants(path) as variants:
        assert variants.index_state == "rebuilt: stale"
        assert len(variants.fetch("chr1", 0, 10_000, ["p1"])) == 5000


@pytest.mark.parametrize("kept", [RECORDS[:1], RECORDS[:2], []])
def test_an_index_of_a_longer_or_an_empty_file_is_not_believed(files, kept):
    """The new file is shorter, in the same block: its end lies before what the index says."""
    path = files.vcf(RECORDS if kept else [], contigs={"chr1": 10_000})
    index = path.with_name("cohort.vcf.gz.tbi")
    stale = index.read_bytes()
    files.vcf(kept or RECORDS, contigs={"chr1": 10_000})
    index.write_bytes(stale)
    with PhasedVariants(path) as variants:
        assert variants.index_state == "rebuilt: stale"


def test_an_index_belongs_to_its_file_wherever_the_last_block_ends(files):
    for number in range(1, 2000, 97):
        many = [("chr1", 1 + k, "A", "C", ["0|1", "1|0"]) for k in range(number)]
        for path in (files.vcf(many), _bcf(files.vcf(many))):
            with PhasedVariants(path) as variants:
                assert variants.index_state == "as found"


def _bcf(path):
    bcf = path.with_name("cohort.bcf")
    pysam.bcftools.view("-Ob", "-o", str(bcf), str(path), catch_stdout=False)
    pysam.bcftools.index("-f", str(bcf))
    return bcf


def test_a_header_may_spell_contigs_otherwise_than_the_records(files):
    path = files.vcf(
        [("1", 10, "A", "C", ["0|1", "1|1"])], contigs={"chr1": 248_956_422, "chr2": 242_193_529}
    )
    with PhasedVariants(path) as variants:
        assert variants.find("chr1", "gene") == "1"
        assert variants.lengths == {"1": 248_956_422, "chr2": 242_193_529}


def test_an_older_but_fitting_index_is_rebuilt_too(files):
    path = files.vcf(RECORDS)
    os.utime(path, (time.time() + 10,) * 2)
    with PhasedVariants(path) as variants:
        assert variants.index_state == "rebuilt: stale"


def test_large_files_are_not_indexed_behind_the_users_back(files, monkeypatch):
    monkeypatch.setattr(vcf_index, "MAX_REBUILD", 10)
    with pytest.raises(InputError, match=r"E_INDEX: .* has no index; run: tabix -f -p vcf"):
        PhasedVariants(files.vcf(RECORDS, index=False))


def test_unsorted_file(files):
    with pytest.raises(InputError, match="E_INDEX: .*bcftools sort"):
        PhasedVariants(files.vcf(RECORDS[1::-1], index=False))


def test_files_that_cannot_be_read_by_position(files):
    path = files.vcf([("chr1", 100 + k, "A", "C", ["0|1", "1|0"]) for k in range(5000)])
    whole = path.read_bytes()
    plain = files.vcf_text(RECORDS)
    bad = {
        "cut.vcf.gz": (whole[:-40], "truncated"),
        "noend.vcf.gz": (whole[:-28], "truncated"),
        "plain.vcf.gz": (gzip.compress(plain.encode()), r"gzipped in one piece.*gunzip .* && bgzip"),
        "text.vcf": (plain.encode(), r"plain text VCF.*bgzip"),
        "page.vcf.gz": (b"<html>not found</html>", "not a VCF or BCF file"),
        "empty.vcf.gz": (b"", "is empty, .*copy or download it again"),
    }
    for name, (content, message) in bad.items():
        (files.folder / name).write_bytes(content)
        with pytest.raises(InputError, match=f"E_VCF: .*{message}"):
            PhasedVariants(files.folder / name)
    with pytest.raises(InputError, match="does not exist"):
        PhasedVariants(files.folder / "none.vcf.gz")


def test_a_flipped_bit_in_the_middle_is_found_by_the_block_checksum(files):
    path = files.vcf([("chr1", 100 + k, "A", "C", ["0|1", "1|0"]) for k in range(5000)])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(f"{path}.tbi")
    with pytest.raises(InputError, match="E_VCF|E_INDEX"), PhasedVariants(path) as variants:
        variants.fetch("chr1", 0, 10_000, ["p1", "p2"])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (("chr1", 10, "A", "C", ["0|1"]), "E_VCF: .*has 10 columns, the header has 11"),
        (("chr1", 10, "A", "C", ["0|1", "0|2"]), "E_VCF: .*has 2 alleles, but a genotype names allele 2"),
        (("chr1", 10, "A", "C", ["0|1|1", "0|1"]), r"E_PLOIDY: .*chr1:10 holds the genotype '0\|1\|1'"),
    ],
)
def test_malformed_records_are_named(files, record, message):
    with PhasedVariants(files.vcf([record])) as variants, pytest.raises(InputError, match=message):
        variants.fetch("chr1", 0, 99, ["p1", "p2"])


def test_records_without_genotypes_and_files_without_people(files):
    path = files.vcf([("chr1", 10, "A", "C", ["7", "9"])], layout="DP")
    with PhasedVariants(path) as variants, pytest.raises(InputError, match="has no genotypes"):
        variants.fetch("chr1", 0, 99, ["p1"])
    with pytest.raises(InputError, match="no people"):
        PhasedVariants(files.vcf([("chr1", 10, "A", "C", [])], samples=()))
    with pytest.raises(InputError, match="two columns of the same name, 'p1'"):
        PhasedVariants(files.vcf([("chr1", 10, "A", "C", ["0|1", "0|1"])], samples=("p1", "p1")))


def test_imputed_dosages_count_where_a_record_has_them(files):
    records = [
        ("chr1", 10, "A", "C,G", ["0|1:0.9,0.1", "2|.:.", "1:1,0"]),
        ("chr1", 20, "A", "C", ["0/1:1.25", ".:0.5", "1:0.75"]),
    ]
    path = files.vcf(records, layout="GT:DS", samples=("p1", "p2", "p3"))
    with PhasedVariants(path) as variants:
        found = variants.dosages("chr1", 0, 99, ["p3", "p1", "p2"])
    assert found.positions == [9, 9, 19]
    assert found.alleles == [("A", "C"), ("A", "G"), ("A", "C")]
    expected = [[2, 0.9, np.nan], [0, 0.1, np.nan], [1.5, 1.25, 0.5]]
    np.testing.assert_array_equal(found.values, np.asarray(expected, np.float32))


def test_dosages_without_genotypes_are_dosages_and_no_haplotypes(files):
    path = files.vcf([("chr1", 10, "A", "C", ["0.5", "2"])], layout="DS")
    with PhasedVariants(path) as variants:
        assert variants.dosages("chr1", 0, 99, ["p1", "p2"]).values.tolist() == [[0.5, 2]]
        with pytest.raises(InputError, match="E_VCF: .*no genotypes"):
            variants.fetch("chr1", 0, 99, ["p1"])
    for cells, message in ((["3", "1"], "holds the dosage '3'; 1 numbers"), (["x", "1"], "the dosage 'x'")):
        path = files.vcf([("chr1", 10, "A", "C", cells)], layout="DS")
        with PhasedVariants(path) as variants, pytest.raises(InputError, match=f"E_VCF: .*{message}"):
            variants.dosages("chr1", 0, 99, ["p1", "p2"])


def test_headers_in_utf8(files):
    with PhasedVariants(files.vcf(RECORDS, samples=("Zoë", "sub-ä"))) as variants:
        assert variants.samples == ["Zoë", "sub-ä"]
        assert len(variants.fetch("chr1", 0, 99, ["sub-ä"])) == 3


def test_genotypes_spelled_in_every_way_are_decoded_as_one_by_one(files):
    cells = ["0|1", "1/0", ".|1", "./.", ".", "1", "10|2", "12", "0|11", "3|3", "2/.", "0|0"]
    expected = [
        [0, 1],
        [1, 0],
        [-1, 1],
        [-1, -1],
        [-1, -1],
        [1, 1],
        [10, 2],
        [12, 12],
        [0, 11],
        [3, 3],
        [2, -1],
        [0, 0],
    ]
    unphased = [1, 10]
    alts = ",".join("A" * n + "C" for n in range(12))
    people = [f"p{k}" for k in range(12)]
    for layout, tail in (("GT", ""), ("GT:DP", ":17"), ("GT:DP", "")):
        path = files.vcf([("chr1", 10, "T", alts, [c + tail for c in cells])], layout=layout, samples=people)
        with PhasedVariants(path) as variants:
            found = variants.fetch("chr1", 0, 99, people)
            assert found.calls[0].tolist() == expected
            assert np.flatnonzero(found.unphased[0]).tolist() == unphased
            assert np.flatnonzero(found.haploid[0]).tolist() == [5, 7]
            some = variants.fetch("chr1", 0, 99, people[::-3])
            assert some.calls[0].tolist() == expected[::-3]


def test_first_sites_stop_at_their_limit(files):
    with PhasedVariants(files.vcf(RECORDS)) as variants:
        assert variants.first_sites("chr1", 2, 999) == [(9, ("A", "C", "G")), (19, ("AT", "A"))]
        assert variants.first_sites("chr1", 9, 19) == [(9, ("A", "C", "G"))]
        assert variants.first_sites("chr9", 9, 99) == []


def test_phase_sets_are_read_where_records_have_them(files):
    rows = [("chr1", 10, "A", "C", ["0|1:10", "0|1"]), ("chr1", 20, "A", "C", ["1|0:4000000000", ".:."])]
    with PhasedVariants(files.vcf(rows, layout="GT:PS")) as variants:
        found = variants.fetch("chr1", 0, 99, ["p2", "p1"]).phase_sets
        assert found[0].tolist() == [-1, 10]
        assert found[1, 0] == -1 and found[1, 1] not in (-1, 10)
    mixed = files.vcf(
        [rows[0], ("chr1", 15, "A", "C", ["0|1:1", "0|1:2"])], layout="GT:DP", name="without.vcf.gz"
    )
    with PhasedVariants(mixed) as variants:
        assert variants.fetch("chr1", 0, 99, ["p1", "p2"]).phase_sets is None
