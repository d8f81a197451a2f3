"""`hathi run --refs ...` as a person types it, over lists with everything that can be wrong with them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.records import signed
from sample import random_features
from tests.environment import environ
from tests.integration.conftest import ROOT, OwnList, picture, row


def rows(own: OwnList, kind: str) -> list[dict[str, object]]:
    files = sorted(own.out.glob(f"*/*/{kind}/*.parquet"))
    return [found for file in files for found in pq.read_table(file).to_pylist()]


def end_of(own: OwnList) -> dict[str, object]:
    (end,) = (own.out / ".hathi" / "bucket").glob("list/c/*/end")
    found: dict[str, object] = json.loads(end.read_text())
    return found


def test_a_list_becomes_features_and_a_second_run_has_nothing_to_do(own: OwnList) -> None:
    own.refs.write_text("\n".join(row(f"sku-{n}", picture(n)) for n in range(5)))
    first = own.run("--json")
    assert first.returncode == 0, first.stderr
    done = json.loads(first.stdout)
    assert (done["features"], done["images"], done["shipments"]) == (5, 5, 1)
    assert len(rows(own, "features")) == 5
    assert {path.name for path in own.out.iterdir() if path.name.startswith(".")} == {".hathi"}
    second = own.run()
    assert second.returncode == 0
    assert "nothing to do" in second.stdout


def test_odd_rows_are_accounted_for_one_by_one(own: OwnList) -> None:
    image = base64.b64encode(picture(1)).decode()
    lines = [
        row("good", picture(1)),
        json.dumps({"partner_id": 7, "item_id": "0", "content": image}),
        json.dumps({"partner_id": 7, "item_id": str(2**64 - 1), "content": image}),
        json.dumps({"partner_id": 7, "item_id": str(2**64), "content": image}),
        json.dumps({"partner_id": "x", "item_id": "5", "content": image}),
        json.dumps({"partner_id": 7, "external_id": "Größe 42", "content": image}),
        json.dumps({"partner_id": 7, "external_id": "long", "url": "http://shop.example/" + "a" * 10_000}),
        json.dumps({"partner_id": 7, "external_id": "none"}),
        "{not json",
    ]
    own.refs.write_text("\n".join(lines))
    done = own.run("--json")
    assert done.returncode == 0, done.stderr
    assert {found["item_id"] for found in rows(own, "features")} >= {0, signed(2**64 - 1)}
    assert len(rows(own, "features")) == 4
    assert [(found["external_id"], found["reason"]) for found in rows(own, "failures")] == [("long", "bad_url")]
    end = end_of(own)
    assert (end["rows"], end["refs"], end["rejected"]) == (9, 5, 4)
    assert "Hathi rejected 4 of 9 rows" in done.stderr


def test_a_malformed_record_in_a_protobuf_file_is_named_with_file_and_offset(own: OwnList) -> None:
    from pipeline.codec import image_refs
    from pipeline.records import ImageRef

    good = image_refs.encode([ImageRef(7, n, f"e{n}", "", picture(n), n) for n in range(3)])
    own.folder.joinpath("refs.pb").write_bytes(good + b"\xff\xff\xff\xff\x7f rest of the file" + good)
    done = own.run("--json", refs=str(own.folder / "refs.pb"))
    assert done.returncode == 0, done.stderr
    assert len(rows(own, "features")) == 3
    assert "refs.pb" in done.stderr
    assert str(len(good)) in str(end_of(own)["rejections"])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("refs.csv", "sku,picture\n1,http://x/y.jpg\n", "its columns are: sku, picture"),
        ("refs.csv", "http://x.example/a.jpg,5\nhttp://x.example/b.jpg,6\n", "its first line looks like a row"),
        ("refs.csv", "sku,url\n", "it holds no row"),
        ("refs.csv", "", "it holds no row"),
        ("refs.txt", "", "it holds no row"),
        ("refs.csv", "sku,url\n1,\n2,\n", "2 rows rejected; the first: row 1: no url and no content"),
        ("refs.jsonl", '{"sku": 1}\n', "rejected"),
    ],
)
def test_a_list_without_a_single_ref_is_no_success(own: OwnList, name: str, text: str, said: str) -> None:
    table = own.folder / name
    table.write_text(text)
    for _ in range(2):  # nor is it one when there is nothing left to do
        done = own.run("--partner", "1", refs=str(table))
        assert done.returncode == 1, done.stderr
        assert f"no row of {table} is an image ref, so no feature was computed" in done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert rows(own, "features") == rows(own, "failures") == []


def test_a_table_without_a_url_says_which_columns_it_has(own: OwnList) -> None:
    table = own.folder / "refs.csv"
    table.write_text("sku,picture\n1,http://x/y.jpg\n")
    done = own.run(refs=str(table))
    assert "picture" in done.stderr
    assert "rejected" in done.stderr
    named = own.run("--url-column", "picture", "--external-id-column", "sku", "--features", str(own.folder / "out2"),
                    refs=str(table))  # fmt: skip
    assert named.returncode == 0
    assert "Hathi rejected" not in named.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"net": "/no/such.prototxt"}, ["/no/such.prototxt"]),
        ({"weights": "/no/such.caffemodel"}, ["/no/such.caffemodel"]),
        ({"blob": "feature"}, ["feature", "features"]),
        ({"refs": "/no/such.csv"}, ["/no/such.csv"]),
    ],
)
def test_what_is_missing_is_named_without_a_stack_trace(
    own: OwnList, changes: dict[str, str], words: list[str]
) -> None:
    own.refs.write_text(row("a", picture(1)))
    done = own.run(**changes)
    assert done.returncode in (1, 2)
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr


def test_corrected_options_ship_the_list_again_and_other_features_are_refused(own: OwnList) -> None:
    table = own.folder / "refs.csv"
    image = "data:image/png;base64," + base64.b64encode(picture(3)).decode()
    table.write_text(f'sku,picture link\na,"{image}"\nb,"{image}"\n')
    first = own.run("--json", refs=str(table))
    assert json.loads(first.stdout)["rejected"] == 1
    assert "picture link" in first.stderr
    mended = own.run("--json", "--url-column", "picture link", refs=str(table))
    assert mended.returncode == 0, mended.stderr
    assert json.loads(mended.stdout)["features"] == 2
    assert "nothing to do" in own.run("--url-column", "picture link", refs=str(table)).stdout
    again = own.run("--json", "--again", "--url-column", "picture link", refs=str(table))
    assert json.loads(again.stdout)["features"] == 2
    other = own.run("--url-column", "picture link", refs=str(table), blob="conv1")
    assert other.returncode == 2
    assert "holds features that were made with other settings" in other.stderr
    assert "changed: blob" in other.stderr


def test_a_corrected_option_is_remembered_only_when_its_round_stands(own: OwnList) -> None:
    """It met a run that goes on, and it was killed between the round's announcement and the note of it."""
    import fcntl

    table = own.folder / "refs.csv"
    image = "data:image/png;base64," + base64.b64encode(picture(3)).decode()
    table.write_text(f'sku,small,large\na,no,"{image}"\nb,no,"{image}"\n')
    wrong = own.run("--json", "--url-column", "small", refs=str(table))
    assert json.loads(wrong.stdout)["features"] == 0
    options = own.out / ".hathi" / "options.json"
    before = options.read_text()
    with (own.out / ".hathi" / "state" / "ship.lock").open("r+") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        held = own.run("--url-column", "large", refs=str(table))
    assert (held.returncode, "ship runs already" in held.stderr) == (1, True)
    assert options.read_text() == before
    mended = own.run("--json", "--url-column", "large", refs=str(table))
    assert json.loads(mended.stdout)["features"] == 2
    options.write_text(before)  # as a kill leaves it behind the announcement
    again = own.run("--url-column", "large", refs=str(table))
    assert "nothing to do" in again.stdout, "the round stands: it is not announced twice"
    assert "large" in options.read_text()
    options.write_text(before[: len(before) // 2])
    torn = own.run("--url-column", "large", refs=str(table))
    assert (torn.returncode, "options.json cannot be read" in torn.stderr) == (2, True)


def test_a_list_that_is_shipped_again_keeps_the_partner_of_its_folder(own: OwnList) -> None:
    table = own.folder / "lists" / "partner=123" / "refs.csv"
    table.parent.mkdir(parents=True)
    image = "data:image/png;base64," + base64.b64encode(picture(3)).decode()
    table.write_text(f'sku,url\na,"{image}"\n')
    for options in ((), ("--again",)):
        done = own.run("--json", *options, refs=str(own.folder / "lists"))
        assert json.loads(done.stdout)["features"] == 1
    assert {found["partner_id"] for found in rows(own, "features")} == {123}


def test_the_summary_counts_what_was_delivered(own: OwnList) -> None:
    """An item stands twice; one of its images fails, and the other one's feature wins."""
    bad = json.dumps({"partner_id": 7, "external_id": "a", "url": "http://shop.example/" + "a" * 10_000})
    own.refs.write_text("\n".join([bad, row("a", picture(1)), bad.replace('"a"', '"b"'), row("c", picture(2))]))
    done = json.loads(own.run("--json").stdout)
    assert (done["features"], done["failures"], done["duplicates"], done["refs"]) == (2, {"bad_url": 1}, 1, 4)
    assert (done["counted_at"], done["counted_refs"]) == ("deliver", 4)
    assert (len(rows(own, "features")), len(rows(own, "failures"))) == (2, 1)


def test_what_others_computed_is_counted_with_what_is_delivered_here(own: OwnList) -> None:
    own.refs.write_text("\n".join(row(f"sku-{n}", picture(n)) for n in range(3)))
    for stages in (("ship",), ("compute",)):
        assert own.hathi(*own.command()[3:4], *stages, *own.command()[4:]).returncode == 0
    done = own.run()
    assert "refs shipped      0" in done.stdout
    assert "refs delivered    3" in done.stdout
    assert "features          3" in done.stdout


def test_a_blob_that_the_net_lacks_is_said_before_anything_is_shipped_or_remembered(own: OwnList) -> None:
    own.refs.write_text(row("a", picture(1)))
    wrong = own.run(blob="feature")
    assert wrong.returncode == 2
    assert not (own.out / ".hathi" / "bucket").exists()
    right = own.run("--json")
    assert right.returncode == 0, right.stderr
    assert json.loads(right.stdout)["features"] == 1


def test_the_commands_that_look_find_an_own_list_by_its_folder(own: OwnList) -> None:
    own.refs.write_text(row("sku-1", picture(1)))
    assert own.run().returncode == 0
    told = own.hathi("why", "7", "sku-1", "--features", str(own.out))
    assert "consumers see" in told.stdout, told.stderr
    assert own.hathi("verify", "--deep", "--features", str(own.out)).returncode == 0
    assert "nothing is open" in own.hathi("status", "--features", str(own.out)).stdout
    (own.out / ".hathi" / "state" / "ship.lock").write_text("pid 7 since 2026-11-20 00:00:00\n")
    health = own.hathi("health", "--features", str(own.out)).stdout
    assert "ship does not run" in health
    assert "to do: run the same command again" in health
    nowhere = own.hathi("status", "--features", str(own.folder / "no"))
    assert nowhere.returncode == 2
    assert "is not a folder of `hathi run --features`" in nowhere.stderr


def test_a_prototxt_without_weights_gives_no_features(own: OwnList) -> None:
    own.refs.write_text(row("sku-1", picture(1)))
    command = own.command()
    at = command.index("--weights")
    import subprocess

    from tests.integration.conftest import ROOT

    done = subprocess.run(
        command[:at] + command[at + 2 :], cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 2
    assert "has no weights" in done.stderr


def test_an_empty_file_and_a_folder_of_many_kinds(own: OwnList) -> None:
    folder = own.folder / "many"
    folder.mkdir()
    (folder / "empty.csv").touch()
    (folder / "a.jsonl").write_text(row("a", picture(1)))
    (folder / "b.txt").write_text("data:image/png;base64," + base64.b64encode(picture(2)).decode() + "\n")
    done = own.run("--json", refs=str(folder))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["features"] == 2


def test_estop_starts_nothing(own: OwnList) -> None:
    state = own.out / ".hathi" / "state"
    state.mkdir(parents=True)
    (state / "ESTOP").touch()
    own.refs.write_text(row("a", picture(1)))
    done = own.run()
    assert done.returncode == 4
    assert "ESTOP engaged: nothing was started; remove" in done.stderr
    assert not (own.out / ".hathi" / "bucket").exists()


def test_queries_are_kept_out_of_logs_and_failures(own: OwnList) -> None:
    secret = "SECRET-SIGNATURE"
    own.refs.write_text(
        json.dumps({"partner_id": 7, "external_id": "a", "url": f"http://127.0.0.1:9/x.jpg?sig={secret}"})
    )
    done = own.run("--json")
    assert done.returncode == 0, done.stderr
    (failure,) = rows(own, "failures")
    assert failure["reason"] == "blocked"
    assert secret not in str(failure) + done.stdout + done.stderr
    logs = own.out / ".hathi" / "logs"
    assert not any(secret in file.read_text() for file in logs.iterdir() if file.is_file())


def test_what_is_blocked_is_said_with_the_option_that_lifts_it(own: OwnList) -> None:
    own.refs.write_text(json.dumps({"partner_id": 7, "external_id": "a", "url": "http://127.0.0.1:9/x.jpg"}))
    assert "--allow-private" in own.run().stdout
    assert "--allow-private" not in own.run("--allow-private").stdout


def test_a_disk_that_fills_up_in_any_stage_loses_nothing(own: OwnList, tmp_path: Path) -> None:
    """A real file system of 3 MB that is filled before each stage in turn, and freed again."""
    import subprocess
    import sys

    from tests.integration.conftest import ROOT

    script = ROOT / "tests" / "integration" / "full_disk.py"
    own.refs.write_text("\n".join(row(f"sku-{n}", picture(n)) for n in range(40)))
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, str(script), str(own.folder)],
        cwd=ROOT,
        env={**environ(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    for stage in ("ship", "compute", "aggregate", "deliver"):
        assert seen[stage]["full"][0] == 1, seen
        assert "the disk is full" in seen[stage]["full"][1]
        assert seen[stage]["freed"] == 0
    assert seen["read_only"][0] in (1, 2)
    assert "not allowed" in seen["read_only"][1] or "cannot be written" in seen["read_only"][1]
    assert seen["features"] == 40


def test_whatever_looks_tells_what_was_not_read(own: OwnList) -> None:
    lists = own.folder / "lists"
    (lists / "table" / "_delta_log").mkdir(parents=True)
    (lists / "table" / "part-0.parquet").write_text("x")
    (lists / "good.jsonl").write_text(row("sku-1", picture(1)))
    (lists / "part-00000").write_text(row("sku-2", picture(2)))
    first = own.run(refs=str(lists))
    assert first.returncode == 1, "a table's folder could not be done"
    assert "left out: 1 file or folder, not read" in first.stdout
    assert f"{lists}/part-00000: its name tells no known format" in first.stdout
    assert "is a Delta table, and Hathi does not read it" in first.stderr
    assert len(rows(own, "features")) == 1
    told = own.hathi("why", "7", "sku-2", "--features", str(own.out)).stdout
    assert "the item may stand in files that Hathi does not read at the sources (2):" in told
    assert "part-00000: its name tells no known format" in told
    page = own.hathi("report", "--features", str(own.out), "--out", "-").stdout
    assert "part-00000: its name tells no known format" in page
    assert "is a Delta table" in page
    status = own.hathi("status", "--features", str(own.out)).stdout
    assert "part-00000: its name tells no known format" in status
    assert f"cannot be read: {str(lists)[1:]}/table: " in status
    refused = json.loads(own.hathi("status", "--json", "--features", str(own.out)).stdout)["refused"]
    assert "is a Delta table" in refused["list"][f"{str(lists)[1:]}/table"]
    health = own.hathi("health", "--features", str(own.out)).stdout
    assert "1 file or folder of its sources is not read: " in health
    (lists / "table" / "_delta_log").rmdir()
    (lists / "table" / "part-0.parquet").unlink()
    second = own.run(refs=str(lists))
    assert (second.returncode, "nothing to do" in second.stdout) == (3, True), "it is told in each run"
    (lists / "part-00000").rename(lists / "part-00000.jsonl")
    assert own.run(refs=str(lists)).returncode == 0
    assert len(rows(own, "features")) == 2


def test_a_txt_is_what_its_first_line_says(own: OwnList) -> None:
    folder = own.folder / "texts"
    folder.mkdir()
    image = "data:image/png;base64," + base64.b64encode(picture(2)).decode()
    (folder / "mysql.txt").write_text(f'item_id\ttitle\turl\n1\t5" pipe\t{image}\n')
    (folder / "excel.txt").write_bytes(f'item_id\ttitle\turl\r\n2\t"a, b"\t{image}\r\n'.encode("utf-16"))
    (folder / "lines.txt").write_text(json.dumps({"item_id": 3, "url": image}) + "\n")
    (folder / "urls.txt").write_text(image + "\n")
    (folder / "column.txt").write_text("url\n" + image + "?other\n")
    done = own.run("--json", refs=str(folder))
    assert done.returncode == 0, done.stderr
    ids = {found["item_id"] for found in rows(own, "features")}
    assert {1, 2, 3} < ids
    assert json.loads(done.stdout)["refs"] == 6  # a header of one column is the first of the URLs


def test_two_lists_are_refused_and_a_pattern_that_the_shell_has_read_is_explained(own: OwnList) -> None:
    twice = own.run("--refs", "other.csv")
    assert (twice.returncode, "--refs is given twice" in twice.stderr) == (2, True)
    several = own.run("other.csv")
    assert (several.returncode, "in quotes" in several.stderr) == (2, True)
    braces = own.run(refs=str(own.folder / "{a,b}.csv"))
    assert (braces.returncode, "{a,b} has no meaning" in braces.stderr) == (1, True)


def test_ids_that_differ_in_letter_case_are_counted_apart_from_duplicates(own: OwnList) -> None:
    ids = ["dQw4w9", "DQW4W9", "a b", "a%20b", "c", "c"]
    own.refs.write_text("\n".join(row(one, picture(n)) for n, one in enumerate(ids)))
    said = own.run()
    counted = dict(line.split()[:2] for line in said.stdout.replace("ids alike", "alike").splitlines() if " " in line)
    figures = {name: counted[name] for name in ("features", "failures", "duplicates", "alike")}
    assert figures == {"features": "3", "failures": "0", "duplicates": "1", "alike": "2"}
    assert "as_written" in said.stderr
    done = json.loads(own.run("--json", "--ids", "as_written").stdout)
    assert (done["refs"], done["features"], done["duplicates"], done["ids_alike"]) == (6, 5, 1, 0)


def test_how_images_are_prepared_is_said_demanded_of_an_onnx_net_and_delivered(own: OwnList) -> None:
    own.refs.write_text("\n".join(row(f"sku-{n}", picture(n)) for n in range(3)))
    model = str(ROOT / "tests" / "golden" / "onnx" / "clip_opset18.onnx")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return own.hathi("run", "--refs", str(own.refs), "--features", str(own.out), "--net", model, *words)

    refused = run()
    assert refused.returncode == 2
    assert "--preprocess caffe|imagenet|clip|dinov2|unit|none" in refused.stderr
    done = run("--preprocess", "clip")
    assert done.returncode == 0, done.stderr
    line = "clip: short side to 32 (bicubic), centre 32 x 32, RGB 0 to 1"
    assert f"set features: preprocess {line}" in done.stderr
    assert done.stderr.count("preprocess clip") == 1
    (manifest,) = own.out.glob("*/*/_manifest.json")
    assert json.loads(manifest.read_text())["preprocessing"].startswith(line)
    assert line in own.hathi("report", "--features", str(own.out), "--out", "-").stdout
    remembered = json.loads((own.out / ".hathi" / "options.json").read_text())["features"]
    assert remembered["set"]["preprocess"]["interpolation"] == "bicubic"
    other = run("--preprocess", "dinov2")
    assert "changed: preprocess" in other.stderr


def test_a_caffe_net_has_caffes_preprocessing(own: OwnList) -> None:
    own.refs.write_text(row("sku-1", picture(1)))
    done = own.run()
    assert "set features: preprocess caffe: resized to" in done.stderr


HOW = ("--set", "sets.features.preprocess.mean=[1, 2, 3]", "--set", "sets.features.input_size=[48, 48]")


def test_similar_makes_features_of_an_image_as_the_run_did(own: OwnList) -> None:
    own.refs.write_text("\n".join(row(f"sku-{n}", picture(n)) for n in range(3)))
    assert own.run(*HOW).returncode == 0
    image = own.folder / "two.png"
    image.write_bytes(picture(2))
    shutil.move(own.out, own.folder / "moved")
    for folder in (own.folder / "moved", own.folder / "moved"):
        found = own.hathi("similar", "7", "--image", str(image), "--features", str(folder))
        assert found.returncode == 0, found.stderr
        assert "sku-2" in found.stdout.splitlines()[1], "the image itself is the nearest"
        assert float(found.stdout.splitlines()[1].split()[1]) < 1e-3


def test_what_changes_no_feature_is_no_other_setting(own: OwnList) -> None:
    """A net that was copied or touched, another engine and batch size, another form, and a folder that was moved."""
    own.refs.write_text(row("sku-1", picture(1)))
    assert own.run(*HOW).returncode == 0
    os.utime(own.weights, (1, 1))
    copy = own.folder / "copy.prototxt"
    copy.write_bytes(b"# a comment\n" + own.net.read_bytes())
    shutil.move(own.out, own.folder / "moved")
    moved = str(own.folder / "moved")
    for more in (
        (),
        ("--set", "sets.features.engine=onnxruntime", "--set", "sets.features.batch_size=3"),
        ("--set", 'sets.features.formats=["parquet"]'),
    ):
        same = own.run(*HOW, *more, features=moved, net=str(copy))
        assert (same.returncode, "nothing to do" in same.stdout) == (0, True), same.stderr
    other = own.run(features=moved)
    assert other.returncode == 2
    assert "changed: input_size, preprocess.mean" in other.stderr
    random_features.write(own.weights, seed=5)
    weights = own.run(*HOW, features=moved)
    assert weights.returncode == 2
    assert "changed: net or weights (the file)" in weights.stderr


def test_options_are_corrected_in_a_folder_without_one_feature(own: OwnList) -> None:
    """Shipped and not computed; and done without a feature: the corrected options simply hold, and all is tried."""
    own.refs.write_text("\n".join(row(f"sku-{n}", picture(n)) for n in range(2)))
    small = ("--set", "sets.features.preprocess.max_pixels=1")
    shipped = own.hathi("run", "ship", *own.command("--set", "sets.features.input_size=[40, 40]")[4:])
    assert shipped.returncode == 0, shipped.stderr
    done = json.loads(own.run("--json", *small).stdout)
    assert (done["features"], done["failures"]) == (0, {"too_many_pixels": 2})
    mended = own.run("--json", *HOW)
    assert mended.returncode == 0, mended.stderr
    assert json.loads(mended.stdout)["features"] == 2
    assert own.run("--json", *HOW, *small).returncode == 0, "no feature would have another value"
