"""UK Biobank's field 20227: zips and folders, scans in the person's own space and scans that users warped before."""

import stat
import zipfile

import numpy as np
import pytest

from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.discover import discover
from encoders.brainmt.preparation.memory import scan_bytes
from encoders.brainmt.preparation.prepare import prepare
from encoders.brainmt.preparation.quarantine import ScanRefused
from encoders.brainmt.preparation.series import read_series

NATIVE = "fMRI/rfMRI.ica/filtered_func_data_clean.nii.gz"
WARP = "fMRI/rfMRI.ica/reg/example_func2standard_warp.nii.gz"
WARPED = "fMRI/filtered_func_data_clean_MNI.nii.gz"
PAR = "fMRI/rfMRI.ica/mc/prefiltered_func_data_mcf.par"


def only(listing):
    (scan,) = listing.scans
    return scan


def test_instances_are_sessions_and_zips_lie_flat_or_in_folders_of_people(origin):
    files = {"fMRI/x": b"1"}
    origin.ukb_zip("1000001_20227_2_0.zip", files)
    origin.ukb_zip("1000001_20227_3_0.zip", files)
    origin.ukb_zip("1000002/1000002_20227_2_1.zip", files)
    origin.put("1000001_20249_2_0.zip", b"task fMRI, another field")
    listing = discover(origin.root)
    assert listing.layout == "ukb" and listing.refused == []
    assert [(s.name, s.subject, s.session, s.run) for s in listing.scans] == [
        ("sub-1000001_ses-2_task-rest", "1000001", "2", ""),
        ("sub-1000001_ses-3_task-rest", "1000001", "3", ""),
        ("sub-1000002_ses-2_task-rest_run-1", "1000002", "2", "1"),
    ]
    assert [s.sources[0][0] for s in listing.scans][2] == "1000002/1000002_20227_2_1.zip"


def test_a_zip_is_prepared_in_mni_as_if_the_scan_had_been_there(origin, build):
    """The warp moves the head back by whole voxels of nothing but millimetres: the numbers are those of the MNI file."""
    origin.ukb_zip("1000001_20227_2_0.zip", origin.ukb_files(seed=3))
    scan = only(discover(origin.root))
    series = read_series(scan, PrepareFMRI())
    tree_scan = origin.root.parent / "bids/sub-1/func/sub-1_space-MNI152NLin6Asym_bold.nii.gz"
    tree_scan.parent.mkdir(parents=True)
    tree_scan.write_bytes(build.pack(build.nifti(build.bold(3))))
    tree_scan.with_name("sub-1_space-MNI152NLin6Asym_desc-brain_mask.nii.gz").write_bytes(origin.mask_bytes())
    direct = read_series(only(discover(origin.root.parent / "bids")), PrepareFMRI())
    assert np.array_equal(series.mask_index, direct.mask_index)
    assert series.mean == pytest.approx(direct.mean, rel=1e-5)
    assert np.abs(series.frames.astype(float) - direct.frames.astype(float)).max() < 5e-3
    metadata = series.metadata
    assert metadata["space"] == "MNI152NLin6Asym" and metadata["layout"] == "ukb"
    assert metadata["mask"] == "file, warped (nearest)"
    assert metadata["warp"]["kind"] == "relative" and metadata["warp"]["interpolation"] == "linear"
    assert metadata["affine"] == direct.metadata["affine"] and metadata["grid"] == direct.metadata["grid"]
    # rotations of 0.002 rad are arcs of 0.1 mm; 9.9 mm of _abs.rms, which is no FD, would be refused
    assert metadata["mean_fd"] == pytest.approx(0.15) and metadata["fd_definition"] == "Power"


def test_zip_and_folder_give_the_same_numbers(origin):
    files = origin.ukb_files(seed=4)
    origin.ukb_zip("zips/1000001_20227_2_0.zip", files)
    origin.ukb_folder("folders/1000001_20227_2_0", files)
    origin.ukb_folder("people/1000001", files)
    zipped, unpacked, plain = (
        read_series(only(discover(origin.root / name)), PrepareFMRI())
        for name in ("zips", "folders", "people")
    )
    for other in (unpacked, plain):
        for name, tensor in zipped.tensors.items():
            assert np.array_equal(tensor, other.tensors[name]), name
        assert zipped.metadata == other.metadata
    scan = only(discover(origin.root / "folders"))
    assert [path.removeprefix("1000001_20227_2_0/") for path, _, _ in scan.sources] == [
        NATIVE,
        "fMRI/rfMRI.ica/mask.nii.gz",
        WARP,
        PAR,
    ]
    assert only(discover(origin.root / "people")).name == "sub-1000001_task-rest"


def test_a_series_that_the_user_warped_is_taken_as_the_original_expects_it(origin):
    origin.ukb_folder("1000001", origin.ukb_files(warped=True))
    scan = only(discover(origin.root))
    assert scan.path == origin.root / "1000001" / WARPED and scan.warp is None and scan.mask is None
    metadata = read_series(scan, PrepareFMRI()).metadata
    assert "warp" not in metadata and metadata["mean_fd"] == pytest.approx(0.15)


def test_a_folder_with_nothing_but_the_warped_series_is_found(origin):
    files = origin.ukb_files(warped=True)
    origin.ukb_folder("1000001", {WARPED: files[WARPED]})
    assert read_series(only(discover(origin.root)), PrepareFMRI()).metadata["mean_fd"] is None


@pytest.mark.parametrize("zipped", [True, False])
def test_without_a_warp_the_error_says_what_is_shipped_and_what_to_do(origin, zipped):
    files = origin.ukb_files(warp=False)
    put = origin.ukb_zip if zipped else origin.ukb_folder
    put("1000001_20227_2_0" + (".zip" if zipped else ""), files)
    with pytest.raises(ScanRefused, match="E_SPACE") as caught:
        read_series(only(discover(origin.root)), PrepareFMRI(assume_mni=True))
    for words in (NATIVE, WARP, WARPED, "does not ship"):
        assert words in caught.value.sentence
    assert "applywarp" in caught.value.fix


@pytest.mark.parametrize("zipped", [True, False])
def test_without_any_series_the_folder_is_refused(origin, zipped):
    put = origin.ukb_zip if zipped else origin.ukb_folder
    put("1000001_20227_2_0" + (".zip" if zipped else ""), {"fMRI/rfMRI.nii.gz": b"unprocessed"})
    with pytest.raises(
        ScanRefused, match="E_LAYOUT: it holds neither fMRI/rfMRI.ica/filtered_func_data_clean"
    ):
        read_series(only(discover(origin.root)), PrepareFMRI())


def test_names_that_cannot_be_attributed_are_refused(origin):
    origin.ukb_zip("1000001_20227_2_0.zip", {"x": b"1"})
    origin.ukb_zip("1000001_20227_2_0 (1).zip", {"x": b"1"})
    origin.ukb_zip("1000002/1000003_20227_2_0.zip", {"x": b"1"})
    listing = discover(origin.root)
    assert [scan.subject for scan in listing.scans] == ["1000001"]
    assert [(row.code, row.file) for row in listing.refused] == [
        ("E_NAME", "1000001_20227_2_0 (1).zip"),
        ("E_NAME", "1000002/1000003_20227_2_0.zip"),
    ]
    assert "its name says 1000003, its folder 1000002" in listing.refused[1].sentence


def test_a_zip_and_its_unpacked_twin_are_refused_as_duplicates(origin):
    origin.ukb_zip("1000001_20227_2_0.zip", {"x": b"1"})
    origin.ukb_folder("1000001_20227_2_0", {NATIVE: b"1"})
    listing = discover(origin.root)
    assert listing.scans == [] and [row.code for row in listing.refused] == ["E_DUPLICATE"] * 2


def hostile(origin, name):
    """A good zip with one bad member more."""
    path = origin.ukb_zip("1000009_20227_2_0.zip", origin.ukb_files())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        if name == "link":
            member = zipfile.ZipInfo("fMRI/link")
            member.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(member, "/etc/passwd")
        elif name == "bomb":
            archive.writestr("fMRI/zeros", bytes(2**24))
        else:
            archive.writestr(name, b"x")


@pytest.mark.parametrize("name", ["/etc/passwd", "../../up.txt", "link", "bomb"])
def test_a_hostile_zip_is_quarantined_and_its_neighbour_prepared(origin, name):
    origin.ukb_zip("1000001_20227_2_0.zip", origin.ukb_files(seed=1))
    hostile(origin, name)
    before = sorted(origin.root.parent.rglob("*"))
    outcome = prepare(discover(origin.root), origin.root.parent / "store", PrepareFMRI())
    assert [run["subject"] for run in outcome.runs] == ["1000001"]
    assert [(row.subject, row.code) for row in outcome.quarantined] == [("1000009", "E_ARCHIVE")]
    new = set(origin.root.parent.rglob("*")) - set(before)
    assert all(
        (origin.root.parent / "store") in (path, *path.parents) for path in new
    )  # nothing was unpacked


def test_a_damaged_member_is_found_and_named(origin):
    path = origin.ukb_zip("1000001_20227_2_0.zip", origin.ukb_files())
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(NATIVE)
    raw[member.header_offset + member.compress_size // 2] ^= 4
    path.write_bytes(raw)
    with pytest.raises(ScanRefused, match="E_CRC"):
        read_series(only(discover(origin.root)), PrepareFMRI())


def test_a_par_file_of_another_scan_is_refused(origin):
    origin.ukb_folder("1000001_20227_2_0", origin.ukb_files(par="0 0 0 0 0 0\n" * 39))
    with pytest.raises(
        ScanRefused, match="E_MOTION: prefiltered_func_data_mcf.par has 39 rows for 40 frames"
    ):
        read_series(only(discover(origin.root)), PrepareFMRI())


def test_a_scan_without_a_mask_gets_one_computed_before_it_is_warped(origin, build):
    files = origin.ukb_files(seed=5)
    del files["fMRI/rfMRI.ica/mask.nii.gz"]
    origin.ukb_zip("1000001_20227_2_0.zip", files)
    series = read_series(only(discover(origin.root)), PrepareFMRI())
    assert series.metadata["mask"] == "computed, warped (nearest)"
    assert np.array_equal(series.mask_index, np.flatnonzero(build.brain()))


def test_the_memory_of_a_zip_is_estimated_from_the_series_inside(origin):
    files = origin.ukb_files()
    origin.ukb_zip("zips/1000001_20227_2_0.zip", files)
    origin.ukb_folder("folders/1000001_20227_2_0", files)
    zipped, unpacked = (
        scan_bytes(only(discover(origin.root / name)), PrepareFMRI()) for name in ("zips", "folders")
    )
    assert zipped == unpacked > 5 * 7 * 6 * 40 * 2
