"""Every code block of README.md, CONTRIBUTING.md and docs/: typed into a deployment over folders, or named below.

The deployment is a clone, as the README has it made; its sample has run, a list of one's own was computed, and the
gateway of config/gateway.toml has had a day.  What cannot be typed there stands in one of two lists, with the reason
and with what can be said of it all the same; a block that is neither typed nor listed fails.
"""

from __future__ import annotations

import ast
import datetime
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pipeline.settings import load
from pipeline.settings.written import toml_of
from tests import environment
from tests.acceptance.conftest import ROOT, Clone
from tests.acceptance.documents import LANGUAGES, Block, blocks, indented
from tests.acceptance.test_runbook import HEADINGS
from tests.servers.demand import free_port
from tests.servers.s3_stub import Canned, answering

BLOCKS = blocks(ROOT)
MAY_SAY_NO = ("hathi health", "hathi doctor")
"""Their exit codes say how things are."""
REFUSED = "command not found|unrecognized arguments|No such file|Traceback|hathi: unexpected"
S3_LIST = (
    b"<ListBucketResult><Name>images</Name><KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys>"
    b"<IsTruncated>false</IsTruncated></ListBucketResult>"
)


# ---- what is not typed, and why


def parts_exist(command: str) -> None:
    words = command.split(" -- ")[0].split()[1:]
    for word in words:
        assert word == "lint" or (ROOT / "tests" / word).is_dir() or (ROOT / "tests/unit" / word).is_dir(), word


def options_exist(command: str) -> None:
    """Those of a program of tests/: its module names each; one without options at least exists."""
    module, *words = command.split(" -m ")[1].split()
    path = ROOT / module.replace(".", "/")
    text = (path / "__main__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    assert [word for word in words if word.startswith("--") and f'"{word}"' not in text] == []
    assert 'if __name__ == "__main__":' in text


def script_reads(command: str) -> None:
    subprocess.run(["bash", "-n", command.split()[0]], cwd=ROOT, check=True)


def product_says_it(command: str) -> None:
    assert f'"{command}, then' in (ROOT / "pipeline/stores/hdfs/tickets.py").read_text()


def files_exist(command: str) -> None:
    named = re.findall(r"(?:scripts|config|locks|examples)/[\w./-]+", command)
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def spark_takes_it(command: str) -> None:
    files_exist(command)
    program, words = command.partition("scripts/spark_submit.py")[1:]
    if not program:
        assert "examples/" in command
        return
    first = words.split()[0]
    action = [] if first.startswith("-") else [first]
    options = [word for word in words.split() if word.startswith("-")]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli.main", "spark", *action, "--help"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert options
    assert [option for option in options if option not in done.stdout] == []


def training_takes_it(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli.main", "train", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    options = re.findall(r" (--[\w-]+)", command)
    assert options
    assert [option for option in options if option not in done.stdout] == []


def known_to_hdfs(command: str) -> None:
    assert command.split()[2] in ("-mkdir", "-chown", "-chmod", "-setfacl")


def nothing_more(command: str) -> None:
    """Nothing can be said of it here."""


NOT_TYPED: dict[str, tuple[str, Callable[[str], None]]] = {
    "./scripts/test.sh": ("runs this very test; tests/acceptance/test_readme.py types one part of it", parts_exist),
    ".venv/bin/python -m tests.": ("a long form: minutes to hours", options_exist),
    "sudo apt-get install": ("changes this machine, as root", product_says_it),
    "scripts/kerberos.sh": ("compiles against the package above", script_reads),
    "promtool test rules": ("typed by tests/integration/test_prometheus.py, which installs promtool", files_exist),
    "hdfs dfs": ("changes an HDFS, as its administrator", known_to_hdfs),
    "docker ": ("needs a container runtime; tests/acceptance/test_dockerfile.py does without one", nothing_more),
    "spark-submit": ("needs a cluster; tests/spark runs scripts/spark_submit.py on one", spark_takes_it),
    "hathi train solver.prototxt --on": ("needs a cluster; tests/spark/test_training.py has one", training_takes_it),
    "python -m venv hathi-env": ("the first of four that fetch 300 MB for a cluster", nothing_more),
    "hathi-env/bin/pip install --require-hashes": ("the second of them", files_exist),
    "hathi-env/bin/pip install --no-deps .": ("the third; tests/acceptance/test_wheel.py installs so", nothing_more),
    "hathi-env/bin/venv-pack": ("the last of them", nothing_more),
}
"""Commands by how they begin: why nobody types them here, and what is looked at instead."""
ELSEWHERE = {
    ("docs/runbook.md", "sh"): "tests/acceptance/test_runbook.py types each block under its heading",
    ("docs/consuming.md", "python"): "tests/unit/codec/test_consuming.py runs all but the one for Spark",
    ("docs/consuming.md", "sql"): "tests/unit/codec/test_consuming.py runs it",
    (
        "docs/datasets.md",
        "console",
    ): "needs lmdb; tests/unit/training/test_dataset.py, test_dataset_make.py and service/test_importing.py compare it",
    (
        "docs/service.md",
        "sh",
    ): "needs trainings; tests/integration/test_service_datasets.py, test_service_classify.py, test_remote.py type it",
    ("docs/service.md", "yaml"): "needs KEDA; tests/contract/test_service_scaling.py reads its number at its place",
    ("docs/service.md", "python"): "needs a service; tests/integration/test_remote.py runs it",
    ("docs/api.md", "sh"): "needs a service; tests/contract/test_service_api_page.py types each line",
    ("docs/archive.md", "sh"): "tests/integration/test_archive.py types it and looks for what it forgets everywhere",
    ("docs/linear.md", "console"): "needs numba; tests/unit/training/test_descent_command.py types and compares it",
    ("docs/linear.md", "python"): "needs numba and scikit-learn; tests/unit/training/test_descent_judging.py runs it",
    ("docs/linear.md", "sh"): "needs numba, Spark or Kubernetes; tests/spark/test_shards.py types those on smaller "
    "sets, tests/unit/training/test_descent_command.py joins a model to its net",
    ("docs/models.md", "console"): "tests/integration/test_promotions.py types and compares it",
    (
        "docs/heads.md",
        "sh",
    ): "needs a dataset of features; tests/unit/training/test_judging.py types the lines in order",
    ("docs/training.md", "sh"): "needs torch; tests/acceptance/test_digits.py types it in the sample's folder",
    ("docs/barista.md", "console"): "tests/unit/barista/test_served_page.py types and compares it",
    ("docs/barista.md", "python"): "tests/unit/barista/test_served_page.py runs it",
    ("docs/pycaffe.md", "python"): "tests/unit/training/test_engine_pycaffe.py runs them in order",
    ("docs/spark.md", "python"): "needs Spark and Java; tests/spark runs the same calls",
    ("docs/nets.md", "python"): "needs torch and timm, 4 GB; tests/golden/onnx/make.py exports so",
    ("docs/kubernetes.md", "sh"): "needs Kubernetes; tests/kube/test_page.py types each block against its real "
    "servers, tests/acceptance/test_kubernetes.py builds what is applied",
    ("docs/kubernetes.md", "yaml"): "needs Kubernetes; tests/kube/test_admission.py has the API server take it",
    ("docs/containers.md", "yaml"): "needs Kubernetes; tests/acceptance/test_dockerfile.py compares its paths and user",
    ("docs/metrics.md", "yaml"): "tests/integration/test_prometheus.py has promtool read it",
}
"""Blocks by page and language that another test runs, or that none can; Python is compiled here all the same."""
OTHERS = {
    ("README.md", "scripts/training.sh"): "needs torch; tests/acceptance/test_digits.py types it",
    ("README.md", "./run-all.sh loop"): "takes a minute; tests/acceptance/test_loop.py types it and compares it",
    ("README.md", "hathi net check deploy.prototxt lenet"): "follows it; tests/acceptance/test_digits.py types it",
}
"""Single blocks by page and the beginning of their first command, likewise."""


# ---- the deployment


@dataclass(frozen=True)
class Site:
    """The clone, and what stands in place of what a document can only make up."""

    clone: Clone
    instead: Mapping[str, str]
    typed: set[str] = field(default_factory=set)

    @classmethod
    def begin(cls, folder: Path, port: int) -> Site:
        """As a newcomer begins: the README's first block, CONTRIBUTING's first one."""
        kept = environment.environ("PYTHON")
        path = folder / "hathi"
        trust = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
        environ = {
            **kept, **trust, "HOME": str(folder / "home"), "SAMPLE_PORT": str(port), "SAMPLE_MINUTES": "0",
            "UV_CACHE_DIR": kept.get("UV_CACHE_DIR", str(Path.home() / ".cache/uv")),
            "HATHI_FETCH__ALLOW_PRIVATE": "true", "HATHI_DAEMON__POLL_SECONDS": "0.5",
        }  # fmt: skip
        (folder / "home").mkdir()
        shop, today = f"http://127.0.0.1:{port}", datetime.datetime.now(datetime.UTC)
        instead = {
            "ADDRESS": str(ROOT), "/opt/hathi": str(path), "https://shop.example/shoe.jpg": f"{shop}/mug-00.jpg",
            "20260101*": f"{today:%Y}*",
        }  # fmt: skip
        parted = kept["PATH"].split(":")
        environ["PATH"] = ":".join([f"{path}/.venv/bin", *(one for one in parted if one != str(ROOT / ".venv/bin"))])
        return cls(Clone(path, environ), instead)

    def type(self, block: Block, where: Path | None = None) -> str:
        """What its commands print, typed into one shell, one after the other; each has to succeed.

        What was typed once already, when the deployment was made, is not typed again.
        """
        commands = [one for one in block.commands if left_out(one) is None and one not in self.typed]
        script = "\n".join(commands)
        for made_up, real in self.instead.items():
            script = script.replace(made_up, real)
        done = Clone(where or self.clone.path, self.clone.environ).run(
            f"trap 'echo \"FAILED $? $BASH_COMMAND\"' ERR\n{script}"
        )
        failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
        assert not [line for line in failed if not any(word in line for word in MAY_SAY_NO)], done.stdout
        assert not re.search(REFUSED, done.stdout), done.stdout
        self.typed.update(commands)
        return done.stdout


def elsewhere(block: Block) -> bool:
    """Whether another test types the block."""
    begins = [begin for page, begin in OTHERS if page == block.page and block.commands[0].startswith(begin)]
    return (block.page, block.language) in ELSEWHERE or begins != []


def left_out(command: str) -> str | None:
    """The entry of NOT_TYPED that a command belongs to."""
    return next((begin for begin in NOT_TYPED if command.startswith(begin)), None)


def one(page: str, beginning: str) -> Block:
    """The block of a page that has a command which begins so."""
    (found,) = [
        block
        for block in BLOCKS
        if block.page == page and block.language != "text" and re.search(rf"^(?:\$ )?{beginning}", block.text, re.M)
    ]
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, port = tmp_path_factory.mktemp("typed"), free_port()
    made = Site.begin(folder, port)
    made.type(one("README.md", "git clone"), folder)
    made.type(one("CONTRIBUTING.md", r"\./scripts/venv.sh dev"))
    path, sample = made.clone.path, made.clone.path / "work/sample"
    command = [sys.executable, "sample/server.py", str(sample / "web"), "--port", str(port)]
    with subprocess.Popen(command, cwd=path, stdout=subprocess.PIPE, text=True) as shop:
        assert shop.stdout is not None
        assert shop.stdout.readline() == "ready\n"
        own_files(path, sample, f"http://127.0.0.1:{port}")
        made.type(one("README.md", "hathi run --refs urls.csv"))
        for name in ("before", "after"):
            shutil.copytree(path / "out", path / name)
        shutil.copytree(path / "work/lake/refs", path / "work/gateway/lake/refs")
        for stage in ("gateway", "compute", "gateway"):
            done = made.clone.run(f"hathi run --config config/{stage}.toml")
            assert done.returncode == 0, done.stdout
        yield made
        made.clone.run("./run-all.sh kill config/gateway.toml")
        shop.kill()


def own_files(path: Path, sample: Path, shop: str) -> None:
    """What a person would bring: a list, a net with a blob fc7, a picture."""
    rows = [f"12,SKU-{4711 + number},{shop}/mug-{number:02}.jpg" for number in range(5)]
    (path / "urls.csv").write_text("\n".join(["partner_id,sku,url", *rows, ""]))
    net = (path / "sample/random_features.prototxt").read_text()
    (path / "deploy.prototxt").write_text(net.replace('top: "features"', 'top: "fc7"'))
    shutil.copy(sample / "random_features.caffemodel", path / "x.caffemodel")
    shutil.copy(sample / "web/mug-00.jpg", path / "shoe.jpg")


# ---- the blocks


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


@pytest.mark.parametrize("block", of("sh", "console"), ids=lambda one: one.name)
def test_commands_do_what_the_page_says(site: Site, block: Block) -> None:
    if elsewhere(block):
        return
    for command in block.commands:
        if (beginning := left_out(command)) is not None:
            NOT_TYPED[beginning][1](command)
    if "s3://images" in block.text:
        with answering(Canned(200, body=S3_LIST)) as s3:
            bucket = {"ENDPOINT": s3.endpoint, "ACCESS_KEY": "a", "SECRET_KEY": "b"}
            environ = {**site.clone.environ, **{f"HATHI_BUCKET__{name}": value for name, value in bucket.items()}}
            Site(Clone(site.clone.path, environ), site.instead, site.typed).type(block)
        return
    site.type(block)


@pytest.mark.parametrize("block", of("python"), ids=lambda one: one.name)
def test_python_runs_or_compiles_at_least(site: Site, block: Block) -> None:
    tree = compile(block.text, block.name, "exec", ast.PyCF_ONLY_AST)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(("hathi", "pipeline")):
            assert find_spec(node.module) is not None
    if (block.page, "python") in ELSEWHERE:
        return
    script = site.clone.path / "block.py"
    urls = re.findall(r"http\S+", (site.clone.path / "urls.csv").read_text())
    script.write_text(f"urls = {urls}\n{block.text}\nprint(table.num_rows, matrix.shape, len(stories))\n")
    done = site.clone.run(".venv/bin/python block.py")
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("5 (5, 128) 1\n"), done.stdout
    assert "[" in done.stdout, "vectors are printed, not failures"


@pytest.mark.parametrize("block", of("toml"), ids=lambda one: one.name)
def test_settings_are_read_by_the_reader_of_settings(block: Block, tmp_path: Path) -> None:
    least: dict[str, Any] = {
        "bucket": {"url": "bucket"},
        "lakes": {"main": {"url": "lake", "sources": [{"path": "refs"}]}},
        "sets": {"mine": {"net": "net.onnx", "blob": "feature", "root": "features"}},
    }
    given = tomllib.loads(block.text)
    tree = joined(least, given)
    path = tmp_path / "hathi.toml"
    path.write_text(toml_of(tree))
    read = load(path, {}).model_dump(mode="json")
    found = leaves(read)
    forms = ((name, (value, str(tmp_path / str(value)))) for name, value in leaves(given))
    lost = [name for name, either in forms if not any((name, value) in found for value in either)]
    assert lost == [], "each value arrives, a path from the file's folder on"


def leaves(tree: Any, above: str = "") -> list[tuple[str, Any]]:
    """(path, value) of each value; of a secret, what is shown in its place."""
    if isinstance(tree, dict):
        return [one for key, value in tree.items() for one in leaves(value, f"{above}.{key}")]
    if isinstance(tree, list) and tree and isinstance(tree[0], dict):
        return leaves(tree[0], above)
    return [(above, "**********" if "Authorization" in above else tree)]


def joined(below: Any, above: Any) -> Any:
    """`above` laid over `below`; of tables in a row, the first over the first."""
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **{key: joined(below.get(key), value) for key, value in above.items()}}
    if isinstance(below, list) and below and isinstance(below[0], dict):
        first = above[0] if isinstance(above, list) else above
        return [joined(below[0], first), *below[1:]]
    return above


@pytest.mark.parametrize("block", of("json"), ids=lambda one: one.name)
def test_json_is_json(block: Block) -> None:
    assert json.loads(block.text)


def test_the_crontab_line_is_that_of_config_and_its_command_runs(site: Site) -> None:
    (block,) = of("crontab")
    assert block.text in (ROOT / "config/crontab").read_text()
    command = block.text.split(maxsplit=5)[5].replace("/opt/hathi", str(site.clone.path))
    done = site.clone.run(command)
    assert (done.returncode, done.stdout) == (0, "")


# ---- nothing is passed over


def test_each_block_says_a_language_that_is_checked() -> None:
    assert [block.name for block in BLOCKS if block.language not in LANGUAGES] == []
    assert indented(ROOT) == []
    commands = r"^(?:\$ |hathi |\./|scripts/|\.venv/)\S+ (?:--|\w+$)"
    assert [one.name for one in BLOCKS if one.language == "text" and re.search(commands, one.text, re.M)] == []
    assert {one.language for one in BLOCKS} <= LANGUAGES


def test_what_is_left_out_is_needed_and_runs_where_the_list_says() -> None:
    commands = [command for block in of("sh", "console") for command in block.commands]
    assert [begin for begin in NOT_TYPED if not any(command.startswith(begin) for command in commands)] == []
    assert [key for key in ELSEWHERE if not any((one.page, one.language) == key for one in BLOCKS)] == []
    firsts = [(one.page, one.commands[0]) for one in of("sh", "console")]
    assert [
        key for key in OTHERS if not any(page == key[0] and first.startswith(key[1]) for page, first in firsts)
    ] == []
    for reason in [*ELSEWHERE.values(), *OTHERS.values(), *(reason for reason, _ in NOT_TYPED.values())]:
        for named in re.findall(r"tests/[\w/]+(?:\.py)?", reason):
            assert (ROOT / named).exists(), named


def test_each_block_of_the_runbook_lies_under_a_heading_that_its_test_types() -> None:
    page = (ROOT / "docs/runbook.md").read_text()
    parts = [part for part in page.split("\n## ")[1:] if "```sh" in part]
    assert [part.splitlines()[0] for part in parts] == list(HEADINGS)
