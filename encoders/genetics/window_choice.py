"""Which windows a run has: from BED, from the genes or exons of an annotation, or around variants.

Glossary: a window is [start, end), 0-based and half-open, on the forward strand; flanks reach to both sides.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from encoders.genetics.annotation import (
    Gene,
    looks_like_annotation,
    read_genes,
    read_transcripts,
    stand_in,
    text_lines,
)
from encoders.genetics.contigs import canonical
from encoders.genetics.gene_names import read_names
from encoders.genetics.reference import some
from encoders.genetics.windows import Window, is_plink, read_windows
from encoders.runs.errors import InputError

__all__ = ["WindowChoice", "choose_windows", "read_names"]

CHROMOSOMES = {*map(str, range(1, 23)), "X", "Y", "MT"}


@dataclass(frozen=True, kw_only=True)
class WindowChoice:
    """How windows are made from a file.

    Args:
        kind: "gene": a gene's body; "exon": the exons of its transcript; "variant": around each variant of a
            list. None: BED as it is, genes of an annotation.
        genes: Names or ids, in the order in which the genes are wanted; empty: all of the file.
        flank: Bases added on both sides; None: none.
        centre: "body": the whole gene and the flanks; "tss": the flanks around the base where transcription starts.
        focus_flank: Bases on both sides of a variant that are pooled with it.
    """

    kind: Literal["gene", "exon", "variant"] | None = None
    genes: tuple[str, ...] = ()
    flank: int | None = None
    centre: Literal["body", "tss"] = "body"
    focus_flank: int = 0

    def __post_init__(self) -> None:
        for name in ("flank", "focus_flank"):
            if (getattr(self, name) or 0) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; a number of bases, 0 or more, was wanted")
        if self.centre == "tss" and (self.kind not in (None, "gene") or not self.flank):
            raise InputError(
                "centre is 'tss', which takes the flanks around the transcription start of genes; pass --flank, "
                "100000 say, and no other window_kind than gene"
            )
        if self.kind == "variant" and self.flank is None:
            raise InputError("windows around variants need --flank, the bases on both sides; 500 say")
        if self.kind == "variant" and self.genes:
            raise InputError("windows around variants belong to no gene; drop --genes")


def choose_windows(path: Path, choice: WindowChoice | None = None) -> list[Window]:
    """The windows of a file, before they are placed on a reference (they may reach beyond a contig).

    Args:
        path: BED, GTF, GFF3 (gzipped or not), or for variants: sites of a VCF, or a table `contig position`.
        choice: How.

    Raises:
        InputError: E_GENE for genes that the file does not have, E_ANNOTATION, or a file of another kind.
    """
    choice, path = choice or WindowChoice(), Path(path)
    if choice.kind == "variant":
        return _variant_windows(path, choice)
    if is_plink(path) or not looks_like_annotation(path):
        return _bed_windows(path, choice)
    genes = _select(read_genes(path), choice.genes, path)
    if choice.kind == "exon":
        return _exon_windows(path, genes, choice)
    flank = choice.flank or 0
    windows = []
    for name, gene in _named(genes):
        start, end = gene.start, gene.end
        if choice.centre == "tss":
            start, end = (end - 1, end) if gene.strand == "-" else (start, start + 1)
        windows.append(
            Window(name=name, contig=gene.contig, start=start, end=end, strand=gene.strand).widened(flank)
        )
    return windows


def _bed_windows(path: Path, choice: WindowChoice) -> list[Window]:
    """BED windows, flanked where that is asked for; the pooled stretch of exons stays the exon."""
    if choice.centre == "tss":
        raise InputError(f"{path} is a BED file, which has no transcription starts; pass a GTF or GFF3 file")
    if not is_plink(path) and next(text_lines(path), "").startswith("##fileformat=VCF"):
        raise InputError(
            f"{path} holds variants; windows around them need --window_kind=variant and --flank, 500 say"
        )
    windows = read_windows(path)
    if choice.genes:
        known = {window.gene for window in windows}
        _refuse_unknown([name for name in choice.genes if name not in known], known, path)
        windows = [w for name in dict.fromkeys(choice.genes) for w in windows if w.gene == name]
    flank = choice.flank or 0
    if choice.kind == "exon" and flank:
        windows = [replace(w, focus=(w.start, w.end)) for w in windows]
    return [window.widened(flank) for window in windows]


def _exon_windows(path: Path, genes: list[Gene], choice: WindowChoice) -> list[Window]:
    """The exons of the transcript that stands for each gene, numbered as they are transcribed."""
    transcripts, flank, windows, without = read_transcripts(path, genes), choice.flank or 0, [], []
    for name, gene in _named(genes):
        if not transcripts[gene.key]:
            without.append(gene.name)
            continue
        transcript, rule = stand_in(transcripts[gene.key])
        exons = transcript.exons[::-1] if gene.strand == "-" else transcript.exons
        for number, (start, end) in enumerate(exons, 1):
            exon = Window(
                name=f"{name}|{transcript.name}|exon{number}",
                contig=gene.contig,
                start=start,
                end=end,
                strand=gene.strand,
                focus=(start, end) if flank else None,
                rule=rule,
            )
            windows.append(exon.widened(flank))
    if without:
        raise InputError(
            f"{len(without)} of {len(genes)} genes have no exons in {path}: {some(without)}; drop them, or pass "
            f"--window_kind=gene",
            code="E_GENE",
        )
    return windows


def _variant_windows(path: Path, choice: WindowChoice) -> list[Window]:
    """A window around each site of a VCF (contig, position, id, REF) or of a table (contig, position[, name])."""
    windows, seen = [], {}
    is_vcf, header_allowed = False, True
    for number, line in enumerate(text_lines(path), 1):
        is_vcf = is_vcf or line.startswith("##fileformat=VCF")
        if line.startswith("#") or not line.strip():
            continue
        cells = line.split("\t") if "\t" in line else re.split(r"[,\s]+", line.strip())
        cells = [cell.strip() for cell in cells]
        if len(cells) == 1 and ":" in cells[0]:
            cells = [*cells[0].split(":")[:2]]
        if len(cells) < 2 or not cells[1].isdecimal() or int(cells[1]) < 1:
            if header_allowed and not is_vcf and len(cells) > 1:
                header_allowed = False
                continue  # a line of titles
            raise InputError(
                f"{path}, line {number}: {line.strip()[:60]!r} is no variant; contig and position (1-based) "
                f"were wanted, or the sites of a VCF"
            )
        header_allowed = False
        contig, position = cells[0], int(cells[1])
        ref = cells[3] if is_vcf and len(cells) > 3 else "N"
        name = cells[2] if len(cells) > 2 and cells[2] not in ("", ".") else f"{contig}:{position}"
        if name in seen:
            if seen[name] == (contig, position, ref):
                continue  # a further allele at the same place
            name = f"{contig}:{position}:{ref}"
        seen[name] = (contig, position, ref)
        start, end = position - 1, position - 1 + len(ref)
        focus = (start - choice.focus_flank, end + choice.focus_flank)
        window = Window(name=name.replace("|", "_"), contig=contig, start=start, end=end)
        windows.append(replace(window.widened(choice.flank or 0), focus=focus))
    if not windows:
        raise InputError(f"{path} holds no variants; one line `contig position` each, or a VCF, was wanted")
    return windows


def _select(genes: list[Gene], names: tuple[str, ...], path: Path) -> list[Gene]:
    """The genes asked for, in the order in which they were asked for; all if none was."""
    if not names:
        return genes
    by_name: dict[str, list[Gene]] = {}
    for gene in genes:
        for name in {gene.name, *gene.aliases}:
            by_name.setdefault(name, []).append(gene)
    wanted = [name if name in by_name else re.sub(r"\.\d+$", "", name) for name in names]
    _refuse_unknown(
        [n for n, key in zip(names, wanted, strict=True) if key not in by_name],
        [gene.name for gene in genes],
        path,
    )
    chosen: dict[tuple[str, str], Gene] = {}
    for name in wanted:
        found = _on_chromosomes([g for g in by_name[name] if g.name == name] or by_name[name])
        if len(found) > 1:
            raise InputError(
                f"{name!r} stands for {len(found)} genes in {path}: "
                f"{'; '.join(f'{gene.id} at {gene.place}' for gene in found[:4])}; ask for one by its id",
                code="E_GENE",
            )
        chosen.setdefault(found[0].key, found[0])
    return list(chosen.values())


def _on_chromosomes(genes: list[Gene]) -> list[Gene]:
    """Of several genes of one name those on chromosomes rather than patches, and on X rather than its copy on Y."""
    genes = [gene for gene in genes if canonical(gene.contig) in CHROMOSOMES] or genes
    if {canonical(gene.contig) for gene in genes} == {"X", "Y"}:
        genes = [gene for gene in genes if canonical(gene.contig) == "X"]
    return genes


def _named(genes: list[Gene]) -> list[tuple[str, Gene]]:
    """Genes with names that are unique: the symbol, or the id (and contig) where several share one."""
    symbols, ids = Counter(gene.name for gene in genes), Counter(gene.id for gene in genes)
    named = []
    for gene in genes:
        name = gene.name
        if symbols[name] > 1:
            name = gene.id if ids[gene.id] == 1 else f"{gene.id}_{gene.contig}"
        named.append((name.replace("|", "_"), gene))
    return named


def _refuse_unknown(unknown: list[str], known: Iterable[str], path: Path) -> None:
    if not unknown:
        return
    known = sorted(set(known))
    small = {name.lower(): name for name in known}
    near = []
    for name in unknown[:8]:
        match = difflib.get_close_matches(name.lower(), list(small), n=1, cutoff=0.6)
        if match:
            near.append(f"{name!r} and {small[match[0]]!r}")
    hint = f" (near matches: {'; '.join(near[:4])})" if near else ""
    raise InputError(
        f"{len(unknown)} genes are not in {path}: {some(unknown)}{hint}; correct the names, or ask by id",
        code="E_GENE",
    )
