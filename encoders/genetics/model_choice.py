"""Which genome model a run uses when its user named one, and when not. Imports torch only to write weights."""

from pathlib import Path

from encoders.genetics.config import EXAMPLE_MODEL, EmbedGenome
from encoders.genetics.encoder_choice import encoder_files, find_model
from encoders.runs.errors import InputError
from encoders.runs.hub import ModelFiles
from encoders.runs.study import Study


def choose_model(config: EmbedGenome, study: Study) -> tuple[str, dict[str, Path]]:
    """The model as a folder or hub id, and its files if they lie in a folder.

    Without ``--model`` it is the study's own folder. A synthetic study that has none yet gets seeded random
    weights there, in plain words; for real people random weights would be a trap, so a model must be named.

    Raises:
        InputError: no model was named for a real study, or its folder is incomplete.
    """
    model = config.model
    if model is None:
        folder = study.path("genome_model")
        if not folder.exists():
            if not study.path("truth").exists():
                raise no_model(folder)
            write_stand_in(folder)
            print(
                f"This is a synthetic study without a genome model, so one was written to {folder}: seeded RANDOM "
                f"weights in the layout of Caduceus, NOT a trained genome model. They tell different alleles "
                f"apart, which is all that this study needs.",
                flush=True,
            )
        model = str(folder)
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return model, {}
    find_model(str(folder))  # says what is missing
    return str(folder), {f"model {path.name}": path for path in encoder_files(folder)}


def model_at_hand(model: str, revision: str | None = None) -> ModelFiles | None:
    """The files of a model if they are on this machine; None if they would have to be downloaded first.

    Raises:
        InputError: a folder that holds no whole model.
    """
    try:
        return find_model(model, revision=revision, local_only=True)[0]
    except InputError as error:
        if error.code != "E_ABSENT":
            raise
        return None


def write_stand_in(folder: Path) -> None:
    """The seeded random model of synthetic studies."""
    from encoders.genetics.caduceus_checkpoint import write_random_checkpoint

    write_random_checkpoint(folder)


def no_model(folder: Path) -> InputError:
    """A real study must name its model."""
    return InputError(
        f"no genome model was named and {folder} does not exist; pass a folder or a hub id, e.g. "
        f"--model={EXAMPLE_MODEL}"
    )
