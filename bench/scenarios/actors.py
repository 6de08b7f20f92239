"""The actor runtime: what a message costs, what a resident conversation weighs, and how long it takes to wake one.

The first two are measured inside a process of their own (`parley bench-actors`), the last from outside: webhooks for conversations that have left
memory against webhooks for the same ones a moment later. The difference is the activation: reading snapshot and tail from PostgreSQL included.
"""

import msgspec
import psutil
import trio

from bench.measure import Load
from bench.scenario import Context, Latencies, Metric
from bench.scenarios import ingest
from bench.server import serving
from bench.worker import worker

ABOUT = "mailbox messages, ask round trips, memory per resident conversation, activation"

CONVERSATIONS = 1_000_000
QUICK_CONVERSATIONS = 5_000
PAST = 10
"""Messages that each conversation had before it was woken."""
WEIGHT = 6000
"""Bytes of free memory a conversation is to have, twice the target; there are fewer conversations otherwise."""

SLEEPERS, IDLE_SECONDS = 200, 5.0
QUICK_SLEEPERS, QUICK_IDLE_SECONDS = 40, 1.0
WRITTEN = 70
"""Messages to each sleeper, so that it has a snapshot (every 64 versions) and a tail."""
WAKE_RATE = 100
"""A second: below any queueing, so that the time is the activation's alone; and all are visited within half the idle time."""

METRICS: dict[str, Metric] = {
    "messages_per_s": Metric("messages/s", "told to 1,000 actors that do nothing, handled"),
    "asks_per_s": Metric("round trips/s", "of 100 tasks that ask an actor each, one question after the other"),
    "conversations": Metric("conversations", "resident and idle when memory was read"),
    "bytes_per_conversation": Metric("bytes", f"of memory for each of them, with {PAST + 1} messages remembered"),
    "bytes_per_new_conversation": Metric("bytes", "the same for conversations that have just begun, with one message"),
    "wakes_per_s": Metric("conversations/s", "woken from a snapshot in memory, one message recorded (no database)"),
    "activation_ms": Metric("ms", "median answer time of a webhook that wakes its conversation, minus that of one that need not"),
    "cold_p50_ms": Metric("ms", "median answer time of webhooks that wake their conversation from the database"),
    "cold_p99_ms": Metric("ms", "99 % of these times"),
    "warm_p50_ms": Metric("ms", "median answer time of webhooks for the same conversations, resident"),
    "warm_p99_ms": Metric("ms", "99 % of these times"),
    **ingest.KEPT,
}  # fmt: skip


class _Figures(msgspec.Struct):
    messages_per_s: float
    asks_per_s: float
    conversations: int
    bytes_per_conversation: float
    wakes_per_s: float


async def run(context: Context) -> None:
    """Measure the runtime alone, then activation in a whole gateway."""
    await _runtime(context)
    await _activation(context)


async def _runtime(context: Context) -> None:
    context.stage("actor runtime")
    wanted = QUICK_CONVERSATIONS if context.settings.quick else CONVERSATIONS
    room = int(psutil.virtual_memory().available / WEIGHT)
    if room < wanted:
        context.note(f"Free memory allows {room:,} of {wanted:,} resident conversations to be measured.")

    count, seconds = min(wanted, room), context.settings.seconds
    context.outcome.metrics |= msgspec.structs.asdict(await _figures(context, count, PAST, seconds))
    # Memory that was used once is not given back: the second measurement of it needs another process.
    context.stage("new conversations")
    new = await _figures(context, max(count // 5, 1000), 0, 0.1)
    context.outcome.metrics["bytes_per_new_conversation"] = new.bytes_per_conversation


async def _figures(context: Context, conversations: int, past: int, seconds: float) -> _Figures:
    async def on_line(line: str) -> None:
        context.progress(line)

    options = ("--conversations", str(conversations), "--past", str(past), "--seconds", str(seconds))
    async with worker("gateway.cli", "bench-actors", *options, on_line=on_line) as actors:
        return await actors.result(_Figures)


async def _activation(context: Context) -> None:
    context.stage("activation")
    quick = context.settings.quick
    sleepers, idle = (QUICK_SLEEPERS, QUICK_IDLE_SECONDS) if quick else (SLEEPERS, IDLE_SECONDS)
    async with serving(context, settings={"PARLEY_CONVERSATION_IDLE_SECONDS": str(idle)}) as server:
        load = Load(context, server, conversations=sleepers)
        await load.begin()
        context.stage("writing a past")
        await load.fill(WRITTEN, batch=10)
        context.stage("letting the conversations leave memory")
        await trio.sleep(2 * idle + 1.0)  # the sweep comes at most one idle time late
        context.stage("waking conversations")
        # So many seconds visit each conversation once: woken first, resident the second time.
        cold = await load.open(WAKE_RATE, seconds=sleepers / WAKE_RATE, warmup=0.0)
        warm = await load.open(WAKE_RATE, seconds=sleepers / WAKE_RATE, warmup=0.0)
    metrics = context.outcome.metrics
    metrics["activation_ms"] = (cold.result.p50_us - warm.result.p50_us) / 1e3
    for name, measured in (("cold", cold), ("warm", warm)):
        metrics[f"{name}_p50_ms"] = measured.result.p50_us / 1e3
        metrics[f"{name}_p99_ms"] = measured.result.p99_us / 1e3
    ingest.kept(context, load.kept)
    context.outcome.plots.append(
        Latencies("Answer times", {"waking": cold.result.histogram, "resident": warm.result.histogram})
    )
