"""Expected refusals: values, not exceptions."""

import msgspec


class Rejected(msgspec.Struct, frozen=True):
    """A command that cannot be carried out in this state. `code` is stable and documented; `detail` is for people."""

    code: str
    detail: str
