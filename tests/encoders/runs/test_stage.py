"""Stages: locks, changed inputs, missing inputs with the command that makes them."""

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from encoders.runs import InputError, Stage, Study
from encoders.runs.stage import up_to_date


@dataclass(frozen=True)
class Config:
    size: int = 1


def test_changed_input_and_lost_output_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["scripts/work.py", "--size=1"])
    study = Study(tmp_path)
    source, output = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("one")

    def stage():
        return Stage("work", Config(), study=study, inputs={"source": source}, outputs=[output])

    first = stage()
    assert not first.finished
    first.begin()
    output.write_text("result")
    first.end(people=3)
    assert stage().finished
    assert up_to_date(study, "work", ["work.py", "--size=1"])
    assert not up_to_date(study, "work", ["work.py", "--size=2"])
    output.unlink()
    assert not stage().finished
    source.write_text("two")
    assert not up_to_date(study, "work", ["work.py", "--size=1"])
    with pytest.raises(InputError, match=r"inputs\.source\.sha256"):
        stage()


def test_a_command_that_was_refused_before_it_made_anything_may_be_corrected(tmp_path):
    study, output = Study(tmp_path), tmp_path / "out.txt"
    Stage("work", Config(size=1), study=study, outputs=[output]).begin()  # and refused by what came next
    corrected = Stage("work", Config(size=2), study=study, outputs=[output])
    corrected.begin()
    for made in (output, corrected.folder / "partial.txt"):
        made.write_text("half of it")
        with pytest.raises(InputError, match=r"another configuration or other inputs \(size: 2 -> 3\)"):
            Stage("work", Config(size=3), study=study, outputs=[output])
        made.unlink()
    Stage("work", Config(size=3), study=study, outputs=[output]).begin()


def test_a_second_process_is_refused_and_a_dead_one_is_not_waited_for(tmp_path):
    study = Study(tmp_path)
    holder = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    first = Stage("work", Config(), study=study)
    first.begin()
    lock = first.folder / ".lock"
    lock.write_text(lock.read_text().replace(str(os.getpid()), str(holder.pid)))
    with pytest.raises(InputError, match=f"in use by process {holder.pid}"):
        Stage("work", Config(), study=study).begin()
    holder.communicate(b"\n")
    Stage("work", Config(), study=study).begin()


def test_missing_input_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(InputError, match=r"make it with: python scripts/make_splits.py --study"):
        Study(tmp_path).need("splits")
    with pytest.raises(InputError, match=r"nowhere does not exist \(kinship\)"):
        Study(tmp_path).need("kinship", tmp_path / "nowhere")


def test_a_file_that_was_not_asked_for_before_is_named_without_its_record(tmp_path):
    study, source, output = Study(tmp_path), tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("one")
    first = Stage("work", Config(), study=study, inputs={}, outputs=[output])
    first.begin()
    output.write_text("result")
    first.end()
    with pytest.raises(InputError) as error:
        Stage("work", Config(), study=study, inputs={"model": source}, outputs=[output])
    assert f"(inputs.model: (absent) -> {source});" in str(error.value)


def test_redo_with_other_options_leaves_nothing_of_the_earlier_run(tmp_path):
    study, elsewhere = Study(tmp_path / "study"), tmp_path / "elsewhere.txt"
    main, extra = study.folder / "vectors.txt", study.folder / "components.txt"
    first = Stage("work", Config(size=1), study=study, outputs=[main, extra, elsewhere])
    first.begin()
    for path in (main, extra, elsewhere):
        path.write_text("first")
    first.end()
    again = Stage("work", Config(size=2), study=study, outputs=[main], redo=True)
    again.begin()
    assert not main.exists() and not extra.exists()
    assert elsewhere.exists()  # not of this study
