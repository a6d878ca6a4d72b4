"""What is made of a downloaded MLflow model: the files that a runtime here loads, and what MLmodel says of them.

    onnx      the graph and its data files, for the onnx runtime
    sklearn   model.skops, or the pickle, for the sklearn runtime, where columns are plain numbers and texts
    pytorch   the exported program or TorchScript, for the torch runtime
    others    the whole folder under ``artifact/`` with an adapter (``mlflow_adapter.py``) for the python runtime: what
              MLflow's own pyfunc loads, in the version's process

``--format python`` asks for the last of any flavor.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow_signature
import yaml

ADAPTER = "mlflow_adapter.py"
_MAX_TEXT = 4 * 1024 * 1024
_MAX_ITEMS = 200_000
_NATIVE = {"onnx": "onnx", "sklearn": "sklearn", "pytorch": "torch"}
_METHODS = {"predict": "prediction", "predict_proba": "probabilities", "predict_log_proba": "log_probabilities"}
_PICKLES = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".pth")


@dataclass
class Laid:
    """``files``: name in the version to where it is now."""

    entry: str
    format: str
    files: dict[str, Path]
    signature: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    pickled: bool = False
    added: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Model:
    """A downloaded model: its folder, and MLmodel as it stands."""

    root: Path
    body: Mapping[str, Any]

    @property
    def flavors(self) -> Mapping[str, Any]:
        found = self.body.get("flavors")
        return found if isinstance(found, dict) else {}

    def inside(self, name: Any, what: str) -> Path:
        """A file that MLmodel names, which must be one of the model's own."""
        path = (self.root / str(name)).resolve()
        if not path.is_relative_to(self.root.resolve()) or not path.exists():
            raise ValueError(f"MLmodel names {name!r} as its {what}, which is not among the model's files")
        return path


def lay_out(work: Path, folder: Path, asked: str | None, entry: str | None) -> dict[str, Any]:
    model = _read(work)
    remarks: list[str] = []
    laid = _chosen(model, asked, remarks)
    beside = folder / "beside"
    said = {
        "entry": entry or laid.entry,
        "format": laid.format,
        "signature": laid.signature,
        "options": laid.options,
        "pickled": laid.pickled,
        "added": laid.added,
        "example": None if laid.format == "onnx" else _example(model, beside, laid, remarks),
        "environment": None if laid.format == "onnx" else _environment(model, beside, remarks),
        "lineage": _lineage(model),
        "remarks": remarks,
    }
    for name, path in laid.files.items():
        target = folder / "files" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target) if name in laid.added else path.replace(target)
    return said


def _read(work: Path) -> Model:
    found = sorted(work.rglob("MLmodel"), key=lambda path: len(path.parts))
    if not found:
        raise ValueError("it holds no MLmodel file, so MLflow cannot say what it is; was another artifact meant?")
    root = found[0].parent
    body = _yaml(found[0])
    if not isinstance(body, dict):
        raise ValueError("its MLmodel file is no mapping")
    return Model(root, body)


def _text(path: Path) -> str:
    if path.stat().st_size > _MAX_TEXT:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes; at most {_MAX_TEXT} are read")
    return path.read_text(encoding="utf-8")


def _yaml(path: Path) -> Any:
    """Scalars, lists and mappings, bounded: a line that names another line again and again has no end written out."""
    body = yaml.safe_load(_text(path))
    waiting, seen = [body], 0
    while waiting:
        item = waiting.pop()
        seen += 1
        if seen > _MAX_ITEMS:
            raise ValueError(f"{path.name} unfolds into over {_MAX_ITEMS} items; at most those are read")
        if isinstance(item, dict | list):
            waiting.extend(item.values() if isinstance(item, dict) else item)
    return body


def _chosen(model: Model, asked: str | None, remarks: list[str]) -> Laid:
    for flavor, format_name in _NATIVE.items():
        if flavor in model.flavors and asked in (None, format_name):
            laid = {"onnx": _onnx, "sklearn": _sklearn, "pytorch": _torch}[flavor](model, model.flavors[flavor])
            if laid is not None:
                return laid
    if "python_function" in model.flavors and asked in (None, "python"):
        return _pyfunc(model, remarks)
    known = ", ".join(model.flavors) or "none"
    raise ValueError(
        f"its flavors are {known}; served are onnx, sklearn and pytorch as they are, and all that have python_function"
        + (f", but not as format {asked}" if asked else "")
    )


def _onnx(model: Model, flavor: Mapping[str, Any]) -> Laid:
    """The graph at the top, and what lies beside it: weights in files of their own are named relative to it."""
    graph = model.inside(flavor.get("data", "model.onnx"), "graph")
    own = {"MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "input_example.json"}
    own |= {"serving_input_example.json", "registered_model_meta"}
    files = {
        path.relative_to(graph.parent).as_posix(): path
        for path in graph.parent.rglob("*")
        if path.is_file() and not (graph.parent == model.root.resolve() and path.name in own)
    }
    return Laid(graph.name, "onnx", files)


def _sklearn(model: Model, flavor: Mapping[str, Any]) -> Laid | None:
    """None where the estimator needs more than itself: code beside it, types that skops asks about, other columns."""
    if flavor.get("code") or flavor.get("skops_trusted_types"):
        return None
    said = mlflow_signature.read(model.body)
    if said is not None and not said.plain:
        return None
    path = model.inside(flavor.get("pickled_model", "model.pkl"), "estimator")
    method = str((model.flavors.get("python_function") or {}).get("predict_fn") or "predict")
    name = _METHODS.get(method, method)
    signature = None if said is None else said.to_json(inputs="x", outputs=name)
    outputs = [tensor["name"] for tensor in signature["outputs"]] if signature else []
    options = {"outputs": dict.fromkeys(outputs, method)} if outputs else {}
    if len(outputs) > 1:  # its columns are one method's answer, which only MLflow takes apart
        return None
    return Laid(path.name, "sklearn", {path.name: path}, signature, options)


def _torch(model: Model, flavor: Mapping[str, Any]) -> Laid | None:
    """None for a pickled module: its class must be found and its code run, which is pyfunc's business."""
    data = model.inside(flavor.get("model_data", "data"), "data")
    if flavor.get("code"):
        return None
    exported, saved = data / "model.pt2", data / "model.pth"
    if exported.is_file():
        return Laid("model.pt2", "torch", {"model.pt2": exported})
    if saved.is_file() and _is_script(saved):
        said = mlflow_signature.read(model.body)
        signature = None if said is None else said.to_json(inputs="input", outputs="output")
        return Laid("model.pt", "torch", {"model.pt": saved}, signature)
    return None


def _is_script(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _pyfunc(model: Model, remarks: list[str]) -> Laid:
    files = {
        f"artifact/{path.relative_to(model.root).as_posix()}": path for path in model.root.rglob("*") if path.is_file()
    }
    files = {name: path for name, path in files.items() if "__pycache__" not in name}
    said = mlflow_signature.read(model.body)
    if said is not None and said.parameters:
        names = ", ".join(said.parameters)
        remarks.append(f"the model takes parameters ({names}) with a request; here they have their defaults")
    if said is None:
        remarks.append("the model was logged without a signature, so its input example tells what it takes")
    signature = None if said is None else said.to_json(inputs="inputs", outputs="prediction")
    pickled = any(_is_pickle(path) for path in files.values())
    adapter = {ADAPTER: Path(__file__).with_name(ADAPTER)}
    options = {"mlflow": {"columns": bool(said is None or said.columns)}}
    return Laid(ADAPTER, "python", {**files, **adapter}, signature, options, pickled, [ADAPTER])


def _is_pickle(path: Path) -> bool:
    if path.suffix.lower() in _PICKLES:
        return True
    with path.open("rb") as file:
        begins = file.read(2)
    return len(begins) == 2 and begins[0] == 0x80 and 2 <= begins[1] <= 5


def _example(model: Model, beside: Path, laid: Laid, remarks: list[str]) -> str | None:
    info = model.body.get("saved_input_example_info")
    if not isinstance(info, dict) or not info.get("artifact_path"):
        return None
    try:
        body = json.loads(_text(model.inside(info["artifact_path"], "input example")))
        inputs = mlflow_signature.example(body, laid.signature, bare=laid.format == "torch")
    except (ValueError, RecursionError, OSError) as error:
        remarks.append(f"the model's input example was left out: {str(error)[:200]}")
        return None
    if inputs is None:
        remarks.append("the model's input example was left out: it does not fit the model's signature")
        return None
    (beside / "example.json").write_text(json.dumps({"inputs": inputs}), encoding="utf-8")
    return "example.json"


def _environment(model: Model, beside: Path, remarks: list[str]) -> str | None:
    """A lock file of the model's requirements, where each is pinned: ranges do not mean the same twice."""
    lines = _requirements(model)
    loose = [line for line in lines if "==" not in line or line.startswith("-")]
    if loose:
        remarks.append(f"the model's environment is not pinned ({loose[0][:80]}); give a lock file with --environment")
        return None
    if not lines:
        return None
    python = _python(model)
    head = [f"# python {python}"] if python else []
    (beside / "lock.txt").write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")
    return "lock.txt"


def _requirements(model: Model) -> list[str]:
    path = model.root / "requirements.txt"
    if path.is_file():
        lines = _text(path).splitlines()
    else:
        conda = model.root / "conda.yaml"
        body = _yaml(conda) if conda.is_file() else {}
        steps = body.get("dependencies") if isinstance(body, dict) else None
        lines = [line for step in steps or () if isinstance(step, dict) for line in step.get("pip") or ()]
    bare = [str(line).partition(" #")[0].strip() for line in lines]
    return [line for line in bare if line and not line.startswith("#")]


def _python(model: Model) -> str | None:
    path = model.root / "python_env.yaml"
    body = _yaml(path) if path.is_file() else {}
    found = body.get("python") if isinstance(body, dict) else None
    found = found or (model.flavors.get("python_function") or {}).get("python_version")
    return str(found) if found else None


def _lineage(model: Model) -> dict[str, Any]:
    pinned = [line.partition("==") for line in _requirements(model) if "==" in line]
    packages = {name.strip(): version.partition(";")[0].strip() for name, _, version in pinned}
    python = _python(model)
    environment = {**({"python": python} if python else {}), **({"packages": packages} if packages else {})}
    return {"environment": environment} if environment else {}
