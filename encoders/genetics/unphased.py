"""Genotypes whose phase is unknown: refused, or read by one of the declared rules.

A heterozygous genotype without phase does not say which haplotype carries which allele; taken as written, 87 % of
real people get a wrong pair of sequences over 33 kb. Nor do genotypes of two phase sets (FORMAT PS) in one window:
each set is phased within itself only.

- "refuse": an error with the share of such genotypes.
- "ref_alt": the first sequence carries the allele that comes first (REF) at all of them, the second the other one:
  `bcftools consensus -H R` and `-H A`. A defined pair, but nobody's real one.
- "iupac": both sequences carry the ambiguity letter (R for A or G, ...), as `bcftools consensus -H 1pIu` writes;
  only for models that know these letters. Heterozygous insertions and deletions have no letter and become REF.
- "dosage": no haplotypes at all, see :mod:`encoders.genetics.dosage_windows`.

Glossary: R records · S people.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from encoders.genetics.records import MISSING, Records
from encoders.genetics.windows import Window
from encoders.runs.errors import InputError

MODES = ("refuse", "iupac", "ref_alt", "dosage")

_LETTERS = {
    "AG": "R", "CT": "Y", "CG": "S", "AT": "W", "GT": "K", "AC": "M",
}  # fmt: skip


def settle_phase(records: Records, window: Window, *, mode: str, path: Path, counts: Counter[str]) -> Records:
    """Records in which every haplotype's allele is known, by the rule ``mode``.

    Args:
        records: As read.
        window: Where, for the message.
        mode: "refuse", "ref_alt" or "iupac".
        path: File of the variants, for the message.
        counts: Receives how many genotypes were read by the rule.

    Raises:
        InputError: E_UNPHASED, ``mode`` is "refuse" and there are such genotypes.
    """
    split = of_several_sets(records)
    unknown = records.unphased | split
    if not unknown.any():
        return records
    if mode == "refuse":
        raise _refusal(records, unknown, split, window, path)
    counts["unphased_genotypes"] += int(unknown.sum())
    counts["genotypes_of_several_phase_sets"] += int(split.sum())
    calls = records.calls.copy()
    if mode == "ref_alt":
        pairs = calls[unknown]
        calls[unknown] = np.sort(pairs, axis=1)
        return replace(records, calls=calls)
    alleles = list(records.alleles)
    for row in np.flatnonzero(unknown.any(axis=1)).tolist():
        here = unknown[row]
        for first, second in np.unique(np.sort(calls[row][here], axis=1), axis=0).tolist():
            those = here & (calls[row].min(axis=1) == first) & (calls[row].max(axis=1) == second)
            letter = None if first == MISSING else _letter(alleles[row][first], alleles[row][second])
            if first == MISSING:
                value = MISSING
            elif letter is None:
                value = 0
                counts["unphased_indels_as_reference"] += int(those.sum())
            else:
                value = len(alleles[row])
                alleles[row] = (*alleles[row], letter)
            calls[row][those] = value
    return replace(records, calls=calls, alleles=alleles)


def of_several_sets(records: Records) -> Bool[np.ndarray, "R S"]:
    """Phased heterozygous genotypes of people in whom they belong to more than one phase set.

    A phased genotype without a set counts as one of its own: the rest of the file's.
    """
    if records.phase_sets is None or not len(records):
        return np.zeros_like(records.unphased)
    phased = (records.calls[:, :, 0] != records.calls[:, :, 1]) & ~records.unphased
    sets = records.phase_sets.astype(np.int64)
    largest = np.where(phased, sets, np.iinfo(np.int64).min).max(axis=0)
    smallest = np.where(phased, sets, np.iinfo(np.int64).max).min(axis=0)
    return phased & (smallest < largest)


def refuse_iupac(known: bool, name: str | None = None) -> None:
    """Refuse ambiguity letters for a model that does not know them.

    Raises:
        InputError: E_UNPHASED.
    """
    if not known:
        raise InputError(
            f"--unphased=iupac writes ambiguity letters (R, Y, S, ...), which {name or 'this model'} does not know: "
            f"Caduceus reads each as [UNK], GENERator loses six bases to <oov>; phase the variants, e.g. with "
            f"SHAPEIT5 or Beagle, or pass --unphased=ref_alt or --unphased=dosage",
            code="E_UNPHASED",
        )


def _letter(one: str, other: str) -> str | None:
    return _LETTERS.get("".join(sorted((one + other).upper()))) if len(one) == len(other) == 1 else None


def _refusal(
    records: Records,
    unknown: Bool[np.ndarray, "R S"],
    split: Bool[np.ndarray, "R S"],
    window: Window,
    path: Path,
) -> InputError:
    het = int((records.calls[:, :, 0] != records.calls[:, :, 1]).sum())
    people = int(unknown.any(axis=0).sum())
    number = int(unknown.sum())
    kinds = "unphased (0/1 instead of 0|1)"
    if split.any():
        kinds = (
            f"without a phase that holds over the window ({int((unknown & ~split).sum())} are 0/1 instead of 0|1, "
            f"{int(split.sum())} are of several phase sets, PS)"
        )
    return InputError(
        f"{number} of {het} heterozygous genotypes in window {window.name!r} ({window.place}), in {people} of "
        f"{records.calls.shape[1]} people, are {kinds} in {path}; phase it first, e.g. with SHAPEIT5 or Beagle, or "
        f"choose a rule with --unphased=ref_alt or --unphased=dosage",
        code="E_UNPHASED",
    )
