"""examples/: each script runs on the sample's pictures, and the notebook's cells in order; nothing leaves this host.

No kernel of Jupyter is needed: the cells are executed in one namespace, in the notebook's folder, one after the other.
What a notebook shows of a cell's last value is left out, and so a test looks at the values themselves.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from sample import render
from tests.acceptance.conftest import ROOT
from tests.environment import environ
from tests.servers.demand import free_port

EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "first_look.ipynb"


@dataclass(frozen=True)
class Sample:
    """The sample lake in a folder of its own, its shop open, everything computed."""

    folder: Path
    shop: str

    @property
    def net(self) -> list[str]:
        weights = str(self.folder / "sample/random_features.caffemodel")
        return ["--net", str(ROOT / "sample/random_features.prototxt"), "--weights", weights, "--blob", "features"]

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, words)], cwd=self.folder, env=environ(PYTHONPATH=str(ROOT)),
            text=True, timeout=120, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sample]:
    folder, port = tmp_path_factory.mktemp("examples"), free_port()
    render.render(folder, f"http://127.0.0.1:{port}")
    command = [sys.executable, str(ROOT / "sample/server.py"), str(folder / "sample/web"), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as shop:
        assert shop.stdout is not None
        assert shop.stdout.readline() == "ready\n"
        yield Sample(folder, f"http://127.0.0.1:{port}")
        shop.kill()


@pytest.mark.parametrize("file", ["features.npy", "features.parquet"])
def test_a_list_becomes_one_file_with_ids(sample: Sample, file: str) -> None:
    (sample.folder / "urls.csv").write_text(
        "\n".join(["sku,url", *(f"SKU-{at},{sample.shop}/mug-{at:02}.jpg" for at in range(4)), ""])
    )
    words = ["urls.csv", file, *sample.net, "--allow-private"]
    done = sample.run(EXAMPLES / "list_to_file.py", *words)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^4 features of 128 values; the first is of SKU-\d$", done.stdout, re.M), done.stdout
    table = pq.read_table(sample.folder / (file if file.endswith("parquet") else "features.ids.parquet"))
    assert sorted(table["external_id"].to_pylist()) == [f"SKU-{at}" for at in range(4)]
    if file.endswith(".npy"):
        assert np.load(sample.folder / file).shape == (4, 128)
    refused = sample.run(EXAMPLES / "list_to_file.py", "absent.csv", "other.npy")
    assert refused.returncode != 0, "a list that is not there is no success"
    assert "Traceback" not in refused.stdout, refused.stdout


def test_duplicates_and_neighbours_of_a_folder_are_found(sample: Sample) -> None:
    pictures = sample.folder / "pictures"
    (pictures / "more").mkdir(parents=True)
    for name in ("mug-00.jpg", "mug-01.jpg", "cushion-00.png", "torn.jpg"):
        (pictures / name).write_bytes((sample.folder / "sample/web" / name).read_bytes())
    (pictures / "more/copy.jpg").write_bytes((pictures / "mug-00.jpg").read_bytes())
    done = sample.run(EXAMPLES / "duplicates.py", pictures, *sample.net, "--same", "0.9999", "--near", "2")
    assert done.returncode == 0, done.stdout
    assert "duplicate: more/copy.jpg = mug-00.jpg" in done.stdout
    assert done.stdout.count("duplicate:") == 1, done.stdout
    assert re.search(r"^left out: .*torn\.jpg: truncated", done.stdout, re.M)
    assert re.search(r"^mug-00\.jpg: more/copy\.jpg 1\.000, ", done.stdout, re.M), done.stdout
    (sample.folder / "empty").mkdir()
    assert sample.run(EXAMPLES / "duplicates.py", "empty").returncode == 1


def test_pictures_get_the_label_that_is_nearest_in_a_program_of_ones_own(sample: Sample) -> None:
    web = sample.folder / "sample/web"
    rows = [f"{web}/mug-{at:02}.jpg,mug" for at in range(4)]
    rows += [f"{sample.shop}/cushion-{at:02}.webp,cushion" for at in (1, 3, 5, 7)]
    (sample.folder / "labels.csv").write_text("\n".join(["image,label", *rows, f"{sample.shop}/gone.jpg,mug", ""]))
    unknown = [str(web / "mug-07.jpg"), f"{sample.shop}/cushion-09.webp"]
    done = sample.run(EXAMPLES / "in_your_python.py", "labels.csv", *unknown, *sample.net, "--allow-private")
    assert done.returncode == 0, done.stdout
    assert f"{unknown[0]}: mug " in done.stdout
    assert f"{unknown[1]}: cushion " in done.stdout
    assert "gone.jpg: http_4xx 404" in done.stdout
    refused = sample.run(EXAMPLES / "in_your_python.py", "labels.csv", *unknown, "--net", "absent.onnx")
    assert refused.returncode == 2, refused.stdout
    assert "absent.onnx" in refused.stdout


def cells() -> list[dict[str, Any]]:
    read: dict[str, Any] = json.loads(NOTEBOOK.read_text())
    assert (read["nbformat"], read["metadata"]["kernelspec"]["name"]) == (4, "python3")
    found: list[dict[str, Any]] = read["cells"]
    return found


def test_the_notebook_holds_no_output_and_nothing_of_a_machine() -> None:
    for cell in cells():
        assert set(cell) <= {"cell_type", "id", "metadata", "source", "outputs", "execution_count"}
        assert cell["metadata"] == {}
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
    assert len({cell["id"] for cell in cells()}) == len(cells())
    assert NOTEBOOK.stat().st_size < 20_000


def test_the_cells_of_the_notebook_run_in_order(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["run", "--refs", str(sample.folder / "lake/refs"), "--features", "all", *sample.net, "--allow-private"]
    done = sample.run("-m", "pipeline.cli.main", *words, "--set", "fetch.requests_per_second=200")
    assert done.returncode == 0, done.stdout
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setenv("FEATURES", str(sample.folder / "all"))
    names: dict[str, Any] = {"__name__": "__main__"}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        for cell in cells():
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}:{cell['id']}", "exec"), names)
    assert "36 items of 3 partners, 128 values each" in said.getvalue()
    assert re.search(r"^\d+% of the items have", said.getvalue(), re.M)
    assert names["share"] > 0.5, "mugs look like mugs"
    assert sorted(names["failures"]["reason"]) == ["http_4xx", "http_5xx", "not_image", "truncated"]
    assert len(names["nearest"](0)) == 3
    assert names["one"].vector.shape == (3780,)


def test_the_readme_names_the_examples() -> None:
    assert "examples/" in (ROOT / "README.md").read_text()
    assert sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")) == [
        "digits.py", "duplicates.py", "first_look.ipynb", "in_your_python.py", "list_to_file.py",
        "spark_batch_gradient.py", "spark_features.py", "spark_mnist.py",
    ]  # fmt: skip
