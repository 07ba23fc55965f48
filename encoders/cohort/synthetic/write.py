"""A synthetic cohort as the files of a real study: a BIDS tree, genetic files, tables, and `truth.json`.

The same seed gives the same bytes, however many workers write and however often they were interrupted.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from threadpoolctl import threadpool_limits  # scikit-learn brings it

from encoders.cohort.synthetic.bold import Person, read_features, simulate_bold
from encoders.cohort.synthetic.brains import make_brain
from encoders.cohort.synthetic.config import SyntheticCohort
from encoders.cohort.synthetic.folder import ScanFiles, check_folder, claim_folder, list_files
from encoders.cohort.synthetic.genome_files import (
    check_pysam,
    write_reference,
    write_variants,
    write_windows,
)
from encoders.cohort.synthetic.genomes import simulate_genotypes
from encoders.cohort.synthetic.people import People, participants_frame, simulate_latents, simulate_people
from encoders.cohort.synthetic.scans import write_scan
from encoders.cohort.synthetic.truth import FORMAT, KIND, truth_content
from encoders.runs.artifact import PRIVATE, save_json, write_text
from encoders.runs.progress import progress


def write_cohort(config: SyntheticCohort, folder: Path, *, fresh: bool = False) -> dict[str, int | str]:
    """Write a cohort to `folder`, keeping scans that an interrupted run of the same configuration left.

    Args:
        config: What to simulate.
        folder: BIDS root; made if it is missing.
        fresh: Keep nothing.

    Returns:
        What was written, for the summary of the stage.

    Raises:
        InputError: the folder holds files of someone else's, or pysam is missing.
    """
    check_pysam()
    check_folder(folder)
    people = simulate_people(config, config.rng("people"))
    genomes = simulate_genotypes(config, people, config.rng("genomes"))
    latents, traits = simulate_latents(config, people, genomes.scores, config.rng("latents"))
    claim_folder(config, folder, fresh=fresh)

    write_reference(folder / "genetics" / "reference.fa", genomes.reference)
    write_windows(folder / "genetics" / "windows.bed", genomes.windows)
    write_variants(folder / "genetics" / "cohort.vcf.gz", genomes, people.ids)
    frame = participants_frame(config, people, traits)
    write_text(folder / "participants.tsv", frame.to_csv(sep="\t", na_rep="n/a"), mode=PRIVATE)
    write_text(folder / "kinship.tsv", _kinship(people), mode=PRIVATE)
    features, kept = _write_scans(config, folder, people, latents)
    content = truth_content(config, people, genomes, latents, features)
    save_json(folder / "truth.json", KIND, FORMAT, content, mode=PRIVATE)
    size = sum((folder / name).stat().st_size for name in list_files(folder))
    return {
        "people": len(people.ids),
        "scans": len(people.ids),
        "scans_kept_from_an_interrupted_run": kept,
        "frames_per_scan": config.frames,
        "variants": f"{len(genomes.variants)} in {len(genomes.windows)} windows",
        "arm": f"{config.arm} (heritability {config.resolved_heritability:g})",
        "families": len(set(people.family.tolist())),
        "sibling_pairs": len(people.siblings),
        "size_on_disk": f"{size / 2**20:.3g} MiB",
    }


def _write_scans(
    config: SyntheticCohort, folder: Path, people: People, latents: Float64[np.ndarray, "N K"]
) -> tuple[Float64[np.ndarray, "N R"], int]:
    """Simulate everyone's scan, write those that are missing; returns the oracle's features and how many were kept.

    Threads, not processes: NumPy's generator, matrix products and zlib all release the interpreter lock.
    One BLAS thread each, since the order of its sums, hence the last bit, depends on their number.
    """
    brain = make_brain(config.voxel_mm)

    def make(row: int) -> tuple[Float64[np.ndarray, " R"], bool]:
        person = Person(
            latents=latents[row],
            site=int(people.site[row]),
            sex=int(people.sex[row]),
            age=float(people.age[row]),
            mean_fd=float(people.mean_fd[row]),
        )
        scan = simulate_bold(config, brain, person, config.scan_rng(row))
        files = ScanFiles.of(folder, people.ids[row])
        if there := files.complete:
            return read_features(brain, scan.values), there
        write_scan(files, config, brain, scan)
        return read_features(brain, scan.values), there

    with threadpool_limits(1):
        pool = ThreadPoolExecutor(config.num_workers)
        try:
            rows = range(len(people.ids))
            done = list(progress(pool.map(make, rows), "scans", total=len(rows), unit="scan"))
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C finish the scans begun, start no other
    return np.stack([features for features, _ in done]), sum(there for _, there in done)


def _kinship(people: People) -> str:
    rows = sorted(
        (*sorted((people.ids[a], people.ids[b])), kinship)
        for (a, b), kinship in zip(people.siblings, people.kinship, strict=True)
    )
    return "".join(
        f"{first}\t{second}\t{kinship}\n" for first, second, kinship in [("id1", "id2", "kinship"), *rows]
    )
