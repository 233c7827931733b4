"""Figures: a table in, Axes or a Figure out; nothing of the caller's is changed."""

import inspect
from itertools import combinations

import matplotlib
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segmentation import palette
from segmentation.clustering import preprocessing as features
from segmentation.clustering import selection, stability
from segmentation.reports import figures as plots
from segmentation.segments import model as segmenter
from segmentation.segments import profiles


@pytest.fixture(autouse=True)
def _close():
    matplotlib.use("agg")
    yield
    plt.close("all")


def hostile(card):
    """The bundled card with labels that matplotlib could take for mathematics."""
    label = r"$\frac{ <b>&" + "x" * 40
    columns = {n: f.model_copy(update={"label": label + n}) for n, f in card.features.items()}
    return card.model_copy(update={"features": columns})


@pytest.fixture(params=["plain", "hostile"])
def drawn(request, table, card, examined):
    """Every argument that a plot may ask for."""
    card = hostile(card) if request.param == "hostile" else card
    pipeline = segmenter.fit(table, card, k=4)
    limits = segmenter.measure_limits(pipeline, table, card)
    clustered = segmenter.cluster_customers(pipeline, table, card, limits)
    profile = profiles.profile_features(profiles.measure_features(clustered, card), card)
    segments = profiles.list_segments(profile, segmenter.find_centres(pipeline, card), card)
    return examined | {
        "card": card,
        "segments": segments,
        "clustered": segmenter.name_customers(clustered, segments),
        "profile": profiles.name_clusters(profile, segments),
        "levels": profiles.name_clusters(
            profiles.profile_levels(profiles.measure_levels(clustered, card), card), segments
        ),
        **make_comparison(segments[0]["name"]),
    }


def make_comparison(name):
    """A segment that shrank, one that has gone, one that is new; who moved, came and left."""
    changes = pd.DataFrame(
        {
            "transition": ["survived", "disappeared", "emerged"],
            "previous_cluster": pd.array([0, 1, None], dtype="Int64"),
            "previous_segment": [name, "Gone", None],
            "cluster": pd.array([0, None, 2], dtype="Int64"),
            "segment": [name, None, f"New {name}"],
            "previous_share": [0.6, 0.4, None],
            "share": [0.5, None, 0.5],
        }
    )
    pairs = {"previous_cluster": [0, 0, 1, None], "cluster": [0, None, 2, 2]}
    names = {"previous_segment": [name, name, "Gone", None], "segment": [name, None, "New", "New"]}
    ways = pd.DataFrame({**pairs, **names, "customers": [50, 10, 40, 10]})
    ways = ways.astype(dict.fromkeys(pairs, "Int64"))
    colours = dict(enumerate(palette.PALETTE[:3]))
    return {"changes": changes, "ways": ways, "colours": colours}


@pytest.fixture(scope="module")
def examined(table, card):
    """What notebooks 03 and 04 resample, in small."""
    scaled = features.scale(table, card)
    fits = selection.fit_all(scaled, k_max=4)
    sweep = selection.measure(scaled, fits)
    sweep = sweep.merge(selection.measure_gap(scaled, k_max=4, resamples=9), on="k")
    resampled = selection.resample(scaled, fits, resamples=9)
    null = selection.draw_null(scaled, fits, draws=19, halvings=4, pairs=2)
    return {
        "scaled": scaled,
        "sweep": selection.add_null(selection.add_resamples(sweep, resampled), null),
        "aris": resampled.aris,
        "silhouettes": selection.measure_silhouettes(scaled, fits[4]),
        "jaccards": resampled.jaccards,
        "series": stability.slsa(scaled, {k: fits[k].labels for k in (2, 3, 4)}),
        "similarities": stability.gorge(scaled, fits[4].centres),
    }


SPECIAL = {
    "aris": {"samples": "aris"},
    "silhouette_profile": {"samples": "silhouettes"},
    "jaccards": {"resampled": "jaccards"},
}


PLOTS = sorted(
    name
    for name, draw in inspect.getmembers(plots, inspect.isfunction)
    if hasattr(draw, "__wrapped__")
)


@pytest.mark.parametrize("name", PLOTS)
def test_draws_and_changes_nothing(name, drawn, table):
    draw = getattr(plots, name)
    wanted = inspect.signature(draw).parameters
    tables = drawn | {"table": drawn["sweep"] if "card" not in wanted else table}
    tables |= {key: drawn[name_] for key, name_ in SPECIAL.get(name, {}).items()}
    tables.setdefault("resampled", drawn["jaccards"][4])
    arguments = {key: tables[key] for key in wanted}
    frames = {k: v.copy() for k, v in arguments.items() if isinstance(v, pd.DataFrame)}
    settings = dict(matplotlib.rcParams)
    result = draw(**arguments)
    assert isinstance(result, Axes | Figure)
    figure = result.get_figure(root=True) if isinstance(result, Axes) else result
    figure.canvas.draw()
    assert dict(matplotlib.rcParams) == settings
    for key, frame in frames.items():
        pd.testing.assert_frame_equal(arguments[key], frame)


@pytest.mark.parametrize("name", ["share_changes", "migration"])
def test_without_a_previous_run_a_figure_says_so(name):
    empty = pd.DataFrame(columns=["previous_cluster", "cluster"])
    assert "earlier run" in getattr(plots, name)(empty, {}).get_title(loc="left")


def test_the_map_shows_income_against_spending(drawn):
    axes = plots.choose_map(drawn["clustered"], drawn["card"])
    assert axes == ["Annual Income (k$)", "Spending Score (1-100)"]
    without = drawn["card"].model_copy(update={"map": None})
    shares = profiles.explain_variance(
        profiles.measure_features(drawn["clustered"], without), without
    )
    best = set(shares.nlargest(2).index)
    chosen = plots.choose_map(drawn["clustered"], without)
    assert {without.label(name) for name in chosen} == best


def test_a_dollar_is_a_dollar(table, card):
    figure = plots.histograms(table, card)
    figure.canvas.draw()
    assert figure.axes[1].get_xlabel() == r"Annual income (k\$)"


def test_each_segment_has_one_colour(drawn):
    colours = [segment["colour"] for segment in drawn["segments"]]
    assert colours == list(palette.PALETTE[:4])
    axis = plots.map_2d(drawn["clustered"], drawn["segments"], drawn["card"])
    dots = [matplotlib.colors.to_hex(points.get_facecolor()[0]) for points in axis.collections]
    edges = [
        matplotlib.colors.to_hex(label.get_bbox_patch().get_edgecolor()) for label in axis.texts
    ]
    assert dots == edges == colours


def test_labels_of_the_map_overlap_neither_each_other_nor_the_frame(drawn):
    axis = plots.map_2d(drawn["clustered"], drawn["segments"], drawn["card"])
    boxes = [label.get_bbox_patch().get_window_extent() for label in axis.texts]
    assert not [1 for a, b in combinations(boxes, 2) if a.overlaps(b)]
    frame = axis.bbox.padded(1)
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 for b in boxes)
    assert all(frame.y0 <= b.y0 and b.y1 <= frame.y1 for b in boxes)
