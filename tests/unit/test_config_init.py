"""A first configuration: written in a few lines, checked without a trace, refused by the check where run refuses."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli import main as command_line
from pipeline.errors import ConfigError
from pipeline.settings import load
from pipeline.settings.reading import _home_of_defaults

ITEM = json.dumps({"partner_id": 7, "external_id": "a", "content": "bm90IGFuIGltYWdl"})
GIVEN = {
    "gateway": ["--lake", "lake"],
    "compute": ["--contact", "us@example.org"],
    "local": ["--lake", "lake", "--contact", "us@example.org"],
}


def init(role: str, *more: str) -> int:
    return command_line.main(
        ["config", "init", role, f"{role}.toml", "--bucket", "bucket", "--net", "hog", "--blob", "hog", *more]
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with refs, in which commands are typed."""
    folder = tmp_path / "project" / "config"
    (folder / "lake" / "refs").mkdir(parents=True)
    (folder / "lake" / "refs" / "a.jsonl").write_text(ITEM + "\n")
    monkeypatch.chdir(folder)
    return folder


def tree(top: Path) -> set[str]:
    return {str(path) for path in top.rglob("*")}


@pytest.mark.parametrize("role", GIVEN)
def test_a_role_needs_few_lines_and_its_check_passes_and_leaves_nothing_behind(
    role: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(role, *GIVEN[role]) == 0
    text = (here / f"{role}.toml").read_text()
    assert len([line for line in text.splitlines() if line]) <= 14
    before = tree(here.parent)
    assert command_line.main(["config", "check", "--config", f"{role}.toml"]) == 0, capsys.readouterr().out
    assert tree(here.parent) == before
    out = capsys.readouterr().out
    assert ("has to match between gateway and boxes" in out) == (role != "local")
    assert (
        load(here / f"{role}.toml", {}).stages
        == {
            "gateway": ("ship", "deliver"),
            "compute": ("compute", "aggregate"),
            "local": ("ship", "compute", "aggregate", "deliver"),
        }[role]
    )


def test_what_was_written_for_two_hosts_runs_and_delivers(here: Path) -> None:
    for role in ("gateway", "compute"):
        assert init(role, *GIVEN[role]) == 0
    for role, stages in (("gateway", ["ship"]), ("compute", []), ("gateway", ["deliver"])):
        assert command_line.main(["run", "--once", "--config", f"{role}.toml", *stages]) == 0
    assert list((here / "lake" / "features").glob("*/7/_SUCCESS"))


def test_a_box_without_the_lakes_url_refuses_the_stages_of_a_gateway(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init("compute") == 0
    assert command_line.main(["config", "check", "ship", "--config", "compute.toml"]) == 2
    assert command_line.main(["run", "ship", "--config", "compute.toml"]) == 2
    assert "lakes.main.url is not set" in capsys.readouterr().err


def test_a_file_that_is_there_is_only_written_over_with_yes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "local.toml").write_text("mine")
    assert init("local", *GIVEN["local"]) == 2
    assert (here / "local.toml").read_text() == "mine"
    assert "add --yes" in capsys.readouterr().err
    assert init("local", *GIVEN["local"], "--yes") == 0
    assert "mine" not in (here / "local.toml").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gateway"], "not given: --lake"),
        (["compute", "--lake", "x"], "--lake does not belong to the role compute"),
        (["compute", "--lake-name", "Not This"], "is not an allowed name"),
        (["local", "--lake", "l", "--root", "/"], "the top of the lake cannot be a root"),
    ],
)
def test_what_is_missing_or_wrong_is_named_and_nothing_is_written(
    words: list[str], says: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(*words) == 2
    assert says in capsys.readouterr().err
    assert not list(here.glob("*.toml"))


def test_values_with_quotes_and_other_letters_come_back_as_they_were_given(here: Path) -> None:
    assert init("local", "--lake", 'la"ke ä', "--contact", "a\\b", "--source", "refs/*.csv", "--weights", "w") == 0
    settings = load(here / "local.toml", {})
    assert settings.lakes["main"].url == str(here / 'la"ke ä')
    assert (settings.fetch.contact, settings.lakes["main"].sources[0].path) == ("a\\b", "refs/*.csv")
    assert settings.sets["features"].weights == str(here / "w")


def test_on_a_terminal_it_asks_for_what_is_not_given(here: Path) -> None:
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli.main", "config", "init", "compute", "box.toml", "--net", "hog"],
        stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=here,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as asking:  # fmt: skip
        os.close(slave)
        os.write(master, b"s3://images/hathi\n\nmain\n\nhog\n\nus@example.org\n")
        try:
            out, err = asking.communicate(timeout=60)
        finally:
            asking.kill()
        os.close(master)
    assert asking.returncode == 0, err
    assert "where the bucket is" in err
    settings = load(here / "box.toml", {})
    assert (settings.bucket.url, settings.sets["features"].blob) == ("s3://images/hathi", "hog")
    assert "hathi config check --config box.toml" in out


BROKEN = {
    "no lake": ("[lakes.main]", "[nolakes.main]"),
    "a bucket of no kind": ('url = "BUCKET"', 'url = "ftp://x/y"'),
    "a net that is not there": ('net = "hog"', 'net = "none.prototxt"'),
    "a blob that the net lacks": ('net = "hog"\nblob = "hog"', 'net = "NET"\nblob = "none"'),
    "layers without weights": ('net = "hog"\nblob = "hog"', 'net = "NET"\nblob = "fc"'),
    "images of no size that HOG takes": ('blob = "hog"', 'blob = "hog"\ninput_size = [3, 3]'),
    "a std of nothing": ('net = "hog"\nblob = "hog"', 'net = "NET"\nblob = "t"\npreprocess.std = [0.0]'),
    "a mean that is no file": ('root = "features"', 'root = "features"\n[sets.features.preprocess]\nmean = "m.npy"'),
    "a host that is none": ("[fetch]", '[fetch.hosts."a b"]\nburst = 2\n[fetch]'),
    "a disk that is never free enough": ('role = "local"', 'role = "local"\ncompute.free_bytes = 9000000000000000'),
    "a source that is not there": ('path = "refs"', 'path = "none"'),
    "a state folder that is a file": ('role = "local"', 'role = "local"\nstate = "local.toml"'),
    "a log folder that is a file": ('role = "local"', 'role = "local"\nlogs.folder = "local.toml"'),
    "a bucket that is a file": ('url = "BUCKET"', 'url = "local.toml"'),
    "a lake without a place": ('url = "LAKE"\n', ""),
}
NET = """layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 dim: 3 dim: 9 dim: 9 } } }
layer { name: "fc" type: "InnerProduct" bottom: "d" top: "fc" inner_product_param { num_output: 4 } }
layer { name: "t" type: "TanH" bottom: "d" top: "t" }
"""


@pytest.mark.parametrize("what", BROKEN)
def test_a_check_passes_nothing_that_run_refuses(what: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = BROKEN[what]
    assert init("local", *GIVEN["local"]) == 0
    (here / "net.prototxt").write_text(NET)
    path = here / "local.toml"
    names = {"BUCKET": str(here / "bucket"), "LAKE": str(here / "lake"), "NET": str(here / "net.prototxt")}
    for name, value in names.items():
        old, new = old.replace(name, value), new.replace(name, value)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    before = tree(here.parent)
    checked = command_line.main(["config", "check", "--config", str(path)])
    out = capsys.readouterr()
    assert tree(here.parent) == before, "a check leaves nothing behind"
    ran = command_line.main(["run", "--config", str(path)])
    assert ran != 0, capsys.readouterr().out
    assert checked == 2, out.out
    assert "Traceback" not in out.err


def test_defaults_never_lie_beside_etc_or_at_the_top_of_the_file_system() -> None:
    person = {"HOME": "/home/me"}

    def state(home: str, **more: str) -> str:
        return os.path.normpath(_home_of_defaults(Path(home), {**person, **more}) / "../state")

    assert state("/etc/hathi") == "/var/lib/hathi/state"
    assert state("/etc/images/gateway") == "/var/lib/images/state"
    assert state("/etc") == "/var/lib/hathi/state"
    for top in ("/", "/data", "/config"):
        assert state(top) == "/var/lib/hathi/state"
    assert state("/home/me/.config/hathi") == "/home/me/.local/state/hathi/state"
    assert state("/x/y", XDG_CONFIG_HOME="/x", XDG_STATE_HOME="/s") == "/s/y/state"
    for own in ("/opt/hathi/config", "/home/me/hathi/config", "/srv/a"):
        assert state(own) == os.path.normpath(f"{own}/../state")


def test_the_role_of_a_file_that_names_none_follows_from_its_lakes(tmp_path: Path) -> None:
    path = tmp_path / "h.toml"
    path.write_text('[bucket]\nurl = "b"\n[lakes.main]\n')
    assert load(path, {}).stages == ("compute", "aggregate")
    path.write_text('[bucket]\nurl = "b"\n[lakes.main]\nurl = "l"\n')
    assert load(path, {}).stages == ("ship", "compute", "aggregate", "deliver")
    path.write_text('role = "box"\n[bucket]\nurl = "b"\n')
    with pytest.raises(ConfigError, match="role"):
        load(path, {})


def test_the_preprocessing_of_an_onnx_net_is_asked_for_and_stands_in_the_file(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = ["--net", "../model.onnx", "--preprocess"]
    assert init("compute", *net, "clip") == 0
    assert load(here / "compute.toml", {}).sets["features"].preprocess.preset == "clip"
    assert init("compute", "--yes", *net, "clop") == 2
    assert "no such preset; there are: caffe, imagenet, clip" in capsys.readouterr().err
