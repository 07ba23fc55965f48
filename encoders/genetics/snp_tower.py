"""The stage `embed_snps`: dosages -> filters -> principal components -> one vector per person.

Glossary: V variants · S people · N training people · D numbers of a vector.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from encoders.cohort import Cohort, Split
from encoders.genetics.build_check import check_build
from encoders.genetics.common_people import nobody_in_common
from encoders.genetics.contigs import find_contig
from encoders.genetics.guards import confounding, confounding_text
from encoders.genetics.reference import Reference, some
from encoders.genetics.snp_components import Components, fit_components
from encoders.genetics.snp_config import EmbedSNPs
from encoders.genetics.snp_dosages import SNPMatrix, read_dosages
from encoders.genetics.snp_regions import Regions, regions_of_windows, whole_contigs
from encoders.genetics.variant_source import VariantSource, open_variants
from encoders.genetics.window_choice import WindowChoice, choose_windows
from encoders.genetics.windows import digest_windows
from encoders.runs.artifact import PRIVATE, content_digest, save_tensors, write_text
from encoders.runs.errors import InputError
from encoders.vectors import SubjectVectors

KIND, FORMAT = "neurohelix.snp_components", 1
FEWEST = 3  # training people: fewer have no components to speak of
STRATEGY = (
    "snp-dosage_train-frequency-standardised_pca_v1"  # a name is never redefined, it gets a new version
)


@dataclass(frozen=True, kw_only=True)
class SNPTower:
    """Everything that was fitted and everybody's vectors, before anything is written.

    Args:
        people: Ids in row order of the vectors.
        train: Ids of the people it was fitted on, sorted.
        split: The split.
        regions: What was read.
        matrix: The variants that were used; its values are of ``everyone``.
        blocks: Block -> rows of the matrix.
        components: Block -> what was fitted.
        left_out: Genes of whose variants none could be used.
        unused: (id, what was found) of people without a vector.
        remarks: How the reader understood the files.
        vectors: (S, D) of ``people``.
        confounding: What ancestry and batch explain of them, of :func:`encoders.genetics.guards.confounding`.
    """

    people: list[str]
    train: list[str]
    split: Split
    regions: Regions
    matrix: SNPMatrix
    blocks: dict[str, Int64[np.ndarray, " _"]]
    components: dict[str, Components]
    left_out: list[str]
    unused: list[tuple[str, str]]
    remarks: list[str]
    vectors: Float32[np.ndarray, "S D"]
    confounding: dict[str, Any]


def fit_tower(config: EmbedSNPs, inputs: Mapping[str, Path], variants: list[Path]) -> SNPTower:
    """Read and check everything, fit, and write nothing.

    Args:
        config: Options.
        inputs: Paths of participants, splits and, unless all variants are read, windows; of reference and sample_file
            if there are any.
        variants: The variant files.

    Raises:
        InputError: E_SAMPLE (nobody in common, or too few to train on), E_CONTIG, E_DEGENERATE, E_MEMORY, or what the
            reader of the variants finds.
    """
    cohort, split = Cohort.load(inputs["participants"]), Split.load(inputs["splits"])
    listed = cohort.ids
    with ExitStack() as stack:
        reference = stack.enter_context(Reference(inputs["reference"])) if "reference" in inputs else None
        source = stack.enter_context(
            open_variants(
                variants,
                reference=reference,
                sample_file=inputs.get("sample_file"),
                contig=config.contig,
            )
        )
        kept = _people(listed, source, split)
        allowed = set(split.train)
        train = [name for name in kept if name in allowed]
        order = train + [name for name in kept if name not in allowed]
        regions = _regions(config, inputs, source)
        if reference is not None:
            contigs = dict.fromkeys(contig for contig, _, _ in regions.stretches)
            known = [find_contig(contig, reference.lengths) for contig in contigs]
            check_build(source, reference, [contig for contig in known if contig is not None])
        matrix = read_dosages(source, regions, order, len(train), config)
        samples, remarks = list(source.samples), list(source.remarks)
    genes = _genes(matrix, regions)
    left_out = [gene for gene, rows in genes.items() if not len(rows)]
    blocks = {"snp": np.arange(len(matrix.positions))}
    if config.blocks == "gene":
        blocks = {gene: rows for gene, rows in genes.items() if len(rows)}
    components, scores = {}, []
    for name, rows in blocks.items():
        values = matrix.values if len(rows) == len(matrix.values) else matrix.values[rows]
        components[name] = fit_components(values[:, : len(train)], config.components)
        scores.append(components[name].scores(values))
    lacking = matrix.missing > config.max_person_missing * len(matrix.positions)
    without = {order[k]: int(matrix.missing[k]) for k in np.flatnonzero(lacking)}
    people = [name for name in kept if name not in without]
    if not people:
        raise InputError(
            f"everybody lacks more than {config.max_person_missing:.0%} of the {len(matrix.positions)} variants used; "
            f"raise --max_person_missing",
            code="E_DEGENERATE",
        )
    row, known, table = {name: k for k, name in enumerate(order)}, set(kept), set(listed)
    unused = [(n, "in the table of people, not among the variants") for n in listed if n not in known]
    unused += [(n, "among the variants, not in the table of people") for n in samples if n not in table]
    unused += [
        (n, f"no call at {lost} of the {len(matrix.positions)} variants used") for n, lost in without.items()
    ]
    vectors = np.concatenate(scores, axis=1)[[row[name] for name in people]]
    return SNPTower(
        people=people,
        train=sorted(train),
        split=split,
        regions=regions,
        matrix=matrix,
        blocks=blocks,
        components=components,
        left_out=left_out,
        unused=unused,
        remarks=remarks,
        vectors=vectors,
        confounding=confounding(vectors, cohort.frame.loc[people]),
    )


def _people(listed: list[str], source: VariantSource, split: Split) -> list[str]:
    """People of the table who are among the variants; enough of them are to be trained on."""
    known, allowed = set(source.samples), set(split.train)
    kept = [name for name in listed if name in known]
    if not kept:
        advice = "rename one side, e.g. with bcftools reheader --samples"
        raise nobody_in_common(listed, source.samples, f"samples of {source.path}", advice)
    if (number := sum(name in allowed for name in kept)) < FEWEST:
        raise InputError(
            f"{number} of the {len(split.train)} training people of the split are among both the {len(listed)} people "
            f"of the table and the {len(known)} samples of {source.path}; at least {FEWEST} were wanted; make the ids "
            f"agree, or the split anew",
            code="E_SAMPLE",
        )
    return kept


def _regions(config: EmbedSNPs, inputs: Mapping[str, Path], source: VariantSource) -> Regions:
    if config.regions == "all":
        return whole_contigs(source, sex_chromosomes=config.sex_chromosomes)
    choice = WindowChoice(
        kind=config.window_kind, genes=tuple(config.genes or ()), flank=config.flank, centre=config.centre
    )
    windows = choose_windows(inputs["windows"], choice)
    return regions_of_windows(windows, source, sex_chromosomes=config.sex_chromosomes)


def save_tower(
    tower: SNPTower, config: EmbedSNPs, *, vectors: Path, fitted: Path, unused: Path
) -> dict[str, Any]:
    """Write vectors, what was fitted, and the people left out; returns the summary of the stage."""
    matrix = tower.matrix
    tensors = {"positions": matrix.positions, "frequency": matrix.frequency}
    for number, (name, rows) in enumerate(tower.blocks.items()):
        tensors |= {f"rows.{number}": rows, f"axes.{number}": tower.components[name].axes}
    metadata = {
        "contigs": matrix.contigs,
        "alleles": [list(pair) for pair in matrix.alleles],
        "blocks": list(tower.blocks),
    }
    digest = save_tensors(fitted, KIND, FORMAT, tensors, metadata)
    kept = {name: len(fit.explained) for name, fit in tower.components.items()}
    ends = np.cumsum(list(kept.values())).tolist()
    columns = {name: (end - kept[name], end) for name, end in zip(kept, ends, strict=True)}
    found = SubjectVectors(
        ids=tower.people,
        values=tower.vectors,
        blocks=columns,
        provenance={
            "encoder": "SNP dosage, principal components",
            "weights_sha256": digest,
            "strategy": STRATEGY,
            "config": {
                name: getattr(config, name)
                for name in (
                    "regions",
                    "blocks",
                    "components",
                    "min_maf",
                    "max_missing",
                    "prune_r2",
                    "prune_kb",
                )
            },
            "variants": len(matrix.positions),
            "variants_sha256": content_digest(
                [[c, int(p)] for c, p in zip(matrix.contigs, matrix.positions, strict=True)]
            ),
            "windows_sha256": digest_windows(tower.regions.windows) if tower.regions.windows else None,
            "sex_chromosomes": config.sex_chromosomes,
            "explained_variance": _explained(tower),
            "confounding": tower.confounding,
            "random_weights": False,
            "trained_on": {"split_digest": tower.split.digest, "ids": tower.train, "complete": True},
        },
    )
    found.save(vectors)
    rows = "".join(f"{name}\t{what}\n" for name, what in tower.unused)
    write_text(unused, "participant_id\tfound\n" + rows, mode=PRIVATE)
    return _summary(tower, config, unused)


def _summary(tower: SNPTower, config: EmbedSNPs, unused: Path) -> dict[str, Any]:
    counts = dict(tower.matrix.counts)
    read, imputed = counts.pop("variants"), counts.pop("imputed", 0)
    used, everyone = tower.matrix.values.shape
    outside = sum(name not in tower.split.fold_of for name in tower.people)
    reasons = [what.partition(" ")[0] for _, what in tower.unused]
    kept = [len(fit.explained) for fit in tower.components.values()]
    most = [fit.most for fit in tower.components.values()]
    same = np.unique(tower.vectors.round(4), axis=0, return_counts=True)[1]
    rows: dict[str, Any] = {
        "people": len(tower.people),
        "people_in_table_without_genome": reasons.count("in"),
        "people_with_genome_not_in_table": reasons.count("among"),
        "people_with_too_few_calls": reasons.count("no"),
        "people_outside_the_split": outside,
        "list_of_people_left_out": str(unused) if tower.unused else 0,
        "fitted_on": f"{len(tower.train)} training people",
        "windows": len(tower.regions.windows),
        "left_out_on_X_Y_or_MT": some(tower.regions.left_out) if tower.regions.left_out else 0,
        "variant_files": "; ".join(tower.remarks),
        "variants_read": read,
        **{f"variants_left_out_{reason}": number for reason, number in counts.items()},
        "variants_used": used,
        "missing_dosages_set_to_the_mean": f"{imputed} ({imputed / (used * everyone):.2%})" if imputed else 0,
        "genes_without_a_usable_variant": some(tower.left_out) if tower.left_out else 0,
        "components": _told_components(kept, most, config, len(tower.train)),
        "explained_variance_of_the_training_people": f"{_explained(tower):.1%}",
        "explained_by_ancestry": confounding_text(tower.confounding["ancestry"]),
        "explained_by_batch": confounding_text(tower.confounding["batch"]),
        "tie_rate": f"{same[same > 1].sum() / len(tower.people):.1%} of people share their vector with another",
        "vectors": f"{len(tower.people)} people x {tower.vectors.shape[1]}"
        + (f" ({len(tower.blocks)} genes)" if config.blocks == "gene" else ""),
    }
    always = ("people", "variants_used", "tie_rate")
    return {name: value for name, value in rows.items() if value or name in always}


def _told_components(kept: list[int], most: list[int], config: EmbedSNPs, num_train: int) -> str:
    per = " per gene" if config.blocks == "gene" else ""
    number = f"{min(kept)}" if min(kept) == max(kept) else f"{min(kept)} to {max(kept)}"
    if min(kept) >= config.components:
        return f"{number}{per}"
    limit = f"{min(most)}" if min(most) == max(most) else f"{min(most)} to {max(most)}"
    return (
        f"{number}{per}, {config.components} were asked for: {num_train} training people and the variants used allow "
        f"no more than {limit}"
    )


def _explained(tower: SNPTower) -> float:
    """Share of the training people's variance that the components hold, over all blocks."""
    fits = tower.components.values()
    return round(
        sum(fit.total * float(fit.explained.sum()) for fit in fits) / sum(fit.total for fit in fits), 4
    )


def _genes(matrix: SNPMatrix, regions: Regions) -> dict[str, Int64[np.ndarray, " _"]]:
    """Gene -> rows of the variants that overlap its windows, in file order of the genes."""
    contigs = np.asarray(matrix.contigs)
    ends = matrix.positions + np.array([len(ref) for ref, _ in matrix.alleles])
    inside: dict[str, np.ndarray] = {}
    for window in regions.windows:
        here = (contigs == window.contig) & (matrix.positions < window.end) & (ends > window.start)
        inside[window.gene] = inside.get(window.gene, np.zeros(len(contigs), bool)) | here
    return {gene: np.flatnonzero(rows) for gene, rows in inside.items()}
