"""What was sent and what the gateway answered, in a file that outlives the simulator: the evidence for "nothing acknowledged is lost".

One JSON object a line, appended and handed to the operating system at once, so that killing the simulator loses at most the line being
written. Not synced to disk: machines are not killed in these tests. Must not know the network.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

import msgspec

from bench.simulators.life import Truth
from bench.simulators.meta import Delivery


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt at one delivery. `status` None: no answer came, so nobody may conclude anything. `truth` only with 200."""

    tenant: str
    number: int
    attempt: int
    status: int | None = None
    fault: str | None = None
    truth: tuple[Truth, ...] = ()


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Entry)


class Ledger:
    """An append-only record of attempts; in memory without a path. A context manager that closes its file."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        # Unbuffered: each line is one write() and needs no flush.
        self._file: BinaryIO = io.BytesIO() if path is None else path.open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def record(self, delivery: Delivery, attempt: int, status: int | None) -> None:
        """Append one attempt (from 0) and the HTTP status it got, None if the connection broke or time ran out."""
        entry = Entry(
            tenant=delivery.tenant.phone_number_id,
            number=delivery.number,
            attempt=attempt,
            status=status,
            fault=delivery.fault,
            truth=delivery.truth if status == 200 else (),
        )
        self._file.write(_ENCODER.encode(entry) + b"\n")

    def entries(self) -> Iterator[Entry]:
        """Yield every attempt recorded so far, oldest first."""
        if self._path is not None:
            yield from read_entries(self._path)
        elif isinstance(self._file, io.BytesIO):
            yield from _decode(io.BytesIO(self._file.getvalue()))

    def acknowledged(self) -> dict[str, list[Truth]]:
        """Return, by the simulator's name of each conversation, every item that was answered 200, once, in order of acknowledgement."""
        return acknowledged(self.entries())


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield the attempts in a ledger's file; a last line that was cut off by a kill is left out."""
    with path.open("rb") as file:
        yield from _decode(file)


def _decode(file: BinaryIO) -> Iterator[Entry]:
    for line in file:
        if line.endswith(b"\n"):
            yield _DECODER.decode(line)


def acknowledged(entries: Iterator[Entry]) -> dict[str, list[Truth]]:
    """Collect what was answered 200, see `Ledger.acknowledged`."""
    found: dict[str, dict[str, Truth]] = {}
    for entry in entries:
        for truth in entry.truth:
            found.setdefault(truth.conversation, {}).setdefault(truth.key, truth)
    return {conversation: list(items.values()) for conversation, items in found.items()}
