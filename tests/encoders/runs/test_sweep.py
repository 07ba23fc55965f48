"""Sweep files without a server: the whole grid, seeded draws within their bounds, and what cannot be drawn is said."""

import json

import pytest
import yaml

from encoders.runs.errors import InputError
from encoders.runs.parts import part_of
from encoders.runs.study import REPOSITORY
from encoders.runs.sweep import arguments, best_value, points, read_sweep
from scripts.sweep import main

SWEEPS = REPOSITORY / "configs" / "sweeps"


def test_a_grid_is_enumerated_whole_and_in_order():
    sweep = read_sweep(SWEEPS / "align_grid.yaml")
    grid = list(points(sweep, runs=0, seed=0))
    assert len(grid) == 24 and len({tuple(p.values()) for p in grid}) == 24
    assert list(points(sweep, runs=5, seed=9)) == grid[:5]
    assert arguments(sweep, grid[0]) == [
        "--kinds=[adjusted]",
        "--lr=0.0003",
        "--projector.form=brainmt",
        "--projector.ridge=0.3",
        "--loss=clip",
    ]


@pytest.mark.parametrize("name", ["align", "align_random", "brainmt"])
def test_draws_repeat_with_their_seed_and_stay_within_bounds(name):
    sweep = read_sweep(SWEEPS / f"{name}.yaml")
    drawn = list(points(sweep, runs=50, seed=3))
    assert drawn == list(points(sweep, runs=50, seed=3)) != list(points(sweep, runs=50, seed=4))
    for key, parameter in sweep["parameters"].items():
        values = [point[key] for point in drawn]
        assert len(set(values)) > 1, key
        if "values" in parameter:
            assert set(values) <= set(parameter["values"])
        else:
            assert parameter["min"] <= min(values) and max(values) <= parameter["max"]
    with pytest.raises(InputError, match="has no end by itself; pass --runs"):
        list(points(sweep, runs=0, seed=0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "hyperband"}, "grid, random or bayes was wanted"),
        ({"metric": {"name": "x", "goal": "up"}}, "must be maximize or minimize"),
        (
            {"parameters": {"lr": {"distribution": "normal", "min": 0, "max": 1}}},
            "'normal' is not known here",
        ),
        ({"parameters": {"lr": {"mu": 0}}}, "value, values, or min and max were wanted"),
    ],
)
def test_what_is_no_sweep_is_said(tmp_path, change, message):
    content = yaml.safe_load((SWEEPS / "align_grid.yaml").read_text()) | change
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=message):
        read_sweep(tmp_path / "s.yaml")


def test_the_best_value_is_found_in_the_records_of_a_run(tmp_path):
    (tmp_path / "adjusted").mkdir()
    lines = [{"step": k, "val": v} for k, v in enumerate((0.5, 0.9, float("nan"), 0.7))]
    (tmp_path / "adjusted" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert best_value(tmp_path, "val", "maximize") == 0.9 and best_value(tmp_path, "val", "minimize") == 0.5
    assert best_value(tmp_path, "other", "maximize") is None


def test_a_failed_run_is_counted_and_the_table_is_written(tmp_path, capfd):
    code = main(
        [f"--study={tmp_path}", f"--file={SWEEPS / 'align_grid.yaml'}", "--runs=1"]
    )  # a study without data
    out, err = capfd.readouterr()
    assert code == 3 and "0 of 1 runs done, 1 failed now" in out and "does not exist" in err
    assert (
        (tmp_path / "runs" / "sweep_align_grid.tsv").read_text().startswith("val_auc2afc_matched\trun\tlr\t")
    )


def test_parts_of_the_work():
    assert part_of("") is None and part_of("2/8") == (2, 8)
    for wrong in ("0/3", "4/3", "a/b", "3"):
        with pytest.raises(InputError, match="give i/n with i from 1 to n"):
            part_of(wrong)
