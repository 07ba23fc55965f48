"""ComBat: the paper's equations written out one column at a time, simulated sites, people and sites of other folds."""

import numpy as np
import pandas as pd
import pytest

from encoders.cohort.harmonise import Combat
from encoders.runs.errors import InputError

SITES = {"a": (0.0, 1.0), "b": (2.0, 0.5), "c": (-1.0, 2.0)}  # mean shift and factor on the noise


def _people(num, seed, sites="abc"):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"site": rng.choice(list(sites), num), "age": rng.normal(50, 9, num)})
    return frame


def _scans(frame, seed, width=30):
    """Columns with an age effect, and sites that shift (differently per column) and stretch."""
    rng, effects = np.random.default_rng(seed), np.random.default_rng(99)
    shifts = {site: mean + 0.3 * effects.normal(size=width) for site, (mean, _) in SITES.items()}
    slope = effects.normal(size=width)
    noise = rng.normal(size=(len(frame), width))
    stretch = np.array([SITES[s][1] for s in frame["site"]])
    age = (frame["age"].to_numpy() - 50)[:, None] / 9
    truth = 5 + age * slope + noise
    return truth + np.stack([shifts[s] for s in frame["site"]]) + (stretch[:, None] - 1) * noise, truth


def _by_the_paper(values, frame):
    """Johnson et al. 2007, section 3, scalar by scalar; age kept."""
    sites, num = sorted(set(frame["site"])), len(frame)
    where = frame["site"].to_numpy()
    age = frame["age"].to_numpy()
    columns = np.stack([(where == s).astype(float) for s in sites] + [age - age.mean()], axis=1)
    count = {s: int((where == s).sum()) for s in sites}
    standard, kept, sds = np.empty_like(values), np.empty_like(values), []
    for g in range(values.shape[1]):
        effect = np.linalg.solve(columns.T @ columns, columns.T @ values[:, g])
        alpha = sum(count[s] * effect[k] for k, s in enumerate(sites)) / num
        sds.append(np.sqrt(np.sum((values[:, g] - columns @ effect) ** 2) / num))
        kept[:, g] = alpha + columns[:, -1] * effect[-1]
        standard[:, g] = (values[:, g] - kept[:, g]) / sds[g]
    result = np.empty_like(values)
    for s in sites:
        z = standard[where == s]
        n = count[s]
        gamma_hat = [z[:, g].mean() for g in range(z.shape[1])]
        delta_hat = [z[:, g].var(ddof=1) for g in range(z.shape[1])]
        gamma_bar, tau2 = np.mean(gamma_hat), np.var(gamma_hat, ddof=1)
        v, s2 = np.mean(delta_hat), np.var(delta_hat, ddof=1)
        lam, theta = (v**2 + 2 * s2) / s2, (v**3 + v * s2) / s2
        for g in range(z.shape[1]):
            gamma, delta2 = gamma_hat[g], delta_hat[g]
            for _ in range(200):
                gamma = (n * tau2 * gamma_hat[g] + delta2 * gamma_bar) / (n * tau2 + delta2)
                delta2 = (theta + 0.5 * np.sum((z[:, g] - gamma) ** 2)) / (n / 2 + lam - 1)
            result[where == s, g] = sds[g] / np.sqrt(delta2) * (z[:, g] - gamma)
    return result + kept


def test_equals_the_papers_equations():
    frame = _people(90, 0)
    values, _ = _scans(frame, 1)
    ours = Combat(keep=("age",)).fit(values, frame).transform(values, frame)
    np.testing.assert_allclose(ours, _by_the_paper(values, frame), atol=1e-5)


def test_unseen_people_of_known_sites_lose_the_site_and_keep_the_covariate():
    train, test = _people(300, 0), _people(200, 5)
    values, truth = _scans(test, 6)
    combat = Combat(keep=("age",)).fit(_scans(train, 1)[0], train)
    clean = combat.transform(values, test)

    def of_sites(data):
        """Largest difference of site means and ratio of site variances, over columns."""
        age = test["age"].to_numpy() - test["age"].mean()
        rest = data - np.outer(age, age @ data / (age @ age))
        groups = [rest[(test["site"] == s).to_numpy()] for s in "abc"]
        means, sds = (np.stack([getattr(g, f)(axis=0) for g in groups]) for f in ("mean", "std"))
        return np.ptp(means, axis=0).mean(), (sds.max(axis=0) / sds.min(axis=0)).mean()

    assert of_sites(values)[0] > 2.5
    assert of_sites(values)[1] > 3
    assert of_sites(clean)[0] < 0.5
    assert of_sites(clean)[1] < 1.4
    slopes = [np.polyfit(test["age"], data, 1)[0] for data in (clean, truth)]
    assert np.corrcoef(*slopes)[0, 1] > 0.98


def test_a_site_with_few_people_is_drawn_towards_the_shift_of_its_other_columns():
    frame = pd.concat([_people(200, 0, "ab"), _people(4, 1, "c")], ignore_index=True)
    combat = Combat().fit(_scans(frame, 2)[0], frame)
    standard = (_scans(frame, 2)[0] - combat.mean_) / combat.sd_
    spread = {s: standard[(frame["site"] == s).to_numpy()].mean(axis=0).std() for s in "ac"}
    drawn = {s: combat.shift_[combat.sites_.index(s)].std() for s in "ac"}
    assert drawn["a"] > 0.8 * spread["a"]
    assert drawn["c"] < 0.8 * spread["c"]


def test_an_unseen_or_missing_or_single_persons_site_gets_the_mean_site_effect_and_is_recorded():
    train = pd.concat([_people(200, 0, "ab"), _people(1, 1, "c")], ignore_index=True)
    values = _scans(train, 2)[0]
    combat = Combat().fit(values, train)
    assert combat.small_ == ["c"]
    test = pd.DataFrame({"site": ["z", None, "c", "a"]})
    rows = np.repeat(values[:1], 4, axis=0)
    clean = combat.transform(rows, test)
    assert combat.unseen_ == ["z"]
    np.testing.assert_array_equal(clean[0], clean[1])
    np.testing.assert_array_equal(clean[0], clean[2])
    assert np.abs(clean[0] - clean[3]).max() > 0.1
    share = np.array([(train["site"] == s).sum() / 200 for s in "ab"])
    standard = ((rows[0] - combat.mean_) / combat.sd_ - share @ combat.shift_) / np.sqrt(
        share @ combat.variance_
    )
    np.testing.assert_allclose(clean[0], standard * combat.sd_ + combat.mean_, atol=1e-12)


def test_what_test_people_look_like_changes_nothing_that_was_fitted():
    train = _people(100, 0)
    combat = Combat(keep=("age",)).fit(_scans(train, 1)[0], train)
    person = _people(1, 7, "b")
    alone = combat.transform(_scans(person, 8)[0], person)
    crowd = pd.concat([person, _people(50, 9)], ignore_index=True)
    values = np.concatenate([_scans(person, 8)[0], 100 + _scans(_people(50, 9), 10)[0]])
    np.testing.assert_array_equal(combat.transform(values, crowd)[0], alone[0])


@pytest.mark.parametrize("width", [1, 3])
def test_columns_that_do_not_vary_and_single_columns_stay_finite(width):
    frame = _people(60, 0)
    values = _scans(frame, 1, width=30)[0][:, :width].astype(np.float32)
    values[:, 0] = 3.0
    clean = Combat().fit(values, frame).transform(values, frame)
    assert clean.dtype == np.float32
    np.testing.assert_allclose(clean[:, 0], 3.0, atol=1e-6)
    assert np.isfinite(clean).all()


def test_what_cannot_be_harmonised_is_refused_in_one_sentence():
    frame = _people(60, 0)
    values = _scans(frame, 1)[0]
    for combat, people, told in (
        (Combat(site="scanner"), frame, "no column 'scanner'.*--harmonise_by"),
        (Combat(keep=("age:site",)), frame, "cannot keep 'age:site'"),
        (Combat(), frame.assign(site="a"), "has 1 sites with 2 or more"),
        (
            Combat(keep=("age",)),
            frame.head(7).assign(site=list("aabbcca")),
            "7 training people are too few for 3 sites",
        ),
    ):
        with pytest.raises(InputError, match=told):
            combat.fit(values[: len(people)], people)
