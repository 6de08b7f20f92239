"""Rules of the thread's read model that every implementation shares. Pure."""

import re

from msgspec.structs import replace

from store.contract import ConversationWrite, MessageWrite

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def combine(earlier: MessageWrite, later: MessageWrite) -> MessageWrite:
    """Return the one write that does what `earlier` and then `later` would do to a message.

    What is present replaces what was; `status` only grows, and takes its time and its problems along (a delivery proves a failure wrong);
    `edited` and `revoked` stay once true. An edit may come before the message it edits: the original wording then does not replace it.
    """
    grew = later.status > earlier.status
    problems = later.problems if grew else earlier.problems
    if later.status == earlier.status and problems is None:
        problems = later.problems
    if earlier.edited and not later.edited and earlier.content is not None:
        later = replace(later, kind=earlier.kind, content=earlier.content)
    return MessageWrite(
        message_id=later.message_id,
        status=later.status if grew else earlier.status,
        status_at=later.status_at if grew else earlier.status_at,
        seq=earlier.seq if later.seq is None else later.seq,
        at=earlier.at if later.at is None else later.at,
        outbound=earlier.outbound if later.outbound is None else later.outbound,
        origin=earlier.origin if later.origin is None else later.origin,
        kind=earlier.kind if later.kind is None else later.kind,
        content=earlier.content if later.content is None else later.content,
        context=earlier.context if later.context is None else later.context,
        author=earlier.author if later.author is None else later.author,
        problems=problems,
        edited=earlier.edited or later.edited,
        revoked=earlier.revoked or later.revoked,
    )


def storable(text: str) -> str:
    """Return `text` without what PostgreSQL's text cannot hold: NUL and lone surrogates become U+FFFD. Providers' JSON may carry both."""
    return _UNSTORABLE.sub("\ufffd", text)


def storable_message(write: MessageWrite) -> MessageWrite:
    """Return `write` with storable texts; itself when they are, which is nearly always."""
    message_id = storable(write.message_id)
    author = None if write.author is None else storable(write.author)
    if message_id is write.message_id and author is write.author:
        return write
    return replace(write, message_id=message_id, author=author)


def storable_conversation(write: ConversationWrite) -> ConversationWrite:
    """Return `write` with storable texts; itself when they are, which is nearly always."""
    name, preview = storable(write.name), storable(write.preview)
    if name is write.name and preview is write.preview:
        return write
    return replace(write, name=name, preview=preview)
