"""The files of a synthetic cohort, read with the libraries that real studies are read with."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pysam
import pytest

from encoders.cohort import Cohort, groups_of, read_kinship
from encoders.cohort.synthetic import SyntheticCohort, load_truth, oracle_similarity, write_cohort
from encoders.cohort.synthetic.bold import SLOPE, Person, read_features, simulate_bold
from encoders.cohort.synthetic.brains import CENTRES, make_brain
from encoders.cohort.synthetic.folder import ScanFiles, check_folder, list_files, missing_scans
from encoders.cohort.synthetic.genomes import simulate_genotypes
from encoders.cohort.synthetic.people import simulate_latents, simulate_people
from encoders.runs import InputError

TINY = {
    "people": 12,
    "sibling_fraction": 0.34,
    "voxel_mm": 16.0,
    "frames": 20,
    "windows": 3,
    "variants_per_window": 20,
    "missing_rate": 0.05,
}


@pytest.fixture(scope="module")
def config() -> SyntheticCohort:
    return SyntheticCohort(**TINY)


@pytest.fixture(scope="module")
def folder(config: SyntheticCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("study") / "raw"
    write_cohort(config, made)
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in list_files(folder)}


def test_same_bytes_whatever_the_workers_and_other_bytes_for_another_seed(
    folder: Path, tmp_path: Path
) -> None:
    write_cohort(SyntheticCohort(**TINY, num_workers=1), tmp_path / "one")
    write_cohort(SyntheticCohort(**TINY, num_workers=5), tmp_path / "five")
    first = contents(folder)
    assert first == contents(tmp_path / "one") == contents(tmp_path / "five")
    write_cohort(SyntheticCohort(**TINY, seed=1), tmp_path / "other")
    other = contents(tmp_path / "other")
    assert first.keys() == other.keys()
    same = {name for name in first if first[name] == other[name]}
    assert {name.rsplit("_", 1)[-1] for name in same} <= {"bold.json", "mask.nii.gz", "README"} | {
        "genetics/windows.bed",
        "genetics/reference.fa.fai",
    }


def test_scan_headers_are_those_of_a_preprocessed_mni_scan(config: SyntheticCohort, folder: Path) -> None:
    files = ScanFiles.of(folder, "sub-0003")
    image, mask = nib.load(files.bold), nib.load(files.mask)
    assert image.shape == (9, 11, 9, 20)
    assert image.get_data_dtype() == np.int16
    assert (image.dataobj.slope, image.dataobj.inter) == (SLOPE, 0.0)
    assert image.header.get_zooms() == (16.0, 16.0, 16.0, 2.0)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (4, 4)
    assert np.allclose(image.header.get_qform(), image.affine)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    assert np.allclose(mask.affine, image.affine)
    assert json.loads(files.sidecar.read_text())["RepetitionTime"] == config.tr

    data, inside = image.get_fdata(), mask.get_fdata() > 0
    brain = make_brain(config.voxel_mm)
    assert inside.sum() == brain.maps.shape[1]
    assert np.array_equal(np.flatnonzero(inside.ravel(order="F")), np.flatnonzero(brain.mask.ravel()))
    assert (data[~inside] == 0).all()
    assert (data[inside] > 0).all()
    assert abs(data[inside].mean() / 10_000 - 1) < 0.02
    assert (data[inside].std(axis=1) > 0).all()


def test_networks_lie_where_the_truth_says(folder: Path) -> None:
    truth = load_truth(folder / "truth.json")
    brain = make_brain(8.0)
    image = np.zeros((*brain.mask.shape,))
    for network, weights in zip(truth["networks"], brain.maps, strict=True):
        image[brain.mask] = weights
        for centre in network["centres_mm"]:
            voxel = nib.affines.apply_affine(np.linalg.inv(brain.affine), centre).round().astype(int)
            assert image[tuple(voxel[::-1])] > 0.75, network["name"]
    flipped = image[:, :, ::-1]
    assert np.allclose(image, flipped)  # bilateral


def test_the_default_brain_has_about_three_thousand_voxels() -> None:
    brain = make_brain(8.0)
    assert brain.shape == (18, 22, 18)
    assert 2700 < brain.maps.shape[1] < 3400
    assert len(brain.maps) == len(CENTRES) == 12


def test_confounds_table_agrees_with_the_table_of_people(folder: Path) -> None:
    cohort = Cohort.load(folder / "participants.tsv")
    for subject in cohort.ids:
        table = pd.read_csv(ScanFiles.of(folder, subject).confounds, sep="\t", na_values="n/a")
        assert len(table) == 20
        assert table.isna().sum().to_dict() == {
            name: int(name in ("framewise_displacement", "std_dvars")) for name in table
        }
        assert abs(table["framewise_displacement"].mean() - cohort.frame.loc[subject, "mean_fd"]) < 1e-4
        steps = table[["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]].diff().abs()
        power = steps @ [1, 1, 1, 50, 50, 50]
        assert np.allclose(power[1:], table["framewise_displacement"][1:], rtol=1e-3)


def test_variants_match_the_reference_at_every_record(config: SyntheticCohort, folder: Path) -> None:
    genetics = folder / "genetics"
    reference = pysam.FastaFile(str(genetics / "reference.fa"))
    variants = pysam.VariantFile(str(genetics / "cohort.vcf.gz"))
    assert list(variants.header.samples) == Cohort.load(folder / "participants.tsv").ids
    assert {c: variants.header.contigs[c].length for c in variants.header.contigs} == dict(
        zip(reference.references, reference.lengths, strict=True)
    )
    kinds, missing, calls = {"snv": 0, "indel": 0, "multi": 0}, 0, 0
    windows = [line.split("\t") for line in (genetics / "windows.bed").read_text().splitlines()]
    assert [(w[3], w[5]) for w in windows] == [("GENE1", "+"), ("GENE2", "-"), ("GENE3", "+")]
    for contig, start, end, *_ in windows:
        records = list(variants.fetch(contig, int(start), int(end)))  # needs the tabix index
        assert len(records) == config.variants_per_window
        for record, following in zip(records, [*records[1:], None], strict=True):
            assert reference.fetch(contig, record.start, record.stop) == record.ref
            assert record.stop <= int(end)
            assert following is None or record.stop < following.start  # nothing overlaps
            assert len({record.ref, *record.alts}) == 1 + len(record.alts)
            kind = (
                "multi"
                if len(record.alts) > 1
                else "snv"
                if len(record.ref + record.alts[0]) == 2
                else "indel"
            )
            kinds[kind] += 1
            if kind == "indel":  # left-aligned: the first base is shared, the last is not
                assert record.ref[0] == record.alts[0][0]
                assert record.ref[-1] != record.alts[0][-1]
            for sample in record.samples.values():
                assert sample.phased
                missing += sample["GT"] == (None, None)
                calls += 1
            alleles = [a for s in record.samples.values() for a in s["GT"] if a is not None]
            assert record.info["AN"] == len(alleles)
            assert record.info["AC"] == tuple(alleles.count(k + 1) for k in range(len(record.alts)))
    assert kinds == {"snv": 51, "indel": 6, "multi": 3}
    assert 0.02 < missing / calls < 0.09


def test_haplotypes_in_the_file_are_those_that_were_drawn(config: SyntheticCohort, folder: Path) -> None:
    people = simulate_people(config, config.rng("people"))
    genomes = simulate_genotypes(config, people, config.rng("genomes"))
    with pysam.VariantFile(str(folder / "genetics" / "cohort.vcf.gz")) as variants:
        written = np.array(
            [[[-1 if a is None else a for a in s["GT"]] for s in r.samples.values()] for r in variants]
        )
    drawn = np.where(genomes.missing[:, None], -1, genomes.alleles)
    assert np.array_equal(written, drawn.transpose(2, 0, 1))


def test_truth_predicts_its_own_scores_from_the_file(folder: Path) -> None:
    complete = SyntheticCohort(**TINY | {"missing_rate": 0.0})
    write_cohort(complete, folder.parent / "complete")
    truth = load_truth(folder.parent / "complete" / "truth.json")
    raw = np.zeros((len(truth["ids"]), complete.latents))
    with pysam.VariantFile(str(folder.parent / "complete" / "genetics" / "cohort.vcf.gz")) as variants:
        for causal in truth["causal_variants"]:
            (record,) = variants.fetch(causal["contig"], causal["pos"] - 1, causal["pos"])
            assert (record.ref, record.alts) == (causal["ref"], (causal["alt"],))
            dosage = np.array([sum(record.samples[name]["GT"]) for name in truth["ids"]])
            raw[:, causal["latent"]] += causal["effect"] * dosage
    standard = (raw - raw.mean(axis=0)) / raw.std(axis=0)
    assert np.allclose(standard, truth["genetic_scores"], atol=1e-5)


def test_tables_are_read_by_the_cohort_room(folder: Path) -> None:
    truth = load_truth(folder / "truth.json")
    cohort = Cohort.load(folder / "participants.tsv")
    assert cohort.ids == truth["ids"]
    assert list(cohort.frame) == [
        *("family_id", "site", "age", "sex", "ancestry", "mean_fd", "head_size", "batch"),
        *(f"pcs_{k}" for k in range(1, 11)),
        *(f"trait_{k}" for k in range(1, 7)),
    ]
    related = read_kinship(folder / "kinship.tsv")
    assert {frozenset(pair) for pair in related} == {frozenset(pair) for pair in truth["siblings"]}
    assert len(set(groups_of(cohort, related).values())) == 12 - 2
    traits = cohort.frame[[f"trait_{k}" for k in range(1, 7)]].to_numpy()
    assert np.allclose(traits.std(axis=0), 1, atol=1e-3)


def test_leak_arm_hides_families_that_its_kinship_table_knows(tmp_path: Path) -> None:
    write_cohort(SyntheticCohort(**TINY | {"arm": "leak"}), tmp_path)
    cohort = Cohort.load(tmp_path / "participants.tsv")
    assert cohort.frame["family_id"].isna().all()
    assert len(set(groups_of(cohort).values())) == 12
    assert len(set(groups_of(cohort, read_kinship(tmp_path / "kinship.tsv")).values())) == 10


def test_oracle_features_are_those_of_the_written_scan(config: SyntheticCohort, folder: Path) -> None:
    truth = load_truth(folder / "truth.json")
    image = nib.load(ScanFiles.of(folder, "sub-0007").bold)
    brain = make_brain(config.voxel_mm)
    stored = np.asarray(image.dataobj.get_unscaled()).T[:, brain.mask]
    assert np.allclose(read_features(brain, stored), truth["oracle_features"][6], atol=2e-6)
    assert len(truth["oracle_feature_names"]) == len(truth["oracle_features"][6]) == 12 + 66


def test_scans_show_the_latents_and_the_oracle_reads_them() -> None:
    """300 people on a coarse grid, scans in memory: 2AFC near .95 with signal, near .5 without."""
    aucs = {}
    for arm in ("signal", "null"):
        config = SyntheticCohort(arm=arm, people=300, voxel_mm=16.0)
        people = simulate_people(config, config.rng("people"))
        genomes = simulate_genotypes(config, people, config.rng("genomes"))
        latents, _ = simulate_latents(config, people, genomes.scores, config.rng("latents"))
        brain = make_brain(config.voxel_mm)
        features = []
        for i in range(config.people):
            person = Person(
                latents=latents[i],
                site=int(people.site[i]),
                sex=int(people.sex[i]),
                age=float(people.age[i]),
                mean_fd=float(people.mean_fd[i]),
            )
            features.append(
                read_features(brain, simulate_bold(config, brain, person, config.scan_rng(i)).values)
            )
        features = np.array(features)
        tilt = features[:, 0:8:2] - features[:, 1:8:2]  # log amplitude ratio of each pair
        for k in range(config.amplitude_latents):
            assert np.corrcoef(tilt[:, k], latents[:, k])[0, 1] > 0.9
        power = np.log(np.exp(2 * features[:, 0:8:2]) + np.exp(2 * features[:, 1:8:2]))
        for k in range(config.amplitude_latents):  # their power together tells nothing
            assert abs(np.corrcoef(power[:, k], latents[:, k])[0, 1]) < 0.2
        truth = {"ids": people.ids, "genetic_scores": genomes.scores, "oracle_features": features}
        similarity = oracle_similarity(truth, people.ids[:200], people.ids[200:])
        others = ~np.eye(100, dtype=bool)
        aucs[arm] = (similarity.diagonal()[:, None] > similarity)[others].mean()
    assert aucs["signal"] > 0.85
    assert abs(aucs["null"] - 0.5) < 0.12


def test_person_level_files_are_private(folder: Path) -> None:
    for name in ("participants.tsv", "kinship.tsv", "truth.json", "genetics/cohort.vcf.gz"):
        assert (folder / name).stat().st_mode & 0o077 == 0, name
    assert ScanFiles.of(folder, "sub-0001").bold.stat().st_mode & 0o077 == 0


def test_missing_scans_are_made_again_and_the_others_kept(
    config: SyntheticCohort, folder: Path, tmp_path: Path
) -> None:
    write_cohort(config, tmp_path)
    expected = contents(folder)
    lost, kept = ScanFiles.of(tmp_path, "sub-0004"), ScanFiles.of(tmp_path, "sub-0005")
    lost.bold.unlink()
    half = lost.bold.with_name(f".{lost.bold.name}.0a1b2c3d.tmp")
    half.write_bytes(expected[os.path.relpath(lost.bold, tmp_path)][:1000])
    before = kept.bold.stat().st_mtime_ns
    assert missing_scans(config, tmp_path) == 1
    summary = write_cohort(config, tmp_path)
    assert summary["scans_kept_from_an_interrupted_run"] == 11
    assert kept.bold.stat().st_mtime_ns == before
    assert contents(tmp_path) == expected


def test_another_configuration_leaves_nothing_of_the_first(config: SyntheticCohort, tmp_path: Path) -> None:
    write_cohort(config, tmp_path)
    (tmp_path / "genetics" / "caduceus").mkdir()
    (tmp_path / "genetics" / "caduceus" / "config.json").write_text("{}")
    other = SyntheticCohort(**TINY | {"people": 9, "seed": 2})
    assert write_cohort(other, tmp_path)["scans_kept_from_an_interrupted_run"] == 0
    assert sorted(p.name for p in tmp_path.glob("sub-*")) == [f"sub-{i:04d}" for i in range(1, 10)]
    assert (tmp_path / "genetics" / "caduceus" / "config.json").exists()  # another stage's


@pytest.mark.parametrize(
    "foreign", ["participants.tsv", "sub-0001/func/sub-0001_task-rest_bold.nii.gz", "notes.txt"]
)
def test_a_real_study_is_never_touched(config: SyntheticCohort, tmp_path: Path, foreign: str) -> None:
    path = tmp_path / foreign
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("real")
    with pytest.raises(InputError, match="holds 1 files that make_cohort did not make"):
        write_cohort(config, tmp_path)
    assert contents(tmp_path) == {foreign: b"real"}


def test_a_stranger_among_our_files_and_a_link_are_refused(
    config: SyntheticCohort, folder: Path, tmp_path: Path
) -> None:
    write_cohort(config, tmp_path / "raw")
    (tmp_path / "raw" / "sub-0001" / "func" / "scan.nii.gz").write_text("mine")
    with pytest.raises(InputError, match=r"e\.g\. sub-0001/func/scan\.nii\.gz"):
        check_folder(tmp_path / "raw")
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(InputError, match="is a link"):
        check_folder(tmp_path / "link")
