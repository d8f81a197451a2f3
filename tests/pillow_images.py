"""Pillow's own test pictures through our decoder, beside Pillow's: `python -m tests.pillow_images [FOLDER]`.

A long form, not a part of CI.  Without a folder, Pillow's source distribution of the version that is installed is taken
from the package index, once.  Exit code 1 when a picture differs by more than 2 of 255, when only one of the two reads
it, or when something is written to stderr, and no exception is named for it here.
"""

from __future__ import annotations

import faulthandler
import io
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from pipeline.images import others, sniff
from pipeline.images.decoding import Decoded, read
from pipeline.records import Failure
from tests.unit.images.pictures import upright

CACHE = Path("~/.cache/hathi-tests").expanduser()
WITHIN = 2
PIXELS = 20_000_000
MEMORY = 6 * 2**30
"""Bytes of address space; nothing here may want more."""
EXCEPTIONS = {
    "images/i_trns.png": "Pillow drops the transparent grey of 16 bits",
    "images/png_decompression_dos.png": "the bomb lies in a text beside the pixels, which is not inflated",
    "images/unknown_compression_method.png": "the fault lies in a chunk beside the pixels",
    "images/apng/chunk_no_fctl.png": "the first picture is whole; what is missing belongs to the animation",
}
"""By the end of a file's name: why ours is another picture than Pillow's, or none, and that is right."""


def pictures() -> Path:
    """The folder of a source distribution, unpacked."""
    name = f"pillow-{PIL.__version__}"
    folder = CACHE / name
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            words = [
                "download",
                "--quiet",
                "--no-deps",
                "--no-binary",
                "pillow",
                "--dest",
                scratch,
                name.replace("-", "=="),
            ]
            subprocess.run([os.environ.get("PYTHON", "python3"), "-m", "pip", *words], check=True)
            with tarfile.open(next(Path(scratch).glob("*.tar.gz"))) as packed:
                packed.extractall(scratch, filter="data")
            (Path(scratch) / name).rename(folder)
    return folder / "Tests"


def by_pillow(content: bytes) -> NDArray[np.uint8] | None:
    """(h, w, 3) BGR, upright, over white; None where Pillow does not read it."""
    try:
        with Image.open(io.BytesIO(content)) as opened:
            if opened.width * opened.height > PIXELS:
                return None
            opened.load()
            image = upright(opened)
            return np.asarray(others._over_white(image))[:, :, ::-1]
    except Exception:
        return None


def judged(content: bytes) -> tuple[str, str]:
    """What is to be said of one file, and more of it."""
    found, other = read(content, PIXELS, None), by_pillow(content)
    if isinstance(found, Failure):
        return (
            ("neither reads it", found.reason) if other is None else ("only Pillow", f"{found.reason}: {found.detail}")
        )
    assert isinstance(found, Decoded)
    if other is None:
        return "only ours", f"{found.pixels.shape} {found.damage}"
    if found.pixels.shape != other.shape:
        return "another size", f"{found.pixels.shape} and Pillow's {other.shape}"
    far = int(np.abs(found.pixels.astype(np.int16) - other).max())
    return ("within 2", "") if far <= WITHIN else ("other pixels", f"by up to {far} of 255")


def main(folder: Path) -> int:
    warnings.simplefilter("ignore")
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    Image.init()
    table: Counter[tuple[str, str]] = Counter()
    bad = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        kind = sniff(content)
        if kind is None:
            continue
        began = time.process_time()
        word, more = judged(content)
        spent = time.process_time() - began
        if spent > 1:
            print(f"{path.relative_to(folder)}: {spent:.1f} s of processor time")
        why = next((why for name, why in EXCEPTIONS.items() if path.as_posix().endswith(name)), "")
        fine = word in ("within 2", "neither reads it")
        if not fine:
            bad += not why
            print(f"{path.relative_to(folder)}: {word}, {more}{f' ({why})' if why else ''}", flush=True)
        table[kind, word if fine or not why else "named exception"] += 1
    words = sorted({word for _, word in table})
    print(f"\n{'':<10}" + "".join(f"{word:>18}" for word in words))
    for kind in sorted({kind for kind, _ in table}):
        print(f"{kind:<10}" + "".join(f"{table[kind, word]:>18}" for word in words))
    print(f"{sum(table.values())} files, {bad} without an explanation")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else pictures()))
