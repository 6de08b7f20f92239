"""One Chromium for all browser tests; each gets a page in a context of its own."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.chromium import Page, connect, running_chromium


@pytest.fixture(scope="package")
def chromium() -> Iterator[str]:
    with running_chromium() as devtools:
        yield devtools


@pytest.fixture
async def page(chromium: str) -> AsyncIterator[Page]:
    async with connect(chromium) as browser:
        yield await browser.open_page()
