"""The two-minute run: everything is killed again and again, and nothing leaks or is lost."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sandboxplatform.setting_table import BASE_DIR

SECONDS = 120
SEED = os.environ.get("CHAOS_SEED", "1")

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.base_image,
    pytest.mark.redis,
    pytest.mark.sdk,
    pytest.mark.slow,
    # Beside the two minutes: an engine and an image to load, and a busy machine.
    pytest.mark.timeout(1200),
]


def test_kills_at_any_moment_leave_no_leak_and_lose_no_promise():
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--seconds", str(SECONDS), "--seed", SEED],
        cwd=BASE_DIR,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout
