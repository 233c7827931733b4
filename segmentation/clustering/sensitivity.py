"""Would other choices give other segments? Other features, scalings, logarithms, methods."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import minmax_scale, robust_scale, scale

from segmentation import words
from segmentation.clustering import kmeans, null, selection, stability
from segmentation.clustering.kernels import Floats, Labels
from segmentation.clustering.silhouettes import measure_silhouettes
from segmentation.customers import Card, cards

Tables = Mapping[str, pd.DataFrame]

SAME = selection.REPRODUCIBLE  # adjusted Rand index from which on a cut is the same one again
DRAWS = 20  # structureless tables a feature, of twenty features at most
UNMOVED, SHUFFLES = 0.9, 20  # the same where a shuffled feature is not missed; times it is shuffled
ANSWERED = 500  # up to so many rows the rule answers every variation, above edits of the card only
METHODS = {"Ward": "Ward's method", "Gaussian mixture": "a Gaussian mixture"}
ALTERNATIVES = ["choice", "kind", "k", "ari", "moved"]


@dataclass(frozen=True)
class Sensitivity:
    """What `examine` finds about the cut into `at` segments.

    `families`, `agreement`, `features`, `variations` and `alternatives` are as the functions below
    give them; `edits` maps a sentence on what would change the answer to the sections of the card
    for it, in YAML.
    """

    at: int
    families: pd.DataFrame
    agreement: dict[str, Any]
    features: pd.DataFrame
    variations: pd.DataFrame
    alternatives: pd.DataFrame
    edits: dict[str, str]


def examine(
    X: pd.DataFrame, cuts: Mapping[int, ArrayLike], sweep: pd.DataFrame, card: Card, *, k: int,
    codes: pd.DataFrame, logged: pd.DataFrame, resamples: int = 100, seed: int = 0,
) -> Sensitivity:  # fmt: skip
    """Examine what the answer `k` for an (n, p) table rests on; of a seeded sample above 2 000.

    `cuts` {K: (n,) labels} and `sweep` are what `k` was chosen from; where it is 1, the cut with
    the largest excess over structureless data is examined. `codes` (n, c) are 0/1 columns that
    are not in the distance, `logged` (n, p) is X with logarithms of the long-tailed features.
    """
    excess = sweep.set_index("k")["excess"].reindex([*cuts]).dropna()
    at = int(excess.idxmax()) if k == 1 and len(excess) else k
    drawn = kmeans.draw_positions(len(X), stability.count_resampled(X.shape[1]), seed=seed)
    X, codes, logged = X.iloc[drawn], codes.iloc[drawn], logged.iloc[drawn]
    cut = np.asarray(cuts[at])[drawn] if at > 1 else np.zeros(len(X), np.int32)
    families = compare_families(X, cut * (k > 1), k_max=max([1, *cuts]), seed=seed)
    agreement = explain_families(families)
    if at == 1:
        none = pd.DataFrame(columns=["feature", "carries", "variation", *ALTERNATIVES], dtype=float)
        sheets = none[["feature", "carries"]], none[["variation", "ari", "moved"]]
        return Sensitivity(at, families, agreement, *sheets, none[ALTERNATIVES], {})
    how: dict[str, int] = {"draws": max(19, resamples * 2 // 5 - 1), "seed": seed}
    features = weigh_features(X, cut, seed=seed)
    idle = features["feature"][features["carries"] == "nothing"]
    changes = _list_changes(X, logged.set_axis(X.index), idle, card)
    others = {name: table for name, (table, _) in changes.items()}
    variations = vary(X, codes, cut, others=others, ks=[*cuts], **how)
    near = {each: np.asarray(cuts[each])[drawn] for each in (k - 1, k + 1) if each in cuts}
    titles = {
        f"without {name}": f"without {words.lower_first(card.labels.get(name, name))}" for name in X
    }
    alternatives = pd.DataFrame(columns=ALTERNATIVES)
    if k > 1:
        alternatives = _list_alternatives(cut, near, families, variations, titles)
    now, edits = selection.answer_calibrated(sweep)[0], {}
    for row in variations[variations["variation"].isin(others)].to_dict("records"):
        name, moved = row["variation"], int(row["k"] != now)
        if moved or (now != 1 and row["ari"] < SAME):
            facts = row | {"rule_k": now, "moved": moved, "choice": words.upper_first(name)}
            edits[words.say("edit", facts)] = _write_edit(card, changes[name][1])
    return Sensitivity(at, families, agreement, features, variations, alternatives, edits)


def _list_alternatives(
    cut: Labels, near: Mapping[int, Labels], families: pd.DataFrame, variations: pd.DataFrame,
    titles: Mapping[str, str],
) -> pd.DataFrame:  # fmt: skip
    """How many customers another choice would move: a row an alternative to a `cut` (n,).

    Columns choice (in words), kind (K, method or feature), k (segments of the alternative), ari
    and moved, see `share_moved`. Of the cuts `near` {K: (n,) labels}, the methods of `families`
    at the same K and the `variations` that `titles` name.
    """
    k = int(cut.max()) + 1
    rows = [
        (f"K = {each}", "K", each, adjusted_rand_score(cut, other), share_moved(cut, other))
        for each, other in near.items()
    ]
    for row in families[families["family"].isin(METHODS)].to_dict("records"):
        rows.append((METHODS[row["family"]], "method", k, row["ari_same_k"], row["moved_same_k"]))
    for row in variations[variations["variation"].isin(titles)].to_dict("records"):
        rows.append((titles[row["variation"]], "feature", k, row["ari"], row["moved"]))
    return pd.DataFrame(rows, columns=ALTERNATIVES)


def share_moved(first: ArrayLike, second: ArrayLike) -> float:
    """The share of n rows that are elsewhere in another labelling, segments matched one to one.

    The matching keeps as many as can be (Kuhn 1955); who is in a segment without a partner has
    moved.

    >>> share_moved([0, 0, 0, 1, 1], [1, 1, 1, 0, 2])
    0.2
    """
    table = stability.contingency(first, second)[0]
    kept = table[linear_sum_assignment(table, maximize=True)].sum()
    return float((table.sum() - kept) / table.sum())


def weigh_features(
    X: pd.DataFrame, labels: ArrayLike, *, draws: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """Which features carry a cut into k ≥ 2 segments: one row a column of an (n, p) table.

    Columns feature; share, of its variance that lies between the segments; null_mean, null_q95,
    the same in structureless tables cut into as many (`null.fit_null`); permuted_ari, of the cut
    with where its centres put everyone when the feature is shuffled (Breiman 2001); carries: *the
    segments* beyond the null (5 % over all features, Bonferroni: 20 `draws` a feature give it);
    *nothing* where others do so, the share is below the null's mean and shuffling leaves the cut
    as it is; else empty.

    Examples
    --------
    >>> X = pd.DataFrame({"a": [0.0, 0.1, 0.2, 9.0, 9.1, 9.2], "b": [0.0, 1, 0, 1, 0, 1]})
    >>> weigh_features(X, [0, 0, 0, 1, 1, 1])["share"].round(2).tolist()
    [1.0, 0.11]
    """
    rows, own = X.to_numpy(float), np.asarray(labels)
    k, fitted = int(own.max()) + 1, null.fit_null(rows)
    draws = draws or DRAWS * min(len(rows.T), DRAWS) - 1
    seeds = np.random.SeedSequence(seed).generate_state(draws).tolist()
    tables = [fitted.draw(len(rows), seed=s) for s in seeds]
    chance = np.array([
        _share_between(table, kmeans.fit(table, k, starts=null.STARTS, seed=seed).labels)
        for table in tables
    ])  # fmt: skip
    share, mean, ari = _share_between(rows, own), chance.mean(axis=0), _shuffle(rows, own, seed)
    rare = (1 - null.FAMILY_WISE) / rows.shape[1]
    carrying = share > np.quantile(chance, 1 - rare, axis=0, method="higher")
    idle = carrying.any() & (share < mean) & (ari >= UNMOVED)
    table = pd.DataFrame({"feature": [*X], "share": share, "null_mean": mean})
    table["null_q95"] = np.quantile(chance, null.FAMILY_WISE, axis=0)
    carries = np.select([carrying, idle], ["the segments", "nothing"], "")
    return table.assign(permuted_ari=ari, carries=carries)


def vary(
    X: pd.DataFrame, codes: pd.DataFrame, labels: ArrayLike, *, others: Tables, ks: Iterable[int],
    draws: int = 39, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """How far a cut survives other choices: columns variation, ari (to `labels` (n,)), moved, k.

    Other scalings of X (n, p), each feature left out, `others` (tables by what they are), each
    0/1 column of `codes` (n, c) put in. `ari` is that of as many segments, `moved` the share of
    the rows that these put elsewhere (`share_moved`), `k` the answer of the calibrated rule among
    `ks`; above 500 rows of `others` only.

    Examples
    --------
    >>> X = pd.DataFrame({"a": [0.0, 0.1, 0.2, 9.0, 9.1, 9.2], "b": [0.0, 1, 0, 1, 0, 1]})
    >>> sheet = vary(X, X[[]], [0, 0, 0, 1, 1, 1], others={}, ks=[])
    >>> sheet.set_index("variation")["ari"]["without b"].item()
    1.0
    """
    k, rows = len(np.unique(labels)), []
    tables = {"min–max scaling": minmax_scale(X), "robust scaling": robust_scale(X)}
    if len(X.columns) > 1:
        tables |= {f"without {name}": X.drop(columns=name) for name in X}
    tables |= others
    tables |= {f"with {n} in the distance": np.hstack([X, scale(codes[[n]])]) for n in codes}
    for name, table in tables.items():
        cut = kmeans.fit(table, k, starts=stability.CUT_STARTS, seed=seed).labels
        asked = name in others or len(X) <= ANSWERED
        answer = answer_rule(table, ks, draws=draws, seed=seed) if asked else None
        rows.append((name, adjusted_rand_score(labels, cut), share_moved(labels, cut), answer))
    return pd.DataFrame(rows, columns=["variation", "ari", "moved", "k"]).astype({"k": "Int64"})


def answer_rule(X: ArrayLike, ks: Iterable[int], *, draws: int = 39, seed: int = 0) -> int:
    """The calibrated rule's K for an (n, p) table, by fewer draws and halvings."""
    rows = np.asarray(X, dtype=np.float64)
    most = min(len(rows) // 2, len(np.unique(rows, axis=0)))
    if not (wanted := [k for k in ks if 1 < k <= most]):
        return 1
    chance = null.null_table(rows, wanted, draws=draws, halvings=0, pairs=0, seed=seed)
    how: dict[str, int] = {"resamples": max(10, draws // 2), "seed": seed}
    sweep = selection.sweep_briefly(rows, wanted, null.describe_chance(chance), **how)
    return selection.answer_calibrated(sweep)[0] or 1


def compare_families(
    X: ArrayLike, labels: ArrayLike, *, k_max: int = 10, seed: int = 0
) -> pd.DataFrame:
    """What other families of methods find in an (n, p) table: one row a family, ours first.

    Columns family; k, its own number of segments; ari_own_k and ari_same_k, of that cut and of one
    into as many as `labels` (n,) with these; the ARIs between the families' own cuts; and
    moved_same_k, the share of the rows that the cut into as many puts elsewhere. Ward's method and
    k-medoids (FasterPAM; Schubert & Rousseeuw 2021) take the K ≥ 2 with the largest mean
    silhouette, a Gaussian mixture K ≥ 1 and the shape of its covariances by BIC; HDBSCAN's clusters
    are dense, have 5 % of the rows or more, and leave some rows in none.

    Examples
    --------
    >>> groups = [[x + y / 10] for x in (0.0, 9.0) for y in range(10)]
    >>> compare_families(groups, [0] * 10 + [1] * 10, k_max=4)["k"].tolist()
    [2, 2, 2, 2, 2]
    """
    from kmedoids import fasterpam
    from scipy.cluster.hierarchy import fcluster, ward
    from scipy.spatial.distance import pdist, squareform
    from sklearn.cluster import HDBSCAN

    rows, given = np.asarray(X, dtype=np.float64), np.asarray(labels)
    k, distinct = len(np.unique(given)), len(np.unique(rows, axis=0))
    ks = sorted({*range(1, min(k_max, distinct) + 1), k})
    tree, apart = ward(rows), squareform(pdist(rows))
    pam: dict[str, Any] = {"init": "build", "random_state": seed, "n_cpu": 1}
    trees = {each: fcluster(tree, each, "maxclust") - 1 for each in ks}
    medoids = {each: fasterpam(apart, each, **pam).labels.astype(np.int64) for each in ks}
    mixtures, best = _fit_mixtures(rows, ks, seed)
    size = min(len(rows), max(5, round(null.LEAST_SHARE * len(rows))))
    own = {"K-means": given, "Ward": _choose_cut(rows, trees), "Gaussian mixture": best}
    own["k-medoids"] = _choose_cut(rows, medoids)
    own["HDBSCAN"] = HDBSCAN(min_cluster_size=size, copy=True).fit_predict(rows)
    aris = {a: [adjusted_rand_score(own[a], cut) for cut in own.values()] for a in own}
    at_k = [cuts[k] for cuts in (trees, mixtures, medoids)]
    same = [adjusted_rand_score(given, cut) for cut in at_k]
    moved = [share_moved(given, cut) for cut in at_k]
    table = pd.DataFrame({"family": [*own], "k": 1, "ari_own_k": aris["K-means"]} | aris)
    table["k"] = [max(1, len(np.unique(cut[cut >= 0]))) for cut in own.values()]
    table.insert(3, "ari_same_k", [1, *same, np.nan] if k > 1 else np.nan)
    table["moved_same_k"] = [0, *moved, np.nan] if k > 1 else np.nan
    return table


def explain_families(families: pd.DataFrame) -> dict[str, Any]:
    """Whether another family, free in its K, finds nearly the same: agrees, word and plain."""
    same = families["family"][1:][families["ari_own_k"][1:] >= SAME]
    facts = {"k": families["k"].iloc[0], "agreeing": len(same), "families": words.join(same)}
    entry = words.pick(words.read_words()["families"], facts)
    plain = words.write(entry["plain"], facts)
    return {"agrees": len(same) > 0, "word": entry["word"], "plain": plain}


def _share_between(rows: Floats, labels: Labels) -> Floats:
    """The share of each column's variance that lies between segments: (p,); a constant has 0."""
    table = pd.DataFrame(rows)
    means = table.groupby(labels).transform("mean")
    return (means.var(ddof=0) / table.var(ddof=0)).fillna(0).to_numpy()


def _shuffle(rows: Floats, labels: Labels, seed: int) -> Floats:
    """Mean ARI of a cut with that by its centres after each feature is shuffled: (p,)."""
    centres, rng = pd.DataFrame(rows).groupby(labels).mean(), kmeans.stream(seed, "shuffles")
    before, aris = kmeans.assign(rows, centres), []
    for j, column in enumerate(rows.T):
        many = np.tile(rows, (SHUFFLES, 1))
        many[:, j] = rng.permuted(np.tile(column, (SHUFFLES, 1)), axis=1).ravel()
        after = kmeans.assign(many, centres).reshape(SHUFFLES, -1)
        aris.append(stability.adjusted_rand(stability.contingency(before, after)).mean())
    return np.array(aris)


def _list_changes(
    X: pd.DataFrame, logged: pd.DataFrame, idle: Iterable[str], card: Card
) -> dict[str, tuple[pd.DataFrame, Card]]:
    """Edits of the card that are worth trying, by what they say: the table that each gives, and
    the card: logarithms of long tails, no idle features."""
    made, known = {}, card.features
    tails = [name for name in known if name in X and not np.allclose(X[name], logged[name])]
    out = [name for name in idle if name in known]
    if tails:
        log = {name: known[name].model_copy(update={"transform": "log"}) for name in tails}
        told = f"with the logarithm of {words.join(known[name].label for name in tails)}"
        made[told] = logged, card.model_copy(update={"features": known | log})
    if out and len(out) <= len(known) - 2:
        told = f"without what carries nothing ({words.join(known[name].label for name in out)})"
        for said, (table, edited) in {"": (X, card), **made}.items():
            both = f"{said} and {told}".removeprefix(" and ")
            made[both] = table.drop(columns=out), cards.keep_features(edited, {*known} - {*out})
    return made


def _write_edit(card: Card, edited: Card) -> str:
    """The sections of a card that an edit changes, in YAML: a paragraph each, to paste."""
    before, after = (each.model_dump(exclude_defaults=True) for each in (card, edited))
    whole = edited.model_dump() | after
    changed = {n: whole[n] for n in before | after if before.get(n) != after.get(n)}
    how: dict[str, Any] = {"default_flow_style": True, "allow_unicode": True, "width": 10**6}
    how["sort_keys"] = False  # features stand in the order of the distance
    return "\n\n".join(yaml.safe_dump({n: v}, **how).strip()[1:-1] for n, v in changed.items())


def _choose_cut(rows: Floats, cuts: Mapping[int, Labels]) -> Labels:
    """Of cuts by K the one with the largest mean silhouette; one segment has none."""
    means = measure_silhouettes(rows, [*cuts.values()]).mean(axis=1)
    return [*cuts.values()][np.nan_to_num(means, nan=-2).argmax()]


def _fit_mixtures(rows: Floats, ks: Iterable[int], seed: int) -> tuple[dict[int, Labels], Labels]:
    """The labels by the best Gaussian mixture of each K, and by the best of all (BIC)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    best = {}
    how = {"random_state": seed, "reg_covar": 1e-4}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # such a fit has a poor BIC
        for k in ks:
            shapes = ("full", "tied", "diag", "spherical")
            fits = [GaussianMixture(k, covariance_type=each, **how).fit(rows) for each in shapes]
            best[k] = min(fits, key=lambda fit: fit.bic(rows))
    cuts = {k: fit.predict(rows) for k, fit in best.items()}
    return cuts, cuts[min(best, key=lambda k: best[k].bic(rows))]
