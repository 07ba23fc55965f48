"""Genomes of a synthetic cohort: reference, variants, phased haplotypes, causal variants, genetic scores.

N people · W windows · V variants per window · F founders · K latents · C causal variants per latent.
Haplotypes are mosaics of a few founders with one recombination hotspot per window, so that a window holds
about a hundred distinct sequences, as a kilobase of a real cohort does. Windows are unlinked.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64

from encoders.cohort.synthetic.config import SyntheticCohort
from encoders.cohort.synthetic.people import People

FLANK = 500  # reference bases before, between and after the windows of a contig
CONTIGS = 22
BASES = np.array(list("ACGT"))
LONGEST_INDEL = 4  # bases gained or lost


@dataclass(frozen=True, kw_only=True)
class Window:
    """One gene window, in reference coordinates (0-based, end excluded)."""

    gene: str
    contig: str
    start: int
    end: int
    strand: str


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One record of the VCF; `position` is 1-based, `alts` holds one or two alleles."""

    contig: str
    position: int
    ref: str
    alts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Genomes:
    """Everything genetic about N people.

    Args:
        reference: Contig -> bases.
        windows: The W gene windows.
        variants: The W x V variants, window by window, by position.
        alleles: (N, 2, W x V) allele carried by each haplotype; 0 is the reference.
        missing: (N, W x V) calls that the genotyping lost; the truth does not know them.
        causal: (K, C) columns of the causal variants of each latent; all have one alternative allele.
        effects: (K, C) effect per copy of the alternative allele, before scores are standardised.
        scores: (N, K) genetic scores, standardised over the cohort.
    """

    reference: dict[str, str]
    windows: list[Window]
    variants: list[Variant]
    alleles: Int8[np.ndarray, "N 2 M"]
    missing: Bool[np.ndarray, "N M"]
    causal: Int64[np.ndarray, "K C"]
    effects: Float64[np.ndarray, "K C"]
    scores: Float64[np.ndarray, "N K"]

    @property
    def dosage(self) -> Int8[np.ndarray, "N M"]:
        """Copies of any alternative allele, 0-2."""
        return (self.alleles > 0).sum(axis=1, dtype=np.int8)


def simulate_genotypes(config: SyntheticCohort, people: People, rng: np.random.Generator) -> Genomes:
    """Draw reference, variants and haplotypes, and choose which variants matter for which latent."""
    windows, reference = _reference(config, rng)
    variants = [
        variant for window in windows for variant in _variants(config, window, reference[window.contig], rng)
    ]
    founders = _founder_alleles(config, variants, rng)
    weights = _founder_weights(config, rng)
    alleles = _haplotypes(config, people, founders, weights, rng)
    causal, effects = _causal(config, variants, founders, weights, rng)
    scores = ((alleles[:, :, causal] > 0).sum(axis=1) * effects).sum(axis=2)
    spread = scores.std(axis=0)
    return Genomes(
        reference=reference,
        windows=windows,
        variants=variants,
        alleles=alleles,
        missing=rng.random((len(alleles), len(variants))) < config.missing_rate,
        causal=causal,
        effects=effects,
        scores=(scores - scores.mean(axis=0)) / np.where(spread > 0, spread, 1.0),
    )


def _reference(config: SyntheticCohort, rng: np.random.Generator) -> tuple[list[Window], dict[str, str]]:
    windows, length = [], {}
    for number in range(config.windows):
        contig = f"chr{number % CONTIGS + 1}"
        start = length.get(contig, 0) + FLANK
        length[contig] = start + config.window_bp
        windows.append(
            Window(
                gene=f"GENE{number + 1}",
                contig=contig,
                start=start,
                end=length[contig],
                strand="+-"[number % 2],
            )
        )
    frequencies = [0.295, 0.205, 0.205, 0.295]  # A C G T: 41 % GC, as in the human genome
    reference = {
        contig: "".join(rng.choice(BASES, size + FLANK, p=frequencies)) for contig, size in length.items()
    }
    return windows, reference


def _variants(config: SyntheticCohort, window: Window, bases: str, rng: np.random.Generator) -> list[Variant]:
    """Variants that never overlap: each has a slot of its own with room for a deletion and a gap."""
    count = config.variants_per_window
    slot = config.window_bp / count
    kinds = np.array(["snv"] * count, dtype="<U6")
    special = rng.permutation(count)
    first_multi, end_multi = config.num_indels, config.num_indels + config.num_multiallelic
    kinds[special[:first_multi]] = "indel"
    kinds[special[first_multi:end_multi]] = "multi"
    variants = []
    for number, kind in enumerate(kinds):
        first = window.start + int(np.ceil(number * slot)) + 1
        last = window.start + int((number + 1) * slot) - LONGEST_INDEL - 2
        at = int(rng.integers(first, last + 1))
        ref, alts = _alleles(str(kind), bases, at, rng)
        variants.append(Variant(contig=window.contig, position=at + 1, ref=ref, alts=alts))
    return variants


def _alleles(kind: str, bases: str, at: int, rng: np.random.Generator) -> tuple[str, tuple[str, ...]]:
    """Reference and alternative alleles at 0-based `at`; indels are left-aligned, as a VCF wants them."""
    anchor = bases[at]
    others = [base for base in "ACGT" if base != anchor]
    lengths = [n for n in range(1, LONGEST_INDEL + 1) if bases[at + n] != anchor]
    if kind == "indel" and lengths and rng.random() < 0.5:
        return bases[at : at + 1 + int(rng.choice(lengths))], (anchor,)
    if kind == "indel":
        inserted = "".join(rng.choice(BASES, int(rng.integers(0, LONGEST_INDEL))))
        return anchor, (anchor + inserted + str(rng.choice(others)),)
    chosen = rng.choice(others, 2 if kind == "multi" else 1, replace=False)
    return anchor, tuple(str(base) for base in chosen)


def _founder_alleles(
    config: SyntheticCohort, variants: list[Variant], rng: np.random.Generator
) -> Int8[np.ndarray, "W F V"]:
    """Common variants: each alternative allele sits on a fifth to four fifths of the founders."""
    count = config.founders
    least = max(1, count // 5)
    columns = []
    for variant in variants:
        column = np.zeros(count, dtype=np.int8)
        carriers = rng.permutation(count)[: int(rng.integers(least, count - least + 1))]
        column[carriers] = 1
        if len(variant.alts) == 2:
            column[carriers[: len(carriers) // 2]] = 2
        columns.append(column)
    return np.stack(columns, axis=1).reshape(count, config.windows, -1).transpose(1, 0, 2)


def _founder_weights(config: SyntheticCohort, rng: np.random.Generator) -> Float64[np.ndarray, "A W F"]:
    """How common each founder is in each of the two ancestries; confounding sets them further apart."""
    shape = (config.windows, config.founders)
    base = rng.dirichlet(np.full(config.founders, 8.0), config.windows)
    tilt = (0.15 + 0.85 * config.resolved_arm.confounding) * rng.standard_normal(shape)
    weights = np.stack([base * np.exp(-tilt), base * np.exp(tilt)])
    return weights / weights.sum(axis=2, keepdims=True)


def _haplotypes(
    config: SyntheticCohort,
    people: People,
    founders: Int8[np.ndarray, "W F V"],
    weights: Float64[np.ndarray, "A W F"],
    rng: np.random.Generator,
) -> Int8[np.ndarray, "N 2 M"]:
    num_windows, _, num_variants = founders.shape

    def draw(ancestry: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "n 2 W 2"]:
        """Founder left and right of the hotspot, for both haplotypes of n unrelated people."""
        limits = weights.cumsum(axis=2)[ancestry][:, None, :, None, :-1]
        founder = (rng.random((len(ancestry), 2, num_windows, 2))[..., None] > limits).sum(axis=-1)
        whole = rng.random(founder.shape[:3]) >= config.recombination
        founder[..., 1] = np.where(whole, founder[..., 0], founder[..., 1])
        return founder

    founder = draw(people.ancestry)
    pairs = people.siblings
    if len(pairs):
        parents = [draw(people.ancestry[pairs[:, 0]]) for _ in range(2)]
        family, window = np.ogrid[: len(pairs), :num_windows]
        for child in pairs.T:
            for side, parent in enumerate(parents):
                inherited = rng.integers(0, 2, (len(pairs), num_windows))
                founder[child, side] = parent[family, inherited, window]
    hotspot = rng.integers(max(1, num_variants // 4), 1 + 3 * num_variants // 4, num_windows)
    right = (np.arange(num_variants) >= hotspot[:, None]).astype(np.int64)
    source = np.take_along_axis(founder, np.broadcast_to(right, (*founder.shape[:3], num_variants)), axis=3)
    window, variant = np.ogrid[:num_windows, :num_variants]
    return founders[window, source, variant].reshape(len(founder), 2, -1)


def _causal(
    config: SyntheticCohort,
    variants: list[Variant],
    founders: Int8[np.ndarray, "W F V"],
    weights: Float64[np.ndarray, "A W F"],
    rng: np.random.Generator,
) -> tuple[Int64[np.ndarray, "K C"], Float64[np.ndarray, "K C"]]:
    """Choose causal variants over all windows evenly, little correlated within one, and their effects."""
    num_windows, _, num_variants = founders.shape
    shape = (config.latents, config.causal_per_latent)
    mean_weights = weights.mean(axis=0)
    used = np.zeros(num_windows)
    taken: dict[int, list[int]] = {w: [] for w in range(num_windows)}
    causal, effects = np.zeros(shape, dtype=np.int64), np.zeros(shape)
    for latent in range(shape[0]):
        here = np.zeros(num_windows)  # variants of this latent per window: one each while there are windows
        for slot in range(shape[1]):
            window = int(np.lexsort((rng.random(num_windows), used, here))[0])
            carried = (founders[window] > 0).astype(float)
            mean = mean_weights[window] @ carried
            spread = np.sqrt(mean * (1 - mean))
            z = (carried - mean) / spread
            correlation = np.abs(z.T @ (z * mean_weights[window][:, None]))
            allowed = [
                v
                for v in range(num_variants)
                if v not in taken[window] and len(variants[window * num_variants + v].alts) == 1
            ]
            overlap = correlation[:, taken[window]].max(axis=1, initial=0.0) + 1e-6 * rng.random(num_variants)
            best = min(allowed, key=lambda v: overlap[v])
            taken[window].append(best)
            used[window] += 1
            here[window] += 1
            causal[latent, slot] = window * num_variants + best
            effects[latent, slot] = rng.choice([-1.0, 1.0]) / spread[best]
    return causal, effects.round(6)
