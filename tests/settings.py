"""The platform's settings in a folder of their own, whatever this machine's .env says."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from sandboxplatform.config import CONFIG_VARIABLE
from sandboxplatform.setting_table import BY_NAME

_folder = Path(tempfile.mkdtemp(prefix="sbx-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
for _name in BY_NAME:
    os.environ.pop(_name, None)
_file = _folder / "test.env"
_lines = {
    "DATA_DIR": str(_folder / "data"),
    "DEFAULT_MOUNT_DIR": str(_folder / "workspaces"),
    "CONTAINER_DEPLOYMENT": "fake",
    "BEARER_TOKEN": "test-token",
    # Pools are filled where a test is about them.
    "POOL_SIZE": "0",
    "DATABASE_URL": os.environ.get("TEST_DATABASE_URL", ""),
}
_file.write_text("".join(f"{name}={value}\n" for name, value in _lines.items()))
os.environ[CONFIG_VARIABLE] = str(_file)

from sandboxplatform.settings import *  # noqa: E402, F403

del os.environ[CONFIG_VARIABLE]
# A pool would hold on to the test database that is to be dropped.
DATABASES["default"].get("OPTIONS", {}).pop("pool", None)  # noqa: F405
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
