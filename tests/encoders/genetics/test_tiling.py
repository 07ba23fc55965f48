import itertools

import numpy as np
import pytest
import torch

from encoders.genetics.sequence_encoder import SequenceEncoder, refuse_longer, stretches
from encoders.genetics.tiling import TiledEncoder, tiles
from encoders.runs.errors import InputError


class Composition:
    """A real, if simple, encoder: shares of A, C, G, T in a stretch, which tiles must give back exactly."""

    name, dim, identity, random_weights = "composition", 4, {"encoder": "composition"}, False
    context, pads, max_workers, device = 10, False, 1, torch.device("cpu")

    def operations(self, length):
        return float(length)

    def encode(self, sequences, *, pool="mean"):
        refuse_longer(sequences, self.context, self.name)
        spans = stretches(sequences, pool)
        shares = [
            [sequence[start:end].count(base) / (end - start) for base in "ACGT"]
            for sequence, (start, end) in zip(sequences, spans, strict=True)
        ]
        return np.array(shares, np.float32)


@pytest.mark.parametrize("length", range(1, 150))
@pytest.mark.parametrize("overlap", [0, 1, 2, 5])
def test_tiles_cover_everything_overlap_enough_and_lie_symmetrically(length, overlap):
    found = tiles(length, 10, overlap)
    assert found[0][0] == 0 and found[-1][1] == length
    assert all(0 < end - start <= 10 for start, end in found)
    assert all(a[1] - b[0] >= overlap for a, b in itertools.pairwise(found))
    assert found == [(length - end, length - start) for start, end in reversed(found)]


def test_a_long_window_is_the_mean_over_its_tiles_weighted_by_bases():
    encoder = TiledEncoder(Composition(), overlap=0)
    assert isinstance(encoder, SequenceEncoder) and encoder.context is None
    # 15 bases in two tiles of 10, which share five
    vectors = encoder.encode(["AAAAACCCCCGGGGG", "ACGT"])
    np.testing.assert_allclose(vectors, [[0.25, 0.5, 0.25, 0], [0.25] * 4])
    # a stretch counts where it lies, in every tile that holds some of it
    np.testing.assert_allclose(encoder.encode(["AAAAACCCCCGGGGG"], pool=[(0, 5)]), [[1, 0, 0, 0]])
    np.testing.assert_allclose(encoder.encode(["AAAAACCCCCGGGGG"], pool=[(4, 12)]), [[1 / 13, 10 / 13, 2 / 13, 0]])  # fmt: skip
    assert encoder.operations(15) == 20
    assert encoder.identity["long_windows"]["tile_bases"] == 10
    assert encoder.identity["encoder"] == "composition"


def test_what_fits_is_not_touched_and_what_cannot_be_is_said():
    inner = Composition()
    encoder = TiledEncoder(inner, overlap=None)
    assert encoder.overlap == 1
    np.testing.assert_array_equal(encoder.encode(["ACGTACGTAC"]), inner.encode(["ACGTACGTAC"]))
    with pytest.raises(InputError, match="E_CONTEXT: the last token of a window longer than the context"):
        encoder.encode(["A" * 11], pool="last")
    with pytest.raises(InputError, match="tile_overlap is 6; at most half of the context"):
        TiledEncoder(inner, overlap=6)
