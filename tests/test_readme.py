"""What the README tells people to type is taken by the scripts, and what it points at exists."""

import importlib
import re
import shlex

import pytest

from encoders.runs.config import parse
from encoders.runs.study import REPOSITORY

TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")
# in blocks and in tables; `...` stands for whatever the reader has
COMMANDS = sorted(
    {
        line.partition("  #")[0].strip().rstrip("`")
        for line in re.findall(
            r"(?:^|`)((?:\S*python|accelerate launch[^`\n]*?) scripts/\w+\.py[^`\n]*)", TEXT, re.M
        )
        if "..." not in line
    }
)


@pytest.mark.parametrize("typed", COMMANDS)
def test_every_command_is_taken_by_its_script(typed):
    words = shlex.split(typed)
    place = next(k for k, word in enumerate(words) if word.startswith("scripts/"))
    name = words[place].removeprefix("scripts/").removesuffix(".py")
    assert (REPOSITORY / words[place]).exists()
    script = importlib.import_module(f"scripts.{name}")
    command = next(found for found in vars(script).values() if hasattr(found, "config_class"))
    parse(command.config_class, words[place + 1 :], prog=name, description="")


def test_there_are_commands_to_test():
    assert len(COMMANDS) > 20


def test_files_that_the_readme_points_at_exist():
    # configs/STAGE.yaml stands for a file of each stage
    pointed = re.findall(
        r"`((?:scripts|encoders|align|benchmarks|configs|heads)/[a-z\d_./-]+\.(?:py|yaml))`", TEXT
    )
    assert len(pointed) > 4
    assert [path for path in pointed if not (REPOSITORY / path).exists()] == []
