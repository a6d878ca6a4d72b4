"""Trains small models on scikit-learn's data and logs them to MLflow, as its users do: a script of theirs, not of ours.

    python -m loadtests.mlflow_training URL KIND…    prints, as its last line, what each model answers to some rows

Kinds are the functions below. Requirements are named, since finding them takes MLflow longer than all else.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from loadtests.mlflow_server import COMMIT

EVERY = 20
"""Rows that are asked: of all three kinds of iris."""
_CODE = """
import mlflow, pandas as pd

class Graded(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.limit = float(open(context.artifacts["limit"]).read())
    def predict(self, context, model_input, params=None):
        total = model_input["length"] * model_input["width"]
        grade = [("long" if t > self.limit else "short") + "-" + s for t, s in zip(total, model_input["species"])]
        return pd.DataFrame({"total": total, "grade": grade})

mlflow.models.set_model(Graded())
"""


def _frame() -> tuple[pd.DataFrame, Any]:
    table, target = load_iris(return_X_y=True, as_frame=True)
    return table, target


def columns(name: str = "columns", depth: float = 1.0) -> Mapping[str, Any]:
    """An estimator on a data frame (skops, MLflow's default), with all that a careful run says."""
    table, target = _frame()
    with mlflow.start_run(tags={"mlflow.source.git.commit": COMMIT, "mlflow.source.git.repoURL": "https://git/x"}):
        model = LogisticRegression(C=depth, max_iter=500).fit(table, target)
        mlflow.log_params({"C": depth, "max_iter": 500, "random_state": 7})
        mlflow.log_metrics({"accuracy": float(model.score(table, target)), "broken": float("nan")})
        mlflow.log_input(mlflow.data.from_pandas(table, name="iris", targets=None), context="training")
        answer = model.predict(table)
        signature = infer_signature(table, answer)
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            signature=signature,
            input_example=table[:2],
            registered_model_name=name,
            pip_requirements=[f"{package}=={version(package)}" for package in ("numpy", "scikit-learn", "skops")],
        )
        mlflow.log_metric("holdout_accuracy", 0.9, model_id=logged.model_id)
    return _asked(logged.model_uri, table[::EVERY])


def arrays() -> Mapping[str, Any]:
    """An estimator on plain arrays, as a pickle."""
    table, target = _frame()
    model = LogisticRegression(max_iter=500).fit(table.to_numpy(), target)
    with mlflow.start_run():
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            signature=infer_signature(table.to_numpy(), model.predict(table.to_numpy())),
            registered_model_name="arrays",
            serialization_format="pickle",
            pip_requirements=["scikit-learn"],
        )
    rows = table.to_numpy()[::EVERY]
    answer = mlflow.pyfunc.load_model(logged.model_uri).predict(rows)
    return {"inputs": {"x": rows.tolist()}, "outputs": {"prediction": answer.tolist()}, "uri": logged.model_uri}


def graph() -> Mapping[str, Any]:
    """An ONNX graph whose weights are in a file beside it."""
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415 - other kinds need not wait for it

    weights = np.random.default_rng(1).normal(size=(4, 512)).astype(np.float32)
    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 512])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with mlflow.start_run():
        logged = mlflow.onnx.log_model(model, name="model", registered_model_name="graph", pip_requirements=["onnx"])
    rows = _frame()[0].to_numpy()[::EVERY].astype(np.float32)
    answer = mlflow.pyfunc.load_model(logged.model_uri).predict(rows)["y"]
    return {"inputs": {"x": rows.tolist()}, "outputs": {"y": answer.tolist()}, "uri": logged.model_uri}


def program() -> Mapping[str, Any]:
    """A torch module, which MLflow exports."""
    import torch  # noqa: PLC0415 - likewise

    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    rows = _frame()[0].to_numpy()[::EVERY].astype(np.float32)
    answer = model(torch.from_numpy(rows)).detach().numpy()
    with mlflow.start_run():
        logged = mlflow.pytorch.log_model(
            model,
            name="model",
            signature=infer_signature(rows, answer),
            input_example=rows,
            registered_model_name="program",
            pip_requirements=["torch"],
        )
    return {"inputs": {"input": rows.tolist()}, "outputs": {"output": answer.tolist()}, "uri": logged.model_uri}


def coded() -> Mapping[str, Any]:
    """A pyfunc out of code (no pickle) with an artifact, on a frame of numbers and texts, that answers with a frame."""
    table, _ = _frame()
    given = pd.DataFrame({"length": table.iloc[:, 0], "width": table.iloc[:, 1], "species": ["a"] * 70 + ["b"] * 80})
    with tempfile.TemporaryDirectory() as folder:
        code, limit = Path(folder, "graded.py"), Path(folder, "limit.txt")
        code.write_text(_CODE)
        limit.write_text("17.0")
        answer = pd.DataFrame({"total": given["length"], "grade": given["species"]})
        with mlflow.start_run():
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(code),
                artifacts={"limit": str(limit)},
                signature=infer_signature(given, answer),
                registered_model_name="coded",
                pip_requirements=["mlflow"],
            )
    return _asked(logged.model_uri, given[::EVERY])


class _Summed(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow has no types
    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return model_input.sum(axis=1)


def pickled() -> Mapping[str, Any]:
    """A pyfunc whose class travels in a pickle."""
    table, _ = _frame()
    with mlflow.start_run():
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=_Summed(),
            signature=infer_signature(table, table.sum(axis=1)),
            registered_model_name="pickled",
            pip_requirements=["mlflow"],
        )
    return _asked(logged.model_uri, table[::EVERY])


def _asked(uri: str, rows: pd.DataFrame) -> Mapping[str, Any]:
    answer = mlflow.pyfunc.load_model(uri).predict(rows)
    frame = answer if isinstance(answer, pd.DataFrame) else pd.DataFrame({"prediction": np.asarray(answer)})
    inputs = {name: rows[name].tolist() for name in rows}
    return {"inputs": inputs, "outputs": {name: frame[name].tolist() for name in frame}, "uri": uri}


def round_trip() -> Mapping[str, Any]:
    """One version more of a model ``round``."""
    return columns("round")


def species() -> Mapping[str, Any]:
    """One version of a model ``species``."""
    return columns("species")


def sparse() -> Mapping[str, Any]:
    """The next, regularised so strongly that it answers otherwise."""
    return columns("species", 0.001)


KINDS: Mapping[str, Callable[[], Mapping[str, Any]]] = {
    made.__name__: made for made in (columns, arrays, graph, program, coded, pickled, round_trip, species, sparse)
}


def main(url: str, *kinds: str) -> None:
    mlflow.set_tracking_uri(url)
    mlflow.set_experiment("turnout")
    found = {kind: KINDS[kind]() for kind in kinds}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
