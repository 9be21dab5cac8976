"""Run the doctor, and look at what it left."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing

from sandboxplatform.setting_table import BASE_DIR

NOWHERE = {"DOCKER_HOST": "unix:///nonexistent.sock"}


def manage(place, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, str(BASE_DIR / "manage.py"), *arguments],
        cwd=place.folder,
        env={**place.environment(), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(place, *options, **environment):
    """Run the doctor to its end; return exit code and output."""
    process = manage(place, "doctor", *options, **environment)
    said, complained = process.communicate(timeout=150)
    assert "Traceback" not in complained, complained
    return process.returncode, said, complained


def look(place, *names, **environment):
    """Return the exit code and the checks by name."""
    only = [f"--only={name}" for name in names]
    code, said, complained = run(place, "--json", *only, **environment)
    assert said, complained
    found = json.loads(said)
    assert found["ok"] == (code == 0)
    return code, {check["name"]: check for check in found["checks"]}


def rows(place, question):
    with closing(sqlite3.connect(place.folder / "data" / "db.sqlite3")) as database:
        return [answer for (answer,) in database.execute(question)]


def states(place):
    return rows(place, "SELECT state FROM sandboxes_sandbox")


def workspaces(place):
    return list((place.folder / "workspaces").glob("*"))


def docker(*arguments):
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout
