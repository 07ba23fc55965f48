"""From genome files to vectors of people: alleles survive frozen random weights, and the run is resumable."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import RidgeCV

from encoders.cohort.synthetic.config import SyntheticCohort
from encoders.cohort.synthetic.genome_files import write_reference, write_variants, write_windows
from encoders.cohort.synthetic.genomes import simulate_genotypes
from encoders.cohort.synthetic.people import simulate_people
from encoders.genetics import embed
from encoders.genetics.cache import VectorCache
from encoders.genetics.caduceus_checkpoint import write_random_checkpoint
from encoders.genetics.caduceus_encoder import Caduceus
from encoders.genetics.config import EmbedGenome
from encoders.genetics.embed import embed_sequences
from encoders.genetics.genomes import read_genomes
from encoders.genetics.subject_vectors import make_vectors
from encoders.runs.errors import InputError
from encoders.runs.hub import resolve_model
from encoders.vectors import SubjectVectors

TRAIN, TEST = slice(0, 200), slice(200, 300)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_random_checkpoint(folder)
    return Caduceus(resolve_model(str(folder)))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """300 people, 3 windows of 500 bases with 20 variants each, indels and multi-allelic ones among them."""
    config = SyntheticCohort(people=300, windows=3, window_bp=500, variants_per_window=20, seed=3)
    people = simulate_people(config, config.rng("people"))
    truth = simulate_genotypes(config, people, config.rng("genomes"))
    folder = tmp_path_factory.mktemp("genome")
    write_reference(folder / "reference.fa", truth.reference)
    write_windows(folder / "windows.bed", truth.windows)
    write_variants(folder / "cohort.vcf.gz", truth, people.ids)
    return truth, people.ids, folder


def read(folder, ids, **changes):
    paths = {
        "variants": folder / "cohort.vcf.gz",
        "reference": folder / "reference.fa",
        "windows": folder / "windows.bed",
    }
    return read_genomes(**{**paths, "people": ids, "missing": "n", "max_n_share": 0.1, **changes})


def pool(genomes, embedded, encoder):
    frame = pd.DataFrame(index=genomes.people)
    config = EmbedGenome()
    return make_vectors(config, genomes, encoder, embedded, frame, None, None, {"model": "test"}).vectors


def test_frozen_random_weights_carry_allele_differences(cohort, encoder, tmp_path):
    truth, ids, folder = cohort
    genomes = read(folder, ids)
    cache = VectorCache(tmp_path, encoder.identity, encoder.dim)
    vectors = pool(genomes, embed_sequences(genomes, encoder, cache, batch_bases=8000), encoder)
    assert vectors.ids == ids
    assert vectors.values.shape == (300, 3 * encoder.dim)
    assert list(vectors.blocks) == [window.gene for window in truth.windows]

    x = vectors.values.astype(np.float64)
    center = x[TRAIN].mean(0)
    _, spread, axes = np.linalg.svd(x[TRAIN] - center, full_matrices=False)
    scores = (x - center) @ axes[:60].T / spread[:60] * np.sqrt(200)  # whitened, fitted on train
    found = [
        np.corrcoef(RidgeCV(np.logspace(-3, 3, 7)).fit(scores[TRAIN], d[TRAIN]).predict(scores[TEST]), d[TEST])[0, 1]
        for d in truth.dosage[:, np.unique(truth.causal)].T.astype(float)
    ]  # fmt: skip
    assert min(found) > 0.95, np.round(found, 3)

    # whose genome is whose: with people exchanged, nothing is left
    mixed = np.random.default_rng(0).permutation(300)
    d = truth.dosage[mixed, truth.causal[0, 0]].astype(float)
    guess = RidgeCV(np.logspace(-3, 3, 7)).fit(scores[TRAIN], d[TRAIN]).predict(scores[TEST])
    assert abs(np.corrcoef(guess, d[TEST])[0, 1]) < 0.35

    vectors.save(tmp_path / "genetics.safetensors")
    again = SubjectVectors.load(tmp_path / "genetics.safetensors")
    np.testing.assert_array_equal(again.values, vectors.values)
    assert again.provenance == vectors.provenance
    assert again.provenance["encoder"] == "caduceus-ph"
    assert again.provenance["trained_on"] is None
    assert (
        again.provenance["strategy"]
        == "token-mean_difference_haplotype-mean_window-mean_genes-concatenated_v1"
    )
    assert len(again.provenance["weights_sha256"]) == len(again.provenance["windows_sha256"]) == 64


def test_each_sequence_is_embedded_once_and_a_second_run_finds_them_all(cohort, encoder, tmp_path):
    _, ids, folder = cohort
    few = read(folder, ids[:60])
    assert len(few.sequences) < 120 < 60 * 2 * 3
    cache = VectorCache(tmp_path, encoder.identity, encoder.dim)
    first = embed_sequences(few, encoder, cache, batch_bases=8000)
    assert (first.computed, first.cached) == (len(few.sequences), 0)
    second = embed_sequences(
        few, encoder, VectorCache(tmp_path, encoder.identity, encoder.dim), batch_bases=8000
    )
    assert (second.computed, second.cached) == (0, len(few.sequences))
    for a, b in zip(first.windows, second.windows, strict=True):
        np.testing.assert_array_equal(a, b)
    more = read(folder, ids[:70])
    third = embed_sequences(
        more, encoder, VectorCache(tmp_path, encoder.identity, encoder.dim), batch_bases=8000
    )
    assert third.cached == len(set(few.sequences) & set(more.sequences))
    assert third.computed == len(set(more.sequences) - set(few.sequences))


def test_a_killed_run_resumes_to_identical_numbers(cohort, encoder, tmp_path, monkeypatch):
    _, ids, folder = cohort
    genomes = read(folder, ids[:40])
    whole = embed_sequences(
        genomes,
        encoder,
        VectorCache(tmp_path / "whole", encoder.identity, encoder.dim),
        batch_bases=4000,
        workers=2,
    )
    monkeypatch.setattr(embed, "SAVE_EVERY", 0.0)  # save after every batch, as a slow model would

    class Killed(Exception):
        pass

    class Dying:
        batches = 0

        def __getattr__(self, name):
            return getattr(encoder, name)

        def encode(self, sequences, *, pool):
            self.batches += 1
            if self.batches > 3:
                raise Killed
            return encoder.encode(sequences, pool=pool)

    with pytest.raises(Killed):
        embed_sequences(
            genomes,
            Dying(),
            VectorCache(tmp_path / "cut", encoder.identity, encoder.dim),
            batch_bases=4000,
            workers=2,
        )
    rest = embed_sequences(
        genomes,
        encoder,
        VectorCache(tmp_path / "cut", encoder.identity, encoder.dim),
        batch_bases=4000,
        workers=2,
    )
    assert 0 < rest.cached < len(genomes.sequences)
    for a, b in zip(whole.windows, rest.windows, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_damaged_cache_file_is_noticed_and_made_again(cohort, encoder, tmp_path):
    _, ids, folder = cohort
    genomes = read(folder, ids[:10])
    first = embed_sequences(
        genomes, encoder, VectorCache(tmp_path, encoder.identity, encoder.dim), batch_bases=8000
    )
    (path,) = tmp_path.rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-10] ^= 4
    path.write_bytes(content)
    again = embed_sequences(
        genomes, encoder, VectorCache(tmp_path, encoder.identity, encoder.dim), batch_bases=8000
    )
    assert (again.damaged, again.cached, again.computed) == (1, 0, len(genomes.sequences))
    for a, b in zip(first.windows, again.windows, strict=True):
        np.testing.assert_array_equal(a, b)


def test_people_in_one_place_only_are_listed(cohort):
    _, ids, folder = cohort
    genomes = read(folder, ["sub-9999", *ids[5:1:-1]])
    assert genomes.people == ids[5:1:-1]  # in the order of the table
    assert genomes.without_genome == ["sub-9999"]
    assert genomes.without_row == [*ids[:2], *ids[6:]]
    summary = genomes.summary()
    assert summary["people_in_table_without_genome"] == 1
    assert summary["people_with_genome_not_in_table"] == 296
    assert "windows_clipped_at_the_end_of_a_contig" not in summary


def test_nobody_in_common_names_near_misses(cohort):
    _, _ids, folder = cohort
    with pytest.raises(InputError, match=r"E_SAMPLE: none of the 2 people .* '0001' and 'sub-\d+'"):
        read(folder, ["0001", "0002"])


def test_what_would_make_everyone_the_reference_stops_the_run(cohort, files):
    truth, ids, folder = cohort
    window = truth.windows[0]
    empty = files.bed(f"{window.contig}\t0\t20\tempty")
    with pytest.raises(InputError, match="E_CONTIG: .* no record in any of the 1 windows"):
        read(folder, ids, windows=empty)
    some = files.bed(f"{window.contig}\t0\t20\tempty", f"{window.contig}\t{window.start}\t{window.end}\tfine")
    with pytest.raises(InputError, match=r"E_DEGENERATE: 1 of 2 genes .*\('empty'\)"):
        read(folder, ids, windows=some)
    # an exon without variants is reported, but does not stop a gene that has some elsewhere
    exons = files.bed(
        f"{window.contig}\t0\t20\tg|t|e1", f"{window.contig}\t{window.start}\t{window.end}\tg|t|e2"
    )
    assert read(folder, ids, windows=exons).summary()["windows_without_differences"] == "'g|t|e1'"


def test_ref_mismatch_gives_sites_share_and_a_hint(cohort, files):
    truth, ids, folder = cohort
    shifted = {name: "A" + bases[:-1] for name, bases in truth.reference.items()}
    with pytest.raises(
        InputError, match=r"E_REF: .* at \d+ of 60 records \(\d+\.\d%\), first chr1:.*FASTA.*GRCh37"
    ):
        read(folder, ids, reference=files.fasta(shifted))
    fasta = files.fasta({"chr1": "ACGTACGT"})
    vcf = files.vcf(
        [("chr1", 2, "G", "T", ["0|1", "1|1"])], contigs={"chr1": 248956422}, samples=("p1", "p2")
    )
    with pytest.raises(InputError, match="E_REF: .*by contig lengths the variants are GRCh38"):
        read(
            folder, ["p1", "p2"], reference=fasta, variants=vcf, windows=files.bed("1\t0\t8\tg", name="g.bed")
        )


def test_counts_reach_the_summary(files):
    fasta = files.fasta({"chr1": "ACGTACGTAC"})
    records = [("chr1", 2, "C", "<DEL>,T", ["1|2", "."]), ("chr1", 9, "AC", "A", ["0|1", "0|0"])]
    genomes = read_genomes(
        variants=files.vcf(records, index=False),
        reference=fasta,
        windows=files.bed("1\t0\t20\tg"),
        people=["p1", "p2"],
        missing="reference",
        max_n_share=0.1,
    )
    assert genomes.counts == Counter(records=2, calls_of_symbolic_alleles_skipped=1, missing_calls=2)
    summary = genomes.summary()
    assert summary["windows_clipped_at_the_end_of_a_contig"] == "'g'"
    assert summary["variant_index"] == "rebuilt: missing, in a temporary folder"
    assert summary["missing_calls"] == 2
