"""The rivals on a cohort at vector level: whom they are scored on, what they see, what is refused or told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from align.baselines import PLS, RidgeCCA, best_similarity
from align.config import Evaluate
from align.evaluate import evaluate
from align.galleries import everyone
from align.pairs import join
from align.report_rivals import paired_rows, rival_sentences
from align.retrieval import DIRECTIONS, auc2afc, compare, mean
from align.rival_files import FROM_FILES, vector_files
from align.rivals import line_up
from encoders.cohort import Cohort, groups_of, make_split
from encoders.cohort.config import DEFAULT_TERMS
from encoders.cohort.synthetic import SyntheticCohort, vector_cohort
from encoders.runs import InputError
from encoders.vectors import SubjectVectors

TERMS = list(DEFAULT_TERMS)


@pytest.fixture(scope="module")
def study():
    made = vector_cohort(SyntheticCohort(people=400, seed=1))
    cohort = Cohort(frame=made.frame, path=Path("participants.tsv"))
    split = make_split(
        cohort,
        groups_of(cohort, made.related),
        val_fraction=0.15,
        test_fraction=0.3,
        stratify=["sex"],
        seed=0,
    )
    vectors = {
        "brain": SubjectVectors(ids=made.ids, values=made.brain),
        "genetics": SubjectVectors(ids=made.ids, values=made.gene),
    }
    return made, split, join(vectors, split=split, cohort=cohort).pair("brain", "genetics")


def auc(similarity):
    room = everyone([str(k) for k in range(len(similarity))])
    counts = compare(similarity, room).paired(np.arange(len(similarity))[None])
    return float(mean(auc2afc(counts), counts.weight)[0])


def test_linear_rivals_find_a_linear_truth_confounds_less_and_chance_nothing(study):
    _, _, pairs = study
    rivals = line_up(pairs, TERMS).rivals
    assert list(rivals) == ["ridge_cca", "pls", "confounds_only", "chance"]
    reached = {name: auc(rival.similarities["adjusted"]["brain_to_gene"]) for name, rival in rivals.items()}
    assert reached["ridge_cca"] > 0.8 and reached["pls"] > 0.65 and reached["confounds_only"] < 0.65
    assert reached["chance"] == 0.5
    assert all(len(rival.rows) == len(pairs.rows("test")) for rival in rivals.values())


def test_what_pls_finds_is_the_largest_covariance():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 6)), rng.standard_normal((50, 80))  # more columns than people
    model = PLS(num_pairs=1).fit(x, y)
    centred = [side - side.mean(axis=0) for side in (x, y)]
    u, _, v = np.linalg.svd(centred[0].T @ centred[1], full_matrices=False)
    expected = np.sign(centred[0] @ u[:, 0])[:, None] * np.sign(centred[1] @ v[0])
    np.testing.assert_allclose(model.similarity(x, y), expected)


def test_the_model_is_chosen_on_validation_people_alone():
    rng = np.random.default_rng(1)
    shared = rng.standard_normal((90, 2))
    x, y = (np.concatenate([shared, 30 * rng.standard_normal((90, 8))], axis=1) for _ in "xy")
    train, val, test = np.arange(30), np.arange(30, 60), np.arange(60, 90)
    folds = {"train": train, "val": val, "gallery": everyone([str(k) for k in val])}
    models = [RidgeCCA(ridge=ridge, num_pairs=2) for ridge in (1e-6, 1e6)]
    before = best_similarity(models, x, y, test=test, **folds)
    x[test[1:]], y[test[1:]] = 0, 0  # other test people have no say
    after = best_similarity(models, x, y, test=test[:1], **folds)
    np.testing.assert_allclose(before[0, 0], after[0, 0])


def test_a_rival_whose_vectors_some_lack_is_scored_on_the_others_and_they_are_counted(study):
    made, split, pairs = study
    some = made.ids[::2]
    snps = SubjectVectors(ids=some, values=made.gene[::2])
    few = SubjectVectors(ids=split.train[:5], values=np.ones((5, 3), np.float32))
    field = line_up(pairs, TERMS, {"linear_snps": snps, "connectome": few}, split=split)
    rival = field.rivals["linear_snps"]
    test = [pairs.ids[k] for k in pairs.rows("test")]
    assert [test[k] for k in rival.rows] == [name for name in test if name in set(some)]
    assert rival.without["test"] == len(test) - len(rival.rows) and rival.without["train"] > 0
    assert rival.similarities["raw"]["brain_to_gene"].shape == (len(rival.rows),) * 2
    assert "connectome" not in field.rivals and field.unfitted["connectome"].startswith("5 train people")

    config = Evaluate(permutations=19, bootstraps=50)
    ours = np.random.default_rng(0).standard_normal((len(test), len(test)))
    similarities = dict.fromkeys(("raw", "adjusted", "matched"), dict.fromkeys(DIRECTIONS, ours))
    content, _ = evaluate(
        pairs,
        similarities,
        confound_terms=TERMS,
        oracle=None,
        config=config,
        rival_vectors={"linear_snps": snps, "connectome": few},
        split=split,
    )
    assert set(content["models"]) == {"neurohelix", *field.rivals}
    assert content["paired"]["linear_snps"]["raw"]["people"] == len(rival.rows)
    worse = content["paired"]["ridge_cca"]["matched"]["brain_to_gene"]
    assert worse["value"] < -0.2 and worse["ci_high"] < 0 and worse["p"] <= 2 / 51
    same = rival_sentences(content["rivals"], 5)
    assert (
        same[0].startswith("People without vectors of Linear SNPs:")
        and "Connectome was not fitted" in same[1]
    )
    rows = paired_rows(content["paired"], 5)
    assert [row["title"] for row in rows][:3] == ["Ridge CCA", "PLS", "Linear SNPs"]
    assert rows[0]["cells"][2][1][0][1]["value"].startswith("-0.")


def test_a_rival_sees_its_own_vectors(study):
    made, split, pairs = study
    rng = np.random.default_rng(2)
    blind = SubjectVectors(ids=made.ids, values=rng.standard_normal((len(made.ids), 8)).astype(np.float32))
    found = line_up(pairs, TERMS, {"static_brain": blind, "linear_snps": blind}, split=split).rivals
    for name in ("static_brain", "linear_snps"):
        assert abs(auc(found[name].similarities["adjusted"]["brain_to_gene"]) - 0.5) < 0.1, name
    seeing = SubjectVectors(ids=made.ids, values=made.brain)
    same = line_up(pairs, TERMS, {"static_brain": seeing}, split=split).rivals
    np.testing.assert_allclose(
        same["static_brain"].similarities["raw"]["brain_to_gene"],
        same["ridge_cca"].similarities["raw"]["brain_to_gene"],
    )


def test_a_rival_whose_encoder_has_seen_held_out_people_is_refused(study):
    made, split, pairs = study
    told = {"trained_on": {"split_digest": "0" * 64, "ids": split.test[:3], "complete": True}}
    leaky = replace(SubjectVectors(ids=made.ids, values=made.brain), provenance=told)
    with pytest.raises(InputError, match="encoder of the static_brain vectors was trained on"):
        line_up(pairs, TERMS, {"static_brain": leaky}, split=split)


def test_files_of_rivals_are_found_where_the_exporting_commands_put_them(tmp_path):
    from encoders.brainmt.connectome_config import VECTORS as CONNECTOME
    from encoders.brainmt.static_config import VECTORS as STATIC
    from encoders.genetics.score_config import VECTORS as SCORES
    from encoders.genetics.snp_config import VECTORS as SNPS

    assert {file for file, _ in FROM_FILES.values()} == {STATIC, CONNECTOME, SNPS, SCORES}
    for file in (STATIC, SNPS):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    assert set(vector_files(tmp_path, ("brain", "genetics"))) == {"static_brain", "linear_snps"}
    assert set(vector_files(tmp_path, ("brain", "structure"))) == {"static_brain"}
