"""Caduceus as a SequenceEncoder: bases in, strand-invariant vectors out.

The model has no attention mask and reads both ways, so a pad would change the vector at every position.
Batches therefore hold sequences of one length only, which makes batching exact.

Glossary: N sequences · D numbers of a vector.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from encoders.genetics.batches import batches
from encoders.genetics.caduceus import CaduceusModel
from encoders.genetics.caduceus_checkpoint import load_caduceus, read_config
from encoders.genetics.encoder_choice import EncoderFacts
from encoders.genetics.haplotypes import reverse_complement
from encoders.genetics.sequence_encoder import DTYPES, Pool, refuse_longer, stretches
from encoders.genetics.tokenizer import POLICY, encode_bases
from encoders.runs.errors import InputError
from encoders.runs.hub import ModelFiles

STRAND_RULE = {"ph": "mean of the passes over both strands", "ps": "halves folded along length and channels"}
# relative to the largest feature; rounding gives 1e-6 and 1e-2
STRAND_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}


class Caduceus:
    """A frozen Caduceus.

    Args:
        files: The folder with its files, and what it is called.
        device: Where it runs.
        dtype: "fp32" or "bf16"; the states of the scan, and all means, are fp32 either way.
        batch_bases: Bases per batch, which bounds memory; at least one sequence is taken.

    Raises:
        InputError: the files are not a complete Caduceus, or the loaded model treats the strands differently.
    """

    pads = False

    def __init__(
        self,
        files: ModelFiles,
        *,
        device: torch.device | str = "cpu",
        dtype: str = "fp32",
        batch_bases: int = 16384,
    ) -> None:
        model, self.random_weights = load_caduceus(files.folder)
        self.model: CaduceusModel = model.to(device).in_dtype(getattr(torch, DTYPES[dtype]))
        self.batch_bases = batch_bases
        self.max_workers = torch.get_num_threads()  # operations too short to be shared out over cores
        facts = caduceus_facts(files)
        self.name, self.dim, self.context = facts.name, facts.dim, facts.context
        self.operations = facts.operations
        self.identity: dict[str, Any] = {
            "encoder": self.name,
            "architecture": dataclasses.asdict(model.config),
            "weights_sha256": files.sha256("model.safetensors"),
            "tokens": POLICY,
            "strands": STRAND_RULE[model.config.kind],
            "dtype": DTYPES[dtype],
        }
        self._check_strands(files)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.model.embedding.weight.device

    def encode(self, sequences: Sequence[str], *, pool: Pool = "mean") -> Float32[np.ndarray, "N D"]:
        """One vector per sequence, in the order given.

        Args:
            sequences: Bases, of any lengths.
            pool: "mean" over all bases, or one (start, end) stretch of bases per sequence.

        Raises:
            InputError: E_CONTEXT, a sequence is longer than the context.
            ValueError: an empty sequence or stretch, or an unknown kind of pooling.
        """
        refuse_longer(sequences, self.context, self.name)
        spans = stretches(sequences, pool)
        vectors = np.empty((len(sequences), self.dim), np.float32)
        for rows in batches(sequences, self.batch_bases):
            ids = encode_bases([sequences[row] for row in rows]).to(self.device)
            with torch.inference_mode():
                features = self.model.features(ids)
                pooled = [f[slice(*spans[row])].mean(dim=0) for f, row in zip(features, rows, strict=True)]
            vectors[rows] = torch.stack(pooled).cpu().numpy()
        return vectors

    def _check_strands(self, files: ModelFiles) -> None:
        """Whether a sequence and its reverse complement get the same features, read backwards: checked, not hoped."""
        sequence = "ACGTTGCANGGATCCATTAGC"
        ids = encode_bases([sequence, reverse_complement(sequence)]).to(self.device)
        with torch.inference_mode():
            here, there = self.model.features(ids)
        difference = (here - there.flip(0)).abs().max()
        if (
            not torch.isfinite(here).all()
            or difference > STRAND_TOLERANCE[self.identity["dtype"]] * here.abs().max()
        ):
            raise InputError(
                f"{files.folder} gives different features for a sequence and its reverse complement (largest "
                f"difference {difference:.2g}); its weights are not those of a Caduceus"
            )


def caduceus_facts(files: ModelFiles) -> EncoderFacts:
    """What config.json and the name say; no weights are read.

    config.json does not tell the length that a model was trained on, the hub's names do
    (`..._seqlen-131k_...`: the power of two nearest to 131,000). A model without it in its name has no limit: it
    is a recurrence, which takes any length.
    """
    config, _ = read_config(files.folder)
    trained = re.search(r"seqlen-([1-9]\d*)k(?![a-z0-9])", files.name)
    return EncoderFacts(
        name=f"caduceus-{config.kind}",
        dim=config.dim,
        context=2 ** round(math.log2(1000 * int(trained[1]))) if trained else None,
        operations=config.operations,
    )
