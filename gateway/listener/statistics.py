"""What a listener counts. Must not know what is done with the figures."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Counters:
    """Running totals, written by the lanes."""

    accepted: int = 0
    failed: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class ListenerStatistics:
    """A listener at one moment. Totals are since its start."""

    connections: Mapping[str, int]
    """Open now, by lane: "ingest" (which all begin in), "realtime", "hypercorn"."""
    accepted: int
    """Connections accepted, those over the cap included."""
    answers: Mapping[int, int]
    """Answers of handlers by status, whichever lane carried them."""
    refused: Mapping[str, int]
    """Requests the listener itself turned away, by code."""
    failed: int
    """Handlers and connections that raised."""
