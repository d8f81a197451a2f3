"""`./run-all.sh loop` in a fresh clone: each figure that it tells is computed anew here from what it left behind."""

from __future__ import annotations

import collections
import csv
import json
import re
import resource
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.records import item_id_of, signed
from tests.acceptance.conftest import ROOT, Clone, free_port, make_clone, wait_until
from tests.acceptance.documents import Block, blocks
from tests.acceptance.test_readme import shape
from tests.acceptance.test_run_here import answers

ITEM = (404, signed(item_id_of("mug-29")))
Key = tuple[int, int]


@dataclass(frozen=True)
class Loop:
    """A folder in which the loop was gone, and what it said."""

    clone: Clone
    folder: Path
    said: str

    def hathi(self, command: str) -> str:
        """What a command says, typed as the loop's own; it has to succeed."""
        config = self.folder / "hathi.toml"
        done = self.clone.run(f"cd {self.folder} && {command}", HATHI_CONFIG=str(config), PATH=self.path())
        assert done.returncode == 0, done.stdout
        return done.stdout

    def path(self) -> str:
        return f"{self.clone.path}/.venv/bin:{self.clone.environ['PATH']}"

    def scores(self, fingerprint: str, above: str = "") -> dict[Key, np.ndarray]:
        """Delivered values of set things by partner and item, of one fingerprint, in shipments above a name."""
        rows = duckdb.sql(
            f"select partner_id, item_id, features from '{self.folder}/lake/things/{above}*/*/features/*.parquet' "
            f"where fingerprint = '{fingerprint}'"
        ).fetchall()
        return {(partner, item): np.array(values, np.float32) for partner, item, values in rows}

    def promoted(self, number: int) -> tuple[str, float]:
        """Fingerprint and accuracy, as the loop told them when it promoted."""
        found = re.search(rf"^things@{number} is in use .*\n  accuracy ([\d.]+).*\n  set things: fingerprint (\w+)",
                          self.said, re.M)  # fmt: skip
        assert found, self.said
        (whole,) = {one for one in self.fingerprints() if one.startswith(found[2])}
        return whole, float(found[1])

    def fingerprints(self) -> set[str]:
        files = f"{self.folder}/lake/things/*T*/*/features/*.parquet"
        return {row[0] for row in duckdb.sql(f"select distinct fingerprint from '{files}'").fetchall()}

    def examples(self, name: str) -> dict[Key, tuple[str, int]]:
        """Side and label of each example of a dataset."""
        tables = [pq.read_table(path) for path in sorted((self.folder / name).glob("*.parquet"))]
        return {
            (row["partner_id"], row["item_id"]): (row["side"], row["label"])
            for table in tables
            for row in table.select(["partner_id", "item_id", "side", "label"]).to_pylist()
        }

    def labels(self) -> dict[Key, str]:
        with (self.folder / "labels.csv").open() as file:
            return {
                (int(row["partner_id"]), signed(item_id_of(row["sku"]))): row["label"] for row in csv.DictReader(file)
            }


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """Gone once, as the README says it, in a fresh clone."""
    clone = make_clone(tmp_path_factory.mktemp("loop"))
    assert clone.run("./scripts/venv.sh runtime").returncode == 0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = clone.run("./run-all.sh loop")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout
    seconds = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    print(f"the loop took {seconds:.0f} s of the processor")
    assert seconds < 180, "three minutes of one core; two are to go it in less"
    return Loop(clone, clone.path / "work" / "loop", done.stdout)


def block() -> Block:
    (found,) = [one for one in blocks(ROOT) if one.page == "README.md" and one.text.startswith("$ ./run-all.sh loop")]
    return found


def test_the_readme_shows_what_the_loop_prints(loop: Loop) -> None:
    printed = {shape(line) for line in loop.said.splitlines()}
    shown = block().text.splitlines()[1:]  # commands, too
    assert len(shown) > 10
    assert [line for line in shown if shape(line) not in printed] == [], loop.said


def test_every_row_of_labels_and_every_picture_is_accounted_for(loop: Loop) -> None:
    labels, delivered = loop.labels(), {}
    for name in ("features", "failures"):
        what = "'feature'" if name == "features" else "reason"
        files = f"{loop.folder}/lake/colours/*T*/*/{name}/*.parquet"
        for partner, item, came in duckdb.sql(f"select partner_id, item_id, {what} from '{files}'").fetchall():
            delivered[partner, item] = came
    has = {key for key, came in delivered.items() if came == "feature"}
    without = collections.Counter(delivered.get(key, "not delivered") for key in labels.keys() - has)
    assert without, "the sample has such labels"
    manifest = json.loads((loop.folder / "all" / "_manifest.json").read_text())
    law = manifest["law"]
    assert law["examples"] == len(labels.keys() & has) == len(loop.examples("all"))
    assert law["without_image"] == dict(without)
    assert law["without_label"] == {"no row": len(has - labels.keys())}
    parts = [law["examples"], law["duplicates"], *law["without_image"].values(), *law["without_label"].values()]
    assert law["rows"] == sum(parts)
    names = manifest["classes"]
    assert {key: names[str(label)] for key, (_, label) in loop.examples("all").items()} == {
        key: labels[key] for key in labels.keys() & has
    }


def test_a_dataset_of_pictures_has_the_sides_of_that_of_features_and_keeps_the_earlier_ones(loop: Loop) -> None:
    for name in ("first", "all"):
        assert loop.examples(name) == loop.examples(f"{name}-pictures")
    first, every = loop.examples("first"), loop.examples("all")
    assert {key: every[key][0] for key in first} == {key: side for key, (side, _) in first.items()}
    counts = collections.Counter((label, side) for side, label in every.values())
    for label in {label for label, _ in counts}:
        of = {side: counts[label, side] for side in ("train", "validation", "test")}
        assert min(of.values()) >= 2, "each class is learned, tuned and judged"


def accuracy(loop: Loop, scores: dict[Key, np.ndarray], name: str) -> float:
    """Of what was delivered, on the test side of a dataset."""
    test = {key: label for key, (side, label) in loop.examples(name).items() if side == "test"}
    return float(np.mean([int(scores[key].argmax()) == label for key, label in test.items()]))


def test_the_accuracies_are_those_of_the_delivered_scores(loop: Loop) -> None:
    old, first = loop.promoted(1)
    new, second = loop.promoted(2)
    judged = json.loads((loop.folder / "all-judged.json").read_text())
    assert accuracy(loop, loop.scores(old), "first") == pytest.approx(first, abs=1e-6)
    assert accuracy(loop, loop.scores(new), "all") == pytest.approx(second, abs=1e-6)
    assert judged["accuracy"] == pytest.approx(second, abs=1e-6)
    assert judged["against"]["accuracy"] == pytest.approx(accuracy(loop, loop.scores(old), "all"))
    assert judged["accuracy"] > judged["against"]["accuracy"] + 0.1
    for figure in (first, second, judged["against"]["accuracy"]):
        assert f" {figure:.4f} for the " in loop.said


def nearest(scores: dict[Key, np.ndarray]) -> list[Key]:
    others = [key for key in scores if key[0] == ITEM[0] and key != ITEM]
    return sorted(others, key=lambda key: float(np.linalg.norm(scores[key].astype(float) - scores[ITEM])))[:5]


def test_features_and_neighbours_differ_and_are_those_of_either_head(loop: Loop) -> None:
    found = [loop.scores(loop.promoted(number)[0]) for number in (1, 2)]
    assert found[0].keys() == found[1].keys()
    assert len(found[0]) == 180
    assert all(not np.array_equal(found[0][key], found[1][key]) for key in found[0])
    told = re.findall(r"^\$ hathi similar .*\n.*\n((?:  \d  .*\n){5})", loop.said, re.M)
    assert len(told) == 2
    near = [[(404, signed(int(line.split()[2]))) for line in text.splitlines()] for text in told]
    assert near == [nearest(scores) for scores in found]
    assert near[0] != near[1]
    labels = loop.labels()
    alike = [sum(labels[key] == labels[ITEM] for key in keys) for keys in near]
    assert f"{alike[0]} were a {labels[ITEM]} as it is, now {alike[1]} are" in loop.said


def held(folder: Path) -> dict[str, bytes]:
    """What counts of the loop's folder: lake, bucket, datasets and heads; no logs, locks and caches."""
    left_out = ("logs", "state", "sample", "steps")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in left_out and "/h/" not in str(path)
    }


def test_a_second_start_says_what_stands_and_changes_nothing(loop: Loop) -> None:
    before = held(loop.folder)
    done = loop.clone.run("./run-all.sh loop")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("[it stands; it took ") == loop.said.count("\n$ hathi ") + loop.said.count("\n$ cat ") - 1
    assert done.stdout.splitlines()[-8:-3] == loop.said.splitlines()[-8:-3], "the same figures"
    assert held(loop.folder) == before


ENDS = (
    (r"^compute: ", signal.SIGINT),
    (r"^4\. ", signal.SIGKILL),
    (r"^7\. ", signal.SIGTERM),
    (r"^8\. ", signal.SIGKILL),
    (r"^12\. ", signal.SIGINT),
    (r"^14\. ", signal.SIGKILL),
    (r"^16\. ", signal.SIGTERM),
)
"""Before which line it prints it is ended, and how; one start after the other."""


def test_ended_at_any_step_the_same_command_goes_on_to_the_same_features(loop: Loop, tmp_path: Path) -> None:
    folder, port = tmp_path / "ended", str(free_port())
    words = [str(loop.clone.path / ".venv/bin/hathi"), "sample", "loop", str(folder), "--port", port]
    for before, how in ENDS:
        said = ended(words, loop.clone, before, how)
        assert "Traceback" not in said, said
    done = subprocess.run(words, env=loop.clone.environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[it stands" in done.stdout
    other = Loop(loop.clone, folder, done.stdout)
    for number in (1, 2):
        assert other.promoted(number) == loop.promoted(number), "a step that was done is not done differently"
        mine, theirs = (one.scores(one.promoted(number)[0]) for one in (other, loop))
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[key], theirs[key]) for key in mine)
    other.hathi("hathi verify --deep")


def ended(words: list[str], clone: Clone, at: str, how: signal.Signals) -> str:
    """Starts the loop, sends it a signal at a line that it prints, and waits for its end; what it said."""
    lines = []
    with subprocess.Popen(
        words, env=clone.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as loop:
        assert loop.stdout is not None
        for line in loop.stdout:
            lines.append(line)
            if re.match(at, line) and loop.returncode is None:
                loop.send_signal(how)
                lines += loop.stdout.readlines()
                break
        else:
            raise AssertionError(f"no line {at}: {''.join(lines)}")
        assert loop.wait(60) != 0
    return "".join(lines)


def test_the_way_back_that_it_names_gives_the_old_features_to_the_bit(loop: Loop) -> None:
    """Last, as it changes what stands."""
    (way,) = re.findall(r"^way back: +(.*)$", loop.said, re.M)
    old, new = loop.promoted(1)[0], loop.promoted(2)[0]
    before = {path.name for path in (loop.folder / "lake/things").glob("*T*")}
    was = loop.scores(old)
    port = int(loop.clone.environ["SAMPLE_PORT"])
    wait_until(lambda: not answers(port), "the shop of an earlier start has closed")
    opened = loop.clone.run("./run-all.sh loop", SAMPLE_MINUTES="2")  # the pictures are fetched anew
    assert re.search(r"^shop: .* stays open until 2 min after", opened.stdout, re.M), opened.stdout
    said = loop.hathi(way)
    assert "things@3 is in use" in said
    added = {path.name for path in (loop.folder / "lake/things").glob("*T*")} - before
    assert len(added) == 4
    again: dict[Key, np.ndarray] = {}
    for name in added:
        assert loop.scores(new, name) == {}
        again |= loop.scores(old, name)
    assert again.keys() == was.keys()
    assert all(np.array_equal(again[key], was[key]) for key in was)
    now = loop.hathi("hathi similar 404 mug-29 --set things --count 5")
    assert (
        now.splitlines()[1:]
        == re.findall(r"^\$ hathi similar .*\n.*\n((?:  \d  .*\n){5})", loop.said, re.M)[0].splitlines()
    )
