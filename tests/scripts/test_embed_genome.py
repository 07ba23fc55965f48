"""scripts/embed_genome.py as users run it: from raw files to vectors, and every bad input with one sentence."""

import importlib
import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pysam
import pytest
import yaml

from encoders.cohort.synthetic.config import SyntheticCohort
from encoders.cohort.synthetic.genome_files import write_reference, write_variants, write_windows
from encoders.cohort.synthetic.genomes import simulate_genotypes
from encoders.cohort.synthetic.people import simulate_people
from encoders.runs.artifact import save_json
from encoders.vectors import SubjectVectors

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def study(tmp_path):
    """A synthetic study of 12 people and 2 windows, as make_cohort leaves it, without its scans."""
    config = SyntheticCohort(people=12, windows=2, window_bp=150, variants_per_window=6, amplitude_latents=1,
                             coupling_latents=0, causal_per_latent=2)  # fmt: skip
    people = simulate_people(config, config.rng("people"))
    truth = simulate_genotypes(config, people, config.rng("genomes"))
    raw = tmp_path / "my study" / "raw"
    write_reference(raw / "genetics" / "reference.fa", truth.reference)
    write_windows(raw / "genetics" / "windows.bed", truth.windows)
    write_variants(raw / "genetics" / "cohort.vcf.gz", truth, people.ids)
    (raw / "participants.tsv").write_text("\n".join(["participant_id", *people.ids]) + "\n")
    save_json(raw / "truth.json", "neurohelix.truth", 1, {"arm": "signal"})
    return raw.parent


@pytest.fixture
def run(study, capsys):
    main = importlib.import_module("scripts.embed_genome").main

    def run(*options):
        code = main(["--study", str(study), "--device=cpu", *options])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def error_of(result):
    code, _, err = result
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2
    assert len(lines) == 1
    assert "Traceback" not in err
    return lines[0]


def test_from_files_to_vectors_and_nothing_to_do_the_second_time(study, run):
    code, out, _ = run()
    assert code == 0
    assert "seeded RANDOM weights in the layout of Caduceus, NOT a trained genome model" in out
    assert "weights: seeded RANDOM weights" in out
    assert "people: 12" in out and "unique sequences:" in out and "tie rate:" in out
    vectors = SubjectVectors.load(study / "vectors" / "genetics.safetensors")
    assert len(vectors.ids) == 12
    assert list(vectors.blocks) == ["GENE1", "GENE2"]
    assert vectors.provenance["random_weights"] is True
    assert vectors.provenance["model"] == "caduceus"
    assert vectors.provenance["minus_strand"] == ["GENE2"]
    private = [study / "vectors" / "genetics.safetensors", study / "private" / "genome_people.tsv"]
    private += (study / "cache" / "haplotypes").rglob("*.safetensors")
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert "not a trained" in (study / "raw" / "genetics" / "caduceus" / "README.md").read_text().lower()

    code, out, _ = run()
    assert code == 0
    assert "already done" in out

    before = vectors.values
    code, out, _ = run("--redo=true")
    assert code == 0
    assert "embedded now: 0" in out
    np.testing.assert_array_equal(
        SubjectVectors.load(study / "vectors" / "genetics.safetensors").values, before
    )


def test_other_options_into_the_same_study_are_refused_with_the_difference(study, run):
    assert run()[0] == 0
    assert "pooling: difference -> mean" in error_of(run("--pooling=mean"))
    assert run("--batch_bases=999")[0] == 0  # changes nothing that is kept
    code, out, _ = run("--pooling=mean", "--combine=mean_absdiff", "--redo=true")
    assert code == 0
    assert "12 people x 128 (2 genes)" in out


def test_plan_prints_and_writes_nothing(study, run):
    before = sorted(study.rglob("*"))
    code, out, _ = run("--plan=true")
    assert code == 0
    assert "windows: 2" in out and "unique sequences" in out and "tie rate" in out
    assert sorted(study.rglob("*")) == before


def test_a_real_study_must_name_its_model(study, run):
    (study / "raw" / "truth.json").unlink()
    assert "--model=kuleshov-group/caduceus-ph_seqlen-131k" in error_of(run())
    assert not (study / "raw" / "genetics" / "caduceus").exists()
    assert "neither a folder nor a hub id" in error_of(run("--model=nowhere"))
    assert not (study / "vectors").exists()


def test_a_model_by_folder_and_an_incomplete_one(study, run, tmp_path):
    from encoders.genetics import write_random_checkpoint

    write_random_checkpoint(tmp_path / "ps model", kind="ps", d_model=8, n_layer=1)
    code, out, _ = run(f"--model={tmp_path / 'ps model'}")
    assert code == 0
    assert "model: ps model, caduceus-ps" in out
    assert not (study / "raw" / "genetics" / "caduceus").exists()
    (tmp_path / "ps model" / "model.safetensors").unlink()
    assert "lacks model.safetensors" in error_of(run(f"--model={tmp_path / 'ps model'}", "--redo=true"))


def test_people_in_one_place_only_are_counted_and_listed(study, run):
    table = study / "raw" / "participants.tsv"
    lines = table.read_text().splitlines()
    nearly = lines[-1].split("\t")[0].replace("sub-", "sub-0")
    table.write_text("\n".join([*lines[:-2], "sub-9999", nearly]) + "\n")
    code, out, _ = run()
    assert code == 0
    assert "people: 10" in out
    assert "people in table without genome: 2" in out
    assert "people with genome not in table: 2" in out
    assert "of these with nearly the same id: 1" in out
    listed = (study / "private" / "genome_people.tsv").read_text().splitlines()
    assert listed[0] == "participant_id\tfound"
    assert listed[1] == "sub-9999\tin the table of people, not among the variants"
    assert listed[2].startswith(
        f"{nearly}\tin the table of people, not among the variants, where there is 'sub-"
    )
    assert len(listed) == 5


def variants(study, edit, *, keep_index=False):
    """Rewrite the variants through a function of their text."""
    path = study / "raw" / "genetics" / "cohort.vcf.gz"
    with pysam.BGZFile(str(path)) as file:
        text = file.read().decode()
    plain = path.with_suffix("")
    plain.write_text(edit(text))
    pysam.tabix_compress(str(plain), str(path), force=True)
    plain.unlink()
    if not keep_index:
        pysam.tabix_index(str(path), preset="vcf", force=True)


def test_contigs_1_and_chr1_are_the_same(study, run):
    assert run()[0] == 0
    expected = SubjectVectors.load(study / "vectors" / "genetics.safetensors").values
    variants(study, lambda text: text.replace("\nchr", "\n").replace("ID=chr", "ID="))
    assert run("--redo=true")[0] == 0
    np.testing.assert_array_equal(
        SubjectVectors.load(study / "vectors" / "genetics.safetensors").values, expected
    )


def test_a_stale_index_changes_nothing(study, run):
    index = study / "raw" / "genetics" / "cohort.vcf.gz.tbi"
    stale = index.read_bytes()
    # the last record twice: it overlaps itself, so it is only counted
    variants(study, lambda text: text + text.splitlines()[-1] + "\n")
    index.write_bytes(stale)
    os.utime(index, (time.time() - 100,) * 2)
    code, out, _ = run()
    assert code == 0
    assert "variant records: 13" in out
    assert "variant index: rebuilt: stale, in a temporary folder" in out
    assert index.read_bytes() == stale


def test_a_fault_leaves_no_trace_so_that_the_repaired_study_just_runs(study, run):
    path = study / "raw" / "genetics" / "cohort.vcf.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert "E_VCF" in error_of(run())
    path.write_bytes(whole)
    assert run()[0] == 0


def damage_fasta(study):
    path = study / "raw" / "genetics" / "reference.fa"
    head, _, bases = path.read_text().partition("\n")
    path.write_text(f"{head}\n{bases.translate(str.maketrans('ACGT', 'CGTA'))}")


def cut(study):
    path = study / "raw" / "genetics" / "cohort.vcf.gz"
    path.write_bytes(path.read_bytes()[:-40])


def rows(text, change):
    return (
        "\n".join(line if line.startswith("#") or not line else change(line) for line in text.splitlines())
        + "\n"
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_fasta, r"E_REF: REF differs from the reference at"),
        (lambda s: variants(s, lambda t: t.replace("|", "/")), "E_UNPHASED: "),
        (cut, "E_VCF: .* is truncated"),
        (lambda s: variants(s, lambda t: rows(t, lambda r: r.replace("chr2\t", "chr7\t")).replace("ID=chr2,", "ID=chr7,")),
         "E_CONTIG: window 'GENE2' lies on contig 'chr2'"),
        (lambda s: (s / "raw" / "genetics" / "windows.bed").write_text("chr1\t0\t0\tg\n"), "line 1: start '0' and end"),
        (lambda s: (s / "raw" / "genetics" / "windows.bed").write_text("chr1\t9999999\t99999999\tg\n"), "E_WINDOW"),
        (lambda s: (s / "raw" / "genetics" / "reference.fa").write_text(">chr1\n" + "N" * 2000 + "\n>chr2\n" + "N" * 2000 + "\n"),
         "E_NRICH"),
        (lambda s: (s / "raw" / "genetics" / "windows.bed").unlink(), "windows.bed does not exist; make it with: python scripts/make_cohort"),
        (lambda s: (s / "raw" / "participants.tsv").write_text("participant_id\nA\nA\n"), "1 subject ids appear more than once"),
        (lambda s: (s / "raw" / "participants.tsv").write_text("participant_id\nx\ny\n"), "E_SAMPLE: none of the 2 people"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_leaves_no_output(study, run, damage, message):
    damage(study)
    assert re.search(message, error_of(run()))
    for made in ("vectors", "cache", "runs", "private"):
        assert not (study / made).exists()


def test_wrong_options_are_one_line(run):
    assert "pooling" in error_of(run("--pooling=median"))
    assert "batch_bases is 0" in error_of(run("--batch_bases=0"))
    assert "max_n_share is 2.0" in error_of(run("--max_n_share=2"))
    assert "/no/such.vcf.gz does not exist" in error_of(run("--variants=/no/such.vcf.gz"))


def test_every_yaml_of_this_stage_runs(study, run):
    paths = sorted((ROOT / "configs").glob("*/embed_genome.yaml"))
    assert paths
    for path in paths:
        assert yaml.safe_load(path.read_text())
        assert run(f"--config={path}", "--redo=true")[0] == 0


def test_help_and_a_finished_stage_do_not_wait_for_torch(study, run, tmp_path):
    assert run()[0] == 0
    script = ROOT / "scripts" / "embed_genome.py"
    probe = (
        "import json, runpy, sys\nsys.argv = ['embed_genome.py', *json.loads(sys.argv[1])]\n"
        f"try:\n    runpy.run_path({str(script)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n    print('CODE', end.code, 'torch' in sys.modules)\n"
    )
    for options in (["--help"], ["--study", str(study), "--device=cpu"]):
        done = subprocess.run(
            [sys.executable, "-c", probe, json.dumps(options)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == "CODE 0 False", done.stdout
    assert "already done" in done.stdout
