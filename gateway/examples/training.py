"""The models: logistic regression (scikit-learn), a small perceptron (ONNX), a small CNN (torch), and the faulty one.

Same input, same outputs, same order. Seeds are fixed and one thread is used, so the same packages
give the same bytes.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import skops.io
import torch
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gateway.examples.records import SEED, Array, Digits
from gateway.registry.lineage.fitted import describe

__all__ = ["Trained", "cnn", "linear", "lookup", "perceptron"]


@dataclass(frozen=True, slots=True)
class Trained:
    """An artifact's bytes, what it predicts for the held-out rows, and how it came to be."""

    name: str
    file: str
    content: bytes
    predicted: Array
    parameters: dict[str, Any]
    packages: tuple[str, ...]
    notes: str
    signature_needed: bool = True
    features: dict[str, Any] | None = None
    """The steps before the model itself, as the lineage tells them."""


def linear(digits: Digits) -> Trained:
    """Logistic regression on standardised pixels, saved with skops (no code runs when it is loaded)."""
    parameters = {"C": 0.1, "max_iter": 500}
    model = make_pipeline(StandardScaler(), LogisticRegression(**parameters))
    model.fit(digits.train_pixels, digits.train_labels)
    return Trained(
        name="linear",
        file="model.skops",
        content=_steady(skops.io.dumps(model)),
        predicted=model.predict(digits.test_pixels),
        parameters=parameters,
        packages=("numpy", "scikit-learn", "skops"),
        notes="Logistic regression: small, fast, easy to explain. The known good to start from.",
        features=describe(model.steps[:-1]),
    )


def perceptron(digits: Digits) -> Trained:
    """One hidden layer of 128, trained by scikit-learn and exported to ONNX."""
    parameters = {"hidden_layer_sizes": (128,), "alpha": 0.01, "max_iter": 300, "n_iter_no_change": 5, "tol": 1e-3}
    model = make_pipeline(StandardScaler(), MLPClassifier(**parameters, random_state=SEED))
    model.fit(digits.train_pixels, digits.train_labels)
    return Trained(
        name="perceptron",
        file="model.onnx",
        content=_onnx(model),
        predicted=model.predict(digits.test_pixels),
        parameters=parameters | {"hidden_layer_sizes": [128]},
        packages=("numpy", "scikit-learn", "skl2onnx", "onnx"),
        notes="Multilayer perceptron as ONNX: better, and fast in batches.",
        features=describe(model.steps[:-1]),
        signature_needed=False,
    )


def cnn(digits: Digits) -> Trained:
    """Two convolutions and a linear layer, exported with torch.export and a dynamic batch."""
    parameters = {"epochs": 12, "batch_rows": 64, "learning_rate": 3e-3, "dropout": 0.25}
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    network = _Network(parameters["dropout"])
    _fit(network, digits, int(parameters["epochs"]), int(parameters["batch_rows"]), parameters["learning_rate"])
    network.eval()
    with torch.no_grad():
        predicted = network(torch.from_numpy(digits.test_pixels))["label"].numpy()
    return Trained(
        name="cnn",
        file="model.pt2",
        content=_exported(network),
        predicted=predicted,
        parameters=dict(parameters),
        packages=("numpy", "scikit-learn", "torch"),
        notes="Small convolutional network (torch.export): sees strokes rather than pixels.",
    )


def lookup(digits: Digits, table: Sequence[float]) -> Trained:
    """The faulty version's weights: logistic regression on grey levels mapped through a table."""
    parameters = {"C": 1.0, "max_iter": 500}
    levels = np.array(table, np.float32)
    train = levels[digits.train_pixels.astype(np.int64)]
    test = levels[digits.test_pixels.astype(np.int64)]
    model = LogisticRegression(**parameters).fit(train, digits.train_labels)
    weights = np.vstack([model.coef_.T, model.intercept_]).astype(np.float32)
    out = io.BytesIO()
    np.save(out, weights)
    return Trained(
        name="faulty",
        file="weights.npy",
        content=out.getvalue(),
        predicted=model.predict(test),
        parameters=parameters | {"table": list(table)},
        packages=("numpy", "scikit-learn"),
        notes="Reads its grey-level table from a shared place for every batch: fine, until somebody tidies up.",
        signature_needed=False,
    )


class _Network(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
    def __init__(self, dropout: float) -> None:
        super().__init__()
        nn = torch.nn
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(32 * 16, 10))

    def scores(self, pixels: Any) -> Any:
        return self.head(self.features(pixels.reshape(-1, 1, 8, 8) / 16).flatten(1))

    def forward(self, pixels: Any) -> dict[str, Any]:
        probabilities = torch.softmax(self.scores(pixels), 1)
        return {"probabilities": probabilities, "label": probabilities.argmax(1)}


def _fit(network: _Network, digits: Digits, epochs: int, batch_rows: int, learning_rate: float) -> None:
    pixels, labels = torch.from_numpy(digits.train_pixels), torch.from_numpy(digits.train_labels)
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    for _ in range(epochs):
        order = torch.randperm(len(labels))
        for start in range(0, len(labels), batch_rows):
            rows = order[start : start + batch_rows]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network.scores(pixels[rows]), labels[rows]).backward()
            optimizer.step()


def _exported(network: _Network) -> bytes:
    rows = torch.zeros(2, 64)
    dynamic = {"pixels": {0: torch.export.Dim("batch")}}
    program = torch.export.export(network, (rows,), dynamic_shapes=dynamic)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names where this code is installed
    out = io.BytesIO()
    torch.export.save(program, out)
    return out.getvalue()


def _onnx(model: Any) -> bytes:
    proto = convert_sklearn(
        model,
        name="digits-perceptron",  # without one, skl2onnx draws a random name
        initial_types=[("pixels", FloatTensorType([None, 64]))],
        options={id(model): {"zipmap": False}},
        target_opset=17,
    )
    _reorder(proto.graph.output, lambda output: ("probabilities", "label").index(output.name))
    _reorder(proto.opset_import, lambda operators: str(operators.domain))  # skl2onnx iterates over a set of them
    for tensor in (*proto.graph.input, *proto.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def _reorder(repeated: Any, rank: Callable[[Any], Any]) -> None:
    copies = sorted((type(each).FromString(each.SerializeToString()) for each in repeated), key=rank)
    del repeated[:]
    repeated.extend(copies)


def _steady(dumped: bytes) -> bytes:
    """A skops archive without memory addresses and times, which would differ from run to run."""
    with zipfile.ZipFile(io.BytesIO(dumped)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    schema = parts.pop("schema.json").decode()
    addresses = dict.fromkeys(re.findall(r'"__id__": (\d+)|"file": "(\d+)\.npy"', schema))
    numbers: dict[str, str] = {}
    for pair in addresses:
        numbers.setdefault(pair[0] or pair[1], str(len(numbers) + 1))
    schema = re.sub(r'(?<="__id__": )\d+|(?<="file": ")\d+', lambda found: numbers[found[0]], schema)
    renamed = {f"{numbers[name.removesuffix('.npy')]}.npy": content for name, content in parts.items()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [*sorted(renamed.items()), ("schema.json", schema.encode())]:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()
