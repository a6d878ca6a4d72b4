"""scikit-learn estimators, trained here."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from runtimes.base import InvalidInput, LoadFailed, ModelFailed
from runtimes.execution import execute, load
from tests.runtimes.versions import iris, load_spec, signature

X, Y = iris()
CLASSIFIED = signature(
    {"x": ("FP32", ("batch", 4))}, {"label": ("INT64", ("batch",)), "probabilities": ("FP32", ("batch", 3))}
)


def loaded(tmp_path: Path, estimator: Any, **fields: Any):
    return load(load_spec(tmp_path, "sklearn", "m.skops", {"m.skops": skops.io.dumps(estimator)}, **fields)).runtime


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(StandardScaler(), LogisticRegression()),
        RandomForestClassifier(10, random_state=0),
        HistGradientBoostingClassifier(max_iter=10),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_trained_classifiers_answer_as_trained(tmp_path: Path, estimator: Any):
    """Labels and probabilities by their names in the signature, in its types; read-only input is no matter."""
    estimator.fit(X.astype(np.float32), Y)
    x = X.astype(np.float32)
    x.setflags(write=False)
    runtime = loaded(tmp_path, estimator, signature=CLASSIFIED)
    outputs = execute(runtime, {"x": x}, len(x))
    assert (outputs["label"] == estimator.predict(x)).all()
    assert np.allclose(outputs["probabilities"], estimator.predict_proba(x), atol=1e-6)
    assert outputs["probabilities"].dtype == np.float32


def test_without_a_signature_it_is_read_from_the_estimator(tmp_path: Path):
    """One table of n_features_in_ columns; classes that are words are BYTES."""
    names = np.array(["setosa", "versicolor", "virginica"])[Y]
    runtime = loaded(tmp_path, LogisticRegression(max_iter=500).fit(X, names))
    assert [spec.to_json() for spec in (*runtime.signature.inputs, *runtime.signature.outputs)] == [
        {"name": "x", "datatype": "FP64", "shape": ["batch", 4]},
        {"name": "label", "datatype": "BYTES", "shape": ["batch"]},
        {"name": "probabilities", "datatype": "FP64", "shape": ["batch", 3]},
    ]
    assert execute(runtime, {"x": X[:1]}, 1)["label"].tolist() == [b"setosa"]
    regression = loaded(tmp_path, LinearRegression().fit(X, Y))
    assert [spec.name for spec in regression.signature.outputs] == ["prediction"]
    scaler = loaded(tmp_path, StandardScaler().fit(X))
    assert [(spec.name, spec.shape) for spec in scaler.signature.outputs] == [("transformed", ("batch", 4))]
    assert np.allclose(execute(scaler, {"x": X}, len(X))["transformed"].mean(0), 0)


def test_outputs_are_methods_by_name_or_by_option(tmp_path: Path):
    """A name alone, a name that speaks, an option; what cannot be is refused with what to say."""
    svc = SVC().fit(X, Y)
    decision = signature({"x": ("FP64", ("batch", 4))}, {"decision": ("FP64", ("batch", 3))})
    assert np.allclose(
        execute(loaded(tmp_path, svc, signature=decision), {"x": X}, len(X))["decision"], svc.decision_function(X)
    )
    margin = signature(
        {"x": ("FP64", ("batch", 4))}, {"margin": ("FP64", ("batch", 3)), "label": ("INT64", ("batch",))}
    )
    with pytest.raises(LoadFailed, match=r"output 'margin': which method gives it\? .*decision_function"):
        loaded(tmp_path, svc, signature=margin)
    options = {"outputs": {"margin": "decision_function"}}
    assert list(execute(loaded(tmp_path, svc, signature=margin, options=options), {"x": X}, len(X))) == [
        "margin",
        "label",
    ]
    with pytest.raises(LoadFailed, match="needs predict_proba, which a SVC does not have"):
        loaded(tmp_path, svc, signature=CLASSIFIED)
    with pytest.raises(LoadFailed, match="which method"):
        loaded(tmp_path, svc, signature=margin, options={"outputs": {"margin": "__reduce__"}})
    alone = signature({"x": ("FP64", ("batch", 4))}, {"cluster": ("INT32", ("batch",))})
    assert loaded(tmp_path, KMeans(3, n_init=1).fit(X), signature=alone).run({"x": X})["cluster"].shape == (150,)


def test_text_and_columns_are_fed_as_estimators_want_them(tmp_path: Path):
    """BYTES are UTF-8 text; several inputs are columns beside each other; sparse answers are dense."""
    texts = ["red green", "blue", "grün blue"]
    pipeline = make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, [0, 1, 1])
    words = signature({"text": ("BYTES", ("batch",))}, {"label": ("INT64", ("batch",))})
    runtime = loaded(tmp_path, pipeline, signature=words)
    fed = np.array([text.encode() for text in texts], object)
    assert execute(runtime, {"text": fed}, 3)["label"].tolist() == [0, 1, 1]
    with pytest.raises(InvalidInput, match="UTF-8"):
        execute(runtime, {"text": np.array([b"\xff"], object)}, 1)
    encoder = OneHotEncoder(handle_unknown="ignore").fit(np.array([["a", "x"], ["b", "y"]], object))
    two = signature(
        {"first": ("BYTES", ("batch",)), "second": ("BYTES", ("batch",))}, {"features": ("FP64", ("batch", 4))}
    )
    outputs = execute(
        loaded(tmp_path, encoder, signature=two),
        {"second": np.array([b"y"], object), "first": np.array([b"a"], object)},
        1,
    )
    assert outputs["features"].tolist() == [[1, 0, 0, 1]]


def test_several_targets_are_the_models_failure(tmp_path: Path):
    """A list of arrays fits no output."""
    model = MultiOutputClassifier(LogisticRegression(max_iter=500)).fit(X, np.column_stack([Y, Y]))
    both = signature({"x": ("FP64", ("batch", 4))}, {"probabilities": ("FP64", ("batch", 3))})
    with pytest.raises(ModelFailed, match="gives 2 arrays, expected one"):
        execute(loaded(tmp_path, model, signature=both), {"x": X}, len(X))


class Outside(BaseEstimator):
    def predict(self, x: Any):
        return x


def test_types_from_elsewhere_are_refused_by_name(tmp_path: Path):
    """Custom classes, and functions even of trusted packages."""
    with pytest.raises(LoadFailed, match=r"not let in: tests\.runtimes\.test_sklearn_runtime\.Outside"):
        loaded(tmp_path, Outside())
    transformer = FunctionTransformer(np.savetxt).fit(X)
    with pytest.raises(LoadFailed, match=r"not let in: numpy\.savetxt"):
        loaded(tmp_path, transformer)


class Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("the pickle was loaded",))


def test_a_pickle_is_loaded_only_with_leave(tmp_path: Path):
    """Refused before a byte of it is interpreted; with leave it is served."""
    bomb = {"m.pkl": pickle.dumps(Bomb())}
    with pytest.raises(LoadFailed, match=r"runs whatever code its author put in; .*skops.io.dump.*by name"):
        load(load_spec(tmp_path, "sklearn", "m.pkl", bomb))
    model = LogisticRegression(max_iter=500).fit(X, Y)
    good = {"m.pkl": pickle.dumps(model)}
    runtime = load(load_spec(tmp_path, "sklearn", "m.pkl", good, allow_pickle=True, signature=CLASSIFIED)).runtime
    assert (execute(runtime, {"x": X}, len(X))["label"] == model.predict(X)).all()
    with pytest.raises(LoadFailed, match=r"cannot load 'm.pkl'"):
        load(load_spec(tmp_path, "sklearn", "m.pkl", {"m.pkl": b"nothing"}, allow_pickle=True))


def test_what_is_no_estimator_is_a_load_failure(tmp_path: Path):
    """Bytes, objects, devices."""
    with pytest.raises(LoadFailed, match=r"cannot load 'm.skops'"):
        load(load_spec(tmp_path, "sklearn", "m.skops", {"m.skops": b"nothing"}))
    with pytest.raises(LoadFailed, match="a dict, which can neither predict nor transform"):
        loaded(tmp_path, {"a": 1})
    with pytest.raises(LoadFailed, match="scikit-learn runs on the cpu"):
        loaded(tmp_path, LinearRegression().fit(X, Y), device="cuda:0")
