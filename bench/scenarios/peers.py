"""What a user would build instead, side by side with Parley: the same bodies, the same checks, one run.

Owns the rounds and the ratios. Must not know how a contender is made (bench.peers).

All contenders run the whole time, each with a PostgreSQL of its own and one dashboard that follows everything; one at a time is loaded to
saturation. They take turns (A B C, A B C, …), and a ratio is formed within each round, so that whatever else the machine does in the course of a
run meets all alike; the median of the rounds is reported. CPU counts from the first webhook of a turn until everything it brought is stored, so work
that is put off is not work saved.
"""

import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import trio

from bench.bodies import Work
from bench.dashboards import DashboardPlan, Seen
from bench.load import Plan, Result
from bench.peers.install import Missing
from bench.peers.process import (
    Contender,
    Database,
    PeerFailed,
    Start,
    database,
    express_bullmq,
    express_pg,
    fastapi_asyncpg,
    no_work,
)
from bench.scenario import Bars, Context, Metric, this_machine
from bench.server import Server, serving
from bench.worker import Worker, worker

ABOUT = "Parley beside Express + pg, Express + BullMQ, FastAPI + asyncpg, and a listener that does no work"

ROUNDS = 5
QUICK_ROUNDS = 1
CONVERSATIONS = 10_000
QUICK_CONVERSATIONS = 500
PATIENCE_SECONDS = 30.0
"""How long a queue may make no progress before what it holds counts as lost."""
COUNT_SECONDS = 0.5
"""Between two counts of what is stored meanwhile: counting costs the database as well."""

PARLEY, LIMIT = "parley", "no_work"
PEERS: dict[str, Start] = {
    "express_pg": express_pg,
    "express_bullmq": express_bullmq,
    "fastapi_asyncpg": fastapi_asyncpg,
    LIMIT: no_work,
}
CLUSTERED = ("express_pg", "express_bullmq")
"""Peers that can be several processes: one, or one a core, whichever is faster here."""


def _declare() -> dict[str, Metric]:
    metrics: dict[str, Metric] = {}
    for name in (PARLEY, *PEERS):
        metrics[f"saturation_per_s_{name}"] = Metric("webhooks/s", "answered 200, 64 connections always waiting")
        metrics[f"cpu_us_per_webhook_{name}"] = Metric("µs", "CPU of the server and its PostgreSQL per webhook")
        metrics[f"server_cpu_us_per_webhook_{name}"] = Metric("µs", "of that, the server's (and its Redis')")
        if name != PARLEY:
            metrics[f"ratio_to_{name}"] = Metric("×", "Parley's webhooks/s over its, median of the rounds")
        if name not in (PARLEY, LIMIT):
            metrics[f"cpu_ratio_to_{name}"] = Metric("×", "its CPU per webhook over Parley's, median of the rounds")
    metrics["stored_per_s_express_bullmq"] = Metric(
        "webhooks/s", "committed to PostgreSQL, the queue's backlog included"
    )
    metrics["sent"] = Metric("messages", "sent to all contenders, warm-up included")
    metrics["acknowledged"] = Metric("messages", "answered 200 by those that store")
    metrics["stored"] = Metric("messages", "counted in their databases afterwards")
    metrics["lost"] = Metric("messages", "acknowledged and not stored: must be 0")
    metrics["shown"] = Metric("events", "that the contenders' dashboards received")
    metrics["missing_peers"] = Metric("peers", "whose runtime is not on this machine")
    return metrics


METRICS = _declare()


class Turn(msgspec.Struct, frozen=True):
    """One contender's part of a round. Rates are webhooks a second, costs CPU microseconds a webhook."""

    answered_per_s: float
    stored_per_s: float
    server_us: float
    database_us: float

    @property
    def cpu_us(self) -> float:
        """The whole cost."""
        return self.server_us + self.database_us


class Loaded:
    """A contender, and what was sent to it so far."""

    def __init__(self, context: Context, name: str, contender: Contender) -> None:
        self.name = name
        self.sent = self.acknowledged = 0
        self.turns: list[Turn] = []
        self._context = context
        self._contender = contender
        self._conversations = QUICK_CONVERSATIONS if context.settings.quick else CONVERSATIONS
        self._per_s = 0.0

    async def fill(self) -> None:
        """Write to every conversation once, unmeasured: turns meet conversations that exist, and code that is warm."""
        await self._load(seconds=600.0, most=self._conversations)

    async def take_turn(self, seconds: float) -> Turn:
        """Load it to saturation, wait until it has stored everything, and return the figures."""
        before = self._contender.cpu()
        result = await self._load(seconds, most=int(self._per_s * seconds) + 1000)
        took = time.monotonic() - result.begun_at
        after = self._contender.cpu()
        self._judge(result)
        count = max(result.acknowledged_ever, 1)
        return Turn(
            result.per_second_mean,
            count / took,
            (after.server - before.server) / count * 1e6,
            (after.database - before.database) / count * 1e6,
        )

    async def _load(self, seconds: float, most: int) -> Result:
        plan = Plan(
            url=self._contender.webhooks,
            work=Work((self._contender.business,), conversations=self._conversations, seed=self._context.settings.seed),
            seconds=seconds,
            warmup=0.0,
            first=self.sent,
            most=most,
        )
        async with worker("bench.load", plan=plan, on_line=_ignore) as generator:
            result = await generator.result(Result)
        self.sent += result.sent_ever
        self.acknowledged += result.acknowledged_ever
        self._per_s = max(
            2 * result.per_second_mean, 1000.0
        )  # twice what it just did is enough to compose for the next time
        await self._settled()
        return result

    async def _settled(self) -> None:
        """Wait until all that was acknowledged is stored, or nothing has been for a long time."""
        stored = before = await self._contender.stored()
        since = time.monotonic()
        while stored is not None and stored < self.acknowledged and time.monotonic() - since < PATIENCE_SECONDS:
            await trio.sleep(COUNT_SECONDS)
            stored = await self._contender.stored()
            if stored != before:
                before, since = stored, time.monotonic()

    def _judge(self, result: Result) -> None:
        if result.limited:
            self._context.note(f"The generator was the limit of {self.name}: it could have done more.")
        for status, count in sorted(result.answers.items()):
            if status != 200:
                self._context.note(f"{self.name} answered {count:,} webhooks {status}.")
        if result.broken:
            self._context.note(f"{result.broken:,} connections to {self.name} broke.")

    async def check(self, dashboard: Worker | None) -> None:
        """Count what is stored and what its dashboard was sent; what is missing is a failure."""
        metrics = self._context.outcome.metrics
        metrics["sent"] = metrics.get("sent", 0) + self.sent
        stored = await self._contender.stored()
        if stored is None:
            return
        lost = max(self.acknowledged - stored, 0)
        for key, value in (("acknowledged", self.acknowledged), ("stored", stored), ("lost", lost)):
            metrics[key] = metrics.get(key, 0) + value
        if lost:
            self._context.fail(f"{self.name}: {lost:,} acknowledged messages are not stored.")
        if stored > self.sent:
            self._context.fail(f"{self.name}: {stored - self.sent:,} more messages are stored than were sent.")
        if dashboard is not None:
            await dashboard.tell(f"until {await self._contender.offset()}".encode())
            seen = await dashboard.result(Seen)
            metrics["shown"] = metrics.get("shown", 0) + seen.events
            if seen.lost or seen.repeated or seen.closed or seen.refused:
                self._context.fail(
                    f"{self.name}: its dashboard missed {seen.lost:,} events and had {seen.repeated:,} twice; "
                    f"closed: {sum(seen.closed.values())}, refused: {seen.refused}."
                )


async def run(context: Context) -> None:
    """Start all, let them take turns, compare, count."""
    settings = context.settings
    async with AsyncExitStack() as stack:
        contenders: dict[str, tuple[Loaded, Worker | None]] = {}
        context.outcome.metrics["missing_peers"] = 0
        for name, start in {PARLEY: _parley(context), **PEERS}.items():
            context.stage(f"starting {name}")
            try:
                workers = await _workers(context, name, start)
                contender = await stack.enter_async_context(start(_directory(context), workers))
            except Missing as missing:
                context.note(f"{name} is missing: {missing}.")
                context.outcome.metrics["missing_peers"] += 1
                continue
            except PeerFailed as failed:
                context.fail(f"{name}: {failed}")
                continue
            follower = await stack.enter_async_context(_dashboard(contender)) if contender.key is not None else None
            contenders[name] = Loaded(context, name, contender), follower
        loaded = [each for each, _ in contenders.values()]
        for each in loaded:
            context.stage(f"writing to the conversations of {each.name}")
            await each.fill()
        rounds = QUICK_ROUNDS if settings.quick else ROUNDS
        for number in range(1, rounds + 1):
            for each in loaded:
                context.stage(f"round {number} of {rounds}: {each.name}")
                each.turns.append(await each.take_turn(settings.seconds))
        for each, follower in contenders.values():
            context.stage(f"counting what {each.name} stored")
            await each.check(follower)
    if "express_bullmq" in contenders:
        context.note(
            "express_bullmq answers when Redis has the webhook, which writes its file once a second: a power cut may lose that "
            "second's acknowledged webhooks. All others answer after the commit."
        )
    _report(context, {each.name: each.turns for each in loaded})


async def _workers(context: Context, name: str, start: Start) -> int:
    """Return with how many processes a peer is faster here."""
    cores = this_machine(None).cores
    if name not in CLUSTERED or context.settings.quick or cores == 1:
        return 1
    speed: dict[int, float] = {}
    for workers in (1, cores):
        context.stage(f"trying {name} with {workers} processes")
        async with start(_directory(context), workers) as contender, _dashboard(contender):
            trial = Loaded(context, name, contender)
            await trial.fill()
            speed[workers] = (await trial.take_turn(context.settings.seconds / 2)).stored_per_s
    best = max(speed, key=lambda each: speed[each])
    tried = ", ".join(f"{count:,.0f} with {workers}" for workers, count in speed.items())
    context.note(f"{name} runs with {best} process{'es' if best > 1 else ''}: webhooks/s stored were {tried}.")
    return best


class _Parley(Contender):
    """The gateway as a contender: its dashboards count the offsets of its feed."""

    def __init__(self, server: Server, pid: int, store: Database) -> None:
        super().__init__(server.url, server.tenants[0], server.keys[0], [pid], store)
        self._server = server

    async def offset(self) -> int:
        return await self._server.head(self._server.keys[0])


def _parley(context: Context) -> Start:
    @asynccontextmanager
    async def start(directory: Path, workers: int = 1) -> AsyncIterator[Contender]:
        async with serving(context) as server:
            if server.process is None:
                raise ValueError("peers are compared with a gateway of the scenario's own")
            async with database(server.process.data_dir, "events WHERE kind = 'message_recorded'") as store:
                yield _Parley(server, server.process.pid, store)

    return start


def _directory(context: Context) -> Path:
    path = context.fresh_directory()
    path.mkdir()
    return path


@asynccontextmanager
async def _dashboard(contender: Contender) -> AsyncIterator[Worker]:
    """Have one dashboard follow everything, over Socket.IO, which all speak."""
    ready = trio.Event()

    async def on_line(line: str) -> None:
        if line.startswith("ready"):
            ready.set()

    plan = DashboardPlan(url=contender.url, key=contender.key or "", count=1, transport="socketio")
    async with worker("bench.dashboards", plan=plan, on_line=on_line) as dashboard:
        await dashboard.wait_until(ready)
        yield dashboard


async def _ignore(line: str) -> None:
    """Take a line of progress: turns are short."""


def _report(context: Context, turns: dict[str, list[Turn]]) -> None:
    metrics = context.outcome.metrics
    for name, each in turns.items():
        metrics[f"saturation_per_s_{name}"] = statistics.median(turn.answered_per_s for turn in each)
        metrics[f"cpu_us_per_webhook_{name}"] = statistics.median(turn.cpu_us for turn in each)
        metrics[f"server_cpu_us_per_webhook_{name}"] = statistics.median(turn.server_us for turn in each)
        if name == "express_bullmq":
            metrics[f"stored_per_s_{name}"] = statistics.median(turn.stored_per_s for turn in each)
        if name != PARLEY:
            rounds = list(zip(turns[PARLEY], each, strict=True))
            metrics[f"ratio_to_{name}"] = _ratio(
                [(ours.answered_per_s, theirs.answered_per_s) for ours, theirs in rounds]
            )
            if name != LIMIT:
                metrics[f"cpu_ratio_to_{name}"] = _ratio([(theirs.cpu_us, ours.cpu_us) for ours, theirs in rounds])
    context.outcome.plots += [
        Bars(
            "Webhooks a second at saturation",
            "webhooks/s",
            {
                name: {"answered": statistics.median(turn.answered_per_s for turn in each)}
                for name, each in turns.items()
            },
        ),
        Bars(
            "CPU time per webhook",
            "µs",
            {
                name: {
                    "server": statistics.median(turn.server_us for turn in each),
                    "PostgreSQL": statistics.median(turn.database_us for turn in each),
                }
                for name, each in turns.items()
            },
        ),
    ]


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the median of the ratios; 0 for those that have none."""
    return statistics.median(above / below if below else 0.0 for above, below in pairs)
