from __future__ import annotations

import pytest

from pools.keeper import Keeper
from tests.sandboxes.conftest import (  # noqa: F401  fixtures that both packages share
    alice,
    fake,
    in_thread,
    paused,
    platform,
)


@pytest.fixture
def keep(fake):  # noqa: F811  the fixture of that name
    """Return a call that runs one pass of a keeper and waits for what it started."""
    keeper = Keeper()

    def run():
        report = keeper.keep()
        keeper.wait()
        return report

    yield run
    keeper.close()
