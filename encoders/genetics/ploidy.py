"""How many copies of a contig a person has: X, Y and MT by sex, outside the regions that X and Y share.

Males have one X and one Y outside the pseudoautosomal regions (PAR), females have no Y, everybody has one MT.
Files code a single copy as `1`, `1|1` or `1/1`: all three give one sequence that is counted once. A person with
one copy cannot be heterozygous; such calls are errors of the genotyping (or of the table's sex), counted, and
refused unless they are declared missing.

Glossary: R records · S people.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int8, Int16

from encoders.genetics.contigs import canonical
from encoders.genetics.records import MISSING, Records
from encoders.genetics.windows import Window
from encoders.runs.errors import InputError

SEX_CHROMOSOMES = ("X", "Y")

# [start, end), 0-based, of PAR1 and PAR2 (Genome Reference Consortium, GRCh37.p13 and GRCh38.p14).
PAR = {
    "GRCh37": {
        "X": ((60_000, 2_699_520), (154_931_043, 155_260_560)),
        "Y": ((10_000, 2_649_520), (59_034_049, 59_363_566)),
    },
    "GRCh38": {
        "X": ((10_000, 2_781_479), (155_701_382, 156_030_895)),
        "Y": ((10_000, 2_781_479), (56_887_902, 57_217_415)),
    },
}

_WORDS = {"m": "male", "male": "male", "man": "male", "f": "female", "female": "female", "woman": "female"}


@dataclass(frozen=True, kw_only=True)
class Ploidy:
    """What decides how many copies of a contig people have.

    Args:
        male: (S,) people known to be male.
        female: (S,) people known to be female.
        build: "GRCh37" or "GRCh38", which decides where the shared regions lie; None if unknown.
        heterozygotes: "refuse" or "missing": what becomes of heterozygous calls on a single copy.
    """

    male: Bool[np.ndarray, " S"]
    female: Bool[np.ndarray, " S"]
    build: str | None
    heterozygotes: str = "refuse"

    def copies(self, window: Window) -> Int8[np.ndarray, " S"]:
        """Copies of the window's contig per person: 2, 1 or 0; people of unknown sex count as females.

        Raises:
            InputError: E_PLOIDY, a window on X or Y and the build is unknown, or a window across the border of
                a shared region, or a window in the copy of a shared region that Y has.
        """
        copies = np.full(len(self.male), 2, np.int8)
        contig = canonical(window.contig)
        if contig == "MT":
            copies[:] = 1
        if contig in SEX_CHROMOSOMES and not self._is_shared(window, contig):
            copies[self.male] = 1
            if contig == "Y":
                copies[self.female] = 0
        return copies

    def _is_shared(self, window: Window, contig: str) -> bool:
        if self.build is None:
            raise InputError(
                f"window {window.name!r} lies on {window.contig}, where one or two copies depend on the genome "
                f"build, and contig lengths do not tell it; pass --build=GRCh38 or --build=GRCh37",
                code="E_PLOIDY",
            )
        for start, end in PAR[self.build][contig]:
            if start <= window.start and window.end <= end:
                if contig == "Y":
                    raise InputError(
                        f"window {window.name!r} ({window.place}) lies in the part of Y that is a copy of X "
                        f"({self.build}); variants are called on X there: move the window to X",
                        code="E_PLOIDY",
                    )
                return True
            if window.start < end and start < window.end:
                raise InputError(
                    f"window {window.name!r} ({window.place}) crosses the border of a region that X and Y share "
                    f"({contig}:{start + 1}-{end} in {self.build}), where males have two copies on one side and "
                    f"one on the other; cut it there",
                    code="E_PLOIDY",
                )
        return False


def read_ploidy(
    sexes: Mapping[str, object] | None, people: list[str], *, build: str | None, heterozygotes: str
) -> Ploidy:
    """The ploidy rules for people in their order.

    Args:
        sexes: Sex by id as the table of people codes it; None if the table has no such column.
        people: Ids.
        build: "GRCh37", "GRCh38" or None.
        heterozygotes: "refuse" or "missing".

    Raises:
        InputError: E_SEX, no sexes, or codes that cannot be read.
    """
    if sexes is None:
        raise InputError(
            "windows on X or Y need everybody's sex, and the table of people has no column 'sex'; add it "
            "(male / female) or leave --sex_chromosomes out",
            code="E_SEX",
        )
    words = _read_sexes([sexes.get(name) for name in people])
    return Ploidy(
        male=np.array([word == "male" for word in words], bool),
        female=np.array([word == "female" for word in words], bool),
        build=build,
        heterozygotes=heterozygotes,
    )


def diploid_everywhere(num_people: int) -> Ploidy:
    """The rules where no window lies on X or Y, so that nobody's sex matters."""
    nobody = np.zeros(num_people, bool)
    return Ploidy(male=nobody, female=nobody, build=None)


def single_copies(
    records: Records, copies: Int8[np.ndarray, " S"], *, heterozygotes: str, window: Window
) -> tuple[Records, Counter[str]]:
    """The records with one allele for people with one copy, however the file codes it, and none for those without.

    Both haplotypes of a person with one copy then carry that allele; somebody without a copy carries REF.

    Returns:
        The records, and how many heterozygous calls on a single copy became missing, and how many calls of ALT
        people have without a copy.

    Raises:
        InputError: E_PLOIDY for those calls, unless ``heterozygotes`` is "missing".
    """
    if (copies == 2).all():
        return records, Counter()
    single = copies < 2
    calls: Int16[np.ndarray, "R S 2"] = records.calls.copy()
    first, second = calls[:, single, 0], calls[:, single, 1]
    one = np.where(first == MISSING, second, first)  # `.|1` on a single copy is 1
    broken = (first != second) & (first != MISSING) & (second != MISSING)
    broken &= copies[single] == 1
    count = int(broken.sum())
    if count and heterozygotes == "refuse":
        raise heterozygous(broken, window)
    one = np.where(broken, np.int16(MISSING), one)
    none = copies[single] == 0
    stray = int(((first > 0) | (second > 0))[:, none].sum())
    one = np.where(none, np.int16(0), one)
    calls[:, single, 0] = calls[:, single, 1] = one
    return replace(records, calls=calls, unphased=records.unphased & ~single), Counter(
        heterozygous_on_one_copy=count, genotypes_without_a_copy_ignored=stray
    )


def heterozygous(broken: Bool[np.ndarray, "R N"], window: Window) -> InputError:
    """What to tell of heterozygous genotypes of people with one copy: which ones of all of theirs."""
    return InputError(
        f"{int(broken.sum())} of {broken.size} genotypes in window {window.name!r} ({window.place}), in "
        f"{int(broken.any(axis=0).sum())} people, are heterozygous where these people have one copy "
        f"(males on X and Y, everybody on MT); check the sexes in the table of people, or pass "
        f"--haploid_heterozygotes=missing to make such genotypes missing",
        code="E_PLOIDY",
    )


def _read_sexes(cells: list[object]) -> list[str | None]:
    """ "male", "female" or None per cell: words, PLINK's 1 / 2 (0 unknown), or UK Biobank's 0 / 1."""
    texts = [None if cell is None or cell != cell else str(cell).strip().lower() for cell in cells]
    numbers = [text.removesuffix(".0") if text else text for text in texts]
    known = {text for text in numbers if text}
    if known <= {"0", "1", "2"} and known:
        if known == {"0", "1"}:
            codes = {"0": "female", "1": "male"}
        elif known == {"0"}:
            raise InputError(
                "everybody's sex is 0, which is female in UK Biobank and unknown in PLINK; write male / female",
                code="E_SEX",
            )
        else:
            codes = {"1": "male", "2": "female"}
        return [codes.get(text or "") for text in numbers]
    if strange := sorted(known - _WORDS.keys() - {"u", "unknown", "other", "0", "-9"}):
        raise InputError(
            f"sex {strange[0]!r} cannot be read; male / female, M / F, PLINK's 1 / 2 or UK Biobank's 0 / 1 "
            f"(0 female) were wanted",
            code="E_SEX",
        )
    return [_WORDS.get(text or "") for text in texts]
