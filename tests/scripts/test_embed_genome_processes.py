"""Several processes of scripts/embed_genome.py: launched together, in parts, beside each other, killed, stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from encoders.cohort.synthetic.config import SyntheticCohort
from encoders.cohort.synthetic.genome_files import write_reference, write_variants, write_windows
from encoders.cohort.synthetic.genomes import simulate_genotypes
from encoders.cohort.synthetic.people import simulate_people
from encoders.genetics import write_random_checkpoint
from encoders.genetics.cache import VectorCache
from encoders.vectors import SubjectVectors

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "scripts" / "embed_genome.py")
BATCH = "--batch_bases=1000"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """60 people and 2 windows of 400 bases: about a hundred sequences, in fifty batches."""
    config = SyntheticCohort(people=60, windows=2, window_bp=400, variants_per_window=16)
    people = simulate_people(config, config.rng("people"))
    truth = simulate_genotypes(config, people, config.rng("genomes"))
    folder = tmp_path_factory.mktemp("raw")
    write_reference(folder / "genetics" / "reference.fa", truth.reference)
    write_windows(folder / "genetics" / "windows.bed", truth.windows)
    write_variants(folder / "genetics" / "cohort.vcf.gz", truth, people.ids)
    (folder / "participants.tsv").write_text("\n".join(["participant_id", *people.ids]) + "\n")
    write_random_checkpoint(folder / "genetics" / "caduceus")
    write_random_checkpoint(folder / "larger", d_model=128, n_layer=8, d_state=16, expand=2)
    return folder


@pytest.fixture
def study(raw, tmp_path):
    def study(name):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "raw").symlink_to(raw)
        return folder

    return study


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": ""}


def start(study, *options, launcher=()):
    command = [sys.executable, *launcher, SCRIPT, "--study", str(study), "--device=cpu", BATCH, *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=environment(), start_new_session=True
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    return out


def run(study, *options, launcher=()):
    return finish(start(study, *options, launcher=launcher))


def result(study):
    return (study / "vectors" / "genetics.safetensors").read_bytes()


def two(port):
    return ["-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes=2",
            f"--main_process_port={port}"]  # fmt: skip


def number(out, name):
    """The count after a name in a summary."""
    (line,) = [line for line in out.splitlines() if line.startswith(f"  {name}:")]
    return int(line.split()[-1])


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < end
        time.sleep(0.02)


def test_one_process_two_processes_and_a_job_array_give_the_same_bytes(study):
    alone, launched, parts = study("alone"), study("launched"), study("parts")
    said = run(alone)
    run(launched, launcher=two(29611))
    assert result(launched) == result(alone)
    assert not (launched / "runs" / "embed_genome" / "processes").exists()

    array = [start(parts, f"--shard={k}/3") for k in (1, 2, 3)]
    made = [finish(process) for process in array]
    assert not (parts / "vectors").exists()
    assert all("when all parts are done, run once without --shard" in out for out in made)
    embedded = [number(out, "embedded now") for out in made]
    assert min(embedded) > 0
    assert sum(embedded) == number(said, "unique sequences") == number(said, "embedded now")
    assert "embedded now: 0\n" in run(parts)
    assert result(parts) == result(alone)


def test_a_fault_is_told_once_and_no_process_hangs(study):
    folder = study("faulty")
    process = start(folder, "--max_n_share=0", "--windows=/nowhere.bed", launcher=two(29612))
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    folder = study("unfit")
    (folder / "table.tsv").write_text("participant_id\nnobody\n")
    process = start(folder, f"--participants={folder / 'table.tsv'}", launcher=two(29613))
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert err.count("error: E_SAMPLE: none of the 1 people") == 1
    assert not (folder / "runs").exists()


def test_two_runs_on_one_cache_at_once_corrupt_nothing(study, tmp_path):
    alone, one, other = study("alone"), study("one"), study("other")
    run(alone)
    shared = f"--cache={tmp_path / 'shared'}"
    both = [start(one, shared), start(other, shared, "--combine=mean_absdiff")]
    for process in both:
        finish(process)
    assert result(one) == result(alone)
    again = study("again")
    assert "embedded now: 0\n" in run(again, shared)
    assert result(again) == result(alone)
    assert not (one / "cache").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_at_any_moment_it_resumes_to_the_same_bytes(raw, study, number):
    model = f"--model={raw / 'larger'}"
    whole, cut = study("whole"), study("cut")
    run(whole, model)
    process = start(cut, model)
    wait_for(lambda: (cut / "cache" / "haplotypes" / ".lock").exists(), process)
    time.sleep(0.5)  # it is claimed a moment before the run takes care of signals
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 143), err[-2000:]
    assert "Traceback" not in err
    assert not (cut / "vectors").exists()
    out = run(cut, model)
    if number == signal.SIGTERM:
        assert "from cache: 0\n" not in out  # what was done was saved first
    assert result(cut) == result(whole)
    assert list((cut / "cache").rglob("*.tmp")) == []


def test_a_killed_process_of_two_ends_the_run_and_the_next_goes_on(raw, study):
    model = f"--model={raw / 'larger'}"
    whole, cut = study("whole"), study("cut")
    run(whole, model)
    process = start(cut, model, launcher=two(29614))
    folder = cut / "runs" / "embed_genome" / "processes"
    wait_for(lambda: len(list(folder.glob("process-*.json"))) == 2, process)
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
    )
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert not (cut / "vectors").exists()
    run(cut, model, launcher=two(29615))
    assert result(cut) == result(whole)
    assert SubjectVectors.load(cut / "vectors" / "genetics.safetensors").ids


def test_a_killed_writer_of_a_shared_cache_leaves_whole_files(raw, study, tmp_path):
    """kill -9 again and again while vectors are written; whoever comes after finds whole files only."""
    writer = (
        "import sys, numpy as np\nfrom encoders.genetics.cache import VectorCache\n"
        "cache = VectorCache(sys.argv[1], {'encoder': 'test'}, 512)\nprint('ready', flush=True)\n"
        "for k in range(10**6):\n"
        "    cache.add([f'{k}A', f'{k}C'], np.full((2, 512), k, np.float32))\n"
    )
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", writer, str(tmp_path / "cache")], stdout=subprocess.PIPE, text=True,
            cwd=ROOT, env=environment(),
        )  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.15)
        process.kill()
        process.wait()
    with VectorCache(tmp_path / "cache", {"encoder": "test"}, 512) as cache:
        count = len(cache) // 2
        assert count > 5
        assert cache.known(cache.keys([f"{k}{base}" for k in range(count) for base in "AC"])).all()
        assert cache.damaged == []
