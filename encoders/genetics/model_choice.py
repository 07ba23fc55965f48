"""Which genome model a run uses when its user named one, and when not. Imports torch only to write weights."""

from pathlib import Path

from encoders.genetics.config import EXAMPLE_MODEL, EmbedGenome
from encoders.runs.errors import InputError
from encoders.runs.hub import FILES
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
                raise InputError(
                    f"no genome model was named and {folder} does not exist; pass a folder or a hub id, e.g. "
                    f"--model={EXAMPLE_MODEL}"
                )
            from encoders.genetics.caduceus_checkpoint import write_random_checkpoint

            write_random_checkpoint(folder)
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
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise InputError(
            f"{folder} lacks {' and '.join(missing)}; a model folder in the Hugging Face layout was wanted"
        )
    return str(folder), {f"model {name}": folder / name for name in FILES}
