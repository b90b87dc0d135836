"""Each rule against a slow reference: what it promises, and the same answer every time."""

import itertools
import tracemalloc

import numpy as np
import pytest

from trainer.data import pam, selection
from trainer.data.kmeans import k_means, lloyd
from trainer.data.selection import RULES, coverage, kcenter, kmeans_medoid, medoid, nearest, random_coverage
from trainer.errors import UserError


def points(count: int, *, seed: int = 0, dimensions: int = 6, groups: int = 5) -> np.ndarray:
    """Float32[N,D] in loose groups, away from the origin."""
    numbers = np.random.default_rng(seed)
    centres = numbers.normal(10, 4, (groups, dimensions))
    return (centres[numbers.integers(groups, size=count)] + numbers.normal(0, 1, (count, dimensions))).astype(np.float32)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(((one.astype(np.float64) - other) ** 2).sum()))


def slow_medoid(features: np.ndarray, rows: list[int]) -> int:
    means = [np.mean([distance(features[row], features[mate]) for mate in rows if mate != row]) if len(rows) > 1 else 0.0 for row in rows]
    return rows[int(np.argmin(means))]


def slow_cost(features: np.ndarray, picks: tuple[int, ...]) -> float:
    return sum(min(distance(row, features[pick]) for pick in picks) for row in features)


@pytest.mark.parametrize("seed", range(5))
def test_the_medoid_matches_brute_force_across_blocks(seed, monkeypatch):
    monkeypatch.setattr(selection, "BLOCK", 7)
    features = points(60, seed=seed)
    rows = np.sort(np.random.default_rng(seed).permutation(60)[:33])
    assert rows[medoid(features, rows)] == slow_medoid(features, rows.tolist())


def test_of_rows_that_are_equally_central_the_first_is_the_medoid():
    corners = np.array([[3, 0], [0, 0], [0, 3], [3, 3], [0, 0]], np.float32)
    assert medoid(corners, np.array([0, 2, 3])) == 2  # (3,3) lies between the others
    assert medoid(corners, np.arange(5)) == 1  # rows 1 and 4 are one point
    assert medoid(corners, np.array([2, 3])) == 0


def test_one_pick_is_the_medoid_of_all():
    features = points(50, seed=3)
    picks = kmeans_medoid(features, 1, 0)
    assert picks.indices == (slow_medoid(features, list(range(50))),)
    assert picks.cluster_sizes == (50,)


def test_each_pick_of_kmeans_medoid_is_the_medoid_of_the_rows_it_stands_for():
    features = points(80, seed=1)
    picks = kmeans_medoid(features, 7, 0)
    for rank, index in enumerate(picks.indices):
        assert index == slow_medoid(features, np.flatnonzero(picks.stands_for == rank).tolist())
    assert list(picks.cluster_sizes) == sorted(picks.cluster_sizes, reverse=True)
    assert sum(picks.cluster_sizes) == 80


def test_far_groups_get_one_pick_each():
    numbers = np.random.default_rng(0)
    groups = np.repeat(np.arange(4), 9)
    features = (groups[:, None] * np.array([[50.0, -20.0]]) + numbers.normal(0, 1, (36, 2))).astype(np.float32)
    for rule in RULES.values():
        assert sorted(groups[list(rule(features, 4, 0).indices)]) == [0, 1, 2, 3]


def test_lloyd_agrees_with_scikit_learn_from_the_same_centres():
    from sklearn.cluster import KMeans

    features = points(400, seed=2)
    squares = (features.astype(np.float64) ** 2).sum(axis=1)
    labels, inertia = lloyd(features, squares, features[:8].copy(), still=0)
    reference = KMeans(8, init=features[:8].copy(), n_init=1, tol=0, max_iter=300).fit(features)
    assert np.array_equal(labels, reference.labels_)
    assert inertia == pytest.approx(reference.inertia_, rel=1e-5)


def test_kmeans_is_as_tight_as_scikit_learns():
    from sklearn.cluster import KMeans

    features = points(300, seed=5, groups=12)
    labels = k_means(features, 12, np.random.default_rng(0))
    inertia = sum(((features[labels == cluster] - features[labels == cluster].mean(axis=0)) ** 2).sum() for cluster in range(12))
    assert inertia <= 1.02 * KMeans(12, n_init=10, random_state=0).fit(features).inertia_


def test_a_cluster_that_lost_its_rows_takes_the_farthest():
    features = np.array([[0], [1], [2], [100]], np.float32)
    labels, _ = lloyd(features, (features[:, 0] ** 2).astype(np.float64), np.array([[1], [500], [600]], np.float32), still=0)
    assert sorted(np.bincount(labels, minlength=3)) == [1, 1, 2]


def test_kcenter_takes_always_the_farthest_row():
    features = points(70, seed=4)
    picks = kcenter(features, 6, 0)
    mean = features.mean(axis=0)
    chosen = [min(range(70), key=lambda row: distance(features[row], mean))]
    while len(chosen) < 6:
        chosen.append(max(range(70), key=lambda row: min(distance(features[row], features[pick]) for pick in chosen)))
    assert list(picks.indices) == chosen


@pytest.mark.parametrize("seed", range(6))
def test_pam_is_never_worse_than_kmeans_medoid_in_its_own_measure(seed):
    features = points(90, seed=seed, groups=9)
    assert (
        slow_cost(features, RULES["pam"](features, 6, seed).indices) <= slow_cost(features, kmeans_medoid(features, 6, seed).indices) + 1e-4
    )


def test_pam_ends_where_no_swap_helps_and_mostly_at_the_best_of_all_subsets():
    reached = 0
    for seed in range(12):
        features = points(12, seed=seed, groups=4)
        picks = RULES["pam"](features, 3, 0).indices
        best = min(slow_cost(features, subset) for subset in itertools.combinations(range(12), 3))
        cost = slow_cost(features, picks)
        for leaving, entering in itertools.product(range(3), range(12)):
            assert slow_cost(features, (*picks[:leaving], *picks[leaving + 1 :], entering)) >= cost - 1e-4
        reached += cost <= best + 1e-4
    assert reached >= 11


def test_pam_with_one_pick_is_the_medoid_of_all():
    features = points(40, seed=8)
    assert RULES["pam"](features, 1, 0).indices == (slow_medoid(features, list(range(40))),)


def test_the_swaps_of_pam_are_weighed_across_blocks(monkeypatch):
    table = np.sqrt(((points(50)[:, None] - points(50)[None]) ** 2).sum(axis=2))
    whole = pam.k_medoids(table, 4, start=[0, 1, 2, 3])
    monkeypatch.setattr(pam, "BLOCK", 3)
    assert pam.k_medoids(table, 4, start=[0, 1, 2, 3]) == whole


def test_pam_refuses_more_than_it_can_hold_and_says_what_can(monkeypatch):
    monkeypatch.setattr(selection, "PAM_LIMIT", 30)
    with pytest.raises(
        UserError, match=r"--rule pam .* 31 photos are more than the 30 it can hold; take --rule kmeans-medoid, or --unpaired 30"
    ):
        RULES["pam"](points(31), 2, 0)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_gives_the_same_picks_twice_and_leaves_the_features_alone(rule):
    features = points(120, seed=6)
    before = features.copy()
    first, second = (RULES[rule](features, 9, 5) for _ in range(2))
    assert first.indices == second.indices
    assert np.array_equal(first.stands_for, second.stands_for)
    assert np.array_equal(features, before)
    assert len(set(first.indices)) == 9
    assert [int(first.stands_for[index]) for index in first.indices] == list(range(9))


@pytest.mark.parametrize("rule", RULES)
def test_all_rows_can_be_picked_and_one_row_is_a_set(rule):
    features = points(8)
    assert sorted(RULES[rule](features, 8, 0).indices) == list(range(8))
    assert RULES[rule](features[:1], 1, 0).indices == (0,)


@pytest.mark.parametrize("rule", RULES)
def test_fewer_distinct_rows_than_picks_are_refused_with_how_many_there_are(rule):
    features = np.repeat(points(3), 4, axis=0)
    with pytest.raises(UserError, match=r"--pairs 4 asks for more than the 3 distinct photos among 12"):
        RULES[rule](features, 4, 0)
    assert len({tuple(features[index]) for index in RULES[rule](features, 3, 0).indices}) == 3


def test_coverage_is_the_mean_distance_to_the_nearest_pick(monkeypatch):
    monkeypatch.setattr(selection, "BLOCK", 11)
    features = points(40)
    picks = (3, 17, 30)
    assert coverage(features, picks) == pytest.approx(slow_cost(features, picks) / 40, rel=1e-6)
    ranks, _ = nearest(features, picks)
    assert ranks.tolist() == [min(range(3), key=lambda rank: distance(row, features[picks[rank]])) for row in features]


def test_random_coverage_is_that_of_twenty_draws_in_order():
    drawn = random_coverage(points(60), 5)
    assert len(drawn) == 20
    assert drawn == sorted(drawn)
    assert len(set(drawn)) > 15
    assert min(drawn) > coverage(points(60), range(60)) == 0


def test_no_rule_but_pam_needs_memory_that_grows_with_the_square_or_copies_the_features():
    features = points(12_000, dimensions=64, groups=20)
    for rule in ("kmeans-medoid", "kcenter"):
        tracemalloc.start()
        RULES[rule](features, 20, 0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 60 << 20  # a table of distances would be 576 MB; a few blocks of 2048 x 2048 distances are not
