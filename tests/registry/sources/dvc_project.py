"""Makes a real Git repository with DVC: a pipeline that trains on two versions of its data, pushed to a real remote.

    python dvc_project.py FOLDER REMOTE_URL

    FOLDER/data/raw.csv        tracked by ``dvc add``; has more rows in the second commit
    stage prepare              raw.csv → data/train.csv, data/test.csv; parameter prepare.test_rows
    stage train                train.csv → models/fraud/; parameters train.shrink and train.seed
    stage evaluate             models/fraud/, test.csv → metrics.json
    dvc.yaml artifacts         fraud: models/fraud; GTO's tags fraud@v1.0.0 and fraud#prod at the first commit

The model is a nearest centroid in plain Python, trained in milliseconds. A script of its own, since DVC changes the
process that imports it. Prints the two commits.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import gto.api
from dvc.repo import Repo

PREPARE = """
import pathlib, yaml
rows = pathlib.Path("data/raw.csv").read_text().splitlines()
head, rows, kept = rows[0], rows[1:], yaml.safe_load(open("params.yaml"))["prepare"]["test_rows"]
pathlib.Path("data/test.csv").write_text("\\n".join([head, *rows[:kept]]) + "\\n")
pathlib.Path("data/train.csv").write_text("\\n".join([head, *rows[kept:]]) + "\\n")
"""

TRAIN = """
import json, pathlib, random, yaml
said = yaml.safe_load(open("params.yaml"))["train"]
lines = pathlib.Path("data/train.csv").read_text().splitlines()[1:]
rows = [[float(cell) for cell in line.split(",")] for line in lines]
random.Random(said["seed"]).shuffle(rows)
centroids = []
for label in (0.0, 1.0):
    mine = [row[:-1] for row in rows if row[-1] == label]
    centroids.append([said["shrink"] * sum(column) / len(mine) for column in zip(*mine)])
folder = pathlib.Path("models/fraud")
folder.mkdir(parents=True, exist_ok=True)
(folder / "centroids.json").write_text(json.dumps(centroids))
(folder / "model.py").write_text(pathlib.Path("serving.py").read_text())
"""

SERVING = """
import json
import numpy as np

SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 2]}],
    "outputs": [{"name": "fraud", "datatype": "INT64", "shape": ["batch"]}],
}


class Model:
    def __init__(self, files):
        self.centroids = np.array(json.loads(files.read("centroids.json")))

    def predict(self, inputs):
        gaps = ((inputs["x"][:, None, :] - self.centroids[None]) ** 2).sum(axis=2)
        return {"fraud": gaps.argmin(axis=1).astype(np.int64)}
"""

EVALUATE = """
import json, pathlib
centroids = json.loads(pathlib.Path("models/fraud/centroids.json").read_text())
lines = pathlib.Path("data/test.csv").read_text().splitlines()[1:]
rows = [[float(cell) for cell in line.split(",")] for line in lines]
def gap(row, centroid): return sum((one - two) ** 2 for one, two in zip(row, centroid))
right = sum((gap(row, centroids[1]) < gap(row, centroids[0])) == bool(row[-1]) for row in rows)
json.dump({"accuracy": right / len(rows), "test": {"rows": len(rows)}}, open("metrics.json", "w"))
"""

PIPELINE = """
stages:
  prepare:
    cmd: python prepare.py
    deps: [data/raw.csv, prepare.py]
    params: [prepare.test_rows]
    outs: [data/train.csv, data/test.csv]
  train:
    cmd: python train.py
    deps: [data/train.csv, train.py, serving.py]
    params: [train.shrink, train.seed]
    outs: [models/fraud]
  evaluate:
    cmd: python evaluate.py
    deps: [models/fraud, data/test.csv, evaluate.py]
    metrics:
      - metrics.json: {cache: false}
artifacts:
  fraud: {path: models/fraud, type: model}
"""

PARAMETERS = "prepare:\n  test_rows: 100\ntrain:\n  shrink: 0.9\n  seed: 7\n"


def git(folder: Path, *arguments: str) -> str:
    """What Git prints."""
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def raw_data(rows: int) -> str:
    """Amount and hour of a payment, and whether it was fraud; a longer table begins as a shorter one does."""
    chance = random.Random(1)
    lines = []
    for _ in range(rows):
        fraud = chance.random() < 0.3
        amount, hour = chance.gauss(90 if fraud else 30, 15), chance.gauss(3 if fraud else 14, 3)
        lines.append(f"{amount:.2f},{hour:.2f},{int(fraud)}")
    return "\n".join(["amount,hour,fraud", *lines]) + "\n"


def make(folder: Path, remote: str) -> list[str]:
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.email", "ada@example.com")
    git(folder, "config", "user.name", "Ada")
    Repo.init(str(folder)).close()
    (folder / ".dvc" / "config").write_text(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {remote}\n")
    for name, text in {
        "prepare.py": PREPARE,
        "train.py": TRAIN,
        "serving.py": SERVING,
        "evaluate.py": EVALUATE,
        "dvc.yaml": PIPELINE,
        "params.yaml": PARAMETERS,
    }.items():
        (folder / name).write_text(text.lstrip("\n"))
    (folder / "data").mkdir()
    os.chdir(folder)
    commits = []
    for rows in (300, 500):
        (folder / "data" / "raw.csv").write_text(raw_data(rows))
        repo = Repo(str(folder))
        repo.add("data/raw.csv")
        repo.reproduce()
        repo.push()
        repo.close()
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", f"trained on {rows} rows")
        commits.append(git(folder, "rev-parse", "HEAD"))
        if rows == 300:
            gto.api.register(str(folder), "fraud", "HEAD", version="v1.0.0")
            gto.api.assign(str(folder), "fraud", "prod", version="v1.0.0")
    return commits


if __name__ == "__main__":
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    standard_output = os.dup(1)
    os.dup2(2, 1)
    made = make(Path(sys.argv[1]), sys.argv[2])
    os.write(standard_output, "\n".join(made).encode())
