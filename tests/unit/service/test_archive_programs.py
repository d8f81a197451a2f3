"""Archives as real programs make them: GNU tar in all its forms, zip, Python and Go; each gives the same pictures."""

from __future__ import annotations

import os
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.service.archive.entries import Picture, Rejected
from pipeline.service.archive.reading import read
from tests.servers.archivers import program
from tests.unit.service.hostile_archives import GREY

LABELS = ("äpfel", "b", "コーヒー")
LONG = "x" * 96 + ".png"
NAMES = [(label, name) for label in LABELS for name in ("1.png", "zwei drei.png")] + [("b", LONG)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of folders of pictures, with a link, a pipe and a text among them."""
    folder = tmp_path_factory.mktemp("tree") / "set"
    for label, name in NAMES:
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / name).write_bytes(GREY)
    (folder / "b" / "notes.txt").write_text("nothing to see")
    (folder / "b" / "link.png").symlink_to("1.png")
    return folder


def _tar(*options: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, out: Path) -> None:
        subprocess.run(["tar", *options, "-cf", out, "-C", folder.parent, folder.name], check=True)

    return make


def _zip(*options: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, out: Path) -> None:
        subprocess.run(["zip", "-q", "-r", *options, out, "."], cwd=folder, check=True)

    return make


def _python_tar(form: int) -> Callable[[Path, Path], None]:
    def make(folder: Path, out: Path) -> None:
        with tarfile.open(out, "w:gz", format=form) as file:
            file.add(folder, arcname=".")

    return make


def _python_zip(folder: Path, out: Path) -> None:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                with file.open(str(path.relative_to(folder)), "w", force_zip64=True) as entry:
                    entry.write(path.read_bytes())


_GO = """package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
)

func main() {
	root := os.Args[1]
	t, _ := os.Create(os.Args[2])
	packed := gzip.NewWriter(t)
	tw := tar.NewWriter(packed)
	z, _ := os.Create(os.Args[3])
	zw := zip.NewWriter(z)
	filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if !info.Mode().IsRegular() {
			return nil
		}
		name, _ := filepath.Rel(root, path)
		head, _ := tar.FileInfoHeader(info, "")
		head.Name = name
		tw.WriteHeader(head)
		content, _ := os.ReadFile(path)
		tw.Write(content)
		w, _ := zw.Create(name)
		w.Write(content)
		return nil
	})
	tw.Close()
	packed.Close()
	t.Close()
	zw.Close()
	z.Close()
	io.WriteString(os.Stdout, "made")
}
"""

MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "GNU tar, gnu": _tar("--format=gnu"),
    "GNU tar, oldgnu": _tar("--format=oldgnu"),
    "GNU tar, pax": _tar("--format=pax"),
    "GNU tar, pax, gzip": _tar("--format=pax", "-z"),
    "GNU tar, ustar": _tar("--format=ustar"),
    "GNU tar, one block a record": _tar("-b", "1", "-z"),
    "zip": _zip("-y"),
    "zip, stored": _zip("-y", "-0"),
    "zip, sizes of 64 bits": _zip("-y", "-fz"),
    "Python, pax": _python_tar(tarfile.PAX_FORMAT),
    "Python, gnu": _python_tar(tarfile.GNU_FORMAT),
    "Python, zip": _python_zip,
}


def _names(path: Path, depth: int = 2) -> list[tuple[str, ...]]:
    found = list(read(path))
    assert {one.content for one in found if isinstance(one, Picture)} == {GREY}
    assert {one.reason for one in found if isinstance(one, Rejected)} <= {"not_image", "link"}
    return sorted(one.path[-depth:] for one in found if isinstance(one, Picture))


@pytest.mark.parametrize("maker", MAKERS)
def test_the_pictures_of_an_archive_are_those_of_the_folder(maker: str, pictures: Path, tmp_path: Path) -> None:
    made_by = maker.split(",")[0].split()[0].replace("GNU", "tar")
    if made_by in ("tar", "zip"):
        program(made_by)
    out = tmp_path / "archive.zip"  # zip would add it; what it is, its bytes say
    MAKERS[maker](pictures, out)
    assert _names(out) == sorted(NAMES)


@pytest.mark.parametrize("form", ["pax", "gnutar", "ustar", "v7", "zip"])
def test_bsdtar_gives_the_same(form: str, pictures: Path, tmp_path: Path) -> None:
    subprocess.run([program("bsdtar"), "--format", form, "-cf", tmp_path / "archive", "-C", pictures, "."], check=True)
    assert _names(tmp_path / "archive") == sorted(one for one in NAMES if form != "v7" or one[1] != LONG)


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_7z_gives_the_same(form: str, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / f"archive.{form}"
    subprocess.run(
        [program("7z"), "a", f"-t{form}", "-snl", out, "."], cwd=pictures, check=True, stdout=subprocess.DEVNULL
    )
    assert _names(out) == sorted(NAMES)


def test_go_gives_the_same(pictures: Path, tmp_path: Path) -> None:
    """Its zip has the sizes behind each entry, not before it."""
    source = tmp_path / "made.go"
    source.write_text(_GO)
    environ = {**os.environ, "GOFLAGS": "-mod=mod", "GO111MODULE": "off", "GOTOOLCHAIN": "local"}
    words = [program("go"), "run", *map(str, (source, pictures, tmp_path / "a.tar.gz", tmp_path / "a.zip"))]
    assert subprocess.run(words, env=environ, cwd=tmp_path, capture_output=True, check=True).stdout == b"made"
    assert _names(tmp_path / "a.tar.gz") == _names(tmp_path / "a.zip") == sorted(NAMES)


def test_what_gnu_tar_says_is_sparse_is_rejected_and_its_neighbours_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "s" / "a"
    folder.mkdir(parents=True)
    with (folder / "hole.png").open("wb") as file:
        for at in range(40):  # more pieces than a header holds
            file.seek(at * 2**17)
            file.write(b"x" * 4096)
    (folder / "z.png").write_bytes(GREY)
    for form in ("gnu", "pax"):
        out = tmp_path / f"{form}.tar"
        subprocess.run(["tar", "-S", f"--format={form}", "-cf", out, "-C", tmp_path, "s"], check=True)
        told = {one.path[-1:] or (one.reason,) for one in read(out)}  # type: ignore[union-attr]
        assert told == {("z.png",), ("sparse",)}


def test_a_zip_that_was_changed_twice_is_read(pictures: Path, tmp_path: Path) -> None:
    program("zip")
    out = tmp_path / "a.zip"
    _zip("-y")(pictures, out)
    subprocess.run(["zip", "-q", "-d", out, f"b/{LONG}"], check=True)
    subprocess.run(["zip", "-q", "-y", out, f"b/{LONG}"], cwd=pictures, check=True)
    assert _names(out) == sorted(NAMES)
