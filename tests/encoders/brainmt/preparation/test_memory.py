"""How many workers: those that were asked for, or as many as the memory cap holds."""

import dataclasses
import zipfile

import numpy as np
import psutil

from encoders.brainmt.preparation.archive import Member
from encoders.brainmt.preparation.config import Clean, PrepareFMRI
from encoders.brainmt.preparation.discover import discover
from encoders.brainmt.preparation.memory import GIB, PROCESS, free_bytes, scan_bytes, workers_that_fit


def test_a_scan_is_estimated_from_its_header_alone(tree, build):
    header = build.nifti(np.zeros((1, 1, 1, 1), "i2"), dim=(91, 109, 91, 490))
    tree.add("large", content=build.pack(header))
    tree.add("bomb", content=build.pack(build.nifti(np.zeros((1, 1, 1, 1), "f4"), dim=(2175, 2175, 2175, 9))))
    tree.add("page", content=b"<html>")
    scans = {scan.subject: scan for scan in discover(tree.root).scans}
    samples = 91 * 109 * 91 * 490
    large = scan_bytes(scans["sub-large"], PrepareFMRI())
    assert 2 * samples < large < 6 * samples + 1000
    assert scan_bytes(scans["sub-large"], PrepareFMRI(dtype="int8")) < large
    assert scan_bytes(scans["sub-large"], PrepareFMRI(clean=Clean(detrend=True))) > 2 * large
    assert scan_bytes(scans["sub-bomb"], PrepareFMRI()) == scan_bytes(scans["sub-page"], PrepareFMRI()) == 0


def test_workers_are_limited_by_the_largest_scan_and_it_is_said(tree, build):
    for i in range(4):
        tree.add(f"{i}")
    header = build.nifti(np.zeros((1, 1, 1, 1), "i2"), dim=(91, 109, 91, 490))
    tree.add("large", content=build.pack(header))
    scans = discover(tree.root).scans
    each = PROCESS + max(scan_bytes(scan, PrepareFMRI()) for scan in scans)
    for allowed in (2.5, 3.0):
        count, said = workers_that_fit(scans, PrepareFMRI(num_workers=4, max_memory_gib=allowed * each / GIB))
        assert count == int(allowed + 1e-9) and f"{count} of 4 workers: the largest scan takes about" in said
        assert "--max_memory_gib" in said
    assert workers_that_fit(scans, PrepareFMRI(num_workers=4, max_memory_gib=4.1 * each / GIB)) == (4, "")
    count, said = workers_that_fit(scans, PrepareFMRI(num_workers=4, max_memory_gib=0.5 * each / GIB))
    assert count == 1 and "even one may take more than allowed" in said
    small = [scan for scan in scans if scan.subject != "sub-large"]
    assert workers_that_fit(small, PrepareFMRI(num_workers=3))[0] <= 3


def test_free_memory_is_no_more_than_the_machine_has():
    assert 0 < free_bytes() <= psutil.virtual_memory().total


def test_a_member_of_an_archive_is_estimated_too(tree, tmp_path, build):
    scan = discover(tree.add("0").parents[2]).scans[0]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(scan.path, "fMRI/scan.nii.gz")
    member = Member(archive=tmp_path / "a.zip", member="fMRI/scan.nii.gz")
    packed = dataclasses.replace(scan, path=member)
    assert scan_bytes(packed, PrepareFMRI()) == scan_bytes(scan, PrepareFMRI()) > 0
