"""Named ways from the tokens of a model to the vector of a person; a name is never redefined, it gets a new version.

Imports nothing heavy: options name strategies, and `--help` is instant.
"""

from dataclasses import dataclass
from typing import Literal

from encoders.runs.errors import InputError

VERSION = 1

Tokens = Literal["focus", "window", "last"]
Pooling = Literal["difference", "mean"]
Combine = Literal["mean", "mean_absdiff"]
GenesAs = Literal["concatenated", "averaged", "max"]


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """Token -> exon or window -> gene -> person, one choice per step. Exons (windows) of a gene are averaged.

    Args:
        tokens: "focus": mean over the stretch that a window names (an exon, a variant and its surroundings), all
            of it where it names none; "window": mean over all bases; "last": the last position of each strand,
            for models that read in one direction.
        pooling: "difference" from the vector of the reference haplotype, or "mean", the vector as it is.
        combine: Of the two haplotypes: their "mean", or "mean_absdiff", which appends their absolute difference.
        genes_as: Genes "concatenated" in the order of the file, "averaged", or their "max" per number.
        pca: Principal components fitted on training people; 0 for none.
    """

    tokens: Tokens = "focus"
    pooling: Pooling = "difference"
    combine: Combine = "mean"
    genes_as: GenesAs = "concatenated"
    pca: int = 0

    @property
    def description(self) -> str:
        """A name that spells out the steps, for those that were chosen one by one."""
        tokens = {"focus": "token-mean", "window": "whole-window-token-mean", "last": "token-last"}[
            self.tokens
        ]
        name = f"{tokens}_{self.pooling}_haplotype-{self.combine}_window-mean_genes-{self.genes_as}"
        return f"{name}{f'_pca{self.pca}' if self.pca else ''}_v{VERSION}"


STRATEGIES = {
    # the users' knowledge base (neuro-omics-kb): token mean -> exon mean -> gene mean -> genes in manifest order
    "genetics_gene_fm_pca512_v1": Strategy(pooling="mean", pca=512),
    "neurohelix_difference_v1": Strategy(),
    "neurohelix_two_haplotypes_v1": Strategy(combine="mean_absdiff"),
    "neurohelix_last_token_v1": Strategy(tokens="last"),
    "neurohelix_gene_max_v1": Strategy(pooling="mean", genes_as="max"),  # Yoon 2025 found the maximum best
}


def find_strategy(name: str) -> Strategy:
    """The strategy of a name.

    Raises:
        InputError: no strategy is called so; names those that are.
    """
    if name not in STRATEGIES:
        raise InputError(f"strategy {name!r} is not known; the known ones are {', '.join(STRATEGIES)}")
    return STRATEGIES[name]
