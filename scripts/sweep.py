"""Run a W&B sweep file without a server, for clusters without internet; finished runs are not run again.

python scripts/sweep.py --study my-study --file configs/sweeps/align_grid.yaml
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.runs import Study, command
from encoders.runs.artifact import content_digest, write_text
from encoders.runs.errors import InputError
from encoders.runs.sweep_config import Sweep


@command
def main(config: Sweep) -> int:
    from encoders.runs.parts import part_of
    from encoders.runs.sweep import arguments, best_value, points, read_sweep

    study = Study(config.study)
    sweep = read_sweep(config.file)
    metric, goal = sweep["metric"]["name"], sweep["metric"]["goal"]
    program, stage = ROOT / sweep["program"], Path(sweep["program"]).stem
    if not program.is_file():
        raise InputError(f"{config.file}: {program} does not exist; a script of this repository was wanted")
    mine, jobs = part_of(config.shard) or (1, 1)
    if sweep["method"] == "bayes":
        print("sweep: Bayesian search needs W&B's server; points are drawn at random instead", flush=True)
    chosen = list(points(sweep, runs=config.runs, seed=config.seed))
    names = [f"{config.file.stem}-{content_digest(arguments(sweep, point))[:8]}" for point in chosen]
    failed = 0
    for number, (name, point) in enumerate(zip(names, chosen, strict=True)):
        if number % jobs != mine - 1:
            continue
        words = [f"--{key}={value}" for key, value in point.items()]
        print(f"sweep: run {number + 1} of {len(chosen)}: {' '.join(words)}", flush=True)
        options = [f"--study={study.folder}", f"--name={name}", *arguments(sweep, point)]
        code = subprocess.run([sys.executable, str(program), *options], check=False).returncode
        if code in (130, 143):
            return code  # interrupted: the same command goes on here
        failed += code != 0
    rows = []
    for name, point in zip(names, chosen, strict=True):
        value = best_value(study.run_folder(f"{stage}_{name}"), metric, goal)
        rows.append((value, name, point))
    sign = -1 if goal == "maximize" else 1
    rows.sort(key=lambda row: (row[0] is None, sign * (row[0] or 0)))
    columns = list(sweep["parameters"])
    lines = ["\t".join([metric, "run", *columns])]
    lines += [
        "\t".join(["" if value is None else f"{value:.6g}", name, *(str(point[c]) for c in columns)])
        for value, name, point in rows
    ]
    table = study.folder / "runs" / f"sweep_{config.file.stem}.tsv"
    write_text(table, "\n".join(lines) + "\n")
    done = [row for row in rows if row[0] is not None]
    print(f"sweep: {len(done)} of {len(chosen)} runs done" + (f", {failed} failed now" if failed else ""))
    if done:
        value, name, point = done[0]
        best = " ".join(f"--{key}={value}" for key, value in point.items())
        print(f"  best {metric}: {value:.4f} ({name})\n  its options: {best}")
    print(f"  output: {table}")
    return 3 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
