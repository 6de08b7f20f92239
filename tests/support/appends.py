"""Appends as tests need them: short to write, complete enough to be true."""

from typing import Any

from store.contract import Append, ConversationWrite, MessageWrite, NewEvent

AT = 1_760_000_000_000
"""A Unix time in milliseconds (October 2025): every test's clock starts here."""
TENANT = "tnt_a"


def append(stream: str, expected: int = 0, events: int = 1, *, epoch: int, **more: Any) -> Append:
    """Return an append of `events` numbered events on partition 1."""
    return Append(
        tenant=more.pop("tenant", TENANT),
        stream=stream,
        partition=more.pop("partition", 1),
        epoch=epoch,
        expected=expected,
        events=tuple(
            NewEvent("noted", f"{stream} {expected + n}".encode(), AT + n, more.get("cause"))
            for n in range(1, 1 + events)
        ),
        **{key: value for key, value in more.items() if key not in ("cause",)},
    )


def key(number: int) -> bytes:
    """Return the dedupe key with this number."""
    return number.to_bytes(16, "big")


def message(message_id: str, seq: int | None = 1, **more: Any) -> MessageWrite:
    """Return a whole message recorded by the append's event number `seq`."""
    more = {"at": AT, "outbound": False, "origin": "customer", "kind": "text", "content": b"hello"} | more
    return MessageWrite(message_id, seq=seq, **more)


def conversation(name: str = "Ada", **more: Any) -> ConversationWrite:
    """Return a conversation's row."""
    fields: dict[str, Any] = {
        "endpoint": "e1",
        "contact": b"{}",
        "name": name,
        "preview": "hello",
        "last_at": AT,
        "last_outbound": False,
        "unanswered": 1,
        "messages": 1,
    }
    return ConversationWrite(**(fields | more))
