"""Configuration: layers, and one clear line for every mistake."""

import dataclasses
import subprocess
import sys
import textwrap

import pytest

from encoders.runs.config import parse
from encoders.runs.errors import InputError

SCRIPT = '''
"""A stage for testing."""
import sys
from dataclasses import dataclass, field
from pathlib import Path
from encoders.runs import Stage, Study, command
from encoders.runs.study import DEMO

@dataclass(frozen=True, kw_only=True)
class Optim:
    """Optimizer.

    Args:
        lr: Peak learning rate per step.
    """
    lr: float = 1e-3

@dataclass(frozen=True, kw_only=True)
class Config:
    """A stage.

    Args:
        study: Study folder.
        optim: The optimizer.
        num_workers: Processes.
        redo: Discard an earlier run.
    """
    study: Path = DEMO
    optim: Optim = field(default_factory=Optim)
    num_workers: int = 1
    redo: bool = False

@command
def main(config: Config) -> int:
    stage = Stage("work", config, study=Study(config.study), ignore=("num_workers",), redo=config.redo)
    if stage.finished:
        return stage.report()
    stage.begin()
    return stage.end(lr=config.optim.lr)

if __name__ == "__main__":
    sys.exit(main())
'''


@pytest.fixture
def run(tmp_path):
    script = tmp_path / "work.py"
    script.write_text(SCRIPT)
    study = tmp_path / "a study"

    def call(*arguments):
        command = [sys.executable, str(script), "--study", str(study), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    call.study = study
    return call


def test_help_explains_every_option_with_its_default(run):
    shown = " ".join(run("--help").stdout.split())
    assert "Peak learning rate per step. (type: float, default: 0.001)" in shown
    assert "--redo" in shown


def test_layers_and_saved_configuration(run, tmp_path):
    own = run.study / "configs" / "work.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("optim: {lr: 3e-3}\nnum_workers: 2\n")
    extra = tmp_path / "extra.yaml"
    extra.write_text("num_workers: 3\n")
    assert run("--config", str(extra)).returncode == 0
    saved = (run.study / "runs" / "work" / "config.yaml").read_text()
    assert "lr: 0.003" in saved
    assert "num_workers: 3" in saved


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--optim.lr=fast"], "Expected a <class 'float'>. Got value: fast"),
        (["--optim.lrr=1"], "unrecognized arguments: --optim.lrr=1"),
        (["--config=none.yaml"], "File does not exist"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(run, arguments, told):
    result = run(*arguments)
    assert result.returncode == 2
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert not run.study.exists()


def test_unknown_key_in_a_file_is_one_line(run, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(textwrap.dedent("optim:\n  lrr: 1\n"))
    result = run(f"--config={path}")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "lrr" in result.stderr


def test_second_run_does_nothing_and_another_configuration_is_refused_with_the_difference(run):
    assert "done in" in run().stdout
    assert "already done" in run("--num_workers=5").stdout
    refused = run("--optim.lr=0.5")
    assert refused.returncode == 2
    assert "optim.lr: 0.001 -> 0.5" in refused.stderr
    assert "--redo=true" in refused.stderr
    assert run("--optim.lr=0.5", "--redo=true").returncode == 0


def test_a_study_that_is_a_file_is_one_sentence(run):
    run.study.write_text("not a folder")
    result = run()
    assert result.returncode == 2
    assert "is a file, but a study is a folder" in result.stderr


def test_hyphens_in_names_and_switches_without_a_value_are_understood():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Switches:
        dry_run: bool = False
        redo: bool = False
        mask_name: str = ""

    def read(*arguments):
        return parse(Switches, list(arguments), prog="x", description="")

    assert read() == Switches()
    assert read("--dry-run", "--mask-name=a-b") == Switches(dry_run=True, mask_name="a-b")
    assert read("--dry_run", "--redo", "--mask_name", "a-b") == Switches(
        dry_run=True, redo=True, mask_name="a-b"
    )
    assert read("--dry-run", "false") == read("--dry-run=false") == Switches()
    with pytest.raises(InputError, match="unrecognized arguments: --dry-runn"):
        read("--dry-runn")
