"""Are variants and reference of one genome build? Asked before anything is built.

Contig lengths decide where they are full: a header of GRCh37 beside a FASTA of GRCh38 is an error that names both.
A FASTA contig shorter than the header says is a declared cut-out (a part of the chromosome, from its first base);
then, and wherever the header gives no lengths, REF of the first records decides.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from encoders.genetics.contigs import build_of, find_contig
from encoders.genetics.reference import Reference, some
from encoders.genetics.variant_source import VariantSource
from encoders.runs.errors import InputError

FIRST_RECORDS = 1000
MAX_WRONG = 0.1  # share of REF that differs; with the wrong build it is 60 to 75 %


@dataclass(frozen=True, kw_only=True)
class BuildCheck:
    """What was compared.

    Args:
        checked: Records whose REF was compared with the reference.
        wrong: "contig:position REF, FASTA bases" of those that differ.
        cutouts: Contigs of the reference that are shorter than the variants say.
    """

    checked: int
    wrong: list[str]
    cutouts: list[str]

    @property
    def remarks(self) -> list[str]:
        """What a user should know of it."""
        told = []
        if self.cutouts:
            told.append(
                f"the reference is cut out of {some(self.cutouts)}; records beyond its end are left out"
            )
        if self.wrong:
            told.append(
                f"REF differs from the reference at {len(self.wrong)} of the first {self.checked} records, first "
                f"{self.wrong[0]}; such a record inside a window is an error"
            )
        return told


def check_build(variants: VariantSource, reference: Reference, contigs: Iterable[str]) -> BuildCheck:
    """Compare contig lengths, then REF of the first records.

    Args:
        variants: The variants.
        reference: The reference genome.
        contigs: Contigs in use, as the reference spells them.

    Raises:
        InputError: E_BUILD by lengths, E_REF by bases.
    """
    pairs = [(c, find_contig(c, variants.contigs)) for c in dict.fromkeys(contigs)]
    pairs = [(contig, name) for contig, name in pairs if name is not None]
    builds = build_of(variants.lengths), build_of(reference.lengths)
    if all(builds) and builds[0] != builds[1]:
        raise InputError(
            f"by contig lengths {variants.path} is of {builds[0]} and {reference.path} of {builds[1]}; pass the "
            f"FASTA of {builds[0]} (nothing is lifted over here)",
            code="E_BUILD",
        )
    cutouts = []
    for contig, name in pairs:
        declared, found = variants.lengths.get(name), reference.lengths[contig]
        if declared is not None and found > declared:
            raise InputError(
                f"contig {contig!r} has {found} bases in {reference.path} ({builds[1] or 'of an unknown build'}), but "
                f"{declared} by the header of {variants.path} ({builds[0] or 'of an unknown build'}); pass the FASTA "
                f"that the variants were called on",
                code="E_BUILD",
            )
        cutouts += [contig] if declared is not None and found < declared else []
    checked, wrong = 0, []
    for contig, name in pairs:
        length = reference.lengths[contig]
        for position, alleles in variants.first_sites(name, max(FIRST_RECORDS // len(pairs), 20), length):
            longest = max(map(len, alleles))
            there = reference.fetch(contig, position, position + longest)
            refs = alleles[:1] if variants.ref_known else alleles
            if position + len(refs[0]) > length:
                continue
            checked += 1
            if not any(there.startswith(ref.upper()) for ref in refs):
                ref = refs[0].upper()
                wrong.append(f"{contig}:{position + 1} {_short(ref)}, FASTA {_short(there[: len(ref)])}")
    if len(wrong) > MAX_WRONG * checked:
        raise ref_differs(variants, reference, wrong, checked)
    return BuildCheck(checked=checked, wrong=wrong, cutouts=cutouts)


def ref_differs(variants: VariantSource, reference: Reference, wrong: list[str], checked: int) -> InputError:
    """What to tell where REF is not what the reference has."""
    builds = build_of(variants.lengths), build_of(reference.lengths)
    if any(builds):
        known = [build or "of an unknown build (cut-outs do not show it)" for build in builds]
        hint = f"by contig lengths the variants are {known[0]} and the FASTA is {known[1]}"
    else:
        hint = "is one of them GRCh37 and the other GRCh38?"
    few = ""
    if len(wrong) <= MAX_WRONG * checked:
        few = "; if it is the right one, leave out the records that are wrong (bcftools norm --check-ref x)"
    return InputError(
        f"REF differs from the reference at {len(wrong)} of {checked} records ({len(wrong) / checked:.1%}), first "
        f"{'; '.join(wrong[:3])}; {hint}; pass the FASTA file that {variants.path} was called on ({reference.path} "
        f"was given){few}",
        code="E_REF",
    )


def _short(bases: str) -> str:
    return bases if len(bases) <= 12 else f"{bases[:12]}... ({len(bases)} bases)"
