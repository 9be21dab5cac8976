"""
Measure a running server: python tests/bench.py --base-url http://127.0.0.1:8000 --token …

Prints medians and 95th percentiles in milliseconds, and sustained rates. Nothing asserts on
them: machines differ, and are noisy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

import aiohttp


class Client:
    """Plain HTTP calls to one server."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self.session, self.base_url = session, base_url

    async def rpc(self, name: str, **fields: object) -> object:
        async with self.session.post(f"{self.base_url}/{name}", json=fields) as answer:
            body = await answer.json(content_type=None)
            if answer.status != 200:
                raise RuntimeError(f"{name}: {answer.status} {body}")
            return body["data"]

    async def tool(self, identity: str, tool_name: str, suffix: str = "", **arguments: str):
        result = await self.rpc(
            f"call_tool{suffix}", identity=identity, tool_name=tool_name, arguments=arguments
        )
        if result["isError"]:
            raise RuntimeError(result)
        return result

    async def get(self, path: str) -> None:
        async with self.session.get(f"{self.base_url}{path}") as answer:
            await answer.read()


def report(label: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    middle, high = statistics.median(ordered), ordered[int(len(ordered) * 0.95)]
    print(f"{label:<46} median {middle * 1000:8.2f} ms   p95 {high * 1000:8.2f} ms", flush=True)


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    begun = time.perf_counter()
    await call()
    return time.perf_counter() - begun


async def repeat(label: str, count: int, call: Callable[[], Awaitable[object]]) -> None:
    await call()
    report(label, [await timed(call) for _ in range(count)])


async def sustained(
    label: str, clients: int, seconds: float, call: Callable[[], Awaitable[object]]
) -> None:
    until, done = time.perf_counter() + seconds, 0

    async def one() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await call()
            done += 1

    await asyncio.gather(*(one() for _ in range(clients)))
    print(f"{label:<46} {done / seconds:8.1f} per second", flush=True)


async def main(options: argparse.Namespace) -> None:
    headers = {"Authorization": f"Bearer {options.token}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        client = Client(session, options.base_url.rstrip("/"))
        creates, firsts, releases = [], [], []
        for _ in range(options.creates):
            begun = time.perf_counter()
            name = await client.rpc("create_from_pool")
            creates.append(time.perf_counter() - begun)
            firsts.append(
                creates[-1]
                + await timed(
                    lambda name=name: client.tool(name, "run_shell_command", command="true")
                )
            )
            releases.append(await timed(lambda name=name: client.rpc("release", identity=name)))
        report("create", creates)
        report("create and first shell result", firsts)
        report("release", releases)

        name = await client.rpc("create_from_pool")
        try:
            await calls(client, name, options)
        finally:
            await client.rpc("release", identity=name)
        await cycles(client, options)


async def calls(client: Client, name: str, options: argparse.Namespace) -> None:
    def shell(suffix: str = "") -> Callable[[], Awaitable[object]]:
        return lambda: client.tool(name, "run_shell_command", suffix, command="true")

    count = options.calls
    await repeat("health", count, lambda: client.get("/health"))
    await repeat("check_health", count, lambda: client.rpc("check_health", identity=name))
    await repeat("proxy: the guest's health", count, lambda: client.get(f"/proxy/{name}/healthz"))
    await repeat("shell true", count, shell())
    await repeat("shell true, _async", count, shell("_async"))
    await repeat("cell 1+1", count, lambda: client.tool(name, "run_ipython_cell", code="1+1"))
    for clients in (1, 8, 32):
        await sustained(f"shell true, {clients} clients", clients, options.seconds, shell())
    slow = [
        asyncio.ensure_future(client.tool(name, "run_shell_command", command="sleep 5"))
        for _ in range(16)
    ]
    await asyncio.sleep(0.5)
    report("shell true beside 16 calls that sleep", [await timed(shell()) for _ in range(50)])
    await asyncio.gather(*slow)


async def cycles(client: Client, options: argparse.Namespace) -> None:
    async def cycle() -> None:
        await client.rpc("release", identity=await client.rpc("create_from_pool"))

    for clients in (4, 8):
        await sustained(f"create and release, {clients} clients", clients, options.seconds, cycle)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--token", default="")
    parser.add_argument("--creates", type=int, default=10)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5.0)
    try:
        asyncio.run(main(parser.parse_args()))
    except (RuntimeError, aiohttp.ClientError) as error:
        sys.exit(f"{type(error).__name__}: {json.dumps(str(error))}")
