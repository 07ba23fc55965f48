"""Everyone's haplotypes in all windows: the plan of a run, known before any sequence is embedded."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from encoders.cohort import Cohort
from encoders.genetics.build_check import check_build, ref_differs
from encoders.genetics.common_people import near_misses, nobody_in_common
from encoders.genetics.config import EmbedGenome
from encoders.genetics.contigs import build_of, canonical
from encoders.genetics.dosage_windows import dosage_window
from encoders.genetics.haplotypes import (
    RefCheck,
    WindowHaplotypes,
    diploid_kinds,
    tie_rate,
    window_haplotypes,
)
from encoders.genetics.missing_calls import missing_shares
from encoders.genetics.ploidy import SEX_CHROMOSOMES, Ploidy, diploid_everywhere, read_ploidy
from encoders.genetics.reference import Reference, some
from encoders.genetics.unphased import refuse_iupac
from encoders.genetics.variant_source import open_variants
from encoders.genetics.window_choice import WindowChoice, choose_windows, read_names
from encoders.genetics.windows import Window, place_windows
from encoders.runs.errors import InputError
from encoders.runs.progress import progress


@dataclass(frozen=True, kw_only=True)
class Genomes:
    """The haplotypes of a cohort.

    Args:
        people: Ids in row order of every window's ``index``.
        windows: Haplotypes per window, in file order.
        without_genome: People of the table who are not among the variants.
        without_row: People among the variants who are not in the table.
        counts: Records and calls used or left out, over all windows.
        ties: Share of people whose diploid genotype over all windows equals someone else's, 0 to 1.
        window_ties: The largest such share of a single window.
        index_state: How the index of the variants was come by.
        remarks: What a user should know about how the variants were read.
        left_out: Names of the windows on X and Y, which are not read unless that is asked for.
        rules: What decided how genotypes became sequences, for the provenance of the vectors.
    """

    people: list[str]
    windows: list[WindowHaplotypes]
    without_genome: list[str]
    without_row: list[str]
    counts: Counter[str]
    ties: float
    window_ties: float
    index_state: str
    remarks: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    rules: dict[str, object] = field(default_factory=dict)

    @property
    def sequences(self) -> list[str]:
        """Every distinct sequence once, in order of first appearance."""
        return list(dict.fromkeys(s for window in self.windows for s in window.sequences))

    @property
    def haplotypes(self) -> int:
        """Sequences that people carry: two per window, one on a single copy, none where variants were taken by dosage."""
        phased = [window for window in self.windows if window.dosages is None]
        return sum(int((2 - window.haploid - 2 * window.absent).sum()) for window in phased)

    def summary(self) -> dict[str, object]:
        """What a user should see of it; counts of nothing are left out."""
        unlike = [w.window.name for w in self.windows if not w.varies]
        clipped = [w.window.name for w in self.windows if w.window.clipped]
        early = [w.window.name for w in self.windows if w.window.clipped_start]
        tell_sex = [w.window.name for w in self.windows if _on_sex_chromosome(w.window)]
        by_dosage = any(w.dosages is not None for w in self.windows)  # then one row per ALT
        variants = "variant_alleles" if by_dosage else "variant_records"
        rows: dict[str, object] = {
            "people": len(self.people),
            "people_in_table_without_genome": len(self.without_genome),
            "people_with_genome_not_in_table": len(self.without_row),
            "of_these_with_nearly_the_same_id": len(near_misses(self.without_genome, self.without_row)),
            "windows": len(self.windows),
            "windows_clipped_at_the_end_of_a_contig": some(clipped) if clipped else 0,
            "windows_clipped_at_the_start_of_a_contig": some(early) if early else 0,
            "windows_on_X_and_Y_left_out": f"{len(self.left_out)} ({some(self.left_out)}); --sex_chromosomes=true "
            f"reads them"
            if self.left_out
            else 0,
            "windows_on_X_and_Y": f"{len(tell_sex)} ({some(tell_sex)}): their vectors tell everybody's sex; adjust "
            f"for sex wherever they are used"
            if tell_sex
            else 0,
            "windows_without_differences": some(unlike) if unlike else 0,
            variants: self.counts["records"],
            **{name: number for name, number in sorted(self.counts.items()) if name != "records"},
            "rule_for_genotypes_without_phase": self.rules.get("unphased", "refuse")
            if self.rules.get("unphased", "refuse") != "refuse"
            else 0,
            **missing_shares(self.windows),
            "haplotypes": self.haplotypes,
            "unique_sequences": len(self.sequences),
            "tie_rate": f"{self.ties:.1%} of people share their whole genotype with another "
            f"(at most {self.window_ties:.1%} in one window)",
        }
        if self.index_state != "as found":
            rows["variant_index"] = f"{self.index_state}, in a temporary folder"
        if self.remarks:
            rows["variants_were_read"] = "; ".join(self.remarks)
        always = ("people", "windows", variants, "haplotypes", "unique_sequences", "tie_rate")
        return {name: value for name, value in rows.items() if value or name in always}


def read_genomes(
    *,
    variants: Path | list[Path],
    sample_file: Path | None = None,
    contig: str | None = None,
    reference: Path,
    windows: Path,
    people: list[str],
    missing: str,
    max_n_share: float | int,
    choice: WindowChoice | None = None,
    unphased: str = "refuse",
    iupac: bool = False,
    sexes: Mapping[str, object] | None = None,
    sex_chromosomes: bool = False,
    haploid_heterozygotes: str = "refuse",
    build: str = "auto",
) -> Genomes:
    """Build the haplotypes of the people who are both in the table and among the variants.

    Args:
        variants: Phased variants, one file or several that hold the same people.
        sample_file: .sample file with the people of BGEN files that do not name them.
        contig: The contig of BGEN records that leave it blank.
        reference: FASTA.
        windows: BED, GTF, GFF3 or a list of variants.
        people: Ids of the table of people, in order; the result keeps it.
        missing: "n" or "reference", what a missing genotype becomes.
        max_n_share: Largest share of N in a window, 0 to 1.
        choice: Which windows are made of the file, and how.
        unphased: What becomes of genotypes without phase, see :mod:`encoders.genetics.unphased`.
        iupac: Whether the model knows ambiguity letters.
        sexes: Sex by id as the table codes it; needed for windows on X and Y.
        sex_chromosomes: Also read windows on X and Y.
        haploid_heterozygotes: "refuse", or "missing": two alleles where a person has one copy.
        build: "auto" (by contig lengths), "GRCh37" or "GRCh38"; decides where X and Y are alike.

    Raises:
        InputError: E_SAMPLE (nobody in common), E_CONTIG, E_REF, E_UNPHASED, E_PLOIDY, E_SEX, E_NRICH, E_VCF,
            E_INDEX, or E_DEGENERATE (a gene without differences between people).
    """
    if unphased == "iupac":
        refuse_iupac(iupac)
    chosen, left_out = _without_sex_chromosomes(choose_windows(windows, choice), windows, sex_chromosomes)
    with (
        Reference(reference) as fasta,
        open_variants(variants, reference=fasta, sample_file=sample_file, contig=contig) as vcf,
    ):
        placed = place_windows(chosen, fasta, max_n_share=max_n_share)
        known = set(vcf.samples)
        kept = [name for name in people if name in known]
        if not kept:
            raise nobody_in_common(
                people,
                vcf.samples,
                f"samples of {vcf.path}",
                "rename one side, e.g. with bcftools reheader --samples",
            )
        builds = check_build(vcf, fasta, [window.contig for window in placed])
        if build == "auto":
            build = build_of(fasta.lengths) or build_of(vcf.lengths) or ""
        ploidy = diploid_everywhere(len(kept))
        if any(map(_on_sex_chromosome, placed)):
            ploidy = read_ploidy(sexes, kept, build=build or None, heterozygotes=haploid_heterozygotes)
        copies = [ploidy.copies(window) for window in placed]
        check = RefCheck()
        built = []
        with progress(placed, "haplotypes", unit="window") as bar:
            for window, of_window in zip(bar, copies, strict=True):
                common = {"check": check, "copies": of_window, "heterozygotes": haploid_heterozygotes}
                if unphased == "dosage":
                    built.append(dosage_window(window, fasta, vcf, kept, **common))
                    continue
                built.append(
                    window_haplotypes(
                        window,
                        fasta,
                        vcf,
                        kept,
                        missing=missing,
                        unphased=unphased,
                        **common,
                    )
                )
        if check.wrong:
            raise ref_differs(vcf, fasta, check.wrong, check.checked)
        counts = sum((window.counts for window in built), Counter())
        if not counts["records"]:
            raise InputError(
                f"{vcf.path} holds no record in any of the {len(placed)} windows of {windows}, so everyone would "
                f"get the reference sequence; check that both are of one genome build",
                code="E_CONTIG",
            )
        _refuse_degenerate(built, windows)
        listed = set(people)
        return Genomes(
            people=kept,
            windows=built,
            without_genome=[name for name in people if name not in known],
            without_row=[name for name in vcf.samples if name not in listed],
            counts=counts,
            ties=tie_rate(diploid_kinds(built)),
            window_ties=max(tie_rate(diploid_kinds([window])) for window in built),
            index_state=vcf.index_state,
            remarks=[*builds.remarks, *vcf.remarks],
            left_out=left_out,
            rules=_rules(placed, ploidy, choice, missing=missing, unphased=unphased),
        )


def cohort_genomes(
    config: EmbedGenome, inputs: Mapping[str, Path | list[Path]], *, iupac: bool = False
) -> Genomes:
    """:func:`read_genomes` with the options and paths of a run; ``iupac``: the model knows ambiguity letters."""
    cohort = Cohort.load(inputs["participants"])
    return read_genomes(
        variants=inputs["variants"],
        sample_file=inputs.get("sample_file"),
        contig=config.contig,
        reference=inputs["reference"],
        windows=inputs["windows"],
        people=cohort.ids,
        missing=config.missing,
        max_n_share=config.max_n_share,
        choice=WindowChoice(
            kind=config.window_kind,
            genes=read_names(config.genes),
            flank=config.flank,
            centre=config.centre,
            focus_flank=config.focus_flank,
        ),
        unphased=config.unphased,
        iupac=iupac,
        sexes=cohort.frame["sex"].to_dict() if "sex" in cohort.frame else None,
        sex_chromosomes=config.sex_chromosomes,
        haploid_heterozygotes=config.haploid_heterozygotes,
        build=config.build,
    )


def _on_sex_chromosome(window: Window) -> bool:
    return canonical(window.contig) in SEX_CHROMOSOMES


def _without_sex_chromosomes(
    windows: list[Window], path: Path, wanted: bool
) -> tuple[list[Window], list[str]]:
    """The windows to read, and the names of those on X and Y that are left out."""
    if wanted:
        return windows, []
    kept = [window for window in windows if not _on_sex_chromosome(window)]
    left_out = [window.name for window in windows if _on_sex_chromosome(window)]
    if not kept:
        raise InputError(
            f"all {len(windows)} windows of {path} lie on X or Y, which are left out because their vectors tell "
            f"everybody's sex; pass --sex_chromosomes=true to read them"
        )
    return kept, left_out


def _rules(
    windows: list[Window], ploidy: Ploidy, choice: WindowChoice | None, *, missing: str, unphased: str
) -> dict[str, object]:
    """For the provenance: everything that decided how genotypes became sequences."""
    rules: dict[str, object] = {"missing": missing, "unphased": unphased}
    if choice is not None and choice != WindowChoice():
        told = {name: value for name, value in vars(choice).items() if value not in (None, ())}
        rules["windows"] = {name: [*v] if isinstance(v, tuple) else v for name, v in told.items()}
    if chosen := Counter(window.rule for window in windows if window.rule):
        rules["exons_by_transcript"] = dict(chosen)
    if any(window.focus for window in windows):
        rules["focus"] = {w.name: [*w.focus] for w in windows if w.focus}
    if any(map(_on_sex_chromosome, windows)):
        rules["one_copy"] = {
            "windows": [window.name for window in windows if _on_sex_chromosome(window)],
            "build": ploidy.build,
            "males": int(ploidy.male.sum()),
            "females": int(ploidy.female.sum()),
            "unknown_sex_read_as_female": int((~ploidy.male & ~ploidy.female).sum()),
            "heterozygous": ploidy.heterozygotes,
        }
    return rules


def _refuse_degenerate(windows: list[WindowHaplotypes], path: Path) -> None:
    genes: dict[str, bool] = {}
    for window in windows:
        genes[window.window.gene] = genes.get(window.window.gene, False) or window.varies
    if alike := [gene for gene, varies in genes.items() if not varies]:
        raise InputError(
            f"{len(alike)} of {len(genes)} genes hold the same pair of sequences in everyone ({some(alike)}), so their "
            f"vectors would say nothing about anyone; drop them from {path} or make them wider (--flank)",
            code="E_DEGENERATE",
        )
