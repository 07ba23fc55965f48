"""From personal genomes to subject vectors: haplotypes, unique sequences, a DNA language model, pooling.

Reference FASTA + phased variants -> two haplotypes per person and window (`haplotypes`) -> each distinct
sequence embedded once (`cache`) -> one vector per person with a block per gene (`pooling`).
"""

from importlib import import_module

_HOME = {
    "Caduceus": "caduceus_encoder",
    "EmbedGenome": "config",
    "PhasedVariants": "variants",
    "Reference": "reference",
    "SequenceEncoder": "sequence_encoder",
    "open_variants": "variant_source",
    "load_encoder": "encoder_choice",
    "read_windows": "windows",
    "write_random_checkpoint": "caduceus_checkpoint",
}

__all__ = [
    "Caduceus",
    "EmbedGenome",
    "PhasedVariants",
    "Reference",
    "SequenceEncoder",
    "load_encoder",
    "open_variants",
    "read_windows",
    "write_random_checkpoint",
]


def __getattr__(name: str):
    """Import a public name when it is first used: `--help` must not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
