"""The sliding window that tells a hiccup from a failure. Pure: the time is passed in."""

from collections import deque

from supervisor.child_spec import Intensity


class RestartWindow:
    """Counts the restarts of the last `intensity.period` seconds."""

    __slots__ = ("_intensity", "_times")

    def __init__(self, intensity: Intensity) -> None:
        self._intensity = intensity
        # One more than allowed is all that is ever needed to know that it is too many.
        self._times: deque[float] = deque(maxlen=intensity.restarts + 1)

    def add(self, now: float) -> bool:
        """Record a restart at `now` (seconds, never going back); true if that is more than allowed.

        A restart exactly `period` seconds ago still counts.
        """
        times = self._times
        times.append(now)
        while now - times[0] > self._intensity.period:
            times.popleft()
        return len(times) > self._intensity.restarts
