"""GENERator as a SequenceEncoder: bases in, strand-invariant vectors out.

The model reads from left to right, so what fills up the right end of a shorter sequence changes nothing before
it: batches hold sequences of different lengths. A 6-mer begins where its strand begins; unless the length is a
multiple of 6, the two strands therefore cut the same bases into different 6-mers. Each is read as it is, and the
two vectors are averaged.

Glossary: N sequences · D numbers of a vector · B batch · T tokens.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from encoders.genetics.batches import batches
from encoders.genetics.encoder_choice import EncoderFacts
from encoders.genetics.generator import GeneratorConfig, load_generator, read_config, weight_files
from encoders.genetics.haplotypes import reverse_complement
from encoders.genetics.kmer_tokenizer import PAD, POLICY, encode_kmers, kmers_of
from encoders.genetics.sequence_encoder import DTYPES, Pool, refuse_longer, stretches
from encoders.runs.artifact import content_digest
from encoders.runs.errors import InputError
from encoders.runs.hub import ModelFiles

NAME = "generator"
STRAND_RULE = "mean of the vectors of both strands, each cut into 6-mers from its own start"
POOL_RULE = "a stretch takes every 6-mer that holds one of its bases; last = the last 6-mer of each strand"
STRAND_TOLERANCE = 1e-3  # relative to the largest number of the vector


class Generator:
    """A frozen GENERator.

    Args:
        files: The folder with its files, and what it is called.
        device: Where it runs.
        dtype: "fp32" or "bf16"; means are fp32 either way.
        batch_bases: Bases per batch, pads included, which bounds memory; at least one sequence is taken.

    Raises:
        InputError: the files are not a complete GENERator, or transformers is not installed.
    """

    pads = True

    def __init__(
        self,
        files: ModelFiles,
        *,
        device: torch.device | str = "cpu",
        dtype: str = "fp32",
        batch_bases: int = 16384,
    ) -> None:
        self.model = load_generator(files.folder, dtype=getattr(torch, DTYPES[dtype])).to(device)
        config = read_config(files.folder)
        self.batch_bases, self.random_weights = batch_bases, config.random_weights
        # a batch per core: matrix products shared out over cores give other last bits on another number of them
        self.max_workers = torch.get_num_threads()
        self.name, self.dim, self.context, self.operations = (
            NAME,
            config.dim,
            config.context,
            config.operations,
        )
        weights = {path.name: files.sha256(path.name) for path in weight_files(files.folder)}
        self.identity: dict[str, Any] = {
            "encoder": self.name,
            "architecture": _architecture(config, self.model.config),
            "weights_sha256": weights.popitem()[1] if len(weights) == 1 else content_digest(weights),
            "tokens": POLICY,
            "pools": POOL_RULE,
            "strands": STRAND_RULE,
            "dtype": DTYPES[dtype],
        }
        self._check_strands(files)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.model.device

    def encode(self, sequences: Sequence[str], *, pool: Pool = "mean") -> Float32[np.ndarray, "N D"]:
        """One vector per sequence, in the order given.

        Args:
            sequences: Bases, of any lengths.
            pool: "mean" over all 6-mers, "last" (the one that has seen all others, of each strand), or one
                (start, end) stretch of bases per sequence.

        Raises:
            InputError: E_CONTEXT, a sequence is longer than the context.
            ValueError: an empty sequence or stretch, or an unknown kind of pooling.
        """
        refuse_longer(sequences, self.context, self.name)
        spans = stretches(sequences, "mean" if pool == "last" else pool)
        sequences = [sequence.upper() for sequence in sequences]
        vectors = np.empty((len(sequences), self.dim), np.float32)
        for rows in batches(sequences, self.batch_bases, pads=True):
            ahead = [sequences[row] for row in rows]
            back = [reverse_complement(sequence) for sequence in ahead]
            there = [spans[row] for row in rows]
            turned = [(len(s) - end, len(s) - start) for s, (start, end) in zip(ahead, there, strict=True)]
            both = [self._pooled(*one, last=pool == "last") for one in ((ahead, there), (back, turned))]
            vectors[rows] = (both[0] + both[1]) / 2
        return vectors

    def hidden_states(self, ids: Int64[Tensor, "B T"]) -> Tensor:
        """Outputs of the last norm, (B, T, D), for tokens whose pads, if any, lie on the right.

        There is no attention mask: the model is causal, so no token sees a pad after it, and without one
        PyTorch takes its kernels that never write the square of the attention to memory.
        """
        with torch.inference_mode():
            return self.model(input_ids=ids.to(self.device), use_cache=False).last_hidden_state

    def _pooled(
        self, sequences: list[str], spans: list[tuple[int, int]], *, last: bool
    ) -> Float32[np.ndarray, "N D"]:
        """Vectors of sequences of one batch, of the strand given."""
        tokens = [torch.from_numpy(encode_kmers(sequence)) for sequence in sequences]
        ids = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=PAD)
        rows = []
        for states, own, span in zip(self.hidden_states(ids), tokens, spans, strict=True):
            taken = slice(len(own) - 1, len(own)) if last else kmers_of(*span)
            rows.append(states[taken].float().mean(dim=0))
        return torch.stack(rows).cpu().numpy()

    def _check_strands(self, files: ModelFiles) -> None:
        """Whether a sequence and its reverse complement get the same vector: checked, not hoped."""
        sequence = "ACGTTGCANGGATCCATTAGC"
        one, other = self.encode([sequence, reverse_complement(sequence)])
        if not np.isfinite(one).all() or np.abs(one - other).max() > STRAND_TOLERANCE * np.abs(one).max():
            raise InputError(
                f"{files.folder} gives different vectors for a sequence and its reverse complement (largest "
                f"difference {np.abs(one - other).max():.2g}); its weights are not those of a GENERator"
            )


def _architecture(config: GeneratorConfig, library: Any) -> dict[str, Any]:
    """What of both configurations decides a vector, as JSON."""
    own = {name: value for name, value in dataclasses.asdict(config).items() if name != "random_weights"}
    names = ("rope_parameters", "rms_norm_eps", "hidden_act", "attention_bias", "mlp_bias")
    return own | {name: getattr(library, name) for name in names}


def generator_facts(files: ModelFiles) -> EncoderFacts:
    """What config.json says; no weights are read."""
    config = read_config(files.folder)
    return EncoderFacts(name=NAME, dim=config.dim, context=config.context, operations=config.operations)
