"""Options of `scripts/embed_genome.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from encoders.genetics.gene_names import read_names
from encoders.genetics.strategies import Combine, GenesAs, Pooling, Strategy, Tokens, find_strategy
from encoders.runs.errors import InputError
from encoders.runs.parts import part_of
from encoders.runs.study import DEMO

STEPS = ("tokens", "pooling", "combine", "genes_as", "pca")
# what cannot change the result: where and how it is computed
HOW = ("plan", "device", "device_map", "batch_bases", "cache", "cache_gb", "shard")
EXAMPLE_MODEL = "kuleshov-group/caduceus-ph_seqlen-131k_d_model-256_n_layer-16"


@dataclass(frozen=True, kw_only=True)
class EmbedGenome:
    """From FASTA + phased variants to one vector per person.

    Args:
        study: Study folder.
        participants: Table of people (TSV or CSV); default: the study's own.
        variants: Phased variants: bgzipped VCF, BCF, .pgen or .bgen: a file, a folder, a pattern such as
            'chr*.vcf.gz', or several of these with commas between them; default: the study's own.
        sample_file: .sample file with the people of BGEN files that do not name them, as UK Biobank's.
        contig: The contig of BGEN records that leave it blank; default: what the file name says (chr22, _c22_).
        reference: Reference genome, FASTA, plain or bgzipped; default: the study's own.
        windows: Gene windows, BED6 (0-based, half-open; name = gene, or gene|transcript|exon, whose windows
            are averaged; strand), or an annotation (GTF or GFF3 of Ensembl, GENCODE or RefSeq, gzipped or not),
            or a list of variants; default: the study's own.
        window_kind: "gene": the body of each gene; "exon": the exons of the transcript that stands for it (MANE
            Select, else Ensembl canonical, else the longest); "variant": around the sites of a VCF or of a table
            `contig position` (1-based). Default: BED as it is, the genes of an annotation.
        genes: Names or ids of the genes wanted, in the order of the vectors: a list, or a file with one per
            line; default: all of the file.
        flank: Bases added on both sides of a gene, exon or variant; default: 0.
        centre: "body": the whole gene; "tss": only the flanks around the base where transcription starts.
        focus_flank: Bases on both sides of a variant that are pooled with it. Of an exon with flanks, the exon
            is pooled.
        model: A Caduceus (Ph or PS), GENERator or Evo 2: a folder in the Hugging Face layout, or a hub id such as
            kuleshov-group/caduceus-ph_seqlen-131k_d_model-256_n_layer-16 or
            GenerTeam/GENERator-eukaryote-1.2b-base; default: the study's own folder.
        revision: Commit, tag or branch of the hub id; a full commit hash pins it.
        strategy: A named way of pooling, which sets tokens, pooling, combine, genes_as and pca:
            genetics_gene_fm_pca512_v1 (token mean, exon mean, gene mean, genes in file order, PCA 512),
            neurohelix_difference_v1 (the defaults), neurohelix_two_haplotypes_v1, neurohelix_last_token_v1,
            neurohelix_gene_max_v1.
        tokens: "focus" (default): mean over the stretch that a window names (an exon, a variant and its
            surroundings), or all of it; "window": mean over all of it; "last": the last position of each
            strand, for models that read in one direction.
        pooling: "difference" (default): the vector of a haplotype minus that of the reference haplotype;
            "mean": the vector alone, which is mostly locus identity.
        combine: How two haplotypes become one vector, whichever comes first: "mean" (default), or
            "mean_absdiff", which appends their absolute difference (twice as wide).
        genes_as: Genes "concatenated" (default) in the order of the file, "averaged", or their "max". Windows
            (exons) of one gene are averaged before.
        pca: Principal components, fitted on the training people of the split only; 0 (default) for none.
        pca_from: Apply the components of an earlier run (its vectors/genetics_pca.safetensors) instead, e.g.
            to new people.
        splits: Split file; default: the study's own. The PCA needs it; the overlap of haplotypes between train
            and test is reported where there is one.
        keep_levels: Also write the vectors of windows and of genes before they are put together.
        missing: A missing genotype becomes the letter N ("n") or the reference ("reference").
        unphased: Heterozygous genotypes without phase (0/1, or several phase sets in a window): "refuse";
            "ref_alt": REF on one sequence, the other allele on the other; "dosage": no haplotypes, the effects of
            single variants are added up; "iupac": ambiguity letters, for models that know them.
        sex_chromosomes: Also read windows on X and Y, whose vectors tell everybody's sex. Males have one copy
            outside the shared regions, females no Y; needs the column sex.
        haploid_heterozygotes: Two alleles where a person has one copy: "refuse", or "missing".
        build: Where X and Y are alike: "GRCh37", "GRCh38", or "auto", by contig lengths.
        max_n_share: Largest share of N bases a window of the reference may have, 0 to 1.
        long_windows: Windows longer than the context of the model: "refuse", or "tile": overlapping pieces as
            long as the context, averaged by their numbers of bases. Nothing is ever cut off.
        tile_overlap: Bases that neighbouring tiles have in common at least; default: an eighth of the context.
        dtype: Number format of the model: "fp32", or "bf16" (faster on GPUs, coarser).
        batch_bases: Bases per batch of the encoder, which bounds memory; on a CPU each core has a batch of its own.
        device: "auto" (CUDA if there is one), "cpu" or "cuda".
        layer: Of Evo 2 only: whose output is pooled, such as blocks.28.mlp.l3; default: what its authors advise.
        backend: Of Evo 2 only: "own" (default), PyTorch alone; or "evo2", the authors' package.
        device_map: Of Evo 2 only: "auto" spreads a model larger than one card over GPUs, CPU memory and disk.
        cache: Folder of the cache of sequence vectors, which studies of one approval may share; default: the
            study's own.
        cache_gb: Largest size of that folder in GB (10^9 bytes); files used longest ago go first, those of this
            run stay.
        shard: Embed only the i-th of n parts into the cache, `i/n`, so that n jobs can share the work; then run
            once without it.
        plan: Print people, windows, unique sequences, ties, operations, time and cache, then stop before embedding.
        redo: Discard an earlier run with other options.
    """

    study: Path = DEMO
    participants: Path | None = None
    variants: Path | None = None
    sample_file: Path | None = None
    contig: str | None = None
    reference: Path | None = None
    windows: Path | None = None
    window_kind: Literal["gene", "exon", "variant"] | None = None
    genes: list[str] | str | None = None
    flank: int | None = None
    centre: Literal["body", "tss"] = "body"
    focus_flank: int = 0
    model: str | None = None
    revision: str | None = None
    strategy: str | None = None
    tokens: Tokens | None = None
    pooling: Pooling | None = None
    combine: Combine | None = None
    genes_as: GenesAs | None = None
    pca: int | None = None
    pca_from: Path | None = None
    splits: Path | None = None
    keep_levels: bool = False
    missing: Literal["n", "reference"] = "n"
    unphased: Literal["refuse", "iupac", "ref_alt", "dosage"] = "refuse"
    sex_chromosomes: bool = False
    haploid_heterozygotes: Literal["refuse", "missing"] = "refuse"
    build: Literal["auto", "GRCh37", "GRCh38"] = "auto"
    max_n_share: float = 0.1
    long_windows: Literal["refuse", "tile"] = "refuse"
    tile_overlap: int | None = None
    dtype: Literal["fp32", "bf16"] = "fp32"
    batch_bases: int = 16384
    device: Literal["auto", "cpu", "cuda"] = "auto"
    layer: str | None = None
    backend: Literal["own", "evo2"] = "own"
    device_map: Literal["auto"] | None = None
    cache: Path | None = None
    cache_gb: float | None = None
    shard: str = ""
    plan: bool = False
    redo: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_n_share <= 1:
            raise InputError(f"max_n_share is {self.max_n_share}; a share between 0 and 1 was wanted")
        if self.batch_bases < 1:
            raise InputError(f"batch_bases is {self.batch_bases}; a number of bases above 0 was wanted")
        if self.pca is not None and self.pca < 0:
            raise InputError(f"pca is {self.pca}; a number of components, or 0 for none, was wanted")
        if self.tile_overlap is not None and self.tile_overlap < 0:
            raise InputError(f"tile_overlap is {self.tile_overlap}; a number of bases, 0 or more, was wanted")
        if self.cache_gb is not None and self.cache_gb < 0:
            raise InputError(f"cache_gb is {self.cache_gb}; a size in GB, 0 or more, was wanted")
        if self.shard and (self.redo or self.plan):
            raise InputError(
                "--shard can be combined neither with --redo nor with --plan: what one part discards, the others "
                "may have made; pass --redo=true to the run without --shard"
            )
        if self.genes is not None:  # the names themselves are recorded: a changed file is another run
            object.__setattr__(self, "genes", list(read_names(self.genes)))
        _ = self.part
        self._resolve_strategy()

    def _resolve_strategy(self) -> None:
        """Fill in the steps that were left open, from the named strategy or from the defaults."""
        named = find_strategy(self.strategy) if self.strategy else Strategy()
        for step in STEPS:
            given, wanted = getattr(self, step), getattr(named, step)
            if given is None:
                object.__setattr__(self, step, wanted)
            elif self.strategy and given != wanted:
                raise InputError(
                    f"the strategy {self.strategy} has {step} = {wanted}, but {step} = {given} was given as well; a "
                    f"name is never redefined: drop --{step} or --strategy"
                )

    @property
    def steps(self) -> Strategy:
        """The resolved steps."""
        return Strategy(**{step: getattr(self, step) for step in STEPS})

    @property
    def encoder_options(self) -> dict[str, str]:
        """Options that only some kinds of model have, as far as they were given."""
        given = {"layer": self.layer, "backend": self.backend, "device_map": self.device_map}
        return {name: value for name, value in given.items() if value not in (None, "own")}

    @property
    def fits_pca(self) -> bool:
        """Whether components are fitted here, for which there must be a split."""
        return bool(self.pca and self.pca_from is None)

    @property
    def strategy_name(self) -> str:
        """The given name, or one that spells out the steps."""
        return self.strategy or self.steps.description

    @property
    def part(self) -> tuple[int, int] | None:
        """(i, n) of ``shard``; None if everything is embedded."""
        return part_of(self.shard)
