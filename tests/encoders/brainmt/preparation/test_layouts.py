"""Scans found in the layouts of HCP, ABCD, UK Biobank and the original BrainMT, and in plain tables of paths."""

import numpy as np
import pytest

from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.discover import discover
from encoders.brainmt.preparation.discovery.scan import visible
from encoders.brainmt.preparation.prepare import prepare
from encoders.brainmt.preparation.series import read_series
from encoders.brainmt.store import FMRIStore
from encoders.runs.errors import InputError

MNI6 = "MNI152NLin6Asym"


def names(listing):
    return [scan.name for scan in listing.scans]


def hcp_person(tree, subject, **options):
    for run, acq in ((1, "LR"), (1, "RL"), (2, "LR"), (2, "RL")):
        folder = f"rfMRI_REST{run}_{acq}"
        tree.results(
            f"{subject}/MNINonLinear/Results/{folder}", [f"{folder}_hp2000_clean.nii.gz"], seed=run, **options
        )


def test_the_four_runs_of_hcp_are_kept_apart_by_number_and_direction(origin):
    hcp_person(origin, "100307", mask="brainmask_fs.2.nii.gz")
    hcp_person(origin, "100408", mask="brainmask_fs.2.0.nii.gz", motion="both")
    listing = discover(origin.root)
    assert listing.layout == "hcp" and listing.refused == []
    assert names(listing) == [
        f"sub-{subject}_task-rest_acq-{acq}_run-{run}"
        for subject in ("100307", "100408")
        for acq in ("LR", "RL")
        for run in (1, 2)
    ]
    scan = listing.scans[0]
    assert (scan.subject, scan.session, scan.task, scan.run, scan.space) == ("100307", "", "rest", "1", MNI6)
    folder = "100307/MNINonLinear/Results/rfMRI_REST1_LR"
    assert [path for path, _, _ in scan.sources] == [
        f"{folder}/rfMRI_REST1_LR_hp2000_clean.nii.gz",
        f"{folder}/brainmask_fs.2.nii.gz",
        f"{folder}/Movement_RelativeRMS.txt",
    ]
    assert scan.motion.form == "hcp_rms" and listing.scans[4].mask.name == "brainmask_fs.2.0.nii.gz"


def test_a_run_of_hcp_is_prepared_with_its_mask_and_relative_rms(origin, build):
    hcp_person(origin, "100307", mask="brainmask_fs.2.nii.gz")
    series = read_series(discover(origin.root).scans[0], PrepareFMRI())
    assert series.metadata["space"] == MNI6 and series.metadata["mask"] == "file"
    assert series.metadata["mean_fd"] == pytest.approx(0.08)
    assert series.metadata["fd_definition"] == "Jenkinson relative RMS"
    assert series.metadata["layout"] == "hcp" and series.metadata["normalised_by"] == "this preparation"
    assert len(series.mask_index) == build.brain().sum()


def test_without_relative_rms_powers_displacement_comes_from_the_regressors_in_degrees(origin):
    folder = "100307/MNINonLinear/Results/rfMRI_REST1_LR"
    origin.results(folder, ["rfMRI_REST1_LR.nii.gz"], motion="regressors")
    series = read_series(discover(origin.root).scans[0], PrepareFMRI())
    assert series.metadata["fd_definition"] == "Power"
    assert series.metadata["mean_fd"] == pytest.approx(0.1 + 50 * np.deg2rad(0.1), abs=1e-5)


def test_of_several_versions_of_an_hcp_run_the_cleaned_one_is_taken(origin):
    folder = "100307/MNINonLinear/Results/rfMRI_REST1_LR"
    origin.results(folder, ["rfMRI_REST1_LR.nii.gz", "rfMRI_REST1_LR_hp2000_clean.nii.gz"])
    origin.put(f"{folder}/rfMRI_REST1_LR_SBRef.nii.gz", b"one volume")
    origin.put("100307/MNINonLinear/brainmask_fs.2.nii.gz", origin.mask_bytes())
    listing = discover(origin.root)
    assert listing.scans[0].path.name == "rfMRI_REST1_LR_hp2000_clean.nii.gz" and listing.passed_over == 1
    assert listing.scans[0].mask == origin.root / "100307/MNINonLinear/brainmask_fs.2.nii.gz"


def test_7t_runs_tasks_and_other_waves_of_the_hcp_have_names_of_their_own(origin):
    for folder in ("rfMRI_REST1_7T_PA", "tfMRI_MOTOR_LR"):
        origin.results(f"100307/MNINonLinear/Results/{folder}", [f"{folder}.nii.gz"])
    folder = "rfMRI_REST1_AP"
    for wave in ("V1", "V2"):
        origin.results(f"HCA6002236_{wave}_MR/MNINonLinear/Results/{folder}", [f"{folder}_hp0_clean.nii.gz"])
    origin.results("HCA6002236_V1_MR/MNINonLinear/Results/rfMRI_REST", ["rfMRI_REST_hp0_clean.nii.gz"])
    listing = discover(origin.root)
    assert names(listing) == [
        "sub-100307_task-motor_acq-LR",
        "sub-100307_task-rest_acq-7TPA_run-1",
        "sub-HCA6002236_ses-V1_task-rest_acq-AP_run-1",
        "sub-HCA6002236_ses-V2_task-rest_acq-AP_run-1",
    ]
    assert listing.scans[2].subject == "HCA6002236" and listing.passed_over == 1  # a concatenation of runs
    listing = discover(origin.root, task="motor")
    assert names(listing) == ["sub-100307_task-motor_acq-LR"] and listing.other_tasks == 3


@pytest.mark.parametrize("field", ["3T", "7T"])
def test_of_two_masks_of_the_hcp_the_one_of_the_scanners_grid_is_taken(origin, field):
    folder = "rfMRI_REST1_7T_PA" if field == "7T" else "rfMRI_REST1_LR"
    origin.results(f"1/MNINonLinear/Results/{folder}", [f"{folder}.nii.gz"])
    for edge in ("2", "1.60"):
        origin.put(f"1/MNINonLinear/brainmask_fs.{edge}.nii.gz", origin.mask_bytes())
    wanted = "brainmask_fs.1.60.nii.gz" if field == "7T" else "brainmask_fs.2.nii.gz"
    assert discover(origin.root).scans[0].mask.name == wanted


def abcd_run(tree, subject, session, run, inner="", **options):
    folder = inner or f"ses-{session}_task-rest_run-{run}"
    tree.results(
        f"sub-{subject}/ses-{session}/files/MNINonLinear/Results/{folder}", [f"{folder}.nii.gz"], **options
    )


def test_abcd_hcp_pipeline_visits_and_runs_are_kept_apart(origin):
    for session in ("baselineYear1Arm1", "2YearFollowUpYArm1"):
        for run in ("01", "02"):
            abcd_run(origin, "NDARINV1", session, run, mask="brainmask_fs.2.0.nii.gz")
    listing = discover(origin.root)
    assert listing.layout == "abcd" and names(listing) == [
        f"sub-NDARINV1_ses-{session}_task-rest_run-{run}"
        for session in ("2YearFollowUpYArm1", "baselineYear1Arm1")
        for run in (1, 2)
    ]
    scan = listing.scans[0]
    assert (scan.subject, scan.session, scan.run) == ("sub-NDARINV1", "2YearFollowUpYArm1", "1")
    metadata = read_series(scan, PrepareFMRI()).metadata
    assert (metadata["mask"], metadata["fd_definition"]) == ("file", "Jenkinson relative RMS")


def test_the_older_folders_of_abcd_hcp_pipeline_number_their_runs_without_a_hyphen(origin):
    for folder in ("task-rest01", "task-rest02", "task-nback01"):
        abcd_run(origin, "A", "one", "", inner=folder)
    assert names(discover(origin.root, task="rest")) == [
        "sub-A_ses-one_task-rest_run-1",
        "sub-A_ses-one_task-rest_run-2",
    ]


def test_a_folder_that_cannot_be_listed_is_an_error_not_a_missing_person(origin):
    gone = origin.root / "100307"
    with pytest.raises(InputError, match="100307 cannot be listed .*mend its permissions"):
        visible(gone)
    gone.write_text("a file")
    with pytest.raises(InputError, match="100307 cannot be listed"):
        visible(gone)


def test_a_visit_folder_of_another_visit_is_refused(origin):
    abcd_run(origin, "A", "one", "01")
    abcd_run(origin, "A", "two", "01", inner="ses-one_task-rest_run-01")
    listing = discover(origin.root)
    assert names(listing) == ["sub-A_ses-one_task-rest_run-1"]
    assert [(row.code, row.session) for row in listing.refused] == [("E_NAME", "two")]
    assert "says ses-one" in listing.refused[0].sentence


def test_abcc_is_fmriprep_and_found_as_bids(tree):
    tree.add("NDARINV1", session="ses00A", run="1")
    listing = discover(tree.root)
    assert listing.layout == "bids" and names(listing) == ["sub-NDARINV1_ses-ses00A_task-rest_run-1"]


def test_two_layouts_in_one_folder_are_an_error_until_one_is_named(tree, origin):
    tree.add("01")
    hcp_person(origin, "100307")
    with pytest.raises(InputError, match=r"several layouts: bids, hcp; .*--layout=bids\|hcp"):
        discover(origin.root)
    assert len(discover(origin.root, layout="hcp").scans) == 4
    assert names(discover(origin.root, layout="bids")) == ["sub-01_task-rest"]


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("auto", r"BIDS / fMRIPrep layout"),
        ("hcp", r"rfMRI_REST1_LR\[_hp2000_clean\]"),
        ("abcd", "abcd-hcp-pipeline"),
        ("ukb", "_20227_"),
        ("original", "func_data_MNI_fp16.pt"),
    ],
)
def test_an_empty_folder_says_what_was_looked_for(origin, layout, words):
    with pytest.raises(InputError, match=f"no scan found below .*{words}"):
        discover(origin.root, layout=layout)


def test_a_space_or_task_that_nobody_has_is_an_error(origin):
    hcp_person(origin, "100307")
    assert len(discover(origin.root, space=MNI6, task="rest").scans) == 4
    with pytest.raises(InputError, match="none of the 4 scans .* space-T1w"):
        discover(origin.root, space="T1w")


def table(tree, text, name="cohort.tsv"):
    return tree.put(name, text)


def test_a_table_of_paths_keeps_several_rows_per_person_apart(origin):
    for k in (1, 2, 3):
        origin.put(f"scans/{k}.nii.gz", origin.scan_bytes(k))
    origin.put("mask.nii.gz", origin.mask_bytes())
    origin.put("motion/2.par", "0 0 0 0 0 0\n" * 40)
    path = table(
        origin,
        "path\tsubject\tsession\trun\tmask\tconfounds\ttr\tspace\n"
        f"scans/1.nii.gz\t007\t1\t1\tmask.nii.gz\t\t2.0\t{MNI6}\n"
        f"scans/2.nii.gz\t007\t1\t2\t\tmotion/2.par\tn/a\t{MNI6}\n"
        f"{origin.root}/scans/3.nii.gz\t7\t\t\t\t\t\t{MNI6}\n",
    )
    listing = discover(path)
    assert listing.layout == "table" and names(listing) == [
        "sub-007_ses-1_run-1",
        "sub-007_ses-1_run-2",
        "sub-7",
    ]
    first, second, third = listing.scans
    assert (first.subject, third.subject, first.tr, second.tr) == ("007", "7", 2.0, None)
    assert second.motion.form == "mcflirt_par" and second.confounds is None
    assert third.path == origin.root / "scans/3.nii.gz" and third.sources[0][0] == "scans/3.nii.gz"
    outcome = prepare(listing, origin.root.parent / "store", PrepareFMRI())
    assert outcome.quarantined == [] and [run["mask"] for run in outcome.runs] == [
        "file",
        "computed",
        "computed",
    ]
    assert FMRIStore(origin.root.parent / "store").subjects == ["007", "7"]


def test_commas_bids_names_of_the_columns_and_an_fmriprep_table_work_too(origin):
    origin.put("a.nii.gz", origin.scan_bytes(1))
    origin.put("a.tsv", "framewise_displacement\nn/a\n" + "0.2\n" * 39)
    path = table(
        origin, f"participant_id,path,confounds,space\nsub-01,a.nii.gz,a.tsv,{MNI6}\n", name="cohort.csv"
    )
    scan = discover(path).scans[0]
    assert (scan.name, scan.subject, scan.confounds) == ("sub-01", "sub-01", origin.root / "a.tsv")
    assert read_series(scan, PrepareFMRI()).metadata["mean_fd"] == pytest.approx(0.2)


def test_a_scan_in_a_table_lies_in_the_space_that_its_name_says_unless_the_table_says_another(origin):
    origin.put("sub-1_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz", b"")
    listed = "path,subject,space\nsub-1_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz,a,"
    assert discover(table(origin, listed + "\n", name="t.csv")).scans[0].space == "MNI152NLin2009cAsym"
    assert discover(table(origin, listed + MNI6 + "\n", name="t.csv")).scans[0].space == MNI6


def test_what_a_table_states_is_judged_with_the_scan(origin):
    origin.put("a.nii.gz", origin.scan_bytes(1, tr=0.0))
    path = table(origin, f"path\tsubject\ttr\tspace\na.nii.gz\tx\t0.8\t{MNI6}\n")
    before = discover(path).scans[0]
    assert read_series(before, PrepareFMRI()).metadata["tr"] == 0.8
    table(origin, f"path\tsubject\ttr\tspace\na.nii.gz\tx\t0.9\t{MNI6}\n")
    after = discover(path).scans[0]
    assert after.sources != before.sources and after.sources[0] == before.sources[0]


def test_a_row_whose_files_are_gone_is_quarantined_and_the_others_are_prepared(origin):
    origin.put("a.nii.gz", origin.scan_bytes(1))
    origin.put("c.nii.gz", origin.scan_bytes(2))
    path = table(
        origin,
        f"path\tsubject\tmask\tspace\na.nii.gz\ta\t\t{MNI6}\nb.nii.gz\tb\t\t{MNI6}\nc.nii.gz\tc\tgone.nii.gz\t{MNI6}\n",
    )
    outcome = prepare(discover(path), origin.root.parent / "store", PrepareFMRI())
    assert [run["subject"] for run in outcome.runs] == ["a"]
    assert [(row.subject, row.code) for row in outcome.quarantined] == [("b", "E_READ"), ("c", "E_READ")]
    assert "brain mask gone.nii.gz" in outcome.quarantined[1].sentence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column path and no column subject"),
        ("path\tid\nx\ty\n", "no column subject"),
        ("path\tsubject\tsite\nx\ty\tz\n", "unknown or there twice: site"),
        ("path\tsubject\tpath\nx\ty\tz\n", "unknown or there twice: path"),
        ("path\tsubject\n", "no rows"),
        ("path\tsubject\nx\n", "line 2 has not 2 cells"),
        ("path\tsubject\nx\t\n", "line 2 names no subject"),
        ("path\tsubject\n\ty\n", "line 2 names no path"),
        ("path\tsubject\nx\ta/b\n", "line 2: the subject 'a/b' cannot be part of a name"),
        ("path\tsubject\nx\t../b\n", "line 2: the subject '../b'"),
        ("path\tsubject\trun\nx\ty\t1_2\n", "line 2: the run '1_2'"),
        ("path\tsubject\nx\ta\nz\ta\n", "lines 2 and 3 are the same recording, 'sub-a'"),
        ("path\tsubject\ttr\nx\ta\tfast\n", "line 2: the tr 'fast'"),
        ("path\tsubject\ttr\nx\ta\t-1\n", "line 2: the tr '-1'"),
        ("path\tsubject\tconfounds\nx\ta\tm.rms\n", "nothing says what the confounds file m.rms holds"),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error_with_its_line(origin, text, words):
    with pytest.raises(InputError) as caught:
        discover(table(origin, text))
    assert words in str(caught.value)


def test_a_table_that_is_none_or_a_file_for_a_folder_layout_is_an_error(origin):
    with pytest.raises(InputError, match="is not a file; a table"):
        discover(origin.root, layout="table")
    with pytest.raises(InputError, match="cannot be read as text"):
        discover(origin.put("x.tsv", b"\xff\xfe\x00"))
    with pytest.raises(InputError, match="the layout hcp is a folder"):
        discover(origin.put("y.tsv", "path\tsubject\n"), layout="hcp")
