"""What is judged across scans."""

import numpy as np

from encoders.brainmt.preparation.judgement import judge_together


def entry(number, corner):
    """What the store says about one run that is of interest here."""
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = corner
    return {
        "source_sha256": str(number),
        "sources": [[f"{number}.nii.gz", 1, 1]],
        "grid": [52, 68, 20],
        "affine": affine.tolist(),
        **dict.fromkeys(("subject", "session", "task", "run"), str(number)),
    }


def test_headers_that_say_one_place_in_other_last_digits_are_on_one_grid():
    corners = [(-79.6, -115.834, -50.9), (-79.6, -115.835, -50.9), (-79.6, -115.836, -50.9)]
    assert len({round(corner[1], 2) for corner in corners}) > 1  # rounding alone would part them
    good, refused = judge_together([entry(k, corner) for k, corner in enumerate(corners)])
    assert len(good) == 3 and refused == []


def test_a_grid_next_to_the_usual_one_is_refused_and_both_are_told():
    corners = [(-79.6, -115.8, -50.9), (-79.6, -115.8, -50.9), (-79.6, -115.8, -49.9)]
    good, refused = judge_together([entry(k, corner) for k, corner in enumerate(corners)])
    assert len(good) == 2 and refused[0].code == "E_GRID"
    assert "at -79.6, -115.8, -49.9 mm is not that of 2 other scans" in refused[0].sentence
    assert "which is [52, 68, 20] at -79.6, -115.8, -50.9 mm" in refused[0].sentence


def test_of_nothing_nothing_is_refused():
    assert judge_together([]) == ([], [])
