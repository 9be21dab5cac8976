"""All checks, in the order in which they run: causes before what they cause."""

from __future__ import annotations

from sandboxplatform.doctor import (
    clock,
    database,
    disk,
    engine,
    limits,
    permissions,
    ports,
    redis_server,
    sandbox,
    settings,
)
from sandboxplatform.doctor.examination import Check

CHECKS = (
    Check(name="settings", look=settings.look),
    Check(name="limits", look=limits.look),
    Check(name="database", look=database.look, seconds=45),
    Check(name="redis", look=redis_server.look),
    Check(name="engine", look=engine.look, needs=("database",), seconds=120),
    Check(name="images", look=engine.look_for_images, needs=("engine",), seconds=60),
    Check(name="permissions", look=permissions.look, seconds=60),
    Check(name="disk", look=disk.look, seconds=60),
    Check(name="ports", look=ports.look, seconds=60),
    Check(name="clock", look=clock.look, seconds=60),
    Check(
        name="sandbox",
        look=sandbox.look,
        needs=("database", "engine"),
        beside=("images",),
        seconds=None,
    ),
)
NAMES = tuple(check.name for check in CHECKS)
