"""PLINK genotypes: .pgen, whose hard calls may be phased, and .bed, which holds no phase.

A .pgen keeps neither half-missing genotypes (PLINK makes both halves missing) nor haploid ones (a male's X is
written as two equal alleles): what was `0|.` or `1` in a VCF comes back as `.|.` or `1|1`. The table of people
and that of variants lie beside the genotypes under the same name.

Glossary: R records (rows) · S people · 2 haplotypes.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Int64

from encoders.genetics.allele_order import END, VOTERS, AlleleOrder, ref_first
from encoders.genetics.contigs import find_contig, no_contig
from encoders.genetics.plink_tables import PlinkSites, companion, read_people, told
from encoders.genetics.records import MISSING, Dosages, Records, Site
from encoders.genetics.reference import Reference
from encoders.runs.errors import InputError

BED_MAGIC = b"\x6c\x1b"
_ABSENT = -9  # pgenlib's missing allele


class PlinkVariants:
    """An open .pgen or .bed file. Close it, or use it as a context manager.

    Args:
        path: .pgen, with .pvar (.pvar.zst, .bim) and .psam (.fam) beside it; or .bed, with .bim and .fam.
        reference: The reference genome: it decides which allele of a .bim is REF.

    Raises:
        InputError: E_PGEN or E_BED for a file that cannot be read or whose tables are missing or do not fit.
    """

    index_state = "as found"  # the genotypes of a record lie where the file itself says

    def __init__(self, path: Path, *, reference: Reference | None = None) -> None:
        self.path = Path(path)
        self._is_bed, self._code = _kind(self.path)
        people_table, site_table = (".fam",), (".bim",)
        if not self._is_bed:
            people_table, site_table = (".psam", ".fam"), (".pvar", ".pvar.zst", ".bim")
        who = companion(self.path, people_table, "table of people", self._code)
        where = companion(self.path, site_table, "table of variants", self._code)
        try:
            from pgenlib import PgenReader
        except ImportError as cause:
            raise InputError(
                f"pgenlib is not installed, and it reads {self.path}; install it with: pip install 'neurohelix[pgen]'"
            ) from cause
        self.samples = read_people(who, self._code)
        self._sites = PlinkSites(where, self._code)
        try:
            self._file = PgenReader(
                str(self.path).encode(), raw_sample_ct=len(self.samples), pvar=self._sites.reader
            )
        except (RuntimeError, OSError) as cause:
            raise InputError(
                f"{self.path} cannot be read with {len(self.samples)} people ({who.name}) and {len(self._sites)} "
                f"variants ({where.name}): {told(cause)}; copy all three again",
                code=self._code,
            ) from cause
        self.ref_known = where.suffix != ".bim"
        self.lengths = self._sites.lengths
        self.contigs = list(dict.fromkeys([*self._sites.contigs, *self.lengths]))
        self._column = {name: k for k, name in enumerate(self.samples)}
        self._order = AlleleOrder(self.path, reference)

    def __enter__(self) -> "PlinkVariants":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._sites.close()

    @property
    def remarks(self) -> list[str]:
        """What a user should know about how it was read."""
        return [f"{self.path.name}: {remark}" for remark in self._order.remarks.values()]

    def find(self, contig: str, window: str) -> str:
        """The spelling of ``contig`` in this file.

        Raises:
            InputError: E_CONTIG, the file does not have it under any of its names.
        """
        if (found := find_contig(contig, self.contigs)) is None:
            raise no_contig(contig, window, self.path, self.contigs)
        return found

    def extent(self, contig: str) -> tuple[int, int]:
        """The stretch of a contig outside of which no record lies."""
        rows = self._sites.contigs.get(contig)
        return (int(rows.starts[0]), int(rows.stops.max())) if rows else (0, 0)

    def first_sites(self, contig: str, limit: int, end: int) -> list[Site]:
        """Positions and alleles, as listed, of the first ``limit`` records that begin before ``end``."""
        rows = self._sites.contigs.get(contig)
        numbers = rows.rows[rows.starts < end][:limit].tolist() if rows else []
        return [(self._sites.position(row), self._sites.alleles(row)) for row in numbers]

    def fetch(self, contig: str, start: int, end: int, people: list[str]) -> Records:
        """The records that overlap [start, end) of a contig of this file, for ``people`` in their order.

        Raises:
            InputError: E_UNPHASED for a .bed; E_PGEN for damage.
        """
        if self._is_bed:
            raise InputError(
                f"{self.path} is a PLINK .bed file, which holds no phase: it says that a person has both alleles, "
                f"not which chromosome carries which, so there are no haplotypes in it; phase it (SHAPEIT5, Beagle) "
                f"and pass the VCF, BCF or .pgen, or use it for the linear SNP vectors or with --unphased=dosage",
                code="E_UNPHASED",
            )
        rows, columns, back = self._select(contig, start, end, people)
        alleles = np.empty((len(rows), 2 * len(columns)), np.int32)
        phased = np.empty((len(rows), len(columns)), np.uint8)
        if len(rows) and len(columns):
            self._read(self._file.read_alleles_and_phasepresent_list, rows, alleles, phased)
        raw = alleles.reshape(len(rows), len(columns), 2)
        if back != list(range(len(back))):
            raw, phased = raw[:, back], phased[:, back]
        known, calls = raw != _ABSENT, np.where(raw == _ABSENT, MISSING, raw).astype(np.int16)
        names = []
        for number, row in enumerate(rows.tolist()):
            listed = self._sites.alleles(row)
            order = self._ref_first(contig, row, listed, strict=True)
            if order != list(range(len(listed))):
                moved = np.argsort(order).astype(np.int16)
                calls[number][known[number]] = moved[raw[number][known[number]]]
            names.append(tuple(listed[k] for k in order))
        return Records(
            positions=[self._sites.position(row) for row in rows.tolist()],
            alleles=names,
            calls=calls,
            unphased=(raw[:, :, 0] != raw[:, :, 1]) & (phased == 0),
            haploid=np.zeros(raw.shape[:2], bool),
        )

    def dosages(self, contig: str, start: int, end: int, people: list[str]) -> Dosages:
        """Copies of every ALT in [start, end), for ``people`` in their order; needs no phase.

        Dosages of imputed genotypes are fractions; where there are none, hard calls count.
        """
        rows, columns, back = self._select(contig, start, end, people)
        positions, alleles, values = [], [], []
        for row in rows.tolist():
            listed = self._sites.alleles(row)
            order = self._ref_first(contig, row, listed, strict=False)
            for allele in order[1:]:
                copies = np.empty(len(columns), np.float32)
                if columns:
                    self._read(self._file.read_dosages, row, copies, allele)
                copies[copies == _ABSENT] = np.nan
                positions.append(self._sites.position(row))
                alleles.append((listed[order[0]], listed[allele]))
                values.append(copies[back])
        return Dosages(
            positions=positions,
            alleles=alleles,
            values=np.asarray(values, np.float32).reshape(len(values), len(people)),
        )

    def _ref_first(self, contig: str, row: int, listed: tuple[str, ...], *, strict: bool) -> list[int]:
        if self.ref_known or len(listed) < 2:
            return list(range(len(listed)))
        self._order.learn(contig, lambda: self.first_sites(contig, VOTERS, END))
        return ref_first(listed, self._order.ref_of(contig, self._sites.position(row), listed, strict=strict))

    def _select(
        self, contig: str, start: int, end: int, people: list[str]
    ) -> tuple[Int64[np.ndarray, " R"], list[int], list[int]]:
        """Records in the stretch; columns of the people, ascending as pgenlib wants them; and the way back."""
        wanted = [self._column[name] for name in people]
        columns = sorted(wanted)
        place = {column: k for k, column in enumerate(columns)}
        if columns:
            self._file.change_sample_subset(np.asarray(columns, np.uint32))
        known = self._sites.contigs.get(contig)
        rows = known.overlapping(start, end) if known and start < end else np.empty(0, np.int64)
        return rows, columns, [place[column] for column in wanted]

    def _read(self, read, rows, *rest) -> None:
        try:
            read(rows.astype(np.uint32) if isinstance(rows, np.ndarray) else rows, *rest)
        except (RuntimeError, OSError, ValueError) as cause:
            raise InputError(
                f"{self.path} is damaged or does not belong to its table of variants ({told(cause)}); copy all "
                f"three files again",
                code=self._code,
            ) from cause


def _kind(path: Path) -> tuple[bool, str]:
    """Whether the file is a .bed, and the code of its errors."""
    code = "E_BED" if path.suffix == ".bed" else "E_PGEN"
    with open(path, "rb") as file:
        head = file.read(3)
    if len(head) == 3 and head[:2] == BED_MAGIC:
        if head[2] == 0:
            raise InputError(
                f"{path} lists PLINK genotypes person by person (an old .bed); convert it with: "
                f"plink2 --bfile {path.stem} --make-bed --out new",
                code=code,
            )
        return head[2] == 1, "E_BED" if head[2] == 1 else "E_PGEN"
    found = "is empty" if not head else "does not begin like PLINK genotypes"
    raise InputError(
        f"{path} {found}; a .pgen or .bed file as PLINK writes it was wanted; copy or export it again",
        code=code,
    )
