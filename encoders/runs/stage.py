"""One stage of the chain: what it was asked, what it read, what it wrote, and whether that still holds.

A stage that ended leaves `stage.json` in its run folder. Running it again with the same configuration and
the same inputs does nothing; with another configuration or other inputs it is refused with the difference
shown, so that results in one folder always belong to one configuration.
"""

import atexit
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from encoders.runs.artifact import file_sha256, load_json, save_json, write_text
from encoders.runs.config import differences, to_plain, to_yaml
from encoders.runs.errors import InputError
from encoders.runs.study import Study

KIND, FORMAT = "neurohelix.stage", 1
CONFIG, LOCK = "config.yaml", ".lock"
SMALL = 32 * 2**20  # bytes; larger inputs are recognised by size and time of change, not by their hash


class Stage:
    """The record of one stage in one study.

    Args:
        name: Stage name, also its folder under `runs/`.
        config: The resolved dataclass configuration.
        study: The study it works in.
        inputs: Label -> existing file that the result depends on.
        outputs: Files or folders the stage makes.
        ignore: Configuration keys that cannot change the result (`num_workers`, say).
        redo: Discard an earlier, different run instead of refusing.

    Raises:
        InputError: an earlier run in this folder had another configuration or other inputs.
    """

    def __init__(
        self,
        name: str,
        config: Any,
        *,
        study: Study,
        inputs: Mapping[str, Path] | None = None,
        outputs: Iterable[Path] = (),
        ignore: Iterable[str] = (),
        redo: bool = False,
    ) -> None:
        self.name, self.config, self.study = name, config, study
        self.folder = study.run_folder(name)
        self.outputs = [Path(p) for p in outputs]
        self.is_main = int(os.environ.get("RANK", "0")) == 0
        skip = {"study", "redo", *ignore}
        self._asked = {
            "config": {k: v for k, v in to_plain(config).items() if k not in skip},
            "inputs": {label: _fingerprint(path) for label, path in (inputs or {}).items()},
        }
        self._record_path = self.folder / "stage.json"
        self._asked_path = self.folder / "asked.json"
        self._start = time.monotonic()
        self._redo = redo
        if not redo:
            self._refuse_other_configuration()

    @property
    def finished(self) -> bool:
        """Whether this very work is already done and its outputs are still there."""
        if self._redo or not self._record_path.exists():
            return False
        record = load_json(self._record_path, KIND, FORMAT)
        return record["asked"] == self._asked and _sizes(self.outputs) == record["outputs"]

    def begin(self) -> None:
        """Take the folder: lock it, save the resolved configuration. Only the main process writes.

        With `redo` the earlier run is deleted here, after all input has been found.
        """
        if not self.is_main:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock()
            if self._redo:
                self._discard()
            save_json(self._asked_path, KIND, FORMAT, self._asked)
            write_text(self.folder / CONFIG, to_yaml(self.config))
        except OSError as cause:
            raise InputError(
                f"cannot write to {self.folder} ({cause.strerror}); pass another --study"
            ) from cause

    def share(self) -> None:
        """Record what is asked without taking the folder: for parts of a stage that run at the same time.

        Raises:
            InputError: a part, or the whole, was asked for with another configuration.
        """
        if not self._asked_path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            save_json(self._asked_path, KIND, FORMAT, self._asked)
        self._refuse_other_configuration(begun=True)  # the others may not have made anything yet

    def end(self, **summary: Any) -> int:
        """Record the finished stage and print what it did; returns exit code 0."""
        if self.is_main:
            seconds = round(time.monotonic() - self._start, 1)
            record = {
                "stage": self.name,
                "version": release(),
                "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
                "asked": self._asked,
                "outputs": _sizes(self.outputs),
                "seconds": seconds,
                "summary": summary,
            }
            save_json(self._record_path, KIND, FORMAT, record)
            self._unlock()
            self._print(summary, f"done in {seconds:.1f} s")
        return 0

    def report(self) -> int:
        """Print the summary of the run that is already there; returns exit code 0."""
        if self.is_main:
            self._print(load_json(self._record_path, KIND, FORMAT)["summary"], "already done, nothing to do")
        return 0

    def _print(self, summary: Mapping[str, Any], how: str) -> None:
        print(f"{self.name}: {how}")
        for key, value in summary.items():
            text = f"{value:.4g}" if isinstance(value, float) else value
            print(f"  {key.replace('_', ' ')}: {text}")
        for path in self.outputs:
            print(f"  output: {path}")
        sys.stdout.flush()

    def _refuse_other_configuration(self, *, begun: bool = False) -> None:
        if not self._asked_path.exists() or (self._left_nothing() and not begun):
            return
        lines = differences(load_json(self._asked_path, KIND, FORMAT), self._asked)
        if lines:
            shown = "; ".join(line.removeprefix("config.") for line in lines[:8])
            raise InputError(
                f"{self.folder} holds a run of {self.name} with another configuration or other inputs ({shown}); "
                f"use another --study, or --redo=true to discard that run"
            )

    def _left_nothing(self) -> bool:
        """Whether the earlier run was refused before it made anything: then a corrected command may follow."""
        left = {path.name for path in self.folder.iterdir()} - {self._asked_path.name, CONFIG, LOCK}
        return not left and not any(path.exists() for path in self.outputs)

    def _discard(self) -> None:
        for path in [*self._earlier_outputs(), *self.folder.iterdir(), *self.outputs]:
            if path == self._lock_path:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _earlier_outputs(self) -> list[Path]:
        """What the run that is discarded made in this study: with other options it may have made other files."""
        if not self._record_path.exists():
            return []
        made = map(Path, load_json(self._record_path, KIND, FORMAT)["outputs"])
        wanted = {Path(entry["path"]) for entry in self._asked["inputs"].values()}
        return [path for path in made if path.is_relative_to(self.study.folder) and path not in wanted]

    def _lock(self) -> None:
        self._lock_path = self.folder / LOCK
        mine = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "start": time.time()})
        while True:
            try:
                with open(self._lock_path, "x", encoding="utf-8") as file:
                    file.write(mine)
                atexit.register(self._unlock)
                return
            except FileExistsError:
                holder = _read_lock(self._lock_path)
                if holder and not _is_stale(holder):
                    raise InputError(
                        f"{self.folder} is in use by process {holder['pid']} on {holder['host']}; wait for it, "
                        f"or delete {self._lock_path} if that process is gone"
                    ) from None
                self._lock_path.unlink(missing_ok=True)

    def _unlock(self) -> None:
        path = getattr(self, "_lock_path", None)
        if path is not None and (holder := _read_lock(path)) and holder["pid"] == os.getpid():
            path.unlink(missing_ok=True)


def holder_of(folder: Path) -> dict[str, Any] | None:
    """Host, pid and start of the other process that works in a stage's folder; None if nobody does."""
    holder = _read_lock(folder / LOCK)
    return None if holder is None or _is_stale(holder) else holder


def up_to_date(study: Study, name: str, command: list[str]) -> bool:
    """Whether stage ``name`` ended with this very command line, and its inputs and outputs are unchanged.

    Cheap: reads one small record. The demo uses it to skip a stage without starting its process.
    """
    path = study.run_folder(name) / "stage.json"
    if not path.exists():
        return False
    record = load_json(path, KIND, FORMAT)
    inputs = record["asked"]["inputs"].values()
    return (
        record["command"] == command
        and record["version"] == release()
        and all(
            _fingerprint(Path(entry["path"])) == entry for entry in inputs if Path(entry["path"]).exists()
        )
        and all(Path(entry["path"]).exists() for entry in inputs)
        and _sizes([Path(p) for p in record["outputs"]]) == record["outputs"]
    )


def release() -> str:
    """The installed version of NeuroHelix."""
    try:
        return version("neurohelix")
    except PackageNotFoundError:
        return "not installed"


def _fingerprint(path: Path) -> dict[str, Any]:
    stat = path.stat()
    if path.is_dir():
        return {"path": str(path)}
    if stat.st_size <= SMALL:
        return {"path": str(path), "sha256": file_sha256(path)}
    return {"path": str(path), "size": stat.st_size, "changed_ns": stat.st_mtime_ns}


def _sizes(paths: Iterable[Path]) -> dict[str, int | None]:
    """Bytes of each file (of a folder: the number of its entries); None for what is missing."""

    def size(path: Path) -> int | None:
        if path.is_dir():
            return len(os.listdir(path))
        return path.stat().st_size if path.exists() else None

    return {str(path): size(path) for path in paths}


def _read_lock(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _is_stale(holder: Mapping[str, Any]) -> bool:
    if holder["host"] != socket.gethostname():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return holder["pid"] == os.getpid()
