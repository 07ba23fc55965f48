"""Genes and exons from GTF and GFF3 in the dialects of Ensembl, GENCODE and RefSeq."""

import gzip

import pytest

from encoders.genetics.annotation import read_genes, read_transcripts, stand_in
from encoders.runs.errors import InputError


def rows(*lines: str) -> str:
    """Lines with spaces for tabs between the first eight columns."""
    return "".join("\t".join(line.split(None, 8)) + "\n" for line in lines)


ENSEMBL_GTF = "#!genome-build GRCh38.p14\n" + rows(
    '13 ensembl_havana gene 101 400 . + . gene_id "ENSG1"; gene_version "19"; gene_name "BRCA2"; gene_biotype "protein_coding";',
    '13 havana transcript 101 400 . + . gene_id "ENSG1"; transcript_id "ENST2"; gene_name "BRCA2"; tag "basic";',
    '13 havana exon 101 400 . + . gene_id "ENSG1"; transcript_id "ENST2"; exon_number "1"; gene_name "BRCA2";',
    '13 ensembl_havana transcript 111 400 . + . gene_id "ENSG1"; transcript_id "ENST1"; tag "basic"; tag "Ensembl_canonical"; tag "MANE_Select";',
    '13 ensembl_havana exon 111 150 . + . gene_id "ENSG1"; transcript_id "ENST1"; exon_number "1"; note "a; b";',
    '13 ensembl_havana CDS 120 150 . + 0 gene_id "ENSG1"; transcript_id "ENST1";',
    '13 ensembl_havana exon 201 240 . + . gene_id "ENSG1"; transcript_id "ENST1"; exon_number "2";',
    '13 havana gene 501 600 . - . gene_id "ENSG2"; gene_version "1";',
    '13 havana transcript 501 600 . - . gene_id "ENSG2"; transcript_id "ENST3"; tag "Ensembl_canonical";',
    '13 havana exon 571 600 . - . gene_id "ENSG2"; transcript_id "ENST3"; exon_number "1";',
    '13 havana exon 501 530 . - . gene_id "ENSG2"; transcript_id "ENST3"; exon_number "2";',
)
ENSEMBL_GFF3 = "##gff-version 3\n##sequence-region 13 1 1000\n" + rows(
    "13 GRCh38 chromosome 1 1000 . . . ID=chromosome:13;Alias=CM000675.2,chr13,NC_000013.11",
    "13 ensembl_havana gene 101 400 . + . ID=gene:ENSG1;Name=BRCA2;biotype=protein_coding;gene_id=ENSG1;version=19",
    "13 havana mRNA 101 400 . + . ID=transcript:ENST2;Parent=gene:ENSG1;tag=basic;transcript_id=ENST2",
    "13 havana exon 101 400 . + . Parent=transcript:ENST2;exon_id=ENSE1;rank=1",
    "13 ensembl_havana mRNA 111 400 . + . ID=transcript:ENST1;Parent=gene:ENSG1;tag=basic,Ensembl_canonical,MANE_Select;transcript_id=ENST1",
    "13 ensembl_havana five_prime_UTR 111 119 . + . Parent=transcript:ENST1",
    "13 ensembl_havana exon 111 150 . + . Parent=transcript:ENST1;rank=1",
    "13 ensembl_havana exon 201 240 . + . Parent=transcript:ENST1;rank=2",
    "13 havana ncRNA_gene 501 600 . - . ID=gene:ENSG2;gene_id=ENSG2;version=1",
    "13 havana lnc_RNA 501 600 . - . ID=transcript:ENST3;Parent=gene:ENSG2;tag=Ensembl_canonical;transcript_id=ENST3",
    "13 havana exon 571 600 . - . Parent=transcript:ENST3;rank=1",
    "13 havana exon 501 530 . - . Parent=transcript:ENST3;rank=2",
)
GENCODE_GTF = "##description: evidence-based annotation\n##provider: GENCODE\n" + rows(
    'chr13 HAVANA gene 101 400 . + . gene_id "ENSG1.19"; gene_type "protein_coding"; gene_name "BRCA2"; level 2;',
    'chr13 HAVANA transcript 101 400 . + . gene_id "ENSG1.19"; transcript_id "ENST2.1"; gene_name "BRCA2"; level 2; tag "basic";',
    'chr13 HAVANA exon 101 400 . + . gene_id "ENSG1.19"; transcript_id "ENST2.1"; exon_number 1; tag "basic";',
    'chr13 HAVANA transcript 111 400 . + . gene_id "ENSG1.19"; transcript_id "ENST1.9"; level 2; tag "basic"; tag "MANE_Select";',
    'chr13 HAVANA exon 111 150 . + . gene_id "ENSG1.19"; transcript_id "ENST1.9"; exon_number 1; tag "MANE_Select";',
    'chr13 HAVANA exon 201 240 . + . gene_id "ENSG1.19"; transcript_id "ENST1.9"; exon_number 2; tag "MANE_Select";',
    'chr13 HAVANA gene 501 600 . - . gene_id "ENSG2.1"; gene_name "ENSG2"; level 2;',
    'chr13 HAVANA transcript 501 600 . - . gene_id "ENSG2.1"; transcript_id "ENST3.1"; level 2; tag "Ensembl_canonical";',
    'chr13 HAVANA exon 571 600 . - . gene_id "ENSG2.1"; transcript_id "ENST3.1"; exon_number 1;',
    'chr13 HAVANA exon 501 530 . - . gene_id "ENSG2.1"; transcript_id "ENST3.1"; exon_number 2;',
)
GENCODE_GFF3 = "##gff-version 3\n#provider: GENCODE\n" + rows(
    "chr13 HAVANA gene 101 400 . + . ID=ENSG1.19;gene_id=ENSG1.19;gene_type=protein_coding;gene_name=BRCA2;level=2",
    "chr13 HAVANA transcript 101 400 . + . ID=ENST2.1;Parent=ENSG1.19;gene_id=ENSG1.19;transcript_id=ENST2.1;gene_name=BRCA2;tag=basic",
    "chr13 HAVANA exon 101 400 . + . ID=exon:ENST2.1:1;Parent=ENST2.1;gene_id=ENSG1.19;transcript_id=ENST2.1",
    "chr13 HAVANA transcript 111 400 . + . ID=ENST1.9;Parent=ENSG1.19;gene_id=ENSG1.19;transcript_id=ENST1.9;tag=basic,MANE_Select",
    "chr13 HAVANA exon 111 150 . + . ID=exon:ENST1.9:1;Parent=ENST1.9;gene_id=ENSG1.19;transcript_id=ENST1.9",
    "chr13 HAVANA exon 201 240 . + . ID=exon:ENST1.9:2;Parent=ENST1.9;gene_id=ENSG1.19;transcript_id=ENST1.9",
    "chr13 HAVANA gene 501 600 . - . ID=ENSG2.1;gene_id=ENSG2.1;gene_name=ENSG2;level=2",
    "chr13 HAVANA transcript 501 600 . - . ID=ENST3.1;Parent=ENSG2.1;gene_id=ENSG2.1;transcript_id=ENST3.1;tag=Ensembl_canonical",
    "chr13 HAVANA exon 571 600 . - . ID=exon:ENST3.1:1;Parent=ENST3.1;gene_id=ENSG2.1;transcript_id=ENST3.1",
    "chr13 HAVANA exon 501 530 . - . ID=exon:ENST3.1:2;Parent=ENST3.1;gene_id=ENSG2.1;transcript_id=ENST3.1",
)
REFSEQ_GTF = "#gtf-version 2.2\n" + rows(
    'NC_000013.11 BestRefSeq gene 101 400 . + . gene_id "BRCA2"; transcript_id ""; db_xref "GeneID:675"; db_xref "HGNC:HGNC:1101"; gbkey "Gene"; gene "BRCA2";',
    'NC_000013.11 BestRefSeq transcript 101 400 . + . gene_id "BRCA2"; transcript_id "NM_2.1"; gene "BRCA2";',
    'NC_000013.11 BestRefSeq exon 101 400 . + . gene_id "BRCA2"; transcript_id "NM_2.1"; gene "BRCA2"; exon_number "1";',
    'NC_000013.11 BestRefSeq transcript 111 400 . + . gene_id "BRCA2"; transcript_id "NM_1.4"; gene "BRCA2"; tag "MANE Select";',
    'NC_000013.11 BestRefSeq exon 111 150 . + . gene_id "BRCA2"; transcript_id "NM_1.4"; tag "MANE Select"; exon_number "1";',
    'NC_000013.11 BestRefSeq exon 201 240 . + . gene_id "BRCA2"; transcript_id "NM_1.4"; tag "MANE Select"; exon_number "2";',
    'NC_000013.11 Gnomon gene 501 600 . - . gene_id "ENSG2"; transcript_id ""; db_xref "GeneID:999"; gene "ENSG2";',
    'NC_000013.11 Gnomon transcript 501 600 . - . gene_id "ENSG2"; transcript_id "XR_3.1"; gene "ENSG2";',
    'NC_000013.11 Gnomon exon 571 600 . - . gene_id "ENSG2"; transcript_id "XR_3.1"; gene "ENSG2"; exon_number "1";',
    'NC_000013.11 Gnomon exon 501 530 . - . gene_id "ENSG2"; transcript_id "XR_3.1"; gene "ENSG2"; exon_number "2";',
)
REFSEQ_GFF3 = "##gff-version 3\n#!processor NCBI annotwriter\n" + rows(
    "NC_000013.11 RefSeq region 1 1000 . + . ID=NC_000013.11:1..1000;Name=13;gbkey=Src",
    "NC_000013.11 BestRefSeq gene 101 400 . + . ID=gene-BRCA2;Dbxref=GeneID:675,HGNC:HGNC:1101;Name=BRCA2;gene=BRCA2",
    "NC_000013.11 BestRefSeq mRNA 101 400 . + . ID=rna-NM_2.1;Parent=gene-BRCA2;Name=NM_2.1;gene=BRCA2;transcript_id=NM_2.1",
    "NC_000013.11 BestRefSeq exon 101 400 . + . ID=exon-NM_2.1-1;Parent=rna-NM_2.1;gene=BRCA2;transcript_id=NM_2.1",
    "NC_000013.11 BestRefSeq mRNA 111 400 . + . ID=rna-NM_1.4;Parent=gene-BRCA2;Name=NM_1.4;tag=MANE Select;transcript_id=NM_1.4",
    "NC_000013.11 BestRefSeq exon 111 150 . + . ID=exon-NM_1.4-1;Parent=rna-NM_1.4;tag=MANE Select;transcript_id=NM_1.4",
    "NC_000013.11 BestRefSeq exon 201 240 . + . ID=exon-NM_1.4-2;Parent=rna-NM_1.4;tag=MANE Select;transcript_id=NM_1.4",
    "NC_000013.11 BestRefSeq CDS 120 150 . + 0 ID=cds-NP_1;Parent=rna-NM_1.4;gene=BRCA2",
    "NC_000013.11 Gnomon pseudogene 501 600 . - . ID=gene-ENSG2;Dbxref=GeneID:999;Name=ENSG2;gene=ENSG2;pseudo=true",
    "NC_000013.11 Gnomon exon 501 530 . - . ID=id-ENSG2;Parent=gene-ENSG2;gene=ENSG2",
    "NC_000013.11 Gnomon exon 571 600 . - . ID=id-ENSG2-2;Parent=gene-ENSG2;gene=ENSG2",
)
DIALECTS = {
    "ensembl.gtf": ENSEMBL_GTF,
    "ensembl.gff3": ENSEMBL_GFF3,
    "gencode.gtf": GENCODE_GTF,
    "gencode.gff3": GENCODE_GFF3,
    "refseq.gtf": REFSEQ_GTF,
    "refseq.gff3": REFSEQ_GFF3,
}


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_dialect_gives_the_same_genes_and_exons(tmp_path, name, packed):
    path = tmp_path / (f"{name}.gz" if packed else name)
    text = DIALECTS[name].encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    genes = read_genes(path)
    assert [(g.name, g.start, g.end, g.strand) for g in genes] == [
        ("BRCA2", 100, 400, "+"),
        ("ENSG2", 500, 600, "-"),
    ]
    brca2, other = (read_transcripts(path, genes)[gene.key] for gene in genes)
    chosen, rule = stand_in(brca2)
    assert rule == "MANE Select"
    assert chosen.name.startswith(("ENST1", "NM_1.4"))
    assert chosen.exons == [(110, 150), (200, 240)]
    assert stand_in(other)[0].exons == [(500, 530), (570, 600)]
    assert "GeneID:675" in genes[0].aliases or "ENSG1" in genes[0].aliases  # without its version


def test_the_longest_transcript_stands_in_where_no_tag_decides(tmp_path):
    path = tmp_path / "plain.gtf"
    path.write_text(
        rows(
            '1 x exon 1 10 . + . gene_id "G"; transcript_id "B";',
            '1 x exon 21 40 . + . gene_id "G"; transcript_id "B";',
            '1 x exon 1 30 . + . gene_id "G"; transcript_id "A";',
            '1 x exon 5 33 . + . gene_id "G"; transcript_id "C";',
        )
    )
    genes = read_genes(path)
    assert [(g.name, g.start, g.end) for g in genes] == [("G", 0, 40)]  # no gene lines: the span of its exons
    chosen, rule = stand_in(read_transcripts(path, genes)[genes[0].key])
    assert (chosen.name, rule) == ("A", "longest")


def test_overlapping_exons_of_one_transcript_are_merged(tmp_path):
    path = tmp_path / "slip.gff3"
    path.write_text(
        rows(
            "1 x gene 1 90 . - . ID=g;Name=PEG10",
            "1 x mRNA 1 90 . - . ID=t;Parent=g",
            "1 x exon 1 30 . - . Parent=t",
            "1 x exon 25 50 . - . Parent=t",
            "1 x exon 51 90 . - . Parent=t",
        )
    )
    genes = read_genes(path)
    assert read_transcripts(path, genes)[genes[0].key][0].exons == [(0, 50), (50, 90)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 x gene 5 9 . + .", "line 2 has 8 columns; the nine of GTF or GFF3"),
        ("1 x gene 0 9 . + . ID=g", r"start '0' and end '9'; 1 <= start <= end \(1-based\)"),
        ("1 x gene 9 5 . + . ID=g", "start '9' and end '5'"),
        ("1 x gene 5 9 . x . ID=g", "strand 'x'"),
        ("1 x exon 5 9 . + . ID=g", "names no genes"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    path = tmp_path / "bad.gtf"
    path.write_text("##gff-version 3\n" + rows(line))
    with pytest.raises(InputError, match=f"E_ANNOTATION: .*bad.gtf.*{message}"):
        read_genes(path)


def test_a_truncated_gzip_file_is_an_error(tmp_path):
    path = tmp_path / "genes.gtf.gz"
    path.write_bytes(gzip.compress(GENCODE_GTF.encode())[:-30])
    with pytest.raises(InputError, match="is damaged"):
        read_genes(path)


@pytest.mark.parametrize(
    "line",
    [
        'chr17 HAVANA gene 1 9 . - . gene_id "ENSG1.2"; gene_name "BRCA1"; hgnc_id "HGNC:1100";',
        "NC_000017.11 BestRefSeq gene 1 9 . - . ID=gene-BRCA1;Dbxref=GeneID:672,HGNC:HGNC:1100;Name=BRCA1",
    ],
)
def test_the_committees_number_is_a_name(tmp_path, line):
    path = tmp_path / "genes.gff"
    path.write_text(rows(line))
    (gene,) = read_genes(path)
    assert "HGNC:1100" in gene.aliases
