"""Windows without phase: each variant by itself, weighted by how many copies a person has.

Where it is unknown which alleles lie on one haplotype, a person's vector is taken as the sum of the effects of
single variants: sum over variants of dosage / 2 x (vector of the window with this ALT alone - vector of the
reference). Nothing is said of how variants of one haplotype act together, so this is another quantity than the
difference of haplotypes, equal to it only for people with one variant per haplotype. It also reads imputed
dosages and formats without phase (PLINK .bed).

Glossary: R rows (one per ALT) · S people · U distinct sequences, of which the first is the reference.
"""

from collections import Counter

import numpy as np
from jaxtyping import Int8

from encoders.genetics.edits import apply_edits, edit_of
from encoders.genetics.haplotypes import DistinctSequences, WindowHaplotypes
from encoders.genetics.ploidy import heterozygous
from encoders.genetics.ref_check import RefCheck, usable_rows
from encoders.genetics.reference import Reference
from encoders.genetics.variant_source import VariantSource
from encoders.genetics.windows import Window


def dosage_window(
    window: Window,
    reference: Reference,
    variants: VariantSource,
    people: list[str],
    *,
    check: RefCheck,
    copies: Int8[np.ndarray, " S"] | None = None,
    heterozygotes: str = "refuse",
) -> WindowHaplotypes:
    """One sequence per ALT allele of a window, and everyone's copies of it.

    A missing dosage counts as 0, the reference, and is counted. A single copy counts 2, as all formats are read,
    so that `1` and `1|1` agree; people without a copy of the contig have dosage 0.

    Args:
        window: Where, already placed on ``reference``.
        reference: The reference genome.
        variants: The variants.
        people: Sample names, in the order of the rows of ``dosages``.
        check: Collects records whose REF differs from the reference; the caller decides when to stop.
        copies: (S,) how many copies of the window each person has; two each if left out.
        heterozygotes: What becomes of a dosage of exactly 1, one ALT of two, of people with one copy: "refuse" or
            "missing".

    Raises:
        InputError: E_PLOIDY for two alleles on one copy.
    """
    contig = variants.find(window.contig, window.name)
    found = variants.dosages(contig, window.start, window.end + window.clipped, people)
    counts: Counter[str] = Counter()
    places = list(zip(found.positions, (ref for ref, _ in found.alleles), strict=True))
    usable = usable_rows(places, window, reference, check, counts)
    written = reference.spelled(window.contig, window.start, window.end)
    capitals = written.upper()
    distinct = DistinctSequences(window, written)
    columns = [np.zeros(len(people), np.float32)]
    absent = np.zeros(len(people), bool) if copies is None else copies == 0
    single = np.zeros(len(people), bool) if copies is None else copies == 1
    broken = (found.values[usable] == 1) & single
    if broken.any() and heterozygotes == "refuse":
        raise heterozygous(broken[:, single], window)
    counts["heterozygous_on_one_copy"] += int(broken.sum())
    missing = np.zeros(len(people), np.int32)
    skipped = []
    for number, r in enumerate(usable):
        values = found.values[r]
        unknown = np.isnan(values) | broken[number]
        missing += 2 * unknown
        values = np.where(unknown | absent, np.float32(0), values)
        edit = edit_of(*found.alleles[r])
        if edit is None:
            if values.any():
                counts["calls_of_symbolic_alleles_skipped"] += round(float(values.sum()))
                skipped.append(f"{window.contig}:{found.positions[r] + 1} {'>'.join(found.alleles[r])}")
            continue
        edited = apply_edits(written, [(found.positions[r] - window.start, edit)], capitals=capitals)
        counts["calls_cut_at_window_start"] += edited.cut * int((values > 0).sum())
        row = distinct.add(edited)
        if row == len(columns):
            columns.append(values)
        elif row:  # two records make the same sequence
            columns[row] = columns[row] + values
    counts["missing_calls"] += int(missing.sum())
    return WindowHaplotypes(
        window=window,
        sequences=distinct.sequences,
        focus=distinct.focus,
        index=np.zeros((len(people), 2), np.int32),
        counts=counts,
        haploid=single,
        absent=absent,
        missing=missing,
        calls=2 * len(usable) * len(people),
        dosages=np.stack(columns, axis=1),
        skipped=skipped,
    )
