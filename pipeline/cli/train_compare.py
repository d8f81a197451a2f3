"""`hathi train linear DATA --compare`: every way for workers to share a vector, side by side, and the answer."""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import replace
from pathlib import Path

from pipeline.cli.train_linear import asked, speaker, tell, wanted_of
from pipeline.cli.wiring.whole_commands import estop_of
from pipeline.errors import ConfigError

PAGE, ABOUT = "compare.html", "compare.json"


def run(args: argparse.Namespace) -> int:
    """0.  Raises ConfigError and FormatError for data and options that cannot be used."""
    from pipeline.clock import Clock
    from pipeline.operations.report.linear.page import HEADINGS, Comparison, page, rows
    from pipeline.training.dataset.folders import whole
    from pipeline.training.descent import data
    from pipeline.training.descent.comparing import answer, compare
    from pipeline.training.descent.memory import Own

    for option, given in (("--lock", args.lock), ("--processes", args.processes)):
        if given:
            raise ConfigError(f"--compare and {option} exclude each other",
                              "--compare goes all ways itself, by threads", f"leave {option} out")  # fmt: skip
    source, out = asked(args)
    if len(args.words) == 2:
        out = Path(f"{source.path.resolve().name}.compare")
    say, look = speaker(args), estop_of(args.config)

    def told(text: str) -> None:
        say(text)
        look()

    with whole(out) as folder, data.opened(source, Own()) as found:
        wanted = wanted_of(args, found.known.count)
        wanted = replace(wanted, workers=args.workers or max(2, len(os.sched_getaffinity(0))))
        tell(found.known, wanted, say)
        compared = compare(found.examples, wanted, args.seeds, told)
        facts = (("machine", f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"),)
        table = [list(HEADINGS), *rows(compared)]
        (folder / PAGE).write_text(page(Comparison(source.path.name, Clock().now(), compared, facts)), "utf-8")
        about = {"rows": [dict(zip(HEADINGS, row, strict=True)) for row in table[1:]], "answer": list(answer(compared)),
                 "optimum": compared.optimum.objective, "bound": compared.optimum.bound}  # fmt: skip
        (folder / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", "utf-8")
    if args.json:
        print(json.dumps(about | {"out": str(out)}))
        return 0
    wide = [max(len(row[at]) for row in table) for at in range(len(HEADINGS))]
    for row in table:
        say("  ".join([row[0].ljust(wide[0]), *(one.rjust(to) for one, to in zip(row[1:], wide[1:], strict=True))]))
    for sentence in answer(compared):
        say(sentence)
    say(f"{out / PAGE}: the page, with its curves")
    return 0
