"""Where the vectors of rivals lie in a study, and which modality each stands for. Imports nothing heavy."""

from pathlib import Path

# name of the rival -> (file of its vectors below the study, the modality that they stand for)
FROM_FILES = {
    "static_brain": ("vectors/brain_static.safetensors", "brain"),
    "connectome": ("vectors/brain_connectome.safetensors", "brain"),
    "linear_snps": ("vectors/snps.safetensors", "genetics"),
    "polygenic_scores": ("vectors/polygenic.safetensors", "genetics"),
}


def vector_files(folder: Path, modalities: tuple[str, str]) -> dict[str, Path]:
    """Files of rivals' vectors that lie in a study, for the two modalities that are evaluated."""
    files = {name: folder / file for name, (file, of) in FROM_FILES.items() if of in modalities}
    return {name: path for name, path in files.items() if path.exists()}
