"""Who is tuned on: batches, chunks of them, who is told apart from whom, and who judges.

Glossary: S people · B people of a batch · b those of this process.
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from align.galleries import matched
from align.matched_batches import matched_strata, not_negative, stratum_batches
from align.pairs import Joined, belonging
from align.train import batches
from align.tune_config import TuneBrainMT
from encoders.runs.errors import InputError


class TuningPeople:
    """Who is in which batch, and who is told apart from whom."""

    def __init__(self, joined: Joined, config: TuneBrainMT, device: torch.device) -> None:
        self.train, self.val, self.config = joined.rows("train"), joined.rows("val"), config
        self.ids, self.device = joined.ids, device
        self.batch_size = min(config.batch_size, len(self.train))
        self.batches_per_epoch = len(self.train) // self.batch_size
        groups = belonging(joined.groups, joined.values[joined.modalities[1]])
        for kind, found in zip(
            ("family", f"{joined.modalities[1]} vector"), groups[self.train].T, strict=True
        ):
            if (found == found[0]).all():
                raise InputError(
                    f"all {len(found)} training people have the same {kind}: there is nobody to tell them apart from; "
                    f"look at the {'kinship table' if kind == 'family' else 'vectors'}",
                    code="E_NO_NEGATIVES",
                )
        self.belonging = torch.from_numpy(groups).to(device)
        self.strata, self.variables = None, ()
        families = [joined.groups[k] for k in self.train]
        if config.negatives == "matched":
            self.strata, self.variables = matched_strata(joined.frame.iloc[self.train], families)
        of_all = np.zeros(len(joined.ids), np.int64)
        if self.strata is not None:
            of_all[self.train] = self.strata
        self.stratum = torch.from_numpy(of_all).to(device)
        self.gallery = matched(
            joined.frame.iloc[self.val], joined.frame.iloc[self.train], [joined.groups[k] for k in self.val]
        )

    def batches(self, epoch: int, *, start: int) -> list[Int[np.ndarray, " B"]]:
        """Row numbers of the people of each batch of an epoch from number ``start`` on."""
        options = {"seed": self.config.seed, "epoch": epoch}
        if self.strata is None:
            return list(batches(self.train, self.batch_size, **options))[start:]
        return list(stratum_batches(self.train, self.strata, self.batch_size, **options))[start:]

    def comparison(self, order: Int[np.ndarray, " B"]) -> dict[str, Any]:
        """Options of the loss for the people of a batch."""
        strata = self.stratum[order] if self.strata is not None else None
        exempt = not_negative(self.belonging[order], strata)
        return {"not_negative": exempt, "chunk": self.config.loss_chunk}

    def chunks(self, num_processes: int) -> int:
        """Chunks of each process's part of a batch: as many for each, so that they can agree between chunks."""
        largest = math.ceil(self.batch_size / num_processes)
        return math.ceil(largest / self.config.chunk_size)

    def divided(self, rows: Int[np.ndarray, " b"], chunks: int) -> list[list[str]]:
        """Ids of the people of a part, by chunk; the last ones may be empty."""
        size = self.config.chunk_size
        return [[self.ids[k] for k in rows[n * size : (n + 1) * size]] for n in range(chunks)]
