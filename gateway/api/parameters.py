"""Query strings and cursors: strict in what they accept, and clear about what was wrong.

Owns the parsing of a query string into a declared struct, and the opaque form of cursors. Must not know routes or the store.

A parameter that is unknown, repeated or not valid is refused by name rather than ignored: a typing error in a filter would otherwise
return everything, and look like an answer. A parameter without a value (`?q=`) counts as absent.
"""

import base64
import binascii
import re
from functools import cache
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from gateway.problems import Refusal

MAX_EXACT = 2**53 - 1
"""The largest whole number that JavaScript counts exactly; also safely within PostgreSQL's bigint."""

Id = Annotated[str, Meta(pattern=r"^[0-9A-Za-z_-]{1,64}$(?!\n)")]
"""One of our own ids. (`$` alone lets a last line feed through in Python, unlike in JSON Schema's dialect; both know the lookahead.)"""
Name = Annotated[str, Meta(max_length=200, pattern=r"^(?![\s\S]*[\x00-\x1f])")]
"""Text that goes to the database: without control characters (PostgreSQL's text cannot hold U+0000)."""
Position = Annotated[int, Meta(ge=0, le=MAX_EXACT)]
Limit = Annotated[int, Meta(ge=1, le=200, description="The most entries to return.")]
Cursor = Annotated[str, Meta(max_length=1000, description="`next_cursor` of the page before; opaque.")]

_WHOLE_NUMBER = re.compile(r"[0-9]{1,16}", re.ASCII)
_MAX_PARAMETERS = 32


class Query(msgspec.Struct, frozen=True):
    """Base of declared query strings: a field is a parameter, of type text, whole number or truth value; each has a default."""


Q = TypeVar("Q", bound=Query)
C = TypeVar("C", bound=msgspec.Struct)


def parse_query(query: bytes, shape: type[Q]) -> Q:
    """Return the query string as `shape`.

    Raises:
        Refusal: `bad_request`, naming the parameter.
    """
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError as error:
        raise Refusal("bad_request", "The query string cannot be read.") from error
    fields = _fields(shape)
    found: dict[str, Any] = {}
    for name, text in pairs:
        kind = fields.get(name)
        if kind is None:
            known = ", ".join(fields) or "none"
            raise Refusal("bad_request", f"There is no parameter {name[:40]!r} here; there is: {known}.")
        if name in found:
            raise Refusal("bad_request", f"The parameter {name!r} stands there twice.")
        if text:
            found[name] = _value(name, text, kind)
    return shape(**found)


def encode_cursor(position: msgspec.Struct) -> str:
    """Return `position` as opaque text for a URL. Its struct is tagged and array_like, so that no other list takes it."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(position)).decode("ascii").rstrip("=")


def decode_cursor(text: str | None, shape: type[C]) -> C | None:
    """Return the position a cursor stands for; None for none.

    Raises:
        Refusal: `bad_cursor`, for anything that `encode_cursor` did not make of a `shape`.
    """
    if text is None:
        return None
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        position = msgspec.msgpack.decode(packed, type=shape)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise Refusal("bad_cursor", "Use the `next_cursor` of this list as it was given.") from error
    return position


@cache
def _fields(shape: type[Query]) -> dict[str, Any]:
    """Return each parameter's declared type by name."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(shape)}


def _value(name: str, text: str, kind: Any) -> Any:
    """Read one value. msgspec's own lax mode would take `1e2`, `5.0` and `null`, which no client means."""
    value: Any = text
    base = _base(kind)
    if base is bool:
        value = {"true": True, "false": False}.get(text)
        if value is None:
            raise Refusal("bad_request", f"{name}: expected true or false.")
    elif base is int:
        if not _WHOLE_NUMBER.fullmatch(text):
            raise Refusal("bad_request", f"{name}: expected a whole number.")
        value = int(text)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Refusal("bad_request", f"{name}: {str(error).lower()}.") from error


@cache
def _base(kind: Any) -> type:
    """Return bool, int or str: what the parameter is, once constraints and None are taken away."""
    info = msgspec.inspect.type_info(kind)
    choices = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    for choice in choices:
        if isinstance(choice, msgspec.inspect.Metadata):
            choice = choice.type
        if isinstance(choice, msgspec.inspect.BoolType):
            return bool
        if isinstance(choice, msgspec.inspect.IntType):
            return int
    return str
