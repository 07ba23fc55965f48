"""Evo 2 as a SequenceEncoder: bases in, strand-invariant vectors out; likelihood scores as a by-product.

The model reads from left to right, so pads on the right change nothing before them: a batch holds sequences of
different lengths. Both strands are read, each from its own 5' end, and their vectors averaged.

Glossary: N sequences · D numbers of a vector · B batch · L positions.
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from encoders.genetics.batches import batches
from encoders.genetics.evo2.devices import Place, load_on
from encoders.genetics.evo2.model_files import read_config
from encoders.genetics.evo2.original import OriginalEvo2
from encoders.genetics.evo2.released import MODEL_TYPE, fp8_warning, needs_fp8
from encoders.genetics.evo2.tokenizer import POLICY, encode_bytes
from encoders.genetics.evo2.weight_files import SafetensorsFile, open_weights
from encoders.genetics.haplotypes import reverse_complement
from encoders.genetics.sequence_encoder import DTYPES, Pool, refuse_longer, stretches
from encoders.runs.artifact import content_digest
from encoders.runs.errors import InputError
from encoders.runs.hub import ModelFiles

STRAND_RULE = "mean of the vectors of both strands, each read from its 5' end"
SCORED = 2_048  # positions whose logits are held at a time
UNTOUCHED = (
    "model_name",
    "max_seqlen",
    "use_fp8_input_projections",
)  # of the configuration: decide no vector


class Evo2:
    """A frozen Evo 2.

    Args:
        files: The folder with its files, and what it is called.
        device: Where it runs; the whole of it, unless there is a map.
        dtype: "fp32" or "bf16"; poles, angles, convolutions and all means are fp32 either way.
        batch_bases: Bases per batch, pads included, which bounds memory; at least one sequence is taken.
        layer: Whose output is pooled, as the authors call it; default: :meth:`Evo2Config.default_layer`.
        backend: "own", or "evo2": the authors' package.
        device_map: "auto", or Accelerate's map of modules to devices, for models larger than one card.
        max_memory: Device number or "cpu" -> bytes for "auto".
        offload: Folder for what fits into no memory; default: a temporary one.

    Raises:
        InputError: the files are not a complete Evo 2, no such layer, or the evo2 package cannot run here.
    """

    pads = True
    max_workers = 1  # its matrix products are large enough to be shared out over the cores

    def __init__(
        self,
        files: ModelFiles,
        *,
        device: torch.device | str = "cpu",
        dtype: str = "fp32",
        batch_bases: int = 16384,
        layer: str | None = None,
        backend: Literal["own", "evo2"] = "own",
        device_map: str | Mapping[str, Place] | None = None,
        max_memory: Mapping[int | str, int | str] | None = None,
        offload: Path | None = None,
    ) -> None:
        self.config, self.random_weights = read_config(files)
        self.layer = layer or self.config.default_layer()
        self.config.check_layer(self.layer)
        self.batch_bases = batch_bases
        self.name, self.context, self.dim = MODEL_TYPE, self.config.max_seqlen, self.config.width(self.layer)
        weights = open_weights(files.folder)
        hashes = {path.name: files.sha256(path.name) for path in weights.files}
        rules: dict[str, Any] = {"dtype": DTYPES[dtype]}
        if backend == "evo2" and device_map is not None:
            raise InputError(
                "--backend=evo2 spreads a model over the GPUs itself; leave out --device_map, or --backend=evo2"
            )
        if backend == "evo2":
            self.model: Any = OriginalEvo2(files)
            self._device = torch.device("cuda")
            rules = {"dtype": "bfloat16", "backend": f"evo2 {self.model.version}"}
        else:
            if needs_fp8(self.config):
                warnings.warn(fp8_warning(self.config), stacklevel=2)
                rules["fp8_projections"] = "computed without FP8, unlike in training"
            if isinstance(weights, SafetensorsFile):
                weights.check(hashes)
            if device_map == "auto" and offload is None:
                self._offload = TemporaryDirectory(
                    prefix="neurohelix-offload-"
                )  # lives as long as the encoder
                offload = Path(self._offload.name)
            loaded, self._device = load_on(
                weights,
                self.config,
                device=device,
                dtype=getattr(torch, DTYPES[dtype]),
                device_map=device_map,
                max_memory=max_memory,
                offload=offload,
                bases=batch_bases,
            )
            self.model = loaded.model
        shape = {
            name: value for name, value in dataclasses.asdict(self.config).items() if name not in UNTOUCHED
        }
        self.identity: dict[str, Any] = {
            "encoder": self.name,
            "architecture": {k: list(v) if isinstance(v, tuple) else v for k, v in shape.items()},
            "weights_sha256": next(iter(hashes.values())) if len(hashes) == 1 else content_digest(hashes),
            "layer": self.layer,
            "tokens": POLICY,
            "strands": STRAND_RULE,
            **rules,
        }
        self._check_finite(files)

    @property
    def device(self) -> torch.device:
        """Where the inputs go."""
        return self._device

    def operations(self, length: int) -> float:
        """Floating-point operations for one sequence, both strands, up to the layer, counted on paper."""
        return 2 * self.config.operations(length, layer=self.layer)

    def encode(self, sequences: Sequence[str], *, pool: Pool = "mean") -> Float32[np.ndarray, "N D"]:
        """One vector per sequence, in the order given.

        Args:
            sequences: Bases, of any lengths; letters are taken as they are.
            pool: "mean" over all bases, "last" (the one position of each strand that has seen all others), or one
                (start, end) stretch of bases per sequence, such as a variant and its surroundings.

        Raises:
            InputError: E_CONTEXT, a sequence is longer than the context.
            ValueError: an empty sequence or stretch, or an unknown kind of pooling.
        """
        refuse_longer(sequences, self.context, self.name)
        spans = stretches(sequences, "mean" if pool == "last" else pool)
        vectors = np.empty((len(sequences), self.dim), np.float32)
        for rows in batches(sequences, self.batch_bases, pads=True):
            ahead = [sequences[row] for row in rows]
            back = [reverse_complement(sequence) for sequence in ahead]
            there = [spans[row] for row in rows]
            turned = [(len(s) - end, len(s) - start) for s, (start, end) in zip(ahead, there, strict=True)]
            if pool == "last":
                there = turned = [(len(sequence) - 1, len(sequence)) for sequence in ahead]
            vectors[rows] = (self._pooled(ahead, there) + self._pooled(back, turned)) / 2
        return vectors

    def score(
        self, sequences: Sequence[str], *, reduce: Literal["mean", "sum"] = "mean", both_strands: bool = False
    ) -> Float32[np.ndarray, " N"]:
        """Log-likelihood of each sequence, given its first base: over bases 2 to L, natural logarithms.

        Pads count nowhere, whatever shares the batch. (The authors' `score_sequences` counts, in batches of unequal
        lengths, the probability of one pad behind each shorter sequence.)

        Args:
            sequences: Bases, two at least.
            reduce: Mean per base, or their sum.
            both_strands: Average with the score of the reverse complement.

        Raises:
            InputError: E_CONTEXT, a sequence is longer than the context.
            ValueError: a sequence of less than two bases.
        """
        refuse_longer(sequences, self.context, self.name)
        if short := [sequence for sequence in sequences if len(sequence) < 2]:
            raise ValueError(
                f"{len(short)} sequences have less than two bases; a score needs a base and its successor"
            )
        scores = np.empty(len(sequences), np.float32)
        for rows in batches(sequences, self.batch_bases, pads=True):
            strands = [[sequences[row] for row in rows]]
            if both_strands:
                strands.append([reverse_complement(sequence) for sequence in strands[0]])
            found = np.mean([self._likelihoods(strand) for strand in strands], axis=0)
            lengths = np.array([len(sequence) - 1 for sequence in strands[0]])
            scores[rows] = found / lengths if reduce == "mean" else found
        return scores

    def _pooled(self, sequences: list[str], spans: list[tuple[int, int]]) -> Float32[np.ndarray, "N D"]:
        """Vectors of one batch, of the strand given."""
        features = self._output(encode_bytes(sequences), self.layer)
        rows = [
            own[slice(*span)].mean(dim=0, dtype=torch.float32)
            for own, span in zip(features, spans, strict=True)
        ]
        return torch.stack(rows).cpu().numpy()

    def _likelihoods(self, sequences: list[str]) -> np.ndarray:
        """Sum of the logarithms of the probabilities of all bases but the first, (N,)."""
        ids = encode_bytes(sequences)
        normed = self._output(ids, "norm" if isinstance(self.model, torch.nn.Module) else "unembed")
        totals = np.zeros(len(sequences))
        targets = ids[:, 1:].to(normed.device)
        lengths = torch.tensor([len(sequence) - 1 for sequence in sequences], device=normed.device)
        for first in range(0, targets.shape[1], SCORED):
            wanted = targets[:, first : first + SCORED]
            piece = normed[:, first : first + wanted.shape[1]]
            with torch.inference_mode():
                logits = self.model.unembed(piece) if isinstance(self.model, torch.nn.Module) else piece
                found = torch.log_softmax(logits.float(), dim=-1).gather(2, wanted[..., None])[..., 0]
                inside = torch.arange(first, first + wanted.shape[1], device=found.device) < lengths[:, None]
                totals += found.double().masked_fill(~inside, 0).sum(dim=1).cpu().numpy()
        return totals

    def _output(self, ids: Tensor, layer: str) -> Tensor:
        with torch.inference_mode():
            return self.model.output(ids.to(self._device), layer=layer)[0]

    def _check_finite(self, files: ModelFiles) -> None:
        """Whether a short sequence gets finite numbers that depend on its bases: tried, not hoped."""
        found = self._pooled(["ACGTTGCANGGATCCATTAGC", "ACGTTGCANGGATCCATTAGG"], [(0, 21)] * 2)
        if not np.isfinite(found).all() or np.array_equal(found[0], found[1]):
            raise InputError(
                f"{files.folder} gives {'equal' if np.isfinite(found).all() else 'NaN or infinite'} features at "
                f"{self.layer} for two different sequences; its weights are not those of a trained Evo 2"
            )
