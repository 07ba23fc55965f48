"""What a run measured: JSON lines always, W&B when asked. Scalars only: no ids, paths or tables leave."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from encoders.runs.artifact import write_text


class Tracker:
    """Append scalars to `metrics.jsonl` and, if asked, to a W&B run.

    Args:
        folder: Run folder.
        project: W&B project; empty for none.
        config: Resolved configuration shown in W&B, as `dataclasses.asdict` gives it (paths are left out).
        run_id: Id of the W&B run to continue, from the checkpoint.
        resume_step: Lines of later steps, left by a killed run, are dropped.
    """

    def __init__(
        self,
        folder: Path,
        *,
        project: str = "",
        config: dict[str, Any] | None = None,
        run_id: str | None = None,
        resume_step: int | None = None,
    ) -> None:
        self.path = folder / "metrics.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        kept = [
            line for line in read_metrics(folder) if resume_step is not None and line["step"] <= resume_step
        ]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self.run_id, self._run = run_id, None
        if project:
            self._run = _start_wandb(folder, project, config or {}, run_id)
            self.run_id = self._run.id

    def log(self, step: int, scalars: dict[str, float | int]) -> None:
        """Record named scalars of one optimizer step."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **scalars}) + "\n")
        if self._run is not None:
            self._run.log(scalars, step=step)

    def close(self) -> None:
        """End the W&B run, if there is one."""
        if self._run is not None:
            self._run.finish()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All lines of a run's `metrics.jsonl`, oldest first; an unfinished last line is ignored."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the values that name files or folders of this machine."""
    kept = {}
    for key, value in config.items():
        if isinstance(value, dict):
            kept[key] = without_paths(value)
        elif not isinstance(value, Path) and not (isinstance(value, str) and _may_be_path(value)):
            kept[key] = value
    return kept


def _may_be_path(text: str) -> bool:
    return "/" in text or "\\" in text or (text != "" and Path(text).exists())


def _start_wandb(folder: Path, project: str, config: dict[str, Any], run_id: str | None) -> Any:
    import wandb

    mode = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
    if mode == "offline":
        print("W&B: no API key, recording offline; upload later with `wandb sync`", file=sys.stderr)
    settings = wandb.Settings(disable_code=True, disable_git=True, x_disable_machine_info=True, console="off")
    return wandb.init(
        project=project,
        config=without_paths(config),
        id=run_id,
        resume="allow",
        mode=mode,
        dir=str(folder),
        settings=settings,
    )
