"""`hathi run --refs`: a person's own list, by the same four stages."""

from __future__ import annotations

import duckdb

from tests.acceptance.conftest import Clone

COMMAND = (
    ".venv/bin/hathi run --refs urls.csv --features out/ --net sample/random_features.prototxt"
    " --weights shop/sample/random_features.caffemodel --blob features"
)


def test_a_list_of_urls_becomes_features_and_a_second_run_does_only_what_is_new(other_clone: Clone, shop: str) -> None:
    path = other_clone.path / "urls.csv"
    urls = [f"{shop}/mug-{number:02}.jpg" for number in range(5)]
    path.write_text("\n".join(["url", *urls, f"{shop}/gone.jpg", ""]))

    refused = other_clone.run(COMMAND)
    assert refused.returncode == 0, refused.stdout
    assert "blocked" in refused.stdout, "without --allow-private nothing on this host is fetched"

    path.write_text("\n".join(["url", *urls, f"{shop}/gone.jpg", f"{shop}/mug-05.jpg", ""]))
    done = other_clone.run(f"{COMMAND} --allow-private")
    assert done.returncode == 0, done.stdout
    features = f"select * from '{other_clone.path}/out/*/*/features/*.parquet'"
    assert duckdb.sql(f"select count(*), min(partner_id), max(partner_id) from ({features})").fetchall() == [(6, 0, 0)]
    assert duckdb.sql(f"select distinct external_id = url from ({features})").fetchall() == [(True,)]

    again = other_clone.run(f"{COMMAND} --allow-private")
    assert again.returncode == 0, again.stdout
    assert "nothing to do" in again.stdout
    inside = sorted(entry.name for entry in (other_clone.path / "out" / ".hathi").iterdir())
    assert inside == ["bucket", "config.toml", "logs", "options.json", "state"]


def test_a_missing_net_is_named_with_what_to_do(other_clone: Clone, shop: str) -> None:
    done = other_clone.run(COMMAND.replace("random_features.prototxt", "absent.prototxt"))
    assert done.returncode == 2
    assert "absent.prototxt" in done.stdout
    assert "Traceback" not in done.stdout
