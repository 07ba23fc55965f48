"""The synthetic cohort at vector level: families, genes, latents, what each arm is meant to show."""

import time

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from encoders.cohort.synthetic import SyntheticCohort, VectorCohort, oracle_similarity, vector_cohort
from encoders.cohort.synthetic.config import ARMS
from encoders.cohort.synthetic.genomes import simulate_genotypes
from encoders.cohort.synthetic.people import simulate_people
from encoders.runs import InputError

PEOPLE = 2000


def make(arm: str, **options: object) -> VectorCohort:
    return vector_cohort(SyntheticCohort(arm=arm, people=PEOPLE, **options))


@pytest.fixture(scope="module")
def cohorts() -> dict[str, VectorCohort]:
    return {arm: make(arm) for arm in ARMS}


def correlations(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(columns of left, columns of right) Pearson correlations."""
    both = np.corrcoef(left.T, right.T)
    return both[: left.shape[1], left.shape[1] :]


def auc2afc(similarity: np.ndarray, allowed: np.ndarray | None = None) -> float:
    """How often the right column beats another one that is allowed, mean over rows that have one."""
    allowed = ~np.eye(len(similarity), dtype=bool) if allowed is None else allowed
    wins = (similarity.diagonal()[:, None] > similarity) + 0.5 * (
        similarity.diagonal()[:, None] == similarity
    )
    some = allowed.any(axis=1)
    return float((np.where(allowed, wins, 0).sum(axis=1)[some] / allowed.sum(axis=1)[some]).mean())


def linear_match(brain: np.ndarray, gene: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Similarity of brain i and genome j: cosine between the genes guessed from the brain and the genes."""
    guessed = Ridge(100.0).fit(brain[train], gene[train]).predict(brain[test])
    genes = gene[test] - gene[train].mean(axis=0)
    guessed -= gene[train].mean(axis=0)
    return (guessed / np.linalg.norm(guessed, axis=1, keepdims=True)) @ (
        genes / np.linalg.norm(genes, axis=1, keepdims=True)
    ).T


def test_two_thousand_people_take_no_time() -> None:
    start = time.process_time()
    make("signal", seed=5)
    assert time.process_time() - start < 2  # 0.2 s where the machine is ours alone


def test_same_seed_same_cohort_other_seed_another() -> None:
    first, again, other = make("signal", seed=3), make("signal", seed=3), make("signal", seed=4)
    for name in ("brain", "gene", "latents", "genetic_scores"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))
    assert first.frame.equals(again.frame)


@pytest.mark.parametrize("heritability", [0.3, 0.6])
def test_genes_explain_the_stated_share(heritability: float) -> None:
    cohort = make("signal", heritability=heritability)
    explained = correlations(cohort.latents, cohort.genetic_scores).diagonal() ** 2
    assert abs(explained.mean() - heritability) < 0.05
    assert abs(cohort.latents.var(axis=0).mean() - 1) < 0.06


def test_gene_vectors_hold_the_genetic_scores(cohorts: dict[str, VectorCohort]) -> None:
    cohort = cohorts["signal"]
    half = PEOPLE // 2
    guessed = Ridge(1.0).fit(cohort.gene[:half], cohort.genetic_scores[:half]).predict(cohort.gene[half:])
    assert correlations(guessed, cohort.genetic_scores[half:]).diagonal().min() > 0.98


def test_siblings_share_half_their_parents_haplotypes() -> None:
    config = SyntheticCohort(people=PEOPLE, sibling_fraction=1.0)
    people = simulate_people(config, config.rng("people"))
    genomes = simulate_genotypes(config, people, config.rng("genomes"))
    haplotypes = genomes.alleles.reshape(PEOPLE, 2, config.windows, -1)

    def identical(left: np.ndarray, right: np.ndarray) -> float:
        return float((haplotypes[left] == haplotypes[right]).all(axis=-1).mean())

    first, second = people.siblings.T
    by_chance = identical(first, np.roll(first, 1))
    assert by_chance < 0.25
    assert abs(identical(first, second) - (0.5 + 0.5 * by_chance)) < 0.03
    assert (people.family[first] == people.family[second]).all()
    assert (people.ancestry[first] == people.ancestry[second]).all()
    related = np.corrcoef(genomes.scores[first].ravel(), genomes.scores[second].ravel())[0, 1]
    assert abs(related - 0.5) < 0.06


def test_signal_arm_has_few_siblings_with_family_ids(cohorts: dict[str, VectorCohort]) -> None:
    cohort = cohorts["signal"]
    assert len(cohort.related) == 50  # 5 % of 2,000 people
    family = cohort.frame["family_id"]
    assert all(family[a] == family[b] for a, b in cohort.related)
    assert family.nunique() == PEOPLE - 50


def test_null_arm_has_genes_that_say_nothing(cohorts: dict[str, VectorCohort]) -> None:
    cohort = cohorts["null"]
    assert np.abs(correlations(cohort.latents, cohort.genetic_scores)).max() < 0.1
    everyone = np.arange(PEOPLE)
    similarity = linear_match(cohort.brain, cohort.gene, everyone[:1400], everyone[1400:])
    assert abs(auc2afc(similarity) - 0.5) < 0.04


def test_confounded_arm_retrieves_until_people_are_matched(cohorts: dict[str, VectorCohort]) -> None:
    cohort = cohorts["confounded"]
    frame = cohort.frame
    ancestry = (frame["ancestry"] == "anc2").to_numpy(dtype=float)[:, None]
    sex = (frame["sex"] == "M").to_numpy(dtype=float)[:, None]
    site = (frame["site"] == "site2").to_numpy(dtype=float)[:, None]
    assert np.abs(correlations(ancestry, cohort.latents)).min() > 0.4
    assert np.abs(correlations(sex, cohort.latents)).min() > 0.25
    assert np.abs(correlations(ancestry, cohort.gene)).max() > 0.3
    assert correlations(ancestry, site).item() > 0.5
    assert correlations(ancestry, frame[["pcs_1"]].to_numpy()).item() > 0.9
    test = np.arange(1400, PEOPLE)
    similarity = linear_match(cohort.brain, cohort.gene, np.arange(1400), test)
    cell = frame[["ancestry", "sex", "site"]].agg(" ".join, axis=1).to_numpy()[test]
    matched = (cell[:, None] == cell[None, :]) & ~np.eye(len(test), dtype=bool)
    assert auc2afc(similarity) > 0.6
    assert abs(auc2afc(similarity, matched) - 0.5) < 0.04


def test_leak_arm_rewards_a_family_blind_split() -> None:
    cohort = make("leak", heritability=0.0)
    assert cohort.frame["family_id"].isna().all()
    assert len(cohort.related) == 600
    row = {name: i for i, name in enumerate(cohort.ids)}
    pairs = np.array([(row[a], row[b]) for a, b in cohort.related])
    seen, test = pairs[:, 0], pairs[:, 1]  # each test person has a sibling among those seen
    strangers = np.setdiff1d(np.arange(PEOPLE), pairs)[:600]

    def memorised(known: np.ndarray) -> float:
        """2AFC of a reader that takes the genes of the known people whose brains are most alike."""
        distance = ((cohort.brain[test][:, None] - cohort.brain[known][None]) ** 2).mean(axis=2)
        weight = np.exp(-distance / 0.4)
        guessed = weight @ cohort.gene[known] / weight.sum(axis=1, keepdims=True)
        guessed -= guessed.mean(axis=0)
        return auc2afc(guessed @ cohort.gene[test].T)

    assert memorised(seen) > 0.6
    assert abs(memorised(strangers) - 0.5) < 0.04


def test_oracle_is_high_with_signal_and_at_chance_without(cohorts: dict[str, VectorCohort]) -> None:
    for arm, low, high in (("signal", 0.9, 1.0), ("null", 0.42, 0.58)):
        cohort = cohorts[arm]
        similarity = oracle_similarity(cohort.truth, cohort.ids[:1000], cohort.ids[1000:1200])
        assert similarity.shape == (200, 200)
        assert low < auc2afc(similarity) < high, arm
        assert low < auc2afc(similarity.T) < high, arm


def test_oracle_keeps_the_order_of_the_people_it_is_given(cohorts: dict[str, VectorCohort]) -> None:
    cohort = cohorts["signal"]
    train, test = cohort.ids[:300], cohort.ids[300:340]
    forward = oracle_similarity(cohort.truth, train, test)
    assert np.allclose(oracle_similarity(cohort.truth, train, test[::-1]), forward[::-1, ::-1])
    with pytest.raises(InputError, match=r"1 people are not in the truth.*nobody"):
        oracle_similarity(cohort.truth, train, ["nobody"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"people": 5}, "people is 5, but 8 to 100000 was wanted"),
        ({"heritability": 1.5}, "heritability is 1.5, but 0 to 1 was wanted"),
        ({"amplitude_latents": 5}, "coupling_latents is 2, but 0 to 1 was wanted"),
        ({"amplitude_latents": 0, "coupling_latents": 0}, "are both 0"),
        ({"window_bp": 120}, "variants_per_window is 30, but 2 to 10 was wanted"),
        ({"causal_per_latent": 40}, "causal_per_latent is 40"),
    ],
)
def test_impossible_cohorts_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        SyntheticCohort(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"people": 8, "windows": 1, "variants_per_window": 24, "founders": 4},
        {"people": 9, "windows": 30, "sibling_fraction": 1.0, "missing_rate": 0.5},
        {"people": 8, "amplitude_latents": 0, "coupling_latents": 1, "indel_fraction": 1.0},
        {"people": 8, "window_bp": 120, "variants_per_window": 10, "windows": 4, "multiallelic_fraction": 1.0}
        | {"indel_fraction": 0.5, "causal_per_latent": 1},
    ],
)
def test_cohorts_at_the_edge_work(options: dict[str, object]) -> None:
    cohort = vector_cohort(SyntheticCohort(**options))
    assert np.isfinite(cohort.gene).all()
    assert np.isfinite(cohort.genetic_scores).all()
