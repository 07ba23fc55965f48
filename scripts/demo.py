"""The whole chain on a synthetic cohort: raw files, both towers, alignment, verdict, report. Minutes on a laptop.

make demo
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.runs import Study, command
from encoders.runs.stage import up_to_date
from encoders.runs.study import DEMO, DEMO_SETTINGS

QUARANTINED = 3  # exit code of a preparation that left scans out, with reasons
LAUNCHED = ("pretrain_brainmt", "align")  # started with `accelerate launch`, as a user would
STAGES = {
    "make_cohort": "a synthetic cohort with known truth: scans, variants, tables",
    "prepare_fmri": "check every scan and put it into the store",
    "make_splits": "training, validation and held-out people; no family is cut",
    "pretrain_brainmt": "train BrainMT on noisy traits of the training people",
    "embed_fmri": "one vector per person from the scans",
    "embed_genome": "two haplotypes per person, each distinct one embedded once",
    "align": "train both projectors, build the retrieval index",
    "evaluate": "held-out people: raw, confound-adjusted, confound-matched",
    "report": "the verdict, the tables and the figures on one page",
}


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Run every stage of the demonstration; what is already done is skipped.

    Args:
        study: Folder of the demonstration.
        arm: Cohort to simulate: signal, null, confounded or leak; default: what the settings say.
        settings: Folder with a YAML file per stage; copied into a new study other than the default one.
    """

    study: Path = DEMO
    arm: Literal["signal", "null", "confounded", "leak"] | None = None
    settings: Path = DEMO_SETTINGS


@command
def main(config: Demo) -> int:
    study, start = Study(config.study), time.monotonic()
    print(f"NeuroHelix demo in {study.folder}", flush=True)
    arguments = [] if study.folder == DEMO else [f"--study={study.folder}"]
    if study.folder != DEMO and not (study.folder / "configs").exists():
        shutil.copytree(config.settings, study.folder / "configs")
    for number, (stage, what) in enumerate(STAGES.items(), 1):
        print(f"\n[{number}/{len(STAGES)}] {what}", flush=True)
        extra = [f"--arm={config.arm}"] if config.arm and stage == "make_cohort" else []
        if up_to_date(study, stage, [f"{stage}.py", *arguments, *extra]):
            print(f"{stage}: already done", flush=True)
            continue
        code = run(stage, [*arguments, *extra], launched=stage in LAUNCHED)
        if code == QUARANTINED:
            print(f"{stage}: some scans were left out (see above); going on without them", flush=True)
        elif code:
            print(f"error: {stage} ended with exit code {code}; see above", file=sys.stderr)
            return code
    from encoders.cohort.splits import Split

    print("\nWhose genome belongs to this held-out brain?", flush=True)
    person = Split.load(study.path("splits")).test[0]
    if code := run("retrieve", [f"--subject={person}", "--k=5", *arguments], launched=False):
        return code
    print(
        f"\nDone in {time.monotonic() - start:.0f} s. Study: {study.folder}\nReport: {study.path('report')}"
    )
    return 0


def run(stage: str, arguments: list[str], *, launched: bool) -> int:
    """Run one stage as a process of its own, as a user would."""
    script = Path("scripts") / f"{stage}.py"
    launcher = ["launch", "--config_file", "configs/accelerate/one_process.yaml"] if launched else []
    shown = ["accelerate", *launcher] if launched else ["python"]
    print("$ " + " ".join([*shown, str(script), *arguments]), flush=True)
    module = ["-m", "accelerate.commands.accelerate_cli"] if launched else []
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    command_line = [sys.executable, *module, *launcher, str(script), *arguments]
    return subprocess.run(command_line, env=environment, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
