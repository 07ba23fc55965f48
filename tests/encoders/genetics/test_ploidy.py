"""One copy of X, Y and MT: however a file codes it, one sequence that counts once."""

import numpy as np
import pytest

from encoders.genetics.dosage_windows import dosage_window
from encoders.genetics.genomes import read_genomes
from encoders.genetics.haplotypes import RefCheck, window_haplotypes
from encoders.genetics.ploidy import PAR, Ploidy, read_ploidy
from encoders.genetics.pooling import window_vectors
from encoders.genetics.reference import Reference
from encoders.genetics.variants import PhasedVariants
from encoders.genetics.windows import Window
from encoders.runs.errors import InputError

PEOPLE = ["man", "woman", "nobody"]
SEXES = {"man": "M", "woman": "F", "nobody": None}
BASES = "ACGTACGTAC" * 4


def ploidy(build="GRCh38", **kw) -> Ploidy:
    return read_ploidy(SEXES, PEOPLE, build=build, heterozygotes=kw.get("heterozygotes", "refuse"))


def build(files, genotypes, *, contig="chrX", heterozygotes="refuse", missing="n", **kw):
    """One window on a small contig; positions below 10,000 lie before the shared regions."""
    fasta = files.fasta({contig: BASES}, f"{contig}.fa")
    records = [(contig, 3, "G", "T", genotypes), (contig, 6, "C", "CA", ["0|0", "1|0", "0|0"])]
    vcf = files.vcf(records, samples=PEOPLE)
    window = Window(name="w", contig=contig, start=0, end=20)
    with Reference(fasta) as reference, PhasedVariants(vcf) as variants:
        return window_haplotypes(
            window,
            reference,
            variants,
            PEOPLE,
            missing=missing,
            check=RefCheck(),
            copies=ploidy().copies(window),
            heterozygotes=heterozygotes,
            **kw,
        )


@pytest.mark.parametrize("coded", ["1", "1|1", "1/1", "1|.", ".|1"])
def test_a_single_x_is_one_sequence_however_it_is_coded(files, coded):
    built = build(files, [coded, "0|1", "0|0"])
    first, second = built.index[0]
    assert first == second
    assert built.sequences[first].startswith("ACTTACGT")
    assert built.haploid.tolist() == [True, False, False]
    assert not built.absent.any()
    vectors = np.random.default_rng(0).normal(size=(len(built.sequences), 4)).astype(np.float32)
    pooled = window_vectors(built, vectors, pooling="difference", combine="mean_absdiff")
    np.testing.assert_allclose(pooled[0, :4], vectors[first] - vectors[0])
    assert not pooled[0, 4:].any()
    assert pooled[1, 4:].any()


def test_a_missing_single_copy_is_missing_once(files):
    for coded in (".", ".|.", "./."):
        built = build(files, [coded, "0|1", "0|0"])
        assert built.sequences[built.index[0, 0]].startswith("ACNTACGT")
        assert built.index[0, 0] == built.index[0, 1]
        assert built.missing.tolist() == [2, 0, 0]
        assert built.calls == 12


def test_two_alleles_on_one_copy_are_refused_or_declared_missing(files):
    with pytest.raises(
        InputError, match=r"E_PLOIDY: 1 of 2 genotypes .*, in 1 people, .*=missing"
    ) as refused:
        build(files, ["0|1", "0|1", "0|0"])
    assert "man" not in str(refused.value)
    for text in ("0|1", "1/0"):  # phase does not matter
        built = build(files, [text, "0|1", "0|0"], heterozygotes="missing")
        assert built.counts["heterozygous_on_one_copy"] == 1
        assert built.sequences[built.index[0, 0]].startswith("ACNT")
    with pytest.raises(InputError, match="E_UNPHASED"):  # a woman is not excused
        build(files, ["1", "0/1", "0|0"])


def test_two_alleles_on_one_copy_are_told_from_dosages_too(files):
    fasta = files.fasta({"chrX": BASES})
    vcf = files.vcf([("chrX", 3, "G", "T", ["0/1", "0/1", "0/0"])], samples=PEOPLE)
    window = Window(name="w", contig="chrX", start=0, end=20)
    with Reference(fasta) as reference, PhasedVariants(vcf) as variants:
        given = {"check": RefCheck(), "copies": ploidy().copies(window)}
        with pytest.raises(InputError, match=r"E_PLOIDY: 1 of 1 genotypes .*haploid_heterozygotes=missing"):
            dosage_window(window, reference, variants, PEOPLE, **given)
        built = dosage_window(window, reference, variants, PEOPLE, heterozygotes="missing", **given)
    assert built.dosages[:, 1].tolist() == [0, 1, 0]
    assert built.missing.tolist() == [2, 0, 0]
    assert built.counts["heterozygous_on_one_copy"] == 1


def test_women_have_no_y_and_people_of_unknown_sex_are_read_as_written(files):
    built = build(files, ["1", "1|1", "0|1"], contig="Y")
    assert built.absent.tolist() == [False, True, False]
    assert built.counts["genotypes_without_a_copy_ignored"] == 2
    assert built.index[1].tolist() == [0, 0]
    assert built.index[2, 0] != built.index[2, 1]
    assert built.varies
    vectors = np.ones((len(built.sequences), 2), np.float32)
    assert window_vectors(built, vectors, pooling="mean", combine="mean")[1].tolist() == [0, 0]


def test_everybody_has_one_mt(files):
    built = build(files, ["1|1", "1", "0|0"], contig="chrM", heterozygotes="missing")
    assert built.haploid.all()
    assert (built.index[:, 0] == built.index[:, 1]).all()
    assert built.counts["heterozygous_on_one_copy"] == 1


@pytest.mark.parametrize("build", ["GRCh37", "GRCh38"])
def test_shared_regions_are_diploid_and_their_borders_are_refused(build):
    rules = ploidy(build=build)
    for start, end in PAR[build]["X"]:
        inside = Window(name="w", contig="chrX", start=start, end=start + 100)
        assert rules.copies(inside).tolist() == [2, 2, 2]
        last = Window(name="w", contig="chrX", start=end - 100, end=end)
        assert rules.copies(last).tolist() == [2, 2, 2]
        outside = Window(name="w", contig="chrX", start=start - 100, end=start)
        assert rules.copies(outside).tolist() == [1, 2, 2]
        with pytest.raises(InputError, match="E_PLOIDY: .*crosses the border"):
            rules.copies(Window(name="w", contig="X", start=start - 1, end=start + 1))
        with pytest.raises(InputError, match="E_PLOIDY: .*crosses the border"):
            rules.copies(Window(name="w", contig="X", start=start - 10, end=end + 10))
    start, _ = PAR[build]["Y"][0]
    with pytest.raises(InputError, match="copy of X"):
        rules.copies(Window(name="w", contig="chrY", start=start, end=start + 100))
    assert rules.copies(Window(name="w", contig="NC_000024.10", start=5_000_000, end=5_000_100)).tolist() == [
        1,
        0,
        2,
    ]
    assert rules.copies(Window(name="w", contig="7", start=0, end=9)).tolist() == [2, 2, 2]


def test_an_unknown_build_is_asked_for():
    with pytest.raises(InputError, match="E_PLOIDY: .*--build=GRCh38"):
        ploidy(build=None).copies(Window(name="w", contig="X", start=0, end=9))


@pytest.mark.parametrize(
    ("codes", "male", "female"),
    [
        (["M", "f", "Male", "female", None], [1, 0, 1, 0, 0], [0, 1, 0, 1, 0]),
        (["1", "2", "0", None, "2"], [1, 0, 0, 0, 0], [0, 1, 0, 0, 1]),  # PLINK, 0 unknown
        (["1", "0", "0", None, "1"], [1, 0, 0, 0, 1], [0, 1, 1, 0, 0]),  # UK Biobank, 0 female
        (["1.0", "2.0", None, "1", "2"], [1, 0, 0, 1, 0], [0, 1, 0, 0, 1]),
    ],
)
def test_codes_of_sex(codes, male, female):
    people = list("abcde")
    rules = read_ploidy(dict(zip(people, codes, strict=True)), people, build="GRCh38", heterozygotes="refuse")
    assert rules.male.tolist() == [bool(x) for x in male]
    assert rules.female.tolist() == [bool(x) for x in female]


@pytest.mark.parametrize(
    ("sexes", "message"),
    [
        (None, "no column 'sex'"),
        ({"a": "x1"}, "sex 'x1' cannot be read"),
        ({"a": "0"}, "write male / female"),
    ],
)
def test_sexes_that_cannot_be_read(sexes, message):
    with pytest.raises(InputError, match=f"E_SEX: .*{message}"):
        read_ploidy(sexes, ["a"], build="GRCh38", heterozygotes="refuse")


def test_windows_on_x_and_y_are_off_unless_asked_for(files):
    fasta = files.fasta({"chr1": BASES, "chrX": BASES})
    records = [
        ("chr1", 3, "G", "T", ["0|1", "0|0", "0|0"]),
        ("chrX", 3, "G", "T", ["1|1", "0|1", "0|0"]),
    ]
    options = {
        "variants": files.vcf(records, samples=PEOPLE, contigs={"chr1": 40, "chrX": 40}),
        "reference": fasta,
        "people": PEOPLE,
        "missing": "n",
        "max_n_share": 0.1,
        "sexes": SEXES,
    }
    windows = files.bed("1\t0\t20\tA", "X\t0\t20\tB")
    off = read_genomes(windows=windows, **options)
    assert [w.window.name for w in off.windows] == ["A"]
    assert off.left_out == ["B"]
    assert off.summary()["windows_on_X_and_Y_left_out"].startswith("1 ('B'); --sex_chromosomes=true")
    both = read_genomes(windows=windows, sex_chromosomes=True, build="GRCh38", **options)
    assert [w.window.name for w in both.windows] == ["A", "B"]
    assert "tell everybody's sex" in both.summary()["windows_on_X_and_Y"]
    assert both.rules["one_copy"]["males"] == 1
    assert both.rules["one_copy"]["unknown_sex_read_as_female"] == 1
    with pytest.raises(InputError, match="all 1 windows of .* lie on X or Y"):
        read_genomes(windows=files.bed("X\t0\t20\tB"), **options)
    with pytest.raises(InputError, match="E_PLOIDY: .*pass --build"):
        read_genomes(windows=windows, sex_chromosomes=True, **options)
