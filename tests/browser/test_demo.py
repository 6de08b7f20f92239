"""What a newcomer sees: `parley demo`, its link opened in a browser, live traffic, and the page that survives the process."""

import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from bench.gateway_process import environment
from tests.support.chromium import Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

CONNECTED = "document.querySelector('parley-app[data-connection=live]')"
OFFSET = "Number(document.querySelector('parley-app').dataset.offset)"
STATUSES = "[...document.querySelectorAll('.row-tick')].map((one) => one.dataset.status).join()"


@asynccontextmanager
async def demo(data_dir: Path, port: int = 0) -> AsyncIterator[tuple[trio.Process, str, int]]:
    """Run the demo; yield its process, the dashboard's link and the port."""
    command = [sys.executable, "-m", "gateway.cli", "demo", "--port", str(port), "--data-dir", str(data_dir)]
    log = data_dir.with_suffix(".log")
    async with trio.open_nursery() as nursery:
        with log.open("wb") as said:
            run = partial(trio.run_process, command, stdout=said, stderr=said, env=environment(), check=False)
            process = await nursery.start(run)
            with trio.fail_after(60):
                while (link := re.search(r"dashboard\s+(http://[^/]+:(\d+)/#key=\S+)", log.read_text())) is None:
                    assert process.poll() is None, log.read_text()
                    await trio.sleep(0.05)
            yield process, link[1], int(link[2])
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                with trio.fail_after(30):
                    assert await process.wait() == 0


async def test_the_demo_is_live_and_the_page_survives_its_process(page: Page, tmp_path: Path) -> None:
    async with demo(tmp_path / "demo") as (process, link, port):
        await page.navigate(link)
        await page.wait_for(CONNECTED)
        assert "key=" not in await page.evaluate("location.href")
        await page.wait_for("document.querySelectorAll('.row').length > 5")
        seen, statuses = await page.evaluate(OFFSET), await page.evaluate(STATUSES)
        await page.wait_for(f"{OFFSET} > {seen + 20}", 60)
        await page.wait_for(f"{STATUSES} !== '{statuses}'", 60)
        process.kill()
        await page.wait_for("!" + CONNECTED)
        seen = await page.evaluate(OFFSET)
    async with demo(tmp_path / "demo", port):
        await page.wait_for(f"{CONNECTED} && {OFFSET} > {seen}", 60)
