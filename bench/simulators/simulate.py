"""What `parley simulate` and `parley demo` run: traffic, faults and sender put together from plain options.

Must not know the command line: the options arrive as a struct, the run is one coroutine that can be cancelled at any time.
"""

import itertools
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import trio

from bench.simulators.faults import Faults, spoil
from bench.simulators.ledger import Ledger
from bench.simulators.meta import START_MS, Delivery, Traffic
from bench.simulators.sender import Report, run
from bench.simulators.world import SimTenant


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to simulate.

    `url` is the webhook's address; `rate` deliveries a second, or with `rate=None` `speed` virtual seconds a second (neither: as fast as
    answers come); `contacts` people per tenant; `count` deliveries
    and `duration_s` real seconds end the run, whichever comes first (None: until stopped). `batch` is the share of webhooks with several
    items. `time_factor`: virtual seconds of Meta's retry schedule per real one. `start_ms` is the virtual world's beginning; the
    present with `speed=1` gives timestamps a person finds natural, at the price of other bytes each time. `ledger` is a file to append to.
    """

    url: str
    tenants: tuple[SimTenant, ...]
    rate: float | None = 20.0
    speed: float | None = None
    concurrency: int = 32
    contacts: int = 50
    seed: int | str = 1
    count: int | None = None
    duration_s: float | None = None
    batch: float = 0.15
    mix: dict[str, float] = {}
    faults: Faults = Faults()
    time_factor: float = 60.0
    start_ms: int = START_MS
    ledger: Path | None = None


def deliveries(options: Options) -> Iterator[Delivery]:
    """Return the deliveries of these options in the order of sending, without sending them."""
    traffic: Iterable[Delivery] = Traffic(
        options.seed,
        options.tenants,
        options.contacts,
        mix=options.mix,
        batch=options.batch,
        start_ms=options.start_ms,
    )
    return spoil(itertools.islice(traffic, options.count), options.faults, options.seed)


async def simulate(options: Options, *, stop: trio.Event | None = None, report: Report | None = None) -> Report:
    """Send the traffic and return its counts; `report`, if given, is filled as the run goes on.

    Raises ValueError for options that make no sense, OSError if the ledger cannot be written.
    """
    report = Report() if report is None else report
    with Ledger(options.ledger) if options.ledger else Forgetful() as ledger:
        with trio.move_on_after(float("inf") if options.duration_s is None else options.duration_s):
            await run(
                deliveries(options),
                options.url,
                ledger=ledger,
                rate=options.rate,
                speed=options.speed,
                concurrency=options.concurrency,
                time_factor=options.time_factor,
                seed=options.seed,
                stop=stop,
                report=report,
            )
    return report


class Forgetful(Ledger):
    """Keeps nothing: a demonstration may run for days, and a ledger in memory would grow with it."""

    def record(self, delivery: Delivery, attempt: int, status: int | None) -> None:
        """Keep nothing."""


def load_tenants(path: Path) -> tuple[SimTenant, ...]:
    """Read tenants from JSON (an array of objects) or TOML (`[[tenants]]`), each with the fields of `SimTenant`.

    Raises ValueError if the file is neither or lacks something, OSError if it cannot be read.
    """
    data = path.read_bytes()
    found = tomllib.loads(data.decode()).get("tenants") if path.suffix == ".toml" else msgspec.json.decode(data)
    return msgspec.convert(found, tuple[SimTenant, ...])


def parse_tenant(text: str) -> SimTenant:
    """Read a tenant from `PHONE_NUMBER_ID:WABA_ID:APP_SECRET:DISPLAY_PHONE_NUMBER`. Raises ValueError if it has another form."""
    parts = text.split(":")
    if len(parts) != len(SimTenant.__struct_fields__) or not all(parts):
        raise ValueError("a tenant is PHONE_NUMBER_ID:WABA_ID:APP_SECRET:DISPLAY_PHONE_NUMBER")
    return SimTenant(*parts)
