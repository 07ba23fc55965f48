"""Every file that a stage reads when it reads variants: the genotypes and the tables that lie beside them."""

from pathlib import Path

from encoders.genetics.variant_source import TABLES


def variant_inputs(files: list[Path]) -> dict[str, Path]:
    """Label -> file, for the record of a stage: a changed .psam changes who is who.

    Args:
        files: Genotypes, as :func:`encoders.genetics.variant_source.variant_files` finds them.
    """
    found = {}
    for number, path in enumerate(files, 1):
        label = "variants" if len(files) == 1 else f"variants {number}"
        found[label] = path.resolve()
        for table, genotypes in TABLES.items():
            beside = Path(str(path).removesuffix(genotypes) + table)
            if path.name.endswith(genotypes) and beside.is_file():
                found[f"{label} {table}"] = beside.resolve()
    return found
