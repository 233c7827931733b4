"""Preprocessing and model as notebooks 02 and 04 write them."""

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from segmentation.clustering import BlockScaler, Clipper, KMeans, keep_rows, name_code


def build_preprocessor(card):
    """Impute, log, clip and scale each feature, one-hot each coded descriptor; raw columns in."""
    log = FunctionTransformer(np.log1p, np.expm1, feature_names_out="one-to-one")
    chains = {
        name: make_pipeline(
            SimpleImputer(strategy="median"),
            log if f.transform == "log" else "passthrough",
            Clipper() if f.outliers == "clip" else "passthrough",
            StandardScaler(),
        )
        for name, f in card.features.items()
    }
    codes = {
        name: make_pipeline(
            OneHotEncoder(
                sparse_output=False, handle_unknown="ignore", feature_name_combiner=name_code
            ),
            BlockScaler(d.weight),
        )
        for name, d in card.coded.items()
    }
    return ColumnTransformer(
        [(f"x{i}", chain, [name]) for i, (name, chain) in enumerate({**chains, **codes}.items())],
        transformer_weights={f"x{i}": f.weight for i, f in enumerate(card.features.values())},
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")


def build_model(table, card, k, seed=0):
    """The fitted Pipeline of notebook 04 on the rows used."""
    used = keep_rows(table, card)
    model = Pipeline(
        [
            ("preprocess", build_preprocessor(card)),
            ("kmeans", KMeans(k, n_init=100, random_state=seed)),
        ]
    )
    return model.fit(used[card.distance])


def name_customers(clustered, segments):
    """Ids for positions, and the names of segment and second, as notebook 04 writes them."""
    ids, names = (pd.Series([segment[key] for segment in segments]) for key in ("id", "name"))
    cluster = clustered["cluster"].map(ids).astype("Int64")
    segment = clustered["cluster"].map(names)
    second = clustered["second"].map(names).astype(object)
    return clustered.assign(cluster=cluster, segment=segment, second=second)
