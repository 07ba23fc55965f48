"""Tracking: scalars survive a kill and a resume; W&B records offline and never sees a path."""

from pathlib import Path

from encoders.runs.tracking import Tracker, read_metrics, without_paths


def test_lines_after_the_checkpoint_are_dropped_on_resume(tmp_path):
    tracker = Tracker(tmp_path)
    for step in (1, 2, 3):
        tracker.log(step, {"loss": 1.0 / step})
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 4, "lo')  # killed in the middle of a line
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    resumed = Tracker(tmp_path, resume_step=2)
    resumed.log(3, {"loss": 0.5})
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [(1, 1.0), (2, 0.5), (3, 0.5)]
    assert Tracker(tmp_path) and read_metrics(tmp_path) == []  # a new run starts anew


def test_wandb_records_offline_without_a_key(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = Tracker(tmp_path, project="p", config={"lr": 0.1})
    tracker.log(1, {"loss": 2.0})
    tracker.close()
    assert tracker.run_id
    assert len(list((tmp_path / "wandb").rglob("*.wandb"))) == 1
    assert [line["loss"] for line in read_metrics(tmp_path)] == [2.0]


def test_no_path_of_this_machine_is_shown_to_wandb(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models-of-ward-7").mkdir()
    config = {"lr": 0.1, "study": "/data/s", "model": {"width": 8, "weights": "C:\\w"}, "loss": "clip"}
    config |= {"store": Path("ward-7"), "weights": "models-of-ward-7"}  # relative: without any slash
    assert without_paths(config) == {"lr": 0.1, "model": {"width": 8}, "loss": "clip"}
