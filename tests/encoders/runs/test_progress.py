import re
import sys
import time

from encoders.runs import progress as module
from encoders.runs.progress import progress


def test_what_is_done_soon_leaves_nothing_in_a_log(capsys):
    assert list(progress(range(3), "quick")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_a_log_gets_lines_of_their_own_with_count_rate_and_time_left(capsys, monkeypatch):
    assert not sys.stderr.isatty()
    monkeypatch.setattr(module, "EVERY", 0.05)
    with progress(range(100), "slow", unit="base") as bar:
        for _ in range(4):
            time.sleep(0.06)
            bar.update(20)
    err = capsys.readouterr().err
    assert "\r" not in err
    lines = err.splitlines()
    assert 2 <= len(lines) <= 4
    assert all(
        re.match(r"slow: +[1-9]\d%\|.*\| \d+/100 \[00:00<00:0\d, .*base/s\]$", line) for line in lines
    ), lines


def test_other_processes_are_silent(capsys, monkeypatch):
    monkeypatch.setattr(module, "EVERY", 0.0)
    monkeypatch.setenv("RANK", "1")
    assert list(progress(range(3), "other")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
