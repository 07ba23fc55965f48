"""A study: one folder that holds everything from links to raw data to the report.

Every file that one stage hands to another has a name in `ARTIFACTS`, with the command that makes it,
so that a stage that misses its input can say what to run.
"""

import os
from pathlib import Path

from encoders.runs.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO = REPOSITORY / "studies" / "demo"
DEMO_SETTINGS = REPOSITORY / "configs" / "demo"

# name -> (path inside the study, command that makes it)
ARTIFACTS = {
    "participants": ("raw/participants.tsv", "python scripts/make_cohort.py"),
    "kinship": ("raw/kinship.tsv", "python scripts/make_cohort.py"),
    "scans": ("raw", "python scripts/make_cohort.py"),
    "variants": ("raw/genetics/cohort.vcf.gz", "python scripts/make_cohort.py"),
    "reference": ("raw/genetics/reference.fa", "python scripts/make_cohort.py"),
    "windows": ("raw/genetics/windows.bed", "python scripts/make_cohort.py"),
    "truth": ("raw/truth.json", "python scripts/make_cohort.py"),
    "genome_model": ("raw/genetics/caduceus", "python scripts/make_cohort.py"),
    "splits": ("splits/splits.json", "python scripts/make_splits.py"),
    "store": ("store/manifest.json", "python scripts/prepare_fmri.py"),
    "brainmt": ("runs/pretrain_brainmt/best", "accelerate launch scripts/pretrain_brainmt.py"),
    "brain": ("vectors/brain.safetensors", "python scripts/embed_fmri.py"),
    "genetics": ("vectors/genetics.safetensors", "python scripts/embed_genome.py"),
    "haplotypes": ("cache/haplotypes", "python scripts/embed_genome.py"),
    "aligned": ("runs/align/aligned.safetensors", "accelerate launch scripts/align.py"),
    "index": ("index", "accelerate launch scripts/align.py"),
    "evaluation": ("runs/evaluate/evaluation.json", "python scripts/evaluate.py"),
    "report": ("reports/report.html", "python scripts/report.py"),
}
# vectors beside brain and genetics -> command that makes them
VECTOR_MAKERS = {
    "brain_tuned": "accelerate launch scripts/tune_brainmt.py",
    "brain_static": "python scripts/export_static.py",
    "brain_connectome": "python scripts/export_connectome.py",
    "snps": "python scripts/embed_snps.py",
    "polygenic": "python scripts/embed_scores.py --scores FILE",
}


def name_in_a_sweep() -> str:
    """The id that a W&B agent gives a run: each run of a sweep needs a folder of its own. "" outside a sweep."""
    return os.environ.get("WANDB_RUN_ID", "") if os.environ.get("WANDB_SWEEP_ID") else ""


class Study:
    """Paths of one study folder.

    Args:
        folder: The study folder; it need not exist yet.
    """

    def __init__(self, folder: Path | str = DEMO) -> None:
        self.folder = Path(folder).expanduser().resolve()
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file, but a study is a folder; pass another --study")

    def path(self, name: str) -> Path:
        """Where the artefact ``name`` lies or will lie."""
        return self.folder / ARTIFACTS[name][0]

    def need(self, name: str, given: Path | str | None = None) -> Path:
        """The existing artefact ``name``; a path the user gave wins.

        Raises:
            InputError: it is missing; the message names the command that makes it.
        """
        if given is not None:
            if not Path(given).exists():
                raise InputError(f"{given} does not exist ({name}); pass an existing path")
            return Path(given).expanduser().resolve()
        path = self.path(name)
        if not path.exists():
            raise InputError(f"{path} does not exist; make it with: {self.maker(name)}")
        return path

    def need_vectors(self, modality: str, given: Path | str | None = None) -> Path:
        """The existing vectors of any modality, vectors/NAME.safetensors; a path the user gave wins.

        Raises:
            InputError: they are missing; the message names the command that makes them.
        """
        path = self.folder / "vectors" / f"{modality}.safetensors"
        if given is not None or modality in ARTIFACTS:
            return self.need(modality, given)
        if not path.exists():
            there = sorted(p.stem for p in path.parent.glob("*.safetensors"))
            command = VECTOR_MAKERS.get(
                modality, f"python scripts/import_vectors.py --name {modality} --table FILE"
            )
            raise InputError(
                f"{path} does not exist (there are vectors of: {', '.join(there) or 'nothing'}); make it with: {command} "
                f"--study {self.folder}"
            )
        return path

    def relative(self, path: Path) -> str:
        """A path as it is written into results: relative to the study where it lies in it, so that a study can move."""
        path = Path(path)
        return str(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else str(path)

    def maker(self, name: str) -> str:
        """The command that makes ``name`` in this study."""
        return ARTIFACTS[name][1] + ("" if self.folder == DEMO else f" --study {self.folder}")

    def run_folder(self, stage: str) -> Path:
        """Where the stage keeps its configuration, record, logs and checkpoints."""
        return self.folder / "runs" / stage

    @property
    def private(self) -> Path:
        """Folder of person-level tables; nothing in it may leave the machine."""
        return self.folder / "private"
