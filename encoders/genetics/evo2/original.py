"""The authors' own package behind the same adapter, for those who have Hopper, flash-attn and Transformer Engine.

It computes the projections in FP8 where Transformer Engine is installed, as 1B, 20B and 40B were trained. Nothing
of it is imported unless it is asked for, and it is imported here only.
"""

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from encoders.genetics.evo2.released import RELEASED, released_name
from encoders.runs.errors import InputError
from encoders.runs.hub import ModelFiles


class OriginalEvo2:
    """A model of the `evo2` package.

    Args:
        files: Weights that were found already; their name says which released model it is.

    Raises:
        InputError: E_BACKEND: the package or what it needs is missing; no released name; no `.pt`.
    """

    def __init__(self, files: ModelFiles) -> None:
        weights = sorted(files.folder.glob("*.pt"))
        name = next(filter(None, map(released_name, [*(path.name for path in weights), files.name])), None)
        if name is None:
            raise InputError(
                f"{files.name} has no released name, by which the evo2 package knows its models; call the weights one "
                f"of {', '.join(f'evo2_{known}.pt' for known in RELEASED)}"
            )
        if len(weights) != 1:
            raise InputError(
                f"{files.folder} holds {len(weights)} .pt files; the evo2 package reads one; merge the parts first: "
                f"cat evo2_{name}.pt.part0 evo2_{name}.pt.part1 > evo2_{name}.pt"
            )
        self.model, self.version = _load(f"evo2_{name}", weights[0])

    def output(
        self, ids: Int64[Tensor, "B L"], *, layer: str = "unembed"
    ) -> tuple[Float[Tensor, "B L W"], None]:
        """Output of a named layer; the package computes all of them."""
        if layer == "unembed":
            (logits, _), _ = self.model(ids)
            return logits, None
        _, found = self.model(ids, return_embeddings=True, layer_names=[layer])
        return found[layer].clone(), None


def _load(name: str, path: Path) -> tuple:
    try:
        from evo2 import Evo2
    except (ImportError, OSError, RuntimeError) as cause:
        missing = re.search(r"No module named '([^']+)'", str(cause))
        reason = f"{missing[1]} is missing" if missing else f"{type(cause).__name__}: {cause}"
        raise InputError(
            f"the evo2 package cannot be imported here ({reason}); it needs CUDA, flash-attn, triton and, for 1B, 20B "
            f"and 40B, Transformer Engine on a Hopper GPU: https://github.com/ArcInstitute/evo2. Leave out "
            f"--backend=evo2 to compute with PyTorch alone",
            code="E_BACKEND",
        ) from cause
    if not torch.cuda.is_available():
        raise InputError(
            "the evo2 package runs on CUDA devices only, and none is visible; leave out --backend=evo2",
            code="E_BACKEND",
        )
    try:
        release = version("evo2")
    except PackageNotFoundError:  # imported from a checkout
        release = "unknown"
    return Evo2(name, local_path=str(path)), release
