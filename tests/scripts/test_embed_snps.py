"""`scripts/embed_snps.py` on real files: fitted on training people alone, whatever the format; nothing lost silently."""

import importlib.util
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pysam
import pytest

from align.pairs import check_leakage
from encoders.cohort import Split
from encoders.genetics import snp_components, snp_dosages
from encoders.runs.errors import InputError
from encoders.runs.study import Study
from encoders.vectors import SubjectVectors
from scripts.embed_snps import main

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("snp_files", ROOT / "tests/encoders/genetics/snp_files.py")
files = importlib.util.module_from_spec(spec)
sys.modules["snp_files"] = files
spec.loader.exec_module(files)

WINDOWS = ("chr1\t1000\t2150\tA\t0\t+", "chr1\t2150\t3400\tB\t0\t-")  # 12 variants each
NUM_TRAIN = 28


def embed(folder, *options):
    code = main(["--study", str(folder), *options])
    path = Path(folder) / "vectors/snps.safetensors"
    return code, SubjectVectors.load(path) if path.exists() else None


def by_hand(copies, num_train=NUM_TRAIN, number=None):
    """Scores by a direct SVD of the training people's standardised dosages, with our rule for signs."""
    values = np.where(copies == files.MISSING, np.nan, copies).astype(float)
    p = np.nanmean(values[:, :num_train], axis=1) / 2
    z = np.nan_to_num((values - 2 * p[:, None]) / np.sqrt(2 * p * (1 - p))[:, None])
    u, s, _ = np.linalg.svd(z[:, :num_train], full_matrices=False)
    u = u[:, (s > 1e-6 * s[0])][:, : min(number or num_train - 1, num_train - 1)]
    scores = u.T @ z
    train = scores[:, :num_train]
    signs = np.sign(train[np.arange(len(train)), np.abs(train).argmax(axis=1)])
    return (signs[:, None] * scores).T


@pytest.fixture
def genotypes():
    return files.random_genotypes(missing=True)


@pytest.fixture
def study(tmp_path, genotypes):
    return files.write_study(tmp_path / "my study", genotypes, windows=WINDOWS)


def test_vectors_equal_a_direct_svd_of_the_training_people(study, genotypes, capsys):
    code, vectors = embed(study)
    out = capsys.readouterr().out
    assert code == 0 and vectors.ids == genotypes.people and vectors.blocks == {"snp": (0, 24)}
    np.testing.assert_allclose(vectors.values, by_hand(genotypes.copies), atol=2e-4)
    split = Split.load(study / "splits/splits.json")
    assert vectors.provenance["trained_on"] == {
        "split_digest": split.digest,
        "ids": sorted(genotypes.people[:NUM_TRAIN]),
        "complete": True,
    }
    assert (
        "components: 24, 512 were asked for: 28 training people and the variants used allow no more than 24"
        in out
    )
    assert "explained variance of the training people: 100.0%" in out
    assert "explained by ancestry: unknown: the table of people has no column for genetic PCs" in out
    for path in (
        "vectors/snps.safetensors",
        "runs/embed_snps/components.safetensors",
        "private/snp_people.tsv",
    ):
        assert stat.S_IMODE((study / path).stat().st_mode) == 0o600
    assert not re.search(r"\bp\d", out.replace(str(study), ""))
    assert embed(study)[0] == 0 and "already done" in capsys.readouterr().out


def test_fewer_components_are_the_first_ones(study, genotypes):
    _, vectors = embed(study, "--components=3")
    assert vectors.values.shape == (40, 3)
    np.testing.assert_allclose(vectors.values, by_hand(genotypes.copies, number=3), atol=2e-4)
    whole = by_hand(genotypes.copies)[:NUM_TRAIN].var(axis=0)
    assert vectors.provenance["explained_variance"] == pytest.approx(whole[:3].sum() / whole.sum(), abs=1e-4)


def test_a_held_out_person_changes_no_fitted_number_and_nobody_else(study, genotypes):
    _, before = embed(study)
    fitted = (study / "runs/embed_snps/components.safetensors").read_bytes()
    genotypes.copies[:, -1] = 2 - genotypes.copies[:, -1].clip(0)
    genotypes.copies[3, -2] = files.MISSING
    genotypes.vcf(study / "raw/genetics/cohort.vcf.gz")
    assert embed(study)[0] == 2  # other inputs: refused
    _, after = embed(study, "--redo")
    assert (study / "runs/embed_snps/components.safetensors").read_bytes() == fitted
    np.testing.assert_array_equal(after.values[:-2], before.values[:-2])
    assert (after.values[-1] != before.values[-1]).any()


def test_a_training_person_does_change_them(study, genotypes):
    _, before = embed(study)
    genotypes.copies[:, 0] = 2 - genotypes.copies[:, 0].clip(0)
    genotypes.vcf(study / "raw/genetics/cohort.vcf.gz")
    _, after = embed(study, "--redo")
    assert np.abs(after.values[-1] - before.values[-1]).max() > 1e-3


def test_align_refuses_vectors_that_were_fitted_on_held_out_people(study, genotypes):
    _, vectors = embed(study)
    check_leakage(vectors, Split.load(study / "splits/splits.json"), "genetics")
    other = files.write_split(study, genotypes.people[::-1], NUM_TRAIN)
    with pytest.raises(InputError, match="was trained on 6 of the 6 held-out families"):
        check_leakage(vectors, other, "genetics")


def test_variants_are_filtered_by_what_training_people_show_and_counted(study, genotypes, capsys):
    copies = genotypes.copies
    copies[0] = np.r_[np.zeros(NUM_TRAIN), np.full(12, 2)]  # differs among held-out people only
    copies[1] = files.MISSING
    copies[2, :2] = files.MISSING  # 2 of 28 training people: 7 %
    copies[3] = np.r_[1, np.zeros(27), np.full(12, 2)]  # 1 of 56 alleles among training people
    copies[4, NUM_TRAIN:] = files.MISSING  # nobody held out is called
    copies[5] = 1  # everybody heterozygous
    copies[6:][copies[6:] == files.MISSING] = 0
    genotypes.sites[7] = (*genotypes.sites[7][:3], "*")
    genotypes.vcf(study / "raw/genetics/cohort.vcf.gz")
    code, vectors = embed(study, "--min_maf=0.02")
    out = capsys.readouterr().out
    assert code == 0
    for line in (
        "variants read: 24",
        "variants left out missing in too many: 2",
        "variants left out without differences: 2",
        "variants left out too rare: 1",
        "variants left out no alternative allele: 1",
        "variants used: 18",
        "missing dosages set to the mean: 12",
    ):
        assert line in out
    used = [4, 6, *range(8, 24)]
    np.testing.assert_allclose(vectors.values, by_hand(copies[used]), atol=2e-4)
    embed(study, "--min_maf=0", "--redo")
    assert "too rare" not in capsys.readouterr().out


def test_overlapping_windows_count_a_variant_once_and_long_deletions_too(study, genotypes, capsys):
    contig, at, ref, _ = genotypes.sites[2]
    genotypes.sites[2] = (contig, at, ref + "A" * 1500, ref)  # reaches from window A into window B
    genotypes.vcf(study / "raw/genetics/cohort.vcf.gz")
    (study / "raw/genetics/windows.bed").write_text("chr1 1000 2150 A\nchr1 1500 2050 A2\nchr1 2160 3400 B\n")
    code, vectors = embed(study)
    assert code == 0 and "variants used: 24" in capsys.readouterr().out
    np.testing.assert_allclose(vectors.values, by_hand(genotypes.copies), atol=2e-4)
    embed(study, "--redo", "--blocks=gene")
    out = capsys.readouterr().out
    assert "variants used: 24" in out and "12 to 13 per gene" not in out
    vectors = SubjectVectors.load(study / "vectors/snps.safetensors")
    assert list(vectors.blocks) == ["A", "A2", "B"]
    first, last = vectors.blocks["B"]
    np.testing.assert_allclose(
        vectors.values[:, first:last], by_hand(genotypes.copies[[2, *range(12, 24)]]), atol=2e-4
    )


def test_a_symbolic_deletion_counts_where_it_begins(study, genotypes, capsys):
    contig, at, ref, _ = genotypes.sites[2]
    genotypes.sites[2] = (contig, at, ref, "<DEL>")
    path = genotypes.vcf(study / "raw/genetics/cohort.vcf.gz")
    plain = pysam.BGZFile(str(path)).read().decode()
    plain = plain.replace("#CHROM", '##INFO=<ID=END,Number=1,Type=Integer,Description="end">\n#CHROM')
    plain = plain.replace("<DEL>\t.\t.\t.", f"<DEL>\t.\t.\tEND={at + 1500}")
    (study / "plain.vcf").write_text(plain)
    pysam.tabix_compress(str(study / "plain.vcf"), str(path), force=True)
    pysam.tabix_index(str(path), preset="vcf", force=True)
    code, vectors = embed(study, "--blocks=gene")
    assert code == 0 and "variants used: 24" in capsys.readouterr().out
    first, last = vectors.blocks["B"]
    np.testing.assert_allclose(vectors.values[:, first:last], by_hand(genotypes.copies[12:]), atol=2e-4)
    (study / "raw/genetics/windows.bed").write_text(WINDOWS[1] + "\n")
    _, vectors = embed(study, "--redo")
    assert "variants read: 12" in capsys.readouterr().out
    np.testing.assert_allclose(vectors.values, by_hand(genotypes.copies[12:]), atol=2e-4)


def test_genes_have_components_of_their_own(study, genotypes, capsys):
    (study / "raw/genetics/windows.bed").write_text(
        "\n".join([*WINDOWS, "chr1\t50000\t60000\tempty\t0\t+"]) + "\n"
    )
    code, vectors = embed(study, "--blocks=gene", "--components=4")
    out = capsys.readouterr().out
    assert code == 0 and vectors.blocks == {"A": (0, 4), "B": (4, 8)}
    assert "genes without a usable variant: 'empty'" in out and "components: 4 per gene\n" in out
    embed(study, "--redo")
    assert "genes without a usable variant: 'empty'" in capsys.readouterr().out
    expected = [by_hand(genotypes.copies[:12], number=4), by_hand(genotypes.copies[12:], number=4)]
    np.testing.assert_allclose(vectors.values, np.concatenate(expected, axis=1), atol=2e-4)


def test_genes_come_from_an_annotation_too(study, genotypes):
    lines = [
        f'chr1\tHAVANA\tgene\t{start}\t{end}\t.\t+\t.\tgene_id "ENSG0{k}"; gene_name "{name}"; gene_type "protein_coding";'
        for k, (name, start, end) in enumerate((("A", 1101, 2000), ("B", 2201, 3400)))
    ]
    (study / "genes.gtf").write_text("\n".join(lines) + "\n")
    code, vectors = embed(study, f"--windows={study / 'genes.gtf'}", "--genes=[A]", "--flank=100")
    assert code == 0
    np.testing.assert_allclose(vectors.values, by_hand(genotypes.copies[:11]), atol=2e-4)


def test_all_variants_of_a_file_can_be_read_without_windows(study, genotypes):
    (study / "raw/genetics/windows.bed").unlink()
    code, vectors = embed(study, "--regions=all")
    assert code == 0
    np.testing.assert_allclose(vectors.values, by_hand(genotypes.copies), atol=2e-4)


def test_reading_in_small_pieces_changes_nothing(study, genotypes, monkeypatch):
    contig, at, ref, _ = genotypes.sites[2]
    genotypes.sites[2] = (contig, at, ref + "A" * 1000, ref)
    genotypes.vcf(study / "raw/genetics/cohort.vcf.gz")
    _, whole = embed(study, "--regions=all", "--prune_r2=0.2")
    monkeypatch.setattr(snp_dosages, "FIRST_STEP", 120)
    monkeypatch.setattr(snp_dosages, "PIECE", 1)
    monkeypatch.setattr(snp_dosages, "DENSEST", 20)
    fetched = []
    monkeypatch.setattr(
        snp_dosages._Reader,
        "add",
        lambda self, *a, _add=snp_dosages._Reader.add: fetched.append(a[1]) or _add(self, *a),
    )
    _, pieces = embed(study, "--regions=all", "--prune_r2=0.2", "--redo")
    assert len(fetched) > 5
    np.testing.assert_array_equal(pieces.values, whole.values)


def test_linked_variants_are_pruned_by_training_people(study, genotypes, capsys):
    copies = genotypes.copies
    copies[copies == files.MISSING] = 0
    copies[5] = copies[4]
    copies[9] = 2 - copies[4]  # the other allele says the same
    copies[20] = np.r_[copies[4, :NUM_TRAIN], 2 - copies[4, NUM_TRAIN:]]  # the same among training people
    genotypes.vcf(study / "raw/genetics/cohort.vcf.gz")
    code, vectors = embed(study, "--prune_r2=0.9")
    assert code == 0 and "variants left out pruned: 3" in capsys.readouterr().out
    used = [k for k in range(24) if k not in (5, 9, 20)]
    np.testing.assert_allclose(vectors.values, by_hand(copies[used]), atol=2e-4)
    embed(study, "--prune_r2=0.9", "--prune_kb=1", "--redo")  # 20 lies 1.6 kb behind 4
    assert "variants left out pruned: 2" in capsys.readouterr().out


def test_the_randomized_solver_finds_the_same_leading_components(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    genotypes = files.random_genotypes(people=200, variants=150, seed=3)
    group = rng.integers(0, 3, 200)
    shift = rng.uniform(0.05, 0.95, (150, 3))
    genotypes.copies = rng.binomial(2, shift[:, group])
    study = files.write_study(tmp_path, genotypes, windows=("chr1\t0\t90000\tA",), num_train=140)
    _, exact = embed(study, "--components=2")
    monkeypatch.setattr(snp_components, "EXACT", 0)
    _, quick = embed(study, "--components=2", "--redo")
    np.testing.assert_allclose(quick.values, exact.values, atol=2e-3)


def test_the_allele_that_a_file_counts_does_not_matter(study, genotypes):
    _, before = embed(study)
    flip = np.arange(24) % 2 == 0
    genotypes.sites = [
        (c, p, a, r) if f else (c, p, r, a) for f, (c, p, r, a) in zip(flip, genotypes.sites, strict=True)
    ]
    called = genotypes.copies != files.MISSING
    genotypes.copies = np.where(flip[:, None] & called, 2 - genotypes.copies, genotypes.copies)
    genotypes.vcf(study / "raw/genetics/cohort.vcf.gz")
    _, after = embed(study, "--redo")
    np.testing.assert_allclose(after.values, before.values, atol=2e-4)


@pytest.mark.parametrize("kind", ["bcf", "pgen", "bgen", "bed"])
def test_every_format_gives_the_same_vectors(study, genotypes, kind):
    _, expected = embed(study)
    path = study / f"raw/genetics/other.{kind}"
    if kind == "bcf":
        genotypes.vcf(path, bcf=True)
    else:
        pytest.importorskip({"pgen": "pgenlib", "bgen": "bgen", "bed": "bed_reader"}[kind])
        getattr(genotypes, kind)(path)
    people = [f"--sample_file={path.with_suffix('.sample')}"] if kind == "bgen" else []
    code, vectors = embed(study, f"--variants={path}", *people, "--redo")
    assert code == 0
    np.testing.assert_allclose(vectors.values, expected.values, atol=1e-4)


def test_several_files_are_read_as_one(tmp_path):
    genotypes = files.random_genotypes(contigs=("chr1", "chr2"))
    study = files.write_study(tmp_path, genotypes, windows=("chr1\t0\t90000\tA", "2\t0\t90000\tB"))
    _, expected = embed(study)
    paths = []
    for contig in ("chr1", "chr2"):
        rows = [k for k, site in enumerate(genotypes.sites) if site[0] == contig]
        part = files.Genotypes([genotypes.sites[k] for k in rows], genotypes.copies[rows], genotypes.people)
        paths.append(str(part.vcf(tmp_path / f"{contig}.vcf.gz")))
    code, vectors = embed(study, f"--variants={','.join(paths)}", "--redo")
    assert code == 0
    np.testing.assert_array_equal(vectors.values, expected.values)


def test_people_who_are_missing_somewhere_are_counted_and_listed(study, genotypes, capsys):
    table = study / "raw/participants.tsv"
    table.write_text("\n".join(["eid", *genotypes.people[:-1], "new", "007"]) + "\n")
    genotypes.copies[:5, 3] = files.MISSING  # 5 of 24: above 10 %
    genotypes.vcf(study / "raw/genetics/cohort.vcf.gz")
    code, vectors = embed(study, "--max_missing=0.5")
    out = capsys.readouterr().out
    assert code == 0 and vectors.ids == [p for p in genotypes.people[:-1] if p != "p3"]
    for line in (
        "people: 38",
        "people in table without genome: 2",
        "people with genome not in table: 1",
        "people with too few calls: 1",
    ):
        assert line in out
    rows = [line.split("\t") for line in (study / "private/snp_people.tsv").read_text().splitlines()[1:]]
    assert rows == [
        ["new", "in the table of people, not among the variants"],
        ["007", "in the table of people, not among the variants"],
        ["p39", "among the variants, not in the table of people"],
        ["p3", "no call at 5 of the 24 variants used"],
    ]


def test_ancestry_in_the_vectors_is_reported(tmp_path, capsys):
    genotypes = files.random_genotypes(people=80, variants=60)
    group = np.arange(80) % 2
    genotypes.copies = np.random.default_rng(1).binomial(2, np.where(group, 0.8, 0.2), (60, 80))
    study = files.write_study(tmp_path, genotypes, windows=("chr1\t0\t90000\tA",), num_train=60)
    rows = [f"{name}\t{'EUR' if one else 'AFR'}" for name, one in zip(genotypes.people, group, strict=True)]
    (study / "raw/participants.tsv").write_text("\n".join(["participant_id\tancestry", *rows]) + "\n")
    _, vectors = embed(study, "--components=1")
    assert vectors.provenance["confounding"]["ancestry"]["share"] > 0.8
    assert re.search(r"explained by ancestry: [89]\d\.\d% of the vectors' variance", capsys.readouterr().out)


def test_a_changed_table_beside_the_genotypes_is_another_input(study, genotypes, capsys):
    path = genotypes.pgen(study / "raw/genetics/cohort.pgen")
    assert embed(study, f"--variants={path}")[0] == 0
    psam = path.with_suffix(".psam")
    psam.write_text(psam.read_text().replace("p1\t", "x1\t"))
    assert embed(study, f"--variants={path}")[0] == 2
    assert ".psam" in capsys.readouterr().err


def test_x_is_left_out_unless_asked_for(tmp_path, capsys):
    genotypes = files.random_genotypes(contigs=("chr1", "chrX"))
    study = files.write_study(tmp_path, genotypes, windows=("1\t0\t90000\tA", "X\t0\t90000\tG6PD"))
    code, vectors = embed(study)
    out = capsys.readouterr().out
    assert code == 0 and "left out on X Y or MT: 'G6PD'" in out and "variants used: 12" in out
    np.testing.assert_allclose(vectors.values, by_hand(genotypes.copies[:12]), atol=2e-4)
    embed(study, "--redo", "--regions=all")
    assert "left out on X Y or MT: 'chrX'" in capsys.readouterr().out
    _, both = embed(study, "--redo", "--sex_chromosomes=true")
    np.testing.assert_allclose(both.values, by_hand(genotypes.copies), atol=2e-4)
    (study / "raw/genetics/windows.bed").write_text("chrX\t0\t90000\tG6PD\n")
    assert embed(study, "--redo")[0] == 2
    assert "all 1 windows lie on X, Y or MT ('G6PD'); pass --sex_chromosomes=true" in capsys.readouterr().err


def _nobody(study, genotypes):
    (study / "raw/participants.tsv").write_text("participant_id\n" + "".join(f"P-{k}\n" for k in range(40)))


def _other_split(study, genotypes):
    files.write_split(study, [f"q{k}" for k in range(40)], NUM_TRAIN)


def _elsewhere(study, genotypes):
    (study / "raw/genetics/windows.bed").write_text("chr1\t50000\t60000\tA\n")


def _other_contig(study, genotypes):
    (study / "raw/genetics/windows.bed").write_text("chr9\t1000\t3400\tA\n")


def _other_build(study, genotypes):
    bases = {name: "ACGT" * (length // 4) for name, length in genotypes.contigs.items()}
    text = "".join(f">{name}\n{b}\n" for name, b in bases.items())
    (study / "raw/genetics/reference.fa").write_text(text)


def _all_alike(study, genotypes):
    genotypes.copies[:, :NUM_TRAIN] = 1
    genotypes.vcf(study / "raw/genetics/cohort.vcf.gz")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            _nobody,
            "E_SAMPLE: none of the 40 people of the table is among the 40 samples of .*ids are compared letter by letter",
        ),
        (_other_split, "E_SAMPLE: 0 of the 28 training people of the split are among both"),
        (_elsewhere, "E_CONTIG: .* holds no variant in any of the 1 regions"),
        (_other_contig, "E_CONTIG: window 'A' lies on contig 'chr9'"),
        (_other_build, "E_REF: REF differs from the reference at .* pass the FASTA file that"),
        (
            _all_alike,
            "E_DEGENERATE: none of the 24 variants of .* can be used \\(24 without differences; all by the 28",
        ),
    ],
)
def test_input_that_says_nothing_is_one_line_and_leaves_no_trace(study, genotypes, capsys, spoil, words):
    spoil(study, genotypes)
    code, vectors = embed(study)
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert code == 2 and vectors is None and len(errors) == 1
    assert re.search(words, errors[0])
    assert not (study / "runs").exists() and not (study / "private").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--components=0"], "components is 0"),
        (["--min_maf=0.6"], "min_maf is 0.6"),
        (["--max_missing=2"], "max_missing is 2.0"),
        (["--prune_r2=0"], "prune_r2 is 0.0"),
        (["--regions=all", "--blocks=gene"], "--regions=all takes every variant"),
        (["--variants=/nowhere.vcf.gz"], "does not exist"),
    ],
)
def test_wrong_options_are_one_line(study, capsys, options, words):
    assert embed(study, *options) == (2, None)
    assert words in capsys.readouterr().err


def test_too_many_dosages_for_the_memory_are_refused_with_what_helps(study, capsys, monkeypatch):
    monkeypatch.setattr(snp_dosages, "LARGEST_SHARE", 1e-9)
    assert embed(study) == (2, None)
    assert re.search("E_MEMORY: the dosages of 40 people .* raise --min_maf", capsys.readouterr().err)


def test_a_control_study_has_these_as_genome_vectors(study, tmp_path, genotypes, capsys):
    brain = SubjectVectors(ids=genotypes.people, values=np.ones((40, 2), np.float32))
    brain.save(Study(study).path("brain"))
    (study / "configs").mkdir()
    (study / "configs/align.yaml").write_text("epochs: 3\n")
    control = Study(tmp_path / "control")
    assert embed(study, f"--control={control.folder}")[0] == 0
    assert f"align.py --study {control.folder}" in capsys.readouterr().out
    assert SubjectVectors.load(control.path("genetics")).provenance["encoder"].startswith("SNP dosage")
    assert control.path("brain").samefile(Study(study).path("brain"))
    assert (control.folder / "configs/align.yaml").read_text() == "epochs: 3\n"
    assert Split.load(control.path("splits")).train == genotypes.people[:NUM_TRAIN]


def test_help_imports_neither_torch_nor_sklearn():
    code = (
        "import sys; from scripts.embed_snps import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'sklearn', 'pysam', 'pandas'} & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
