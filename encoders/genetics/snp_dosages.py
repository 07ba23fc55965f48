"""Dosages of a cohort, filtered and standardised by what the training people show, read in pieces.

A variant's dosage is z = (copies of ALT - 2p) / sqrt(2p(1 - p)), p the frequency of ALT among the training people; a
missing one becomes 0, their mean. Held-out people decide nothing: neither p, nor which variants stay.

Glossary: R variants of a piece · V variants used · S people, of whom the first N are training people.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import psutil
from jaxtyping import Float32, Float64, Int64

from encoders.genetics.ld_pruning import LDPruner
from encoders.genetics.snp_config import EmbedSNPs
from encoders.genetics.snp_regions import Regions
from encoders.genetics.variant_source import Dosages, VariantSource
from encoders.runs.errors import InputError
from encoders.runs.progress import progress

FIRST_STEP = 5_000  # bases; later steps follow the density of the file
PIECE = 2**25  # dosages of a piece, about
FULLEST = 8  # times as many, where variants lie close together behind a gap ...
DENSEST = 20  # ... a variant every 20 bases, say
LARGEST_SHARE = (
    0.4  # of the free memory that the standardised dosages may take; the components need as much again
)
NO_VARIANTS = (
    "*",
    "<*>",
    "<NON_REF>",
    ".",
)  # what gVCFs and overlapping deletions write in place of an allele


@dataclass(frozen=True, kw_only=True)
class SNPMatrix:
    """Standardised dosages.

    Args:
        values: (V, S) z of every variant, 0 where missing.
        contigs: Contig per variant.
        positions: 0-based position per variant.
        alleles: (REF, ALT) per variant.
        frequency: Frequency of ALT among the training people.
        missing: Used variants that each person lacks (count).
        counts: Variants read, and left out by reason; ``imputed`` counts missing dosages set to the mean.
    """

    values: Float32[np.ndarray, "V S"]
    contigs: list[str]
    positions: Int64[np.ndarray, " V"]
    alleles: list[tuple[str, str]]
    frequency: Float64[np.ndarray, " V"]
    missing: Int64[np.ndarray, " S"]
    counts: Counter[str]


def read_dosages(
    source: VariantSource, regions: Regions, people: list[str], num_train: int, config: EmbedSNPs
) -> SNPMatrix:
    """Read, filter and standardise.

    Args:
        source: Open variants.
        regions: What to read.
        people: Training people first.
        num_train: N.
        config: Options.

    Raises:
        InputError: E_CONTIG, there is no variant at all; E_DEGENERATE, none is left; E_MEMORY, too many are.
    """
    reader = _Reader(num_train, config)
    bases = sum(end - start for _, start, end in regions.stretches)
    with progress((), "dosages", total=bases, unit="base") as bar:
        for contig, start, end in regions.stretches:
            for first, last, piece in _pieces(source, contig, start, end, people):
                reader.add(contig, first, piece)
                bar.update(last - first)
    if not reader.counts["variants"]:
        raise InputError(
            f"{source.path} holds no variant in any of the {len(regions.stretches)} regions; check that windows and "
            f"variants are of one genome build",
            code="E_CONTIG",
        )
    if not reader.values:
        left_out = ", ".join(
            f"{v} {k.replace('_', ' ')}" for k, v in reader.counts.items() if k != "variants"
        )
        raise InputError(
            f"none of the {reader.counts['variants']} variants of {source.path} can be used ({left_out}; all by the "
            f"{num_train} training people); lower --min_maf, raise --max_missing, or read more regions",
            code="E_DEGENERATE",
        )
    return reader.matrix(len(people))


class _Reader:
    """Takes pieces, keeps what passes the filters."""

    def __init__(self, num_train: int, config: EmbedSNPs) -> None:
        self.num_train, self.config = num_train, config
        self.counts: Counter[str] = Counter()
        self.values: list[np.ndarray] = []
        self._contigs: list[str] = []
        self._positions: list[np.ndarray] = []
        self._alleles: list[tuple[str, str]] = []
        self._frequency: list[np.ndarray] = []
        self._missing: np.ndarray | int = 0
        self._pruner = LDPruner(r2=config.prune_r2, reach=1000 * config.prune_kb)
        self._seen: tuple[str, set[tuple[int, str, str]]] = ("", set())
        self._bytes, self._room = 0, LARGEST_SHARE * psutil.virtual_memory().available

    def add(self, contig: str, first: int, piece: Dosages) -> None:
        """Filter one piece, which was asked for from base ``first`` on."""
        rows = self._new(contig, first, piece)
        values, positions = piece.values[rows], np.asarray(piece.positions, np.int64)[rows]
        train = values[:, : self.num_train]
        called = np.isfinite(train)
        num_called = called.sum(axis=1)
        total = np.where(called, train, 0).sum(axis=1, dtype=np.float64)
        p = total / np.maximum(2 * num_called, 1)
        constant = np.nanmin(np.where(called, train, np.inf), axis=1, initial=np.inf) >= np.nanmax(
            np.where(called, train, -np.inf), axis=1, initial=-np.inf
        )
        stays = np.ones(len(rows), bool)
        for reason, wrong in (
            ("missing_in_too_many", num_called < (1 - self.config.max_missing) * self.num_train),
            ("missing_in_too_many", num_called == 0),
            ("without_differences", constant),
            ("too_rare", np.minimum(p, 1 - p) < self.config.min_maf),
        ):
            self._count(reason, int((stays & wrong).sum()))
            stays &= ~wrong
        values, positions, p, rows = values[stays], positions[stays], p[stays], rows[stays]
        z = (values - 2 * p[:, None]) / np.sqrt(2 * p * (1 - p))[:, None]
        absent = ~np.isfinite(z)
        z = np.where(absent, 0, z).astype(np.float32)
        kept = self._pruner.keep(contig, positions, z[:, : self.num_train])
        self._count("pruned", int((~kept).sum()))
        if not kept.any():
            return
        self._bytes += int(kept.sum()) * z.shape[1] * 4
        if self._bytes > self._room:
            raise InputError(
                f"the dosages of {z.shape[1]} people at more than {sum(map(len, self.values))} variants take over "
                f"{self._room / 2**30:.1f} GiB, {LARGEST_SHARE:.0%} of the free memory; raise --min_maf, pass "
                f"--prune_r2=0.5, or read fewer windows",
                code="E_MEMORY",
            )
        self.values.append(z[kept])
        self._contigs += [contig] * int(kept.sum())
        self._positions.append(positions[kept])
        self._alleles += [piece.alleles[row] for row in rows[kept]]
        self._frequency.append(p[kept])
        self._missing = self._missing + absent[kept].sum(axis=0)
        self._count("imputed", int(absent[kept].sum()))

    def matrix(self, num_people: int) -> SNPMatrix:
        """Everything that was kept, in one array; the pieces are given up one by one."""
        values, at = np.empty((sum(map(len, self.values)), num_people), np.float32), 0
        while self.values:
            piece = self.values.pop(0)
            values[at : at + len(piece)] = piece
            at += len(piece)
        return SNPMatrix(
            values=values,
            contigs=self._contigs,
            positions=np.concatenate(self._positions),
            alleles=self._alleles,
            frequency=np.concatenate(self._frequency),
            missing=np.asarray(self._missing, np.int64),
            counts=self.counts,
        )

    def _new(self, contig: str, first: int, piece: Dosages) -> Int64[np.ndarray, " R"]:
        """Rows of real variants that no earlier piece or record held: long deletions reach into several pieces."""
        if self._seen[0] != contig:
            self._seen = (contig, set())
        rows = []
        for row, (position, alleles) in enumerate(zip(piece.positions, piece.alleles, strict=True)):
            if position + len(alleles[0]) <= first:
                continue  # a symbolic allele whose END reaches here, by which VCF finds it and other formats do not
            key = (position, *alleles)
            if key in self._seen[1]:
                self._count("repeated_records", int(position >= first))
                continue
            self._seen[1].add(key)
            self.counts["variants"] += 1
            if alleles[1] in NO_VARIANTS:
                self._count("no_alternative_allele", 1)
            else:
                rows.append(row)
        return np.asarray(rows, np.int64)

    def _count(self, reason: str, number: int) -> None:
        if number:
            self.counts[reason] += number


def _pieces(
    source: VariantSource, contig: str, start: int, end: int, people: list[str]
) -> Iterator[tuple[int, int, Dosages]]:
    """(first base, last + 1, dosages) of consecutive pieces of a stretch; steps follow the density of the variants.

    Steps never grow so far that a dense region behind a gap would fill the memory.
    """
    wanted, step = max(PIECE // max(len(people), 1), 16), FIRST_STEP
    longest = max(FULLEST * DENSEST * wanted, FIRST_STEP)
    while start < end:
        last = min(start + step, end)
        piece = source.dosages(contig, start, last, people)
        yield start, last, piece
        step = int(min(max(step * wanted / max(len(piece), 1), step / 8, 100), 4 * step, longest))
        start = last
