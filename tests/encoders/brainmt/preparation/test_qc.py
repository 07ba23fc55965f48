"""Quality of a store: what is unusual, and what of it may be shared."""

import itertools
import re

import numpy as np
import pytest

from encoders.brainmt.preparation import qc
from encoders.brainmt.preparation.qc import count, counts, groups_of, quality_of, robust_z, shared_sites
from encoders.brainmt.preparation.qc_page import render, view

LEAST = 5


def manifest(people=60, quarantined=(), **values):
    """A manifest of one run per person; `values` are columns of its runs."""
    rng = np.random.default_rng(0)
    columns = {
        "mean_fd": rng.uniform(0.05, 0.2, people).round(4).tolist(),
        "tsnr": rng.normal(60, 5, people).round(3).tolist(),
        "frames": [200] * people,
        **values,
    }
    runs = [
        {
            "name": f"sub-{k:03d}_task-rest",
            "subject": f"sub-{k:03d}",
            "voxels": 1000,
            "constant_voxels": 0,
            "nan_voxels": 0,
            "grid": [5, 7, 6],
            "fd_definition": "Power",
            **{name: column[k] for name, column in columns.items()},
        }
        for k in range(people)
    ]
    refused = [{"subject": subject, "code": code} for subject, code in quarantined]
    return {"runs": runs, "quarantine": refused, "options": {"dtype": "int8", "mask": "/home/me/mask.nii.gz"}}


def sites(numbers):
    """Subject -> site, the first `numbers[site]` people and so on."""
    names = [site for site, number in numbers.items() for _ in range(number)]
    return {f"sub-{k:03d}": site for k, site in enumerate(names)}


def test_robust_z_is_not_moved_by_what_it_finds():
    values = np.random.default_rng(0).normal(10, 2, 500)
    z = robust_z(values)
    assert abs(np.std(z) - 1) < 0.1
    values[:20] = 1000
    assert (robust_z(values)[:20] > 100).all() and np.abs(robust_z(values)[20:] - z[20:]).max() < 0.5
    half = np.array([3.0] * 9 + [4.0])
    assert robust_z(half)[-1] == pytest.approx(1 / (1.2533 * 0.1)) and not robust_z(half)[:-1].any()
    assert not robust_z(np.full(4, 7.0)).any()
    np.testing.assert_array_equal(np.isnan(robust_z(np.array([1.0, np.nan, 2.0]))), [False, True, False])


def test_only_the_bad_side_is_unusual_and_it_is_found_by_site():
    moved, clear = [0.1 + 0.001 * k for k in range(60)], [60 + 0.1 * k for k in range(60)]
    moved[3], moved[4], clear[40], clear[41] = 0.9, 0.0, 10.0, 200.0
    moved[50] = None
    quality = quality_of(manifest(mean_fd=moved, tsnr=clear), sites({"a": 30, "b": 30}), threshold=3.5)
    assert np.flatnonzero(quality.outliers["mean_fd"]).tolist() == [3]
    assert np.flatnonzero(quality.outliers["tsnr"]).tolist() == [40]
    assert not quality.outliers["frames"].any() and set(np.argsort(-quality.distance)[:2]) == {3, 40}
    assert quality.sites[3] == "a" and quality.sites[40] == "b"


def test_small_counts_are_not_printed_nor_can_be_worked_out():
    assert [count(n, LEAST) for n in (0, 1, 4, 5, 1234)] == ["0", "< 5", "< 5", "5", "1,234"]
    assert counts([0, 3, 9, 7], LEAST) == ["0", "< 5", "9", "not shown"]
    assert counts([2, 3, 9], LEAST) == ["< 5", "< 5", "9"] and counts([5, 9], LEAST) == ["5", "9"]


def test_small_sites_are_shown_together_or_not_at_all():
    quality = quality_of(manifest(), sites({"big": 50, "tiny": 3, "small": 4, "late": 3}), threshold=3.5)
    shown = shared_sites(quality, LEAST)
    assert [(site, int(runs.sum())) for site, runs in shown.items()] == [
        ("big", 50),
        ("sites with fewer than 5 people, together", 10),
    ]
    quality = quality_of(manifest(), sites({"big": 30, "other": 27, "tiny": 3}), threshold=3.5)
    assert list(shared_sites(quality, LEAST)) == ["big", "other"]
    rows = view(quality, manifest(), LEAST)["sites"]
    assert [(row["people"], row["scans"]) for row in rows] == [("30", "30"), ("not shown", "not shown")]


def test_each_bar_stands_for_enough_people_and_no_edge_is_a_value():
    rng = np.random.default_rng(1)
    values = np.append(rng.gamma(2, 0.1, 200), [7.123, 9.456])
    people = [f"p{k // 2}" for k in range(202)]
    edges, numbers = groups_of(values, people, LEAST)
    assert numbers.sum() == 202 and edges[0] <= values.min() and edges[-1] >= values.max()
    for low, high in itertools.pairwise(edges):
        inside = (values >= low) & (values < high)
        assert len({people[k] for k in np.flatnonzero(inside)}) >= LEAST
    assert not set(edges) & set(values)
    assert groups_of(values[:8], people[:8], LEAST) is None  # four people
    assert groups_of(np.full(50, 3.0), [str(k) for k in range(50)], LEAST) is None
    assert groups_of(np.full(50, np.nan), [str(k) for k in range(50)], LEAST) is None


def test_the_page_counts_refusals_and_names_nobody():
    refused = [(f"sub-x{k}", "E_CRC") for k in range(8)] + [(f"sub-y{k}", "E_TR") for k in range(6)]
    content = manifest(quarantined=[*refused, ("sub-z", "E_SPACE")])
    quality = quality_of(content, sites({"north": 40, "south": 18, "moon": 2}), threshold=3.5)
    page = render(quality, content, {}, threshold=3.5, least=LEAST, style="<style></style>")
    assert re.search(r"E_CRC</th><td class=\"right\">8</td>", page)
    assert re.search(r"E_TR</th><td class=\"right\">not shown</td>", page)
    assert re.search(r"E_SPACE</th><td class=\"right\">&lt; 5</td>", page)
    assert "north" in page and "moon" not in page and "sub-" not in page and "/home/me" not in page
    assert "mask.nii.gz" in page and "://" not in page


def test_a_store_of_few_people_shows_no_numbers():
    content = manifest(people=4)
    quality = quality_of(content, {}, threshold=3.5)
    page = render(quality, content, {}, threshold=3.5, least=LEAST, style="")
    assert "not shown" in page and "No site is known" in page
    for value in (*content["runs"][0].values(),):
        if isinstance(value, float):
            assert str(value) not in page


def test_a_store_without_a_scan_has_a_page_too():
    content = manifest(people=0, quarantined=[("sub-1", "E_CRC")])
    quality = quality_of(content, {}, threshold=3.5)
    assert "The store holds no scan" in render(quality, content, {}, threshold=3.5, least=LEAST, style="")
    assert qc.refusals(content, LEAST) == [{"code": "E_CRC", "scans": "< 5", "people": "< 5"}]
