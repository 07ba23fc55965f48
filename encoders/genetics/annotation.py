"""Genes and their exons from an annotation: GTF or GFF3 as Ensembl, GENCODE and RefSeq write them, gzipped or not.

Both formats have nine columns, positions 1-based and closed; here they become 0-based and half-open. They differ
in column nine: `gene_id "ENSG..."; gene_name "BRCA2";` or `ID=gene:ENSG...;Name=BRCA2`.

One transcript stands for a gene, by a fixed rule: the one tagged MANE Select, else Ensembl_canonical, else the
one with most bases in exons (the first name in the alphabet among equals).
"""

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from encoders.runs.errors import InputError

_GTF = re.compile(r'([\w.-]+)\s+(?:"([^"]*)"|([^;"\s]+))\s*(?:;|$)')
_GZIP = b"\x1f\x8b"
_GENE_PARTS = ("transcript", "exon", "CDS")  # GTF features that name their gene
_OWNER = re.compile(r'(?:^|[;\s])(?:gene_id\s+"?([^";]+)|Parent=([^;\s]+))')
_PREFIXES = ("gene:", "gene-", "transcript:", "rna-")


@dataclass(frozen=True, kw_only=True)
class Gene:
    """A gene as an annotation has it.

    Args:
        key: What its transcripts refer to, with the contig.
        id: Stable id, such as ENSG00000139618.19.
        name: Symbol; the id if it has none.
        contig: Contig as the file spells it.
        start: First base, 0-based.
        end: One past the last base.
        strand: "+" or "-".
        aliases: Other names by which it may be asked for.
    """

    key: tuple[str, str]
    id: str
    name: str
    contig: str
    start: int
    end: int
    strand: str
    aliases: frozenset[str] = frozenset()

    @property
    def place(self) -> str:
        """Position as genome browsers show it."""
        return f"{self.contig}:{self.start + 1}-{self.end} ({self.strand})"


@dataclass(kw_only=True)
class Transcript:
    """A transcript: its name, the tags of the file, and its exons in the order of the file."""

    name: str
    tags: set[str] = field(default_factory=set)
    exons: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Line:
    contig: str
    feature: str
    start: int
    end: int
    strand: str
    values: dict[str, list[str]]

    def first(self, *keys: str) -> str:
        return next((self.values[key][0] for key in keys if self.values.get(key, [""])[0]), "")


def looks_like_annotation(path: Path) -> bool:
    """Whether a file is named .gtf, .gff or .gff3, or its first line has nine columns with positions in 4 and 5."""
    if re.search(r"\.(gtf|gff3?)(\.b?gz)?$", path.name, re.IGNORECASE):
        return True
    for line in text_lines(path):
        if line.startswith("##gff-version"):
            return True
        if line.strip() and not line.startswith(("#", "track", "browser")):
            cells = line.split("\t")
            return len(cells) == 9 and cells[3].isdecimal() and cells[4].isdecimal()
    return False


def read_genes(path: Path) -> list[Gene]:
    """All genes of an annotation, in file order.

    Raises:
        InputError: E_ANNOTATION, no GTF or GFF3 file, or no genes in it.
    """
    genes: dict[tuple[str, str], Gene] = {}
    for line in _parsed(path, lambda feature, _: _is_gene(feature)):
        gene = _gene(line)
        genes.setdefault(gene.key, gene)
    if not genes:  # some programs write transcripts and exons only
        for line in _parsed(path, lambda feature, _: feature in _GENE_PARTS):
            if "gene_id" not in line.values:
                continue
            gene = _gene(line)
            known = genes.get(gene.key, gene)
            start, end = min(known.start, gene.start), max(known.end, gene.end)
            genes[gene.key] = Gene(**{**vars(known), "start": start, "end": end})
    if not genes:
        raise InputError(
            f"{path} names no genes; a GTF or GFF3 file with lines of type gene (or exon, with a gene_id) was wanted",
            code="E_ANNOTATION",
        )
    return list(genes.values())


def read_transcripts(path: Path, genes: list[Gene]) -> dict[tuple[str, str], list[Transcript]]:
    """The transcripts of some genes, by the key of the gene, with overlapping exons of one transcript merged."""
    found: dict[tuple[str, str], dict[str, Transcript]] = {gene.key: {} for gene in genes}
    names = {name for name, _ in found}
    parents: dict[tuple[str, str], tuple[str, str]] = {}  # transcript of a GFF3 file -> gene

    def part_of_gene(feature: str, text: str) -> bool:
        if feature in ("CDS", "start_codon", "stop_codon", "UTR") or _is_gene(feature):
            return False
        owner = _OWNER.search(text)
        return owner is not None and not names.isdisjoint((owner[1] or owner[2]).split(","))

    for line in _parsed(path, part_of_gene):
        if "Parent" not in line.values:  # GTF: every line names its gene
            key, name = (line.first("gene_id"), line.contig), line.first("transcript_id")
            if key in found and name and line.feature in ("transcript", "exon"):
                transcript = found[key].setdefault(name, Transcript(name=name))
                transcript.tags |= _tags(line)
                if line.feature == "exon":
                    transcript.exons.append((line.start, line.end))
            continue
        for owner in ((parent, line.contig) for parent in line.values["Parent"]):
            if owner not in found:
                continue
            if line.feature == "exon":  # of a gene without transcripts (pseudogenes of RefSeq)
                bare = found[owner].setdefault(owner[0], Transcript(name=_bare(owner[0])))
                bare.exons.append((line.start, line.end))
            elif line.first("ID"):
                parents[line.first("ID"), line.contig] = owner
                name = line.first("transcript_id") or _bare(line.first("ID"))
                found[owner][line.first("ID")] = Transcript(name=name, tags=_tags(line))
    if parents:
        names = {name for name, _ in parents}
        for line in _parsed(path, lambda feature, text: feature == "exon" and part_of_gene(feature, text)):
            for owner in ((parent, line.contig) for parent in line.values.get("Parent", [])):
                if owner in parents:
                    found[parents[owner]][owner[0]].exons.append((line.start, line.end))
    kept = {}
    for key, transcripts in found.items():
        kept[key] = [t for t in transcripts.values() if t.exons]
        for transcript in kept[key]:
            transcript.exons = _merged(transcript.exons)
    return kept


def stand_in(transcripts: list[Transcript]) -> tuple[Transcript, str]:
    """The transcript that stands for its gene, and the rule that chose it."""
    for tag, rule in (("mane_select", "MANE Select"), ("ensembl_canonical", "Ensembl canonical")):
        tagged = [t for t in transcripts if tag in t.tags]
        if tagged:
            return min(tagged, key=lambda t: t.name), rule
    longest = min(transcripts, key=lambda t: (-sum(end - start for start, end in t.exons), t.name))
    return longest, "longest"


def _is_gene(feature: str) -> bool:
    """`gene`, `pseudogene`, `ncRNA_gene`, ..."""
    return feature.endswith("gene")


def _gene(line: _Line) -> Gene:
    key = line.first("ID") or line.first("gene_id")
    stable = line.first("gene_id") or _bare(key)
    name = line.first("gene_name", "gene", "Name") or stable
    others = [stable, _bare(key), line.first("Name"), line.first("gene")]
    others += line.values.get("Dbxref", []) + line.values.get("db_xref", []) + line.values.get("hgnc_id", [])
    others += [other.removeprefix("HGNC:") for other in others if other.startswith("HGNC:HGNC:")]
    others += [re.sub(r"\.\d+$", "", other) for other in (stable, _bare(key))]
    return Gene(
        key=(key, line.contig),
        id=stable,
        name=name,
        contig=line.contig,
        start=line.start,
        end=line.end,
        strand=line.strand,
        aliases=frozenset(other for other in others if other),
    )


def _tags(line: _Line) -> set[str]:
    return {tag.strip().lower().replace(" ", "_") for tag in line.values.get("tag", [])}


def _bare(name: str) -> str:
    return next((name.removeprefix(p) for p in _PREFIXES if name.startswith(p)), name)


def _merged(exons: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(exons):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def text_lines(path: Path) -> Iterator[str]:
    """Lines of a text file, gzipped or not."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; gene windows (BED, GTF or GFF3) were wanted")
    with open(path, "rb") as raw:
        packed = raw.read(2) == _GZIP
    try:
        with (gzip.open if packed else open)(path, "rt", encoding="utf-8-sig") as file:
            yield from file
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text; gene windows (BED, GTF or GFF3) were wanted") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as cause:
        raise InputError(f"{path} is damaged ({cause}); copy or download it again") from cause


def _parsed(path: Path, wanted: Callable[[str, str], bool]) -> Iterator[_Line]:
    """The lines that are wanted by their feature and column nine; every line is checked.

    Raises:
        InputError: E_ANNOTATION, with the number of the line.
    """
    for number, text in enumerate(text_lines(path), 1):
        if text.startswith("##FASTA"):
            return
        if text.startswith("#") or not text.strip():
            continue
        cells = text.rstrip("\r\n").split("\t")
        if len(cells) != 9:
            raise _fault(path, number, f"has {len(cells)} columns; the nine of GTF or GFF3 were wanted")
        start, end, strand = cells[3], cells[4], cells[6]
        if not (start.isdecimal() and end.isdecimal() and 1 <= int(start) <= int(end)):
            raise _fault(
                path, number, f"has start {start!r} and end {end!r}; 1 <= start <= end (1-based) was wanted"
            )
        if strand not in ("+", "-", ".", "?"):
            raise _fault(path, number, f"has strand {strand!r}; '+', '-' or '.' was wanted")
        if wanted(cells[2], cells[8]):
            yield _Line(
                contig=cells[0],
                feature=cells[2],
                start=int(start) - 1,
                end=int(end),
                strand="-" if strand == "-" else "+",
                values=_attributes(cells[8]),
            )


def _attributes(text: str) -> dict[str, list[str]]:
    """Column nine of either format; keys may be repeated (GTF) and values may be lists (GFF3)."""
    values: dict[str, list[str]] = {}
    found = _GTF.findall(text) if re.match(r"\s*[\w.-]+\s", text) else []
    if found:
        for key, quoted, bare in found:
            values.setdefault(key, []).append(quoted or bare)
        return values
    for part in text.split(";"):
        key, equals, value = part.strip().partition("=")
        if equals:
            values[key] = [unquote(item) for item in value.split(",")]
    return values


def _fault(path: Path, number: int, what: str) -> InputError:
    return InputError(f"{path}, line {number} {what}", code="E_ANNOTATION")
