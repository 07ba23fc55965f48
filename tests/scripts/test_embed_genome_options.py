"""Strategies, PCA, plan, cache, levels and guards of scripts/embed_genome.py, through the script and real files."""

import importlib
import json
import re

import numpy as np
import pysam
import pytest

from align.pairs import check_leakage
from encoders.cohort.splits import Split
from encoders.cohort.synthetic.config import SyntheticCohort
from encoders.cohort.synthetic.genome_files import write_reference, write_variants, write_windows
from encoders.cohort.synthetic.genomes import simulate_genotypes
from encoders.cohort.synthetic.people import simulate_people
from encoders.genetics import write_random_checkpoint
from encoders.runs.errors import InputError
from encoders.vectors import SubjectVectors

KB = "--strategy=genetics_gene_fm_pca512_v1"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """40 people, 2 windows of 1,100 bases; ancestry PCs and a batch in the table."""
    config = SyntheticCohort(people=40, windows=2, window_bp=1100, variants_per_window=10, amplitude_latents=1,
                             coupling_latents=0, causal_per_latent=2, confounding=1.0)  # fmt: skip
    people = simulate_people(config, config.rng("people"))
    truth = simulate_genotypes(config, people, config.rng("genomes"))
    folder = tmp_path_factory.mktemp("raw")
    write_reference(folder / "genetics" / "reference.fa", truth.reference)
    write_windows(folder / "genetics" / "windows.bed", truth.windows)
    write_variants(folder / "genetics" / "cohort.vcf.gz", truth, people.ids)
    rows = ["participant_id\tpcs_1\tbatch"]
    rows += [
        f"{name}\t{a + k / 1000}\tb{k % 2}"
        for k, (name, a) in enumerate(zip(people.ids, people.ancestry, strict=True))
    ]
    (folder / "participants.tsv").write_text("\n".join(rows) + "\n")
    write_random_checkpoint(folder / "genetics" / "caduceus", d_model=8, n_layer=1)
    write_random_checkpoint(folder / "caduceus_seqlen-1k", d_model=8, n_layer=1)
    return folder, people.ids


@pytest.fixture
def run(raw, tmp_path, capsys):
    """Run the script on a study that shares the raw files."""
    main = importlib.import_module("scripts.embed_genome").main
    folder, _ = raw

    def run(*options, study="study"):
        place = tmp_path / study
        place.mkdir(exist_ok=True)
        if not (place / "raw").exists():
            (place / "raw").symlink_to(folder)
        code = main(["--study", str(place), "--device=cpu", *options])
        out, err = capsys.readouterr()
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in err
        assert (code, len(errors)) in ((0, 0), (2, 1)), err
        return out if code == 0 else errors[0]

    return run


def divide(place, ids, count, seed=0):
    order = list(np.random.default_rng(seed).permutation(ids))
    groups = {name: name for name in ids}
    split = Split(
        train=order[:count], val=order[count : count + 5], test=order[count + 5 :], groups=groups, seed=0
    )
    split.save(place / "splits" / "splits.json")
    return split


def load(place, name="genetics"):
    return SubjectVectors.load(place / "vectors" / f"{name}.safetensors")


def test_the_knowledge_bases_strategy_fits_its_pca_on_training_people_only(run, raw, tmp_path):
    ids = raw[1]
    assert "splits.json does not exist; make it with: python scripts/make_splits.py --study" in run(KB)
    place = tmp_path / "study"
    assert not (place / "runs").exists()
    split = divide(place, ids, 9)
    out = run(KB, "--keep_levels")
    assert "strategy: genetics_gene_fm_pca512_v1" in out
    assert re.search(r"pca: 512 asked for, 8 components, 100\.0% of the training people's variance", out)
    vectors, genes = load(place), load(place, "genetics_genes")
    assert vectors.blocks == {"pca": (0, 8)} and vectors.values.shape == (40, 8)
    assert vectors.provenance["strategy"] == "genetics_gene_fm_pca512_v1"
    assert vectors.provenance["steps"] == {
        "tokens": "focus", "pooling": "mean", "combine": "mean", "genes_as": "concatenated", "pca": 512
    }  # fmt: skip
    train = genes.select(split.train).astype(float)
    axes = np.linalg.svd(train - train.mean(0))[2][:8]
    expected = np.abs((genes.select(split.test) - train.mean(0)) @ axes.T)
    np.testing.assert_allclose(np.abs(vectors.select(split.test)), expected, atol=1e-4)

    trained_on = vectors.provenance["trained_on"]
    assert trained_on == {
        "split_digest": split.digest,
        "ids": [i for i in ids if i in split.train],
        "complete": True,
    }
    check_leakage(vectors, split, "genetics")
    with pytest.raises(InputError, match="the encoder of the genetics vectors was trained on"):
        check_leakage(vectors, divide(tmp_path / "other", ids, 9, seed=1), "genetics")

    # the saved components, applied to people of another study
    table = tmp_path / "few.tsv"
    table.write_text("\n".join(["participant_id", *ids[5:9]]) + "\n")
    saved = f"--pca_from={place / 'vectors' / 'genetics_pca.safetensors'}"
    run(KB, saved, f"--participants={table}", study="new")
    new = load(tmp_path / "new")
    np.testing.assert_allclose(new.values, vectors.select(ids[5:9]), atol=1e-5)
    assert new.provenance["trained_on"] == trained_on
    assert "another strategy; its components mean nothing" in run(
        "--pooling=difference", saved, study="wrong"
    )

    before = load(place).values
    divide(place, ids, 20, seed=3)  # another split is another input
    assert "another configuration or other inputs (inputs.splits" in run(KB, "--keep_levels")
    run(KB, "--keep_levels", "--redo=true")
    assert load(place).values.shape != before.shape


def test_a_name_is_never_redefined_and_unknown_ones_list_the_known(run):
    said = run(KB, "--pooling=difference")
    assert "has pooling = mean, but pooling = difference was given as well; a name is never redefined" in said
    assert "the known ones are genetics_gene_fm_pca512_v1, neurohelix_difference_v1" in run(
        "--strategy=mine_v1"
    )
    assert "pca is -1" in run("--pca=-1")
    out = run("--strategy=neurohelix_two_haplotypes_v1", "--combine=mean_absdiff")
    assert "strategy: neurohelix_two_haplotypes_v1" in out and "40 people x 32 (2 genes)" in out


def test_genes_together_and_levels(run, tmp_path):
    run("--keep_levels")
    genes, windows = load(tmp_path / "study", "genetics_genes"), load(tmp_path / "study", "genetics_windows")
    assert list(genes.blocks) == list(windows.blocks) == ["GENE1", "GENE2"]
    np.testing.assert_array_equal(genes.values, load(tmp_path / "study").values)
    parts = np.split(genes.values, 2, axis=1)
    for genes_as, expected in (("averaged", np.mean(parts, axis=0)), ("max", np.max(parts, axis=0))):
        assert "embedded now: 0" in run(f"--genes_as={genes_as}", "--redo=true")
        vectors = load(tmp_path / "study")
        np.testing.assert_allclose(vectors.values, expected, rtol=1e-6)
        assert vectors.blocks == {} and f"genes-{genes_as}" in vectors.provenance["strategy"]
        assert vectors.provenance["genes"] == ["GENE1", "GENE2"]


def test_swapped_haplotypes_give_the_same_vectors(run, raw, tmp_path):
    run("--combine=mean_absdiff")
    with pysam.BGZFile(str(raw[0] / "genetics" / "cohort.vcf.gz")) as file:
        text = re.sub(r"\b(\d)\|(\d)\b", r"\2|\1", file.read().decode())
    (tmp_path / "swapped.vcf").write_text(text)
    pysam.tabix_index(str(tmp_path / "swapped.vcf"), preset="vcf", force=True)
    run("--combine=mean_absdiff", f"--variants={tmp_path / 'swapped.vcf.gz'}", study="swapped")
    # sequences met in another order share other batches, which moves the last bit
    np.testing.assert_allclose(load(tmp_path / "swapped").values, load(tmp_path / "study").values, atol=1e-6)


def test_the_plan_counts_operations_time_and_cache_and_writes_nothing(run, raw, tmp_path):
    cache = f"--cache={tmp_path / 'shared'}"
    out = run("--plan", cache)
    unique = int(re.search(r"unique sequences: (\d+)", out)[1])
    assert f"unique sequences to embed: {unique}\n" in out and "unique sequences in cache: 0\n" in out
    assert re.search(r"operations: [\d.]+ [MGT]FLOP \(both strands", out)
    assert re.search(r"time to embed: about .* by one process on cpu .*measured now: \d+ real batches", out)
    assert re.search(r"tie rate: \d+\.\d% of people", out) and "people: 40" in out and "windows: 2" in out
    assert not (tmp_path / "shared").exists()
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["raw"]

    assert f"embedded now: {unique}\n" in run(cache)
    assert not (tmp_path / "study" / "cache").exists()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*")}
    out = run("--plan", cache, study="second")
    assert f"unique sequences in cache: {unique}\n" in out and "to embed: 0\n" in out
    assert f"{unique} hits, 0 misses" in out and "operations: 0 MFLOP" in out
    assert "none: all sequences are in the cache" in out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*")} == before
    assert f"cache: {unique} hits, 0 misses" in run(cache, study="second")


def test_a_plan_without_a_model_says_what_it_does_not_know(run, raw):
    out = run("--plan", "--model=nobody/nothing")
    assert "unique sequences:" in out and "time to embed: unknown without a model" in out


def test_the_cache_is_kept_within_its_limit(run, raw, tmp_path):
    cache = f"--cache={tmp_path / 'shared'}"
    run(cache)
    (old,) = (tmp_path / "shared").rglob("*.safetensors")
    out = run(
        cache,
        "--cache_gb=0",
        f"--model={raw[0] / 'caduceus_seqlen-1k'}",
        "--long_windows=tile",
        study="second",
    )
    assert "cache limit: 1 files" in out and "this run's own" in out
    assert not old.exists()
    assert "cache: 0 hits" in out and "in all 1 files" in out


def test_windows_longer_than_the_context_are_refused_or_tiled_but_never_cut(run, raw, tmp_path):
    model = f"--model={raw[0] / 'caduceus_seqlen-1k'}"
    assert "E_CONTEXT: 2 of 2 windows are longer than the context of caduceus-ph, 1,024 bases" in run(model)
    assert not (tmp_path / "study" / "runs").exists()
    assert "tile_overlap is 600; at most half" in run(model, "--long_windows=tile", "--tile_overlap=600")
    out = run(model, "--long_windows=tile", "--tile_overlap=100")
    assert "tiles: 1,024 bases, 100 of them in common at least" in out
    provenance = load(tmp_path / "study").provenance
    assert provenance["long_windows"]["overlap_bases"] == 100
    out = run("--long_windows=tile", study="short")  # a model without a limit has no use for tiles
    assert "tiles" not in out and "long_windows" not in load(tmp_path / "short").provenance
    assert "has no last token that has seen the whole sequence" in run("--tokens=last", study="last")


def test_guards_are_reported_and_name_nobody(run, raw, tmp_path):
    out = run()
    assert "haplotype overlap: unknown: the study has no split yet" in out
    assert load(tmp_path / "study").provenance["haplotype_overlap"] is None
    assert "already done" in run()
    split = divide(tmp_path / "guarded", raw[1], 20)
    out = run(study="guarded")
    share = float(
        re.search(r"explained by ancestry: ([\d.]+)% of the vectors' variance \(pcs_1; adj", out)[1]
    )
    assert share > 2  # the simulation puts ancestry there
    assert re.search(r"explained by batch: \d+\.\d% of the vectors' variance \(batch; adjusted R²\)", out)
    assert re.search(r"haplotype overlap: \d+\.\d% of test people's haplotypes occur letter by letter", out)
    provenance = load(tmp_path / "guarded").provenance
    found = provenance["haplotype_overlap"]
    assert found["split_digest"] == split.digest and set(found["genes"]) == {"GENE1", "GENE2"}
    assert provenance["confounding"]["ancestry"]["share"] == pytest.approx(share / 100, abs=1e-3)
    open_files = [p for p in (tmp_path / "guarded" / "runs").rglob("*.json")]
    assert open_files
    for text in [json.dumps(provenance), out, *(path.read_text() for path in open_files)]:
        assert not any(name in text for name in raw[1])


def test_half_precision_has_a_cache_of_its_own(run, tmp_path):
    run()
    out = run("--dtype=bf16", "--redo=true")
    assert "from cache: 0" in out
    assert load(tmp_path / "study").provenance["dtype"] == "bfloat16"


def test_redo_leaves_no_file_of_other_options_and_a_bad_cache_costs_nothing(run, raw, tmp_path):
    place = tmp_path / "study"
    divide(place, raw[1], 20)
    run("--pca=3", "--keep_levels")
    folder = place / "vectors"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(before) == 4
    assert "cannot write to the cache" in run("--cache=/proc/none", "--redo")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    run("--redo")
    assert [path.name for path in folder.iterdir()] == ["genetics.safetensors"]
