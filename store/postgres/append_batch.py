"""The journal's write: many appends in one round trip, each committed or refused by name.

Owns how appends become the rows that the SQL function `append_batch` takes (migration 0002 declares them) and how its refusals become
outcomes.
"""

import logging
from collections.abc import Sequence
from typing import Any, TypeAlias

import asyncpg
import msgspec
from msgspec.structs import astuple, replace

from store.contract import (
    AliasTaken,
    AliasWrite,
    Append,
    Committed,
    Duplicate,
    Fenced,
    MessageWrite,
    Outcome,
    QuarantineEntry,
    RawWebhook,
    StoreUnavailable,
    Unstorable,
    VersionConflict,
)
from store.postgres.pool import Connection, is_unavailable
from store.read_model import combine, storable, storable_conversation, storable_message

log = logging.getLogger(__name__)

Row: TypeAlias = tuple[Any, ...]
Kept: TypeAlias = tuple[Sequence[RawWebhook], Sequence[QuarantineEntry]]
UNSTORABLE = (asyncpg.PostgresError, asyncpg.DataError, ValueError)
"""What asyncpg or the server raises for a value it cannot take, foreseen or not, unless it means that the database cannot serve now:
found in the batch by halving it."""

CALL = "select * from append_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"


async def append_batch(
    connection: Connection,
    owner: str,
    appends: Sequence[Append],
    webhooks: Sequence[RawWebhook],
    quarantine: Sequence[QuarantineEntry],
    at: int,
) -> list[Outcome]:
    """Commit what can be committed; answer each append in its place. `owner`: the incarnation that acquired the partitions."""
    outcomes: list[Outcome | None] = [None] * len(appends)
    pending = list(range(len(appends)))
    kept = (webhooks, quarantine)
    limit = len(appends)
    # Every round settles an append or halves the limit: no loop without end, however others interfere.
    while pending or any(kept):
        # What competes inside the batch (for a dedupe key, an alias) is decided in turn: whoever comes second meets what the first recorded.
        count = _independent([appends[i] for i in pending[:limit]])
        now = pending[:count]
        batch = [appends[i] for i in now]
        try:
            bases, refused = await _commit(connection, owner, batch, kept, at)
        except UNSTORABLE as error:
            if is_unavailable(error):
                raise
            if any(kept):  # perhaps theirs is the fault: settled by themselves, so that no append is blamed for it
                await _keep(connection, owner, kept, at)
                kept = ((), ())
                continue
            limit = count // 2  # close in on the append that cannot be stored; the others go first
            if not limit:
                outcomes[pending.pop(0)] = Unstorable(_reason(error))
                limit = len(appends)
            continue
        if refused:
            for place, outcome in refused.items():
                outcomes[now[place]] = outcome
            pending = [i for i in pending if outcomes[i] is None]
            continue
        for i, first in zip(now, _first_offsets(batch, bases), strict=True):
            outcomes[i] = Committed(first, at)
        pending = pending[count:]
        kept = ((), ())
        limit *= 2
    return [outcome for outcome in outcomes if outcome is not None]


async def _commit(
    connection: Connection, owner: str, batch: Sequence[Append], kept: Kept, at: int
) -> tuple[Sequence[int], dict[int, Outcome]]:
    """Call the function once. Return the tenants' heads before the batch, or which places were refused."""
    row = await connection.fetchrow(CALL, at, owner, *_arguments(batch, kept))
    assert row is not None, "a function with out parameters returns one row"  # noqa: S101
    if row["refused"] is not None:
        return (), _refusals(row["refused"], batch)
    return row["bases"] or (), {}


async def _keep(connection: Connection, owner: str, kept: Kept, at: int) -> None:
    """Commit webhooks and quarantine entries by themselves, close in on a row that is not taken, and keep at least its name."""
    try:
        await _commit(connection, owner, (), kept, at)
    except UNSTORABLE as error:
        if is_unavailable(error):
            raise
        webhooks, quarantine = kept
        if webhooks and quarantine:
            halves: list[Kept] = [(webhooks, ()), ((), quarantine)]
        elif len(webhooks or quarantine) > 1:
            w, q = len(webhooks) // 2, len(quarantine) // 2
            halves = [(webhooks[:w], quarantine[:q]), (webhooks[w:], quarantine[q:])]
        else:
            await _keep_name(connection, owner, webhooks[0] if webhooks else quarantine[0], error, at)
            return
        for half in halves:
            await _keep(connection, owner, half, at)


async def _keep_name(
    connection: Connection, owner: str, row: RawWebhook | QuarantineEntry, error: Exception, at: int
) -> None:
    """Keep of `row` what surely can be. If even that is refused, it is not the row's fault: StoreUnavailable."""
    name = storable(row.id)[:100]
    log.error("kept without its payload, the database does not take it: %s: %s", name, _reason(error))
    tenant = None if row.tenant is None else storable(row.tenant)[:100]
    entry = QuarantineEntry(name, at, "unstorable", f"{type(row).__name__}: {_reason(error)}", b"", tenant, name)
    try:
        await _commit(connection, owner, (), ((), (entry,)), at)
    except UNSTORABLE as again:
        raise StoreUnavailable(f"the database takes nothing: {type(again).__name__}: {_reason(again)}") from again


def _independent(appends: Sequence[Append]) -> int:
    """Return how many of the first appends cannot get in each other's way: no stream, dedupe key or alias twice."""
    claimed: set[object] = set()
    for count, append in enumerate(appends):
        claims: list[object] = [append.stream, *append.dedupe]
        if append.aliases:
            claims += [(append.tenant, alias.endpoint, storable(alias.external_id)) for alias in append.aliases]
        if append.conversation is not None and append.conversation.absorbs is not None:
            claims.append(append.conversation.absorbs)
        if not claimed.isdisjoint(claims):
            return count
        claimed.update(claims)
    return len(appends)


def _arguments(batch: Sequence[Append], kept: tuple[Sequence[RawWebhook], Sequence[QuarantineEntry]]) -> list[Any]:
    counts: dict[str, int] = {}
    for append in batch:
        counts[append.tenant] = counts.get(append.tenant, 0) + len(append.events)
    tenants = sorted(counts)  # the order in which every writer locks them
    t_of = {tenant: place for place, tenant in enumerate(tenants, 1)}
    rank_of = dict.fromkeys(tenants, 0)

    # Rows of the types that migration 0002 declares, in the order of its function's arguments.
    a: list[Row] = []
    e: list[Row] = []
    d: list[Row] = []
    aliases: list[Row] = []
    m: list[Row] = []
    c: list[Row] = []
    snapshots: list[Row] = []
    for place, append in enumerate(batch, 1):
        tenant, stream, version = append.tenant, append.stream, append.expected
        t, before = t_of[tenant], rank_of[tenant]
        rank = before
        for event in append.events:
            rank += 1
            version += 1
            e.append((t, rank, tenant, stream, version, event.kind, event.body, event.at, append.endpoint, event.cause))
        rank_of[tenant] = rank
        a.append((tenant, stream, append.partition, append.epoch, append.expected, version))
        for key in append.dedupe if len(append.dedupe) < 2 else dict.fromkeys(append.dedupe):
            d.append((place, key))
        for write in append.messages if len(append.messages) < 2 else _one_a_message(append.messages):
            m.append((t, before, tenant, stream, *astuple(storable_message(write))))
        if append.aliases:
            aliases += [
                (place, x.endpoint, storable(x.external_id), x.remove, x.steal_from) for x in _one_an_id(append.aliases)
            ]
        if append.conversation is not None:
            c.append((tenant, stream, *astuple(storable_conversation(append.conversation))))
        if append.snapshot is not None:
            snapshots.append((stream, version, append.snapshot))
    webhooks, quarantine = kept
    w = [astuple(webhook) for webhook in webhooks]
    q = [astuple(replace(entry, detail=storable(entry.detail))) for entry in quarantine]
    return [[(tenant, counts[tenant]) for tenant in tenants], a, e, d, aliases, m, c, snapshots, w, q]


def _one_a_message(writes: Sequence[MessageWrite]) -> list[MessageWrite]:
    """Fold the writes of each message into one: SQL updates a row once a statement."""
    folded: dict[str, MessageWrite] = {}
    for write in writes:
        name = storable(write.message_id)
        folded[name] = combine(folded[name], write) if name in folded else write
    return list(folded.values())


def _one_an_id(aliases: Sequence[AliasWrite]) -> list[AliasWrite]:
    """Keep the last word on each external id, for the same reason."""
    return list({(alias.endpoint, storable(alias.external_id)): alias for alias in aliases}.values())


def _first_offsets(batch: Sequence[Append], bases: Sequence[int]) -> list[int]:
    """Return each append's first offset. `bases`: each tenant's head before the batch, tenants in order."""
    heads = dict(zip(sorted({append.tenant for append in batch}), bases, strict=True))
    firsts = []
    for append in batch:
        firsts.append(heads[append.tenant] + 1)
        heads[append.tenant] += len(append.events)
    return firsts


def _refusals(answer: str, batch: Sequence[Append]) -> dict[int, Outcome]:
    """Read which places of the batch (from 0) were refused, and why; the first reason given stands."""
    refused: dict[int, Outcome] = {}
    for place, kind, payload in msgspec.json.decode(answer, type=list[tuple[int, str, Any]]):
        outcome: Outcome
        match kind:
            case "fenced":
                outcome = Fenced(payload)
            case "version":
                outcome = VersionConflict(payload)
            case "duplicate":
                recorded = {bytes.fromhex(key) for key in payload}
                outcome = Duplicate(tuple(key for key in batch[place - 1].dedupe if key in recorded))
            case _:
                outcome = AliasTaken(*payload)
        refused.setdefault(place - 1, outcome)
    return refused


def _reason(error: Exception) -> str:
    """Say what was wrong, without the arguments that asyncpg puts into its message: they are customers' words."""
    said = str(error).partition("\n")[0]
    if said.startswith("invalid input for query argument"):
        said = str(error).rpartition("(")[2].rstrip(")")
    return said[:200]
