"""`/metrics`: what every component counts, in Prometheus' format.

Owns the names and the translation. Components count in plain ints they own, and hand over a frozen statistics object (msgspec Struct or
dataclass) when asked; they are asked at scrape time only, so a hot path never pays for being watched. Must not know any component.

    metrics.register("feed", feed.statistics, counters=("published", "delivered", "encoded"))

Rules
-----
1. A number or truth value `field` of what `read()` returns becomes the gauge `parley_<prefix>_<field>`; named in `counters`, the counter
   `parley_<prefix>_<field>_total`. None has no sample. Text is no figure and is left out.
2. A mapping or tuple of numbers becomes one sample an entry, labelled by its key or index. The label is `labels[field]`, else "key".
3. A statistics object inside becomes `<field>_<field of it>`. One with exactly the fields `bounds`, `counts` and `total` becomes a histogram:
   `counts[i]` observations were at most `bounds[i]`, the last of `counts` were above them all, and `total` is the sum of what was observed.
4. With `each="actor"`, `read()` returns a mapping of names to statistics objects, and every sample has the label `actor`.
5. Nothing is labelled by tenant, conversation or contact: the page is not authenticated, and each label value is a time series for ever.

What is registered where this release wires itself:

| metric | kind | what it is |
|--------|------|------------|
| parley_api_requests_total{status} | counter | answers of the REST API and the pages |
| parley_api_in_flight | gauge | API requests being served |
| parley_api_overloaded_total | counter | API requests refused for want of room |
| parley_routes_tenants, _endpoints, _keys | gauge | size of the route table |
| parley_routes_loads_total, _failures_total, _misses_total | counter | loads of the route table, loads that failed, look-ups of unknown ids |
| parley_webhooks_…_total | counter | what became of webhooks, by verdict |
| parley_journal_batches_total, _appends_, _events_, _refused_, _unavailable_, _seconds_total | counter | commits, their content, their time |
| parley_journal_waiting, _largest_batch | gauge | the journal's mailbox; the largest commit so far |
| parley_feed_published_total, _delivered_total, _encoded_total | counter | events that passed, were handed to followers, were encoded |
| parley_feed_watched_tenants, _subscribers, _ring_bytes | gauge | who follows, and what is held for them |
| parley_pump_writes_total, _left_total | counter | writes to dashboards by the pump; those that a client did not take whole |
| parley_sessions_…, parley_socketio_…, parley_listener_… | both | realtime sessions, Socket.IO transports, connections and lanes |
| process_… | | CPU, memory, open files (prometheus-client's own) |
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, NamedTuple

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

_HISTOGRAM = frozenset(("bounds", "counts", "total"))


class _Source(NamedTuple):
    """One registration."""

    prefix: str
    read: Callable[[], Any]
    counters: frozenset[str]
    labels: Mapping[str, str]
    each: str | None


class Metrics(Collector):
    """The registrations of one node, and their rendering."""

    def __init__(self, *, process: bool = True) -> None:
        """`process`: report the process's CPU, memory and files as well."""
        self._sources: dict[str, _Source] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        if process:
            ProcessCollector(registry=self._registry)

    def register(
        self,
        prefix: str,
        read: Callable[[], Any],
        *,
        counters: Collection[str] = (),
        labels: Mapping[str, str] | None = None,
        each: str | None = None,
    ) -> None:
        """Report what `read()` returns, by the rules above; `read` is called at each scrape and must not block.

        `counters` and `labels` name fields, those of an inner object as `inner_field`. A name that no field has raises LookupError at the scrape.

        Raises:
            ValueError: the prefix is taken.
        """
        if prefix in self._sources:
            raise ValueError(f"metrics of {prefix!r} are registered already")
        self._sources[prefix] = _Source(prefix, read, frozenset(counters), labels or {}, each)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the page and its content type: Prometheus' text format, or OpenMetrics where `accept` asks for it."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterable[Metric]:
        """Ask every component; called by the registry."""
        for source in self._sources.values():
            yield from _families(source)

    def describe(self) -> Iterable[Metric]:
        """Promise nothing: what there is may depend on what runs."""
        return ()


def _families(source: _Source) -> Iterable[Metric]:
    found: dict[str, Metric] = {}
    seen: set[str] = set()
    read = source.read()
    objects: Mapping[Any, Any] = {"": read} if source.each is None else read
    for name, statistics in objects.items():
        outer = {} if source.each is None else {source.each: str(name)}
        for field, value, about in _walk(statistics, ""):
            seen.add(field)
            if value is not None:
                _add(found, source, field, value, about, outer)
    # An empty mapping of objects shows no fields, so it cannot prove a name wrong.
    unknown = (source.counters | source.labels.keys()) - seen if objects else ()
    if unknown:
        raise LookupError(f"the statistics of {source.prefix!r} have no {', '.join(sorted(unknown))}")
    return found.values()


def _walk(statistics: Any, path: str) -> Iterator[tuple[str, Any, str]]:
    """Yield (name, value, help) of every figure, inner objects flattened."""
    kind = type(statistics)
    about = (kind.__doc__ or kind.__name__).strip().partition("\n")[0]
    for field in _fields(statistics):
        value = getattr(statistics, field)
        inner = _fields(value)
        if inner and set(inner) != _HISTOGRAM:
            yield from _walk(value, f"{path}{field}_")
        elif not isinstance(value, str):
            yield f"{path}{field}", value, f"{field}: {about}"


def _fields(value: Any) -> tuple[str, ...]:
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if is_dataclass(value):
        return tuple(value.__dataclass_fields__)
    return ()


def _add(
    found: dict[str, Metric], source: _Source, field: str, value: Any, about: str, outer: Mapping[str, str]
) -> None:
    """Add the samples of one figure to its family, which `each` may have begun."""
    name = f"parley_{source.prefix}_{field}"
    if _fields(value):
        one = HistogramMetricFamily(name, about, labels=tuple(outer))
        one.add_metric(tuple(outer.values()), *_buckets(value))
        found.setdefault(name, Metric(name, about, "histogram")).samples.extend(one.samples)
        return
    label = source.labels.get(field, "key")
    if isinstance(value, Mapping):
        entries = [({**outer, label: str(key)}, number) for key, number in value.items()]
    elif isinstance(value, tuple | list):
        entries = [({**outer, label: str(place)}, number) for place, number in enumerate(value)]
    else:
        entries = [(dict(outer), value)]
    counts = field in source.counters
    family = found.setdefault(name, (CounterMetricFamily if counts else GaugeMetricFamily)(name, about))
    for labels, number in entries:
        family.add_sample(f"{name}_total" if counts else name, labels, float(number))


def _buckets(histogram: Any) -> tuple[list[tuple[str, float]], float]:
    """Return the cumulative buckets that Prometheus wants, and the sum."""
    cumulated = 0
    buckets = []
    for bound, count in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        cumulated += count
        buckets.append((bound, float(cumulated)))
    return buckets, float(histogram.total)
