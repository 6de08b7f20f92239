"""Names for actors, so that those who need one another need not be handed to one another.

Knows names and refs; knows nothing of what is behind a ref.
"""

import trio

from supervisor.actor import ActorRef
from supervisor.errors import NameTaken


class Registry:
    """One actor a name, one owner a registry."""

    def __init__(self) -> None:
        self._refs: dict[str, ActorRef] = {}
        self._awaited: dict[str, trio.Event] = {}

    def register(self, name: str, ref: ActorRef) -> None:
        """Make `ref` known as `name`. Raises NameTaken, also if it is the same ref."""
        if name in self._refs:
            raise NameTaken(name)
        self._refs[name] = ref
        if (awaited := self._awaited.pop(name, None)) is not None:
            awaited.set()

    def unregister(self, name: str) -> None:
        """Free `name`. Raises KeyError if nobody has it."""
        del self._refs[name]

    def whereis(self, name: str) -> ActorRef | None:
        """Who is known as `name` at this moment."""
        return self._refs.get(name)

    async def wait_registered(self, name: str) -> ActorRef:
        """Wait until somebody is known as `name`. Cancelling it leaves no trace that matters."""
        await trio.lowlevel.checkpoint()
        while (ref := self._refs.get(name)) is None:
            await self._awaited.setdefault(name, trio.Event()).wait()
        return ref

    def names(self) -> tuple[str, ...]:
        """All names in use, in the order they were registered."""
        return tuple(self._refs)
