"""Linkage disequilibrium: of two variants that say the same about the training people, keep the first.

Glossary: R variants of a chunk · N training people · K kept variants of earlier chunks within reach.
"""

import numpy as np
from jaxtyping import Bool, Float32, Int64


class LDPruner:
    """Greedy pruning in file order, fed chunk by chunk.

    Args:
        r2: Least squared correlation at which the later variant is left out; 1 keeps all.
        reach: How far apart (bases) a pair may be.
    """

    def __init__(self, *, r2: float | int, reach: float | int) -> None:
        self.r2, self.reach = r2, reach
        self._contig = ""

    def keep(
        self,
        contig: str,
        positions: Int64[np.ndarray, " R"],
        dosages: Float32[np.ndarray, "R N"],
    ) -> Bool[np.ndarray, " R"]:
        """Which variants stay.

        Args:
            contig: Contig of the chunk; the chunks of a contig come in order.
            positions: Positions, ascending.
            dosages: Training people's dosages, mean 0 per variant, none constant.
        """
        if self.r2 >= 1 or not len(positions):
            return np.ones(len(positions), bool)
        unit = dosages / np.linalg.norm(dosages, axis=1, keepdims=True)
        if contig != self._contig:
            self._contig = contig
            self._rows, self._positions = unit[:0], positions[:0]
        rows, places = np.concatenate([self._rows, unit]), np.concatenate([self._positions, positions])
        linked = np.square(rows @ unit.T) >= self.r2
        linked &= places[:, None] >= positions[None, :] - self.reach
        before = len(self._rows)
        alive = np.arange(len(rows)) < before
        for k in range(len(positions)):
            alive[before + k] = not (linked[: before + k, k] & alive[: before + k]).any()
        remembered = alive & (places >= positions[-1] - self.reach)
        self._rows, self._positions = rows[remembered], places[remembered]
        return alive[before:]
