"""Claims from a warm pool, one at a time: plain ones, and ones that bring an environment."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Mapping

from sandboxplatform.loadtest import names
from sandboxplatform.loadtest.connection import CallFailed
from sandboxplatform.loadtest.pool import SETTLE_SECONDS, SETTLE_SECONDS_EACH, NotTold
from sandboxplatform.loadtest.run import FIRST_CALL_SECONDS, Run
from sandboxplatform.loadtest.server import Server

VARIABLES = tuple(f"LOADTEST_{letter}" for letter in "ABCDE")
WAITED = f"{SETTLE_SECONDS + SETTLE_SECONDS_EACH:g} s were waited before each claim"
PLAIN = (names.CLAIM, names.CLAIM_FIRST)
PERSONALISED = (names.PERSONAL, names.PERSONAL_FIRST)

Rows = tuple[str, str]


async def warm_claims(run: Run) -> None:
    """Each claim from a pool that is full and at rest, in turns of plain and personalised ones."""
    for row in PLAIN:
        run.report.row(row)
    for row, plain in zip(PERSONALISED, PLAIN, strict=True):
        run.report.row(row, plain=plain)
    claim = run.report.row(names.CLAIM)
    try:
        stand = await run.ours.pool.look()
    except NotTold as error:
        claim.note = f"{error}; {WAITED}, and some may have been cold"
    else:
        if not stand.target:
            run.leave_out("the pool's target is 0", *PLAIN, *PERSONALISED)
            return
        claim.note = f"from a full pool of {stand.target}"
    if len(run.servers) > 1:
        run.note(
            "The reference does not tell of its pool: where it is one of warm sandboxes, "
            f"{WAITED}. Its create makes a new sandbox also where warm ones are there."
        )
    cold: Counter[str] = Counter()
    for server in run.servers:
        await server.pool.rest()
    for _ in range(run.options.creates):
        for rows in (PLAIN, PERSONALISED):
            for server in run.servers:
                await run.time(
                    server.side, lambda server=server, rows=rows: _lend(run, server, rows, cold)
                )
    for name, count in cold.items():
        row = run.report.row(name)
        said = f"{count} were made for their caller, although the pool was full"
        row.note = f"{row.note}; {said}" if row.note else said


async def _lend(run: Run, server: Server, rows: Rows, cold: Counter[str]) -> None:
    """Claim, call and release once; count in cold what was not lent from the pool."""
    stand = await server.pool.rest(after=0)
    claimed, first = (run.report.row(row).of(server.side) for row in rows)
    # New values each time: those that an earlier caller left would be seen.
    environment = {name: secrets.token_hex(8) for name in VARIABLES if rows is PERSONALISED}
    lend = server.create(environment=environment) if environment else server.claim()
    name = await claimed.time(lend)
    if name is None:
        first.fail(CallFailed("no sandbox"))
        return
    spent = claimed.seconds[-1]
    if stand and server is run.ours and (await server.pool.look()).is_at_rest:
        # Nothing is missing there.
        cold[rows[0]] += 1
    begun = time.perf_counter()
    try:
        await _call(server, name, environment)
    except CallFailed as error:
        first.fail(error)
    else:
        first.seconds.append(spent + time.perf_counter() - begun)
    await run.report.row(names.RELEASE).of(server.side).time(server.release(name))
    await server.pool.rest()


async def _call(server: Server, name: str, environment: Mapping[str, str]) -> None:
    """Run true, or see that all variables are there; raise CallFailed."""
    command = f"printenv {' '.join(environment)}" if environment else "true"
    request = server.tool(name, "run_shell_command", command=command)
    if not environment:
        await server.call(request, limit=FIRST_CALL_SECONDS)
        return
    result = await server.data(request, limit=FIRST_CALL_SECONDS)
    shown = result["content"][0]["text"]
    if shown.split() != list(environment.values()):
        raise CallFailed("the variables did not arrive", repr(shown[:100]))
