"""README's performance section, written from the JSON files of runs: `python -m bench.readme README.md FILE.json …`.

Owns which figures are shown and in which words; the figures and the machine come from the files. Must not measure anything.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.report import describe, number
from bench.scenario import Machine

BEGIN, END = "<!-- performance: begin -->", "<!-- performance: end -->"

SHOWN: Sequence[tuple[str, str, str, str]] = (
    ("ingest", "saturation_per_s", "durable webhooks/s, every promise kept, one dashboard subscribed", ""),
    ("ingest", "messages_per_s_batched", "the same in batched webhooks, messages/s", ""),
    ("ingest", "cpu_us_per_webhook", "gateway CPU per webhook at saturation", " µs"),
    ("ingest", "p50_ms_at_3300", "answer time at 3,300/s, median", " ms"),
    ("ingest", "p99_ms_at_3300", "answer time at 3,300/s, 99 %", " ms"),
    ("ingest", "gateway_core_percent_at_3300", "of one core used by the gateway then", " %"),
    ("end-to-end", "p50_ms", "webhook sent → shown by 100 dashboards at 1,000/s, median", " ms"),
    ("end-to-end", "p99_ms", "the same, 99 %", " ms"),
    (
        "fan-out",
        "cpu_us_per_delivery_websocket_500_at_50",
        "CPU per delivered event, 500 WebSocket dashboards × 50/s",
        " µs",
    ),
    ("fan-out", "cpu_us_per_delivery_websocket_500_at_200", "the same at 200/s", " µs"),
    ("fan-out", "cpu_us_per_delivery_socketio_500_at_50", "the same, Socket.IO, at 50/s", " µs"),
    ("fan-out", "cpu_us_per_delivery_socketio_500_at_200", "the same, Socket.IO, at 200/s", " µs"),
    ("actors", "messages_per_s", "actor messages/s", ""),
    ("actors", "bytes_per_conversation", "memory of a resident idle conversation with its last ten messages", " bytes"),
    ("actors", "activation_ms", "waking a conversation from PostgreSQL", " ms"),
    ("recover", "ready_s", "killed under load: ready again after", " s"),
    ("noisy", "p99_ms_beside", "a tenant's 99 % answer time beside one 50 times as busy", " ms"),
    ("noisy", "p99_ms_alone", "and alone", " ms"),
    ("peers", "ratio_to_express_pg", "times Express + pg + Socket.IO, in the same run", " ×"),
    ("peers", "ratio_to_fastapi_asyncpg", "times FastAPI + asyncpg + python-socketio", " ×"),
    ("peers", "ratio_to_express_bullmq", "times Express + BullMQ + Redis", " ×"),
)


def section(documents: Sequence[Mapping[str, Any]]) -> str:
    """Return the section for the documents of `parley bench --json`, one a scenario; figures that no document has are left out."""
    by_scenario = {document["scenario"]: document for document in documents}
    machine = msgspec.convert(documents[0]["machine"], Machine)
    lines = [f"Measured on {describe(machine)}, generator and PostgreSQL on the same cores:", "", "| | |", "|---|---|"]
    for scenario, metric, words, unit in SHOWN:
        value = by_scenario.get(scenario, {}).get("metrics", {}).get(metric)
        if value is not None:
            lines.append(f"| {words} | {number(value)}{unit} |")
    commands = " · ".join(f"`parley bench {scenario}`" for scenario in by_scenario)
    lines += ["", f"{commands} — [how it is measured](docs/benchmarks.md)."]
    return "\n".join(lines)


def rewrite(readme: str, documents: Sequence[Mapping[str, Any]]) -> str:
    """Return the README with its section replaced. Raises ValueError where the marks are missing."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the marks {BEGIN} and {END} are missing")
    return f"{before}{BEGIN}\n{section(documents)}\n{END}{after}"


def main() -> None:
    """Rewrite a README in place."""
    readme, *files = map(Path, sys.argv[1:])
    documents = [msgspec.json.decode(file.read_bytes()) for file in files]
    readme.write_text(rewrite(readme.read_text(), documents))


if __name__ == "__main__":
    main()
