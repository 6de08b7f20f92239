"""Kill under load with many conversations stored: how long until the gateway is ready, and until a webhook is acknowledged again.

Senders repeat each webhook until it is answered 200, as Meta does, so the time to the first acknowledgement is seen from outside, and every
webhook that was under way when the process died is among those that are checked: all of them stored, none twice. SIGKILL hits the gateway
alone, whose PostgreSQL lives on as after any crash; then, apart, the gateway and its PostgreSQL together, as when a machine dies (but what
the kernel had not yet written is not lost).
"""

import os
import signal
import statistics
from collections.abc import Iterator

import trio

from bench.bodies import Work, item_of, requests
from bench.gateway_process import GatewayProcess
from bench.measure import ITEMS, Kept
from bench.preload import preload
from bench.scenario import Bars, Context, Metric
from bench.scenarios.ingest import KEPT, kept
from bench.server import Server, serving
from bench.simulators.http_client import BrokenConnection, Connection, connector, target_of

ABOUT = "kill -9 under load with a million conversations stored: time to ready, time to the first acknowledged webhook"

CONVERSATIONS = 1_000_000
QUICK_CONVERSATIONS = 2_000
KILLS = 5
QUICK_KILLS = 1
SENDERS = 32
AGAIN_SECONDS = 0.05
"""Between two attempts of a sender. Together they try every other millisecond, at little cost to the gateway that is starting."""
COMPOSED = 500
"""Webhooks composed at once, in some milliseconds."""

METRICS: dict[str, Metric] = {
    "conversations": Metric("conversations", "stored before the first kill"),
    "ready_s": Metric("s", "from starting the process again to ready, gateway killed; median"),
    "ready_s_max": Metric("s", "the longest of them"),
    "first_ack_s": Metric(
        "s", "from starting the process again to the first webhook answered 200, gateway killed; median"
    ),
    "ready_s_all_killed": Metric("s", "to ready, gateway and PostgreSQL killed"),
    "first_ack_s_all_killed": Metric("s", "to the first webhook answered 200, gateway and PostgreSQL killed"),
    "kills": Metric("kills", "in this run"),
    **KEPT,
}


class Senders:
    """People who write without pause; each message is repeated until it is acknowledged."""

    def __init__(self, server: Server, work: Work) -> None:
        self.acknowledged: list[float] = []
        """When each was, by trio's clock."""
        self.sent = 0
        self._target = target_of(server.webhooks)
        self._composed = self._compose(work)
        self._stopping = False
        self._progress = trio.Event()

    async def run(self) -> None:
        """Send until told to stop, and then until all that was sent is acknowledged."""
        async with trio.open_nursery() as nursery:
            for _ in range(SENDERS):
                nursery.start_soon(self._send)

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopping = True

    async def wait_acknowledged(self) -> None:
        """Wait for the next acknowledgement."""
        await self._progress.wait()

    async def _send(self) -> None:
        connect = connector(self._target)
        connection: Connection | None = None
        while not self._stopping:
            request = next(self._composed)
            self.sent += 1
            acknowledged = False
            while not acknowledged:
                try:
                    if connection is None:
                        connection = Connection(await connect())
                    acknowledged = (await connection.request(request)).status == 200
                except (BrokenConnection, OSError):
                    acknowledged = False
                if connection is not None and not connection.reusable:
                    await connection.aclose()
                    connection = None
                if not acknowledged:
                    await trio.sleep(AGAIN_SECONDS)
            self.acknowledged.append(trio.current_time())
            self._progress.set()
            self._progress = trio.Event()
        if connection is not None:
            await connection.aclose()

    def _compose(self, work: Work) -> Iterator[bytes]:
        first = 0
        host = f"{self._target.host}:{self._target.port}"
        while True:
            yield from requests(work, COMPOSED, host, self._target.path, first=first)
            first += COMPOSED


async def run(context: Context) -> None:
    """Fill, load, kill and start again, several times; then check everything that was ever acknowledged."""
    quick = context.settings.quick
    conversations = QUICK_CONVERSATIONS if quick else CONVERSATIONS
    context.stage("starting")
    async with serving(context) as server:
        if server.process is None:
            raise ValueError("recover kills a gateway of its own")
        context.stage(f"writing to {conversations:,} conversations")
        await preload(context, server, conversations)
        head = await server.head(server.keys[0])
        work = Work(server.tenants, conversations=conversations, seed=context.settings.seed)
        senders = Senders(server, work)
        kills = QUICK_KILLS if quick else KILLS
        times: list[tuple[float, float]] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(senders.run)
            for number in range(1, kills + 1):
                context.stage(f"kill {number} of {kills}: the gateway")
                times.append(await _kill(server.process, senders, context.settings.seconds / 2))
            context.stage("killing the gateway and PostgreSQL")
            all_killed = await _kill(server.process, senders, context.settings.seconds / 2, database=True)
            await senders.wait_acknowledged()
            senders.stop()
        context.stage("checking that all of it is stored")
        await _check(context, server, head, senders.sent)
    ready, acknowledged = ([each[at] for each in times] for at in (0, 1))
    context.outcome.metrics |= {
        "conversations": conversations,
        "ready_s": statistics.median(ready),
        "ready_s_max": max(ready),
        "first_ack_s": statistics.median(acknowledged),
        "ready_s_all_killed": all_killed[0],
        "first_ack_s_all_killed": all_killed[1],
        "kills": kills + 1,
    }
    bars = {f"gateway, kill {number}": each for number, each in enumerate(times, 1)} | {"with PostgreSQL": all_killed}
    context.outcome.plots += [
        Bars("From start to ready", "s", {name: {"ready": each[0]} for name, each in bars.items()}),
        Bars(
            "From start to the first acknowledged webhook",
            "s",
            {name: {"acknowledged": each[1]} for name, each in bars.items()},
        ),
    ]


async def _kill(
    process: GatewayProcess, senders: Senders, seconds: float, *, database: bool = False
) -> tuple[float, float]:
    """Kill after some seconds of load and start again; return the seconds to ready, and to the first webhook acknowledged."""
    await senders.wait_acknowledged()
    await trio.sleep(seconds)
    await process.kill()
    if database:
        await _kill_database(process)
    before = len(senders.acknowledged)
    began = trio.current_time()
    ready = await process.start()
    while len(senders.acknowledged) == before:
        await senders.wait_acknowledged()
    return ready, senders.acknowledged[before] - began


async def _kill_database(process: GatewayProcess) -> None:
    """SIGKILL to PostgreSQL's first process; the others notice and end."""
    pid_file = process.data_dir / "postgres" / "postmaster.pid"
    os.kill(int((await trio.Path(pid_file).read_text()).split("\n", 1)[0]), signal.SIGKILL)


async def _check(context: Context, server: Server, head: int, sent: int) -> None:
    """Find every message that was sent (all were acknowledged in the end) in the feed, once."""
    found = [
        item
        for event in await server.feed(server.keys[0], head)
        if event.kind in ITEMS and event.message_id is not None
        if (item := item_of(event.message_id, context.settings.seed)) is not None
    ]
    counts = Kept(sent=sent, acknowledged=sent, stored=len(set(found)))
    counts.lost, counts.repeated = sent - counts.stored, len(found) - counts.stored
    kept(context, counts)
    if counts.lost:
        context.fail(f"{counts.lost:,} acknowledged messages are not stored.")
    if counts.repeated:
        context.fail(f"{counts.repeated:,} messages are stored more than once.")
