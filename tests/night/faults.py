"""The faults of a deployment over folders: how each is done, by which words it is named, and how it is taken back."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.night.asking import Words, words
from tests.night.deployment import REFS, Deployment

Deed = Callable[[Deployment], None]


@dataclass(frozen=True)
class Fault:
    """One fault.  cause, remedy: what must be said; host: where a person looks for it."""

    name: str
    inject: Deed
    mend: Deed
    cause: Words
    remedy: Words
    host: str = "gateway"
    calls_box: bool = True
    """Cron goes on calling the box while the fault lasts."""
    named_by: tuple[str, ...] = ()
    """The sources that all have to name it; any of them where none is given."""
    ends: bool = False
    """Nobody names it any more once it is taken back."""


def nothing(deployment: Deployment) -> None:
    """There is nothing to take back: what the product does by itself is enough."""


def new_list(deployment: Deployment) -> None:
    deployment.put_refs()


def shop_that(mode: str) -> Deed:
    def inject(deployment: Deployment) -> None:
        deployment.shop.mode = mode
        deployment.put_refs()

    return inject


def shop_is_well(deployment: Deployment) -> None:
    deployment.shop.mode = "well"


def nameless_shop(deployment: Deployment) -> None:
    deployment.put_refs(host="images.shop.invalid")


def other_columns(deployment: Deployment) -> None:
    """The owner's program changed: neither the item nor the image has its column any more."""
    rows = "".join(f"{number},red\n" for number in range(REFS))
    deployment.write("refs/changed.csv", b"article,colour\n" + rows.encode())


def columns_again(deployment: Deployment) -> None:
    (deployment.lake / "refs" / "changed.csv").unlink()


def cut_gzip(deployment: Deployment) -> None:
    whole = gzip.compress("\n".join(deployment.lines()).encode())
    deployment.write("refs/cut.jsonl.gz", whole[: len(whole) // 2])


def whole_gzip(deployment: Deployment) -> None:
    """The owner writes it once more."""
    rows = [
        json.dumps(
            {
                "partner_id": 100 + deployment.lists,
                "external_id": one,
                "url": deployment.shop.url(int(one.partition("-")[2])),
            }
        )
        for one in sorted(deployment.expected)
        if one.startswith(f"sku-{deployment.lists}")
    ]
    deployment.write("refs/cut.jsonl.gz", gzip.compress("\n".join(rows).encode()))


def without_weights(deployment: Deployment) -> None:
    deployment.weights.rename(deployment.weights.with_suffix(".away"))
    deployment.put_refs()


def weights_again(deployment: Deployment) -> None:
    deployment.weights.with_suffix(".away").replace(deployment.weights)


def damaged_weights(deployment: Deployment) -> None:
    whole = deployment.weights.read_bytes()
    deployment.weights.rename(deployment.weights.with_suffix(".away"))
    deployment.weights.write_bytes(b"\x00damaged" * 64 + whole[512:])
    deployment.put_refs()


def other_settings(deployment: Deployment) -> None:
    deployment.configure("box", {"sets.demo.preprocess": {"channel_order": "rgb"}})
    deployment.put_refs()


def box_as_before(deployment: Deployment) -> None:
    deployment.configure("box")


def killed_in_mid_run(deployment: Deployment) -> None:
    """kill -9 of the box's run while the shop lets it wait."""
    deployment.shop.mode = "hangs"
    deployment.put_refs()
    deployment.waits_for("compute")
    with deployment.box_at_work():
        deployment.box.kill()


def estop_here(deployment: Deployment) -> None:
    deployment.gateway.state.joinpath("ESTOP").touch()
    deployment.until(lambda: not _runs(deployment), "the daemons have ended")
    deployment.put_refs()


def lift_here(deployment: Deployment) -> None:
    deployment.gateway.state.joinpath("ESTOP").unlink()
    deployment.gateway.start()


def estop_everywhere(deployment: Deployment) -> None:
    done = deployment.gateway.hathi("stop", "--remote")
    assert done.returncode == 0, done.stdout
    deployment.until(lambda: not _runs(deployment), "the daemons have ended")
    deployment.put_refs()


def lift_everywhere(deployment: Deployment) -> None:
    done = deployment.gateway.hathi("start", "--remote")
    assert done.returncode == 0, done.stdout
    deployment.gateway.start()


def killed_daemons(deployment: Deployment) -> None:
    deployment.gateway.kill()
    deployment.put_refs()


def start_daemons(deployment: Deployment) -> None:
    deployment.gateway.start()


def _runs(deployment: Deployment) -> bool:
    said = deployment.gateway.run("./run-all.sh", "status", str(deployment.gateway.config)).stdout
    return " runs: process" in said


def broken_file(deployment: Deployment) -> None:
    """Somebody edits the gateway's configuration and reboots."""
    deployment.gateway.stop()
    config = deployment.gateway.config
    config.write_text(config.read_text() + "[notify\n")
    started = deployment.gateway.run("./run-all.sh", str(config))
    assert started.returncode == 2, started.stdout
    deployment.put_refs()


def whole_file(deployment: Deployment) -> None:
    deployment.configure("gateway")
    deployment.gateway.start()


def plan_deleted(deployment: Deployment) -> None:
    deployment.put_refs()
    deployment.object_of("compute", "plan").unlink()


def repaired(deployment: Deployment) -> None:
    """What the remedy says: stop the daemons, `hathi verify --repair`, start them."""
    deployment.gateway.stop()
    done = deployment.gateway.hathi("verify", "--repair")
    assert done.returncode in (0, 1), done.stdout
    deployment.gateway.start()


def delivered_file_gone(deployment: Deployment) -> None:
    file = sorted((deployment.lake / "features").glob("*T*/*/cnn_features.txt.gz"))[0]
    file.rename(deployment.folder / "kept.gz")
    (deployment.folder / "kept").write_text(str(file))


def delivered_file_again(deployment: Deployment) -> None:
    """From the backup."""
    (deployment.folder / "kept.gz").rename((deployment.folder / "kept").read_text())


def newer_plan(deployment: Deployment) -> None:
    """A Hathi of the next generation has written a plan."""
    deployment.put_refs()
    plan = deployment.object_of("compute", "plan")
    (deployment.folder / "kept").write_text(str(plan))
    (deployment.folder / "kept.plan").write_bytes(plan.read_bytes())
    plan.write_text(json.dumps({**json.loads(plan.read_bytes()), "format": 99}))


def plan_of_today(deployment: Deployment) -> None:
    (deployment.folder / "kept.plan").rename((deployment.folder / "kept").read_text())


def no_room_on_the_box(deployment: Deployment) -> None:
    """Less room than a run asks for: what a full disk is to the box, without filling this machine's."""
    deployment.configure("box", {"compute": {"free_bytes": 2**60}})
    deployment.put_refs()


def silent_partner(deployment: Deployment) -> None:
    """Until days ago a list came each day; none has come since."""
    for days in (7.0, 6.0, 5.0, 4.0):
        rows = [
            json.dumps({"partner_id": 8, "external_id": f"old-{days}-{one}", "url": deployment.shop.url(one)})
            for one in range(2)
        ]
        deployment.expected |= {f"old-{days}-{one}" for one in range(2)}
        deployment.write(f"refs/daily-{days}.jsonl", "\n".join(rows).encode(), days)
    deployment.settle()


def list_of_today(deployment: Deployment) -> None:
    row = {"partner_id": 8, "external_id": "new", "url": deployment.shop.url(1)}
    deployment.expected.add("new")
    deployment.write("refs/daily-today.jsonl", json.dumps(row).encode())


FAULTS: Sequence[Fault] = (
    Fault("the shop refuses all (403)", shop_that("refuses"), shop_is_well,
          words("too many images", "http_4xx", "127.0.0.1"), words("403", "does not let us in")),
    Fault("the shop does not answer", shop_that("hangs"), shop_is_well,
          words("too many images", "timeout", "127.0.0.1"), words("timeout usually means", "does not answer")),
    Fault("the shop answers pages", shop_that("pages"), shop_is_well,
          words("too many images", "not_image", "127.0.0.1"), words("pages, not to images")),
    Fault("the shop is slow", shop_that("slow"), shop_is_well,
          words("too many images", "too_slow", "127.0.0.1"), words("too_slow usually means", "very slowly")),
    Fault("the shop's name is dead", nameless_shop, nothing,
          words("too many images", "dns", "images.shop.invalid"), words("dns usually means", "doctor")),
    Fault("a list of other columns", other_columns, columns_again,
          words("changed.csv", "column"), words("look at")),
    Fault("a truncated gzip", cut_gzip, whole_gzip,
          words("cut.jsonl.gz", "are missing"),
          words("cut.jsonl.gz", "written again")),
    Fault("a source is not renewed", silent_partner, list_of_today,
          words("partner 8", "silent"), words("ask whoever writes the source")),
    Fault("the net's file is missing on the box", without_weights, weights_again,
          words("w.caffemodel", "no such file"), words("w.caffemodel"), host="box"),
    Fault("the net's file is damaged on the box", damaged_weights, weights_again,
          words("w.caffemodel"), words("w.caffemodel"), host="box"),
    Fault("other settings on the box", other_settings, box_as_before,
          words("channel_order", "expects"), words("the same values on both")),
    Fault("the box's run is killed", killed_in_mid_run, shop_is_well,
          words("the last run", "died"), words("continues its work"), host="box", calls_box=False),
    Fault("the box has no room", no_room_on_the_box, box_as_before,
          words("nearly full"), words("delete what is not needed"), host="box"),
    Fault("ESTOP forgotten on the gateway", estop_here, lift_here,
          words("ESTOP", "nothing"), words("remove", "ESTOP"), calls_box=False),
    Fault("ESTOP forgotten in the bucket", estop_everywhere, lift_everywhere,
          words("ESTOP", "bucket"), words("hathi start --remote")),
    Fault("the daemons are dead", killed_daemons, start_daemons,
          words("ended unexpectedly", "ship"), words("start it again"), calls_box=False),
    Fault("a broken TOML on the gateway", broken_file, whole_file,
          words("cannot be read", "hathi.toml"), words("line"), calls_box=False),
    Fault("a plan is deleted", plan_deleted, repaired,
          words("its plan is gone"), words("verify --repair"), calls_box=False),
    Fault("a delivered file is gone", delivered_file_gone, delivered_file_again,
          words("1 delivered file missing", "cnn_features.txt.gz"), words("restore them from a backup")),
    Fault("a manifest of a newer Hathi", newer_plan, plan_of_today,
          words("newer Hathi"), words("upgrade"), calls_box=False),
)  # fmt: skip
