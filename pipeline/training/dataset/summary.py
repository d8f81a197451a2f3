"""What a dataset holds: counts, classes, sizes, and what is damaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.errors import FormatError
from pipeline.images.formats import sniff
from pipeline.training.data import pixels
from pipeline.training.data.records import key_text
from pipeline.training.data.source import Trouble
from pipeline.training.dataset.examples import Example


@dataclass
class Summary:
    """Counts by label, by size (`channels x height x width`) and by form (pixels, floats, jpeg); what is damaged."""

    examples: int = 0
    labels: Counter[int] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    forms: Counter[str] = field(default_factory=Counter)
    damaged: list[Trouble] = field(default_factory=list)


def summary(examples: Iterable[Example]) -> Summary:
    """Decodes every image once."""
    found = Summary()
    for example in examples:
        datum = example.datum
        found.examples += 1
        found.labels[datum.label] += 1
        form = (sniff(datum.data[:4096]) or "unknown") if datum.encoded else "pixels" if datum.data else "floats"
        found.forms[form] += 1
        try:
            if datum.encoded and pixels.torn(datum.data):
                raise example.unusable(pixels.TORN)
            found.sizes[" x ".join(map(str, example.image().shape))] += 1
        except FormatError as error:
            found.damaged.append(Trouble(key_text(example.key), error.detail))
    return found
