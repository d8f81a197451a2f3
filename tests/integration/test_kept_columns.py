"""`hathi run --keep`: columns of a person's list come along to where its features are read."""

from __future__ import annotations

import base64
import datetime
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hathi
from pipeline.app import keeping
from pipeline.app.contexts import sighted
from pipeline.app.own_folder import config_of
from pipeline.settings import load
from tests.integration.conftest import OwnList, picture, row
from tests.integration.test_one_row_an_item import shown


def listed(item: str, seed: int, **more: Any) -> str:
    return json.dumps({**json.loads(row(item, picture(seed))), **more})


def kept(own: OwnList, *names: str) -> dict[str, tuple[Any, ...]]:
    table = hathi.read_features(own.out)
    return {one["external_id"]: tuple(one[name] for name in names) for one in table.to_pylist()}


def test_columns_come_along_to_each_reader_and_keep_their_types(own: OwnList) -> None:
    day = datetime.date(2026, 1, 2)
    names = [f"sku-{n}" for n in range(6)]
    table = pa.table(
        {
            "partner_id": [7] * 6,
            "external_id": names,
            "content": [picture(n) for n in range(5)] + [b"no picture"],
            "caption": pa.array(["one", None, "drei", "四", "5", "6"]).dictionary_encode(),
            "price": pa.array([1, 2, 3, None, 5, 6], pa.int32()),
            "tags": [["a"], [], None, ["b", "c"], ["d"], ["e"]],
            "since": [day] * 6,
            "Odd, name": [0.5] * 6,
        }
    )
    refs, matrix = own.folder / "refs.parquet", own.folder / "x.npy"
    pq.write_table(table, refs)
    done = own.run("--keep", "caption, price,tags,since", "--out", str(matrix), refs=str(refs))
    assert done.returncode == 0, done.stderr
    assert "kept: caption, price, tags, since beside 5 features" in done.stderr
    found = hathi.read_features(own.out)
    kinds = {name: found.schema.field(name).type for name in ("caption", "price", "since")}
    assert kinds == {"caption": pa.string(), "price": pa.int32(), "since": pa.date32()}
    assert found.schema.field("tags").type.value_type == pa.string()
    assert kept(own, "caption", "price", "tags", "since") == {
        "sku-0": ("one", 1, ["a"], day),
        "sku-1": (None, 2, [], day),
        "sku-2": ("drei", 3, None, day),
        "sku-3": ("四", None, ["b", "c"], day),
        "sku-4": ("5", 5, ["d"], day),
    }
    beside = pq.read_table(own.folder / "x.ids.parquet")
    assert beside.column_names == [name for name in found.column_names if name != "features"]
    assert beside["price"].to_pylist() == found["price"].to_pylist()
    assert "caption" in shown(own, done.stdout), "the printed line reads them as well"
    assert hathi.read_features(own.out, columns=["price"]).column_names == ["price"]
    assert set(hathi.read_matrix(own.out)[0].to_pandas()["price"].dropna()) == {1, 2, 3, 5}


@pytest.mark.parametrize(
    ("name", "text", "want"),
    [
        ("a.csv", 'external_id,content,Caption,price\nA,{0},"x, ""y""\nz",1\nB,{1},NULL,\n', ('x, "y"\nz', "1", None)),
        ("a.tsv", "external_id\tcontent\tcaption\tprice\nA\t{0}\tx\t1\nB\t{1}\t\t\n", ("x", "1", None)),
        (
            "a.jsonl",
            '{{"external_id":"A","content":"{0}","caption":"x","price":1}}\n{{"external_id":"B","content":"{1}"}}\n',
            ("x", 1, None),
        ),
    ],
)
def test_lists_of_text_keep_what_stands_there(own: OwnList, name: str, text: str, want: tuple[Any, ...]) -> None:
    refs = own.folder / name
    refs.write_text(text.format(*(base64.b64encode(picture(n)).decode() for n in range(2))))
    done = own.run("--keep", "caption,price", refs=str(refs))
    assert done.returncode == 0, done.stderr
    assert kept(own, "caption", "price") == {"A": want[:2], "B": (want[2], None)}


def test_the_row_that_won_gives_the_values(own: OwnList) -> None:
    lists = own.folder / "lists"
    lists.mkdir()
    twice = [listed("a", 1, caption="first"), listed("a", 2, caption="last"), listed("b", 3, caption="only")]
    (lists / "old.jsonl").write_text("\n".join(twice))
    (lists / "new.jsonl").write_text("\n".join([listed("b", 3, caption="newer"), listed("c", 4, caption=7)]))
    for name, second in (("old", 1_700_000_000), ("new", 1_700_000_100)):
        os.utime(lists / f"{name}.jsonl", (second, second))
    done = own.run("--keep", "caption", refs=str(lists))
    assert done.returncode == 0, done.stderr
    assert kept(own, "caption") == {"a": ("last",), "b": ("newer",), "c": ("7",)}, "text and a number: text"


def test_a_column_that_the_list_lacks_is_refused_before_the_run_with_those_that_it_has(own: OwnList) -> None:
    own.refs.write_text(listed("a", 1, title="x"))
    refused = own.run("--keep", "title,caption")
    assert refused.returncode == 2
    assert "has no such column" in refused.stderr
    assert "its columns are: partner_id, external_id, content, title" in refused.stderr
    assert not list(own.out.glob(".hathi/bucket/list/c/*")), "nothing was shipped"
    taken = own.run("--keep", "url")
    assert (taken.returncode, "features have a column of this name" in taken.stderr) == (2, True)
    later = own.run()
    assert later.returncode == 0, later.stderr
    assert "caption" not in hathi.read_features(own.out).column_names, "what was refused is not remembered"


def test_columns_are_remembered_and_what_a_changed_list_no_longer_has_stays(own: OwnList) -> None:
    own.refs.write_text("\n".join(listed(name, n, caption=name.upper(), n=n) for n, name in enumerate("abc")))
    assert own.run("--keep", "caption,n").returncode == 0
    assert 'keep = ["caption", "n"]' in (own.out / ".hathi" / "config.toml").read_text()
    standing = (own.out / ".hathi" / "kept.parquet").stat().st_mtime_ns
    same = own.run()
    assert ("nothing to do" in same.stdout, "kept:" in same.stderr) == (True, False)
    assert (own.out / ".hathi" / "kept.parquet").stat().st_mtime_ns == standing, "nothing is read again"
    own.refs.write_text("\n".join([listed("b", 7, caption="B2"), listed("d", 8, caption="D")]))
    changed = own.run()
    assert changed.returncode == 0, changed.stderr
    assert kept(own, "caption", "n") == {"a": ("A", 0), "b": ("B2", None), "c": ("C", 2), "d": ("D", None)}
    assert own.run("--keep", "").returncode == 0
    assert "caption" in hathi.read_features(own.out).column_names, "what was kept stays; nothing more is"
    assert "keep = []" in (own.out / ".hathi" / "config.toml").read_text()


def test_ranges_of_items_are_joined_as_one_would_be(own: OwnList, monkeypatch: pytest.MonkeyPatch) -> None:
    """More features than are joined at a time, of several partners."""
    rows = [json.loads(row(f"sku-{n}", picture(n % 5), partner=n % 3)) | {"n": n} for n in range(60)]
    own.refs.write_text("\n".join(map(json.dumps, rows)))
    assert own.run("--keep", "n").returncode == 0
    want = kept(own, "n")
    assert want == {f"sku-{n}": (n,) for n in range(60)}
    (own.out / ".hathi" / "kept.parquet").unlink()
    monkeypatch.setattr(keeping, "RANGE", 7)
    (context,) = sighted(load(config_of(own.out), {}, {}), "test")
    done = keeping.keep_columns(context, ["n"], lambda: False)
    assert done == keeping.Kept(60, 60)
    assert kept(own, "n") == want
    assert not list((own.out / ".hathi").glob("keep-*")), "nothing is left on its way"


def test_a_damaged_table_is_named_and_made_anew(own: OwnList) -> None:
    own.refs.write_text(listed("a", 1, caption="x"))
    assert own.run("--keep", "caption").returncode == 0
    table = own.out / ".hathi" / "kept.parquet"
    table.write_bytes(table.read_bytes()[:-10])
    with pytest.raises(hathi.Error, match=r"kept\.parquet cannot be read"):
        hathi.read_features(own.out)
    assert own.run("--keep", "caption").returncode == 0
    assert kept(own, "caption") == {"a": ("x",)}


def test_a_list_of_urls_has_no_columns_to_keep(own: OwnList, tmp_path: Path) -> None:
    refs = tmp_path / "urls.txt"
    refs.write_text("http://shop.example/1.jpg\n")
    refused = own.run("--keep", "caption", refs=str(refs))
    assert refused.returncode == 2
    assert "this format has no further columns" in refused.stderr
