"""Figures: a table in, Axes or a Figure out; nothing of the caller's is changed."""

import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
import seaborn as sns
from matplotlib import pyplot as plt

from segmentation.clustering import stability
from segmentation.customers import Card
from segmentation.palette import PALETTE
from segmentation.reports import display, drawings, figures

HOSTILE = r"$\frac{ <b>&" + "x" * 40
NAMES = ["Older", HOSTILE, "Younger, low annual income", "High annual income, high spending"]


@pytest.fixture(autouse=True)
def _style():
    matplotlib.use("agg")
    figures.apply_style()
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def customers():
    """Two hundred customers in four groups of two features: x, y, cluster."""
    rng = np.random.default_rng(0)
    cluster = np.repeat(range(4), 50)
    values = rng.normal(0, 0.3, (200, 2)) + np.column_stack([cluster % 2, cluster // 2])
    return pd.DataFrame(values, columns=["x", "y"]).assign(cluster=cluster)


@pytest.fixture(scope="module")
def segments(customers):
    centres = customers.groupby("cluster").mean()
    return [
        {
            "id": i,
            "name": NAMES[i],
            "colour": PALETTE[i],
            "size": 50,
            "centre": dict(centres.loc[i]),
        }
        for i in centres.index
    ]


@pytest.fixture(scope="module")
def sweep():
    null = {"null_silhouette": 0.3, "null_silhouette_q95": 0.35}
    return pd.DataFrame({"k": range(1, 7), "silhouette": [np.nan, 0.4, 0.5, 0.6, 0.5, 0.4], **null})


@pytest.fixture(scope="module")
def series(customers):
    solutions = {k: customers["cluster"].to_numpy() % k for k in (2, 3, 4)}
    track = getattr(stability, "track_cuts", None) or stability.slsa
    return track(customers[["x", "y"]].to_numpy(), solutions)


SAMPLES = pd.DataFrame(
    {"position": np.repeat(range(4), 50), "silhouette": np.linspace(-0.1, 1, 200)}
)


def map_customers(customers, segments):
    card = Card(title="t", table="t.csv", features={"x": {"transform": "log"}, "y": {}})
    return figures.map_segments(customers, segments, card)


def draw_curve(sweep):
    ax = sns.lineplot(sweep, x="k", y="silhouette")
    return figures.mark_choice(figures.draw_null_band(ax, sweep, "silhouette"), 4)


DRAWN = {
    "profile": lambda get: figures.silhouette_profile(SAMPLES, get("sweep")),
    "flow": lambda get: figures.flow(get("series")),
    "clustergram": lambda get: figures.flow(get("series"), scores=True),
    "map": lambda get: map_customers(get("customers"), get("segments")),
    "curve": lambda get: draw_curve(get("sweep")),
}


@pytest.mark.parametrize("name", DRAWN)
def test_draws_and_changes_nothing(name, request):
    asked = {}

    def get(fixture):
        asked[fixture] = request.getfixturevalue(fixture)
        return asked[fixture]

    settings = dict(matplotlib.rcParams)
    frames = ("sweep", "customers")
    before = {each: request.getfixturevalue(each).copy() for each in frames}
    DRAWN[name](get).figure.canvas.draw()
    assert dict(matplotlib.rcParams) == settings
    for each, frame in before.items():
        pd.testing.assert_frame_equal(request.getfixturevalue(each), frame)


def test_the_map_takes_the_features_that_part_the_segments_most(customers, card):
    assert drawings.choose_map(pd.DataFrame(), card) == list(card.map)
    features = dict.fromkeys(["noise", "x", "y"], next(iter(card.features.values())))
    without = card.model_copy(update={"map": None, "features": features})
    spread = customers.assign(noise=np.tile(range(50), 4))
    assert drawings.choose_map(spread, without) == ["x", "y"]


def test_a_dollar_is_a_dollar():
    assert figures.wrap("Annual income (k$)") == "Annual income (k$)"


@pytest.mark.parametrize("many", [1, 2, 4, 7, 10])
def test_the_map_has_everyone_in_colour_and_each_segment_among_the_rest(many):
    rows = pd.DataFrame({"x": range(100), "y": 1.0, "cluster": np.arange(100) % many})
    looks = dict(zip(range(many), PALETTE, strict=False))
    named = [{"id": i, "name": HOSTILE, "colour": look} for i, look in looks.items()]
    whole, *panels = map_customers(rows, named).axes
    assert len(panels) == many * (many > 1)
    assert len(whole.collections[0].get_offsets()) == 100
    for ax, one in zip(panels, named, strict=False):
        rest, own = ax.collections
        assert len(own.get_offsets()) == (rows["cluster"] == one["id"]).sum()
        assert len(rest.get_offsets()) + len(own.get_offsets()) == 100
        assert matplotlib.colors.to_hex(own.get_facecolor()[0]) == one["colour"]
        assert ax.get_title("left").replace("\n", " ").startswith(HOSTILE[:12])


def test_a_logarithmic_axis_has_plain_numbers():
    rows = pd.DataFrame({"x": [1, 10, 1000, 20000], "y": 1.0, "cluster": 0})
    ax = map_customers(rows, [{"id": 0, "name": "A", "colour": PALETTE[0]}]).axes[0]
    ax.figure.canvas.draw()
    told = [label.get_text() for label in ax.get_xticklabels()]
    assert "1,000" in told
    assert not any("$" in text for text in told)


def test_labels_right_of_a_figure_stand_in_its_height():
    sweep = pd.DataFrame({"k": [2, 3], "null_ari": [0.4, 0.3], "null_ari_q95": [0.6, 0.5]})
    ax = figures.draw_null_band(sns.lineplot(x=[2, 3], y=[0.9, 0.95]), sweep, "ari")
    low, high = ax.get_ylim()
    assert all(low < label.xy[1] < high for label in ax.texts)


def test_a_first_run_publishes_no_picture_of_changes(recorded):
    drawn = {path.name for path in (recorded / "figures").iterdir()}
    assert "segments_map.png" in drawn
    assert not drawn & {"share_changes.png", "migration.png"}


def test_no_box_stands_for_a_sign_that_no_font_draws():
    plt.rcParams["font.family"] = ["DejaVu Sans"]
    ax = sns.boxplot(pd.DataFrame({"年収 (万円)": [1, 2, 3], "הכנסה": [2, 3, 4]}), orient="h")
    ax.set_title("연간 소득")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=PendingDeprecationWarning)
        display.render(ax, "What they earn.")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["NianShou (WanYuan)", "הכנסה"]
    assert ax.get_title("left") == "YeonGan SoDeug"
