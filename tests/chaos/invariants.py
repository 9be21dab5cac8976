"""
What must hold when the load rests and the server has settled.

Each function yields a sentence for each thing that is not as it should be: a leak, or something
lost. What a server is still doing holds soon, so they are asked again and again for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
from django.db import DatabaseError

from sandboxes.models import ImageBuild, Installation, PortLease, Sandbox
from sandboxes.models.image_build import BuildState
from sandboxes.states import UNFINISHED, State
from tests.chaos import rows
from tests.chaos.world import IMAGE, ORIGINAL, POOL_SIZE, PORTS, World, command_of

SETTLE_SECONDS = 90.0
INSTANCE_LABEL = "io.sandboxplatform.instance"
THERE = (State.WARM, State.RUNNING, State.HALTED)
ENGINES_PROXY = "docker-proxy"
"""
What publishes a port. An engine that was killed while it started a container begins one anew for
it, and forgets it (20.10, with live-restore): nobody can release that port but the next engine.
A lease of such a port is given up as a stranger's.
"""

LISTENING = "0A"
"""TCP_LISTEN in /proc/net/tcp (proc_net(5))."""

Check = Callable[[World, docker.DockerClient], Iterator[str]]


@dataclass(frozen=True)
class Settled:
    """How long it took until all held, what held last, and what does not hold."""

    seconds: float
    last: list[str]
    found: list[str]


def settle(world: World, *, checks: tuple[Check, ...]) -> Settled:
    """Ask until all holds or the time is up."""
    since, last = time.monotonic(), []
    while True:
        found = _ask(world, checks)
        took = time.monotonic() - since
        if not found or took > SETTLE_SECONDS:
            return Settled(took, last, found)
        last = found
        time.sleep(0.25)


def _ask(world: World, checks: tuple[Check, ...]) -> list[str]:
    client = world.engine.client()
    try:
        with rows.connected():
            return [sentence for check in checks for sentence in check(world, client)]
    except (DatabaseError, docker.errors.DockerException, OSError) as error:
        return [f"it could not be looked at: {error}"]
    finally:
        client.close()


def _containers(client: docker.DockerClient) -> dict[str, dict[str, object]]:
    found = client.api.containers(all=True, filters={"label": INSTANCE_LABEL})
    return {one["Names"][0].removeprefix("/"): one for one in found}


def every_container_has_a_row_and_every_row_a_container(
    world: World, client: docker.DockerClient
) -> Iterator[str]:
    there = _containers(client)
    expected = dict(Sandbox.objects.filter(state__in=THERE).values_list("name", "state"))
    for name in there.keys() - expected.keys():
        row = Sandbox.objects.filter(name=name).first()
        says = f"its row is {row.state}" if row else "it has no row"
        yield f"the container {name} ({there[name]['State']}) is there, and {says}"
    for name in expected.keys() - there.keys():
        yield f"the row {name} is {expected[name]}, and it has no container"


def every_container_has_an_address_of_its_own(
    world: World, client: docker.DockerClient
) -> Iterator[str]:
    owners: dict[str, str] = {}
    # An engine that was killed may still show the last address of one that is stopped.
    running = [one for one in _containers(client).items() if one[1]["State"] == "running"]
    for name, found in running:
        for network in found["NetworkSettings"]["Networks"].values():
            address = network["IPAddress"]
            if address and owners.setdefault(address, name) != name:
                yield f"{name} and {owners[address]} both have the address {address}"


def no_step_is_left_unfinished(world: World, client: docker.DockerClient) -> Iterator[str]:
    for sandbox in Sandbox.objects.filter(state__in=UNFINISHED):
        yield (
            f"{sandbox.name} is {sandbox.state} since {sandbox.updated_at:%H:%M:%S}, and its "
            f"worker {sandbox.worker or 'nobody'} has it until {sandbox.worker_until:%H:%M:%S}"
        )


def the_pool_is_full(world: World, client: docker.DockerClient) -> Iterator[str]:
    warm = Sandbox.objects.filter(state=State.WARM)
    current = client.images.get(IMAGE).id
    if warm.count() != POOL_SIZE:
        yield f"{warm.count()} sandboxes are warm, and {POOL_SIZE} are wished for"
    if old := warm.exclude(image_id=current).count():
        yield f"{old} warm sandboxes are of an image that was replaced"


def every_port_is_leased_by_the_sandbox_that_has_it(
    world: World, client: docker.DockerClient
) -> Iterator[str]:
    leases = {
        lease.sandbox.name: lease
        for lease in PortLease.objects.select_related("sandbox").order_by("pk")
    }
    for name, lease in leases.items():
        if lease.sandbox.state not in THERE:
            yield f"port {lease.port} is leased to {name}, which is {lease.sandbox.state}"
    published = set()
    for name, found in _containers(client).items():
        for port in (one["PublicPort"] for one in found["Ports"] if "PublicPort" in one):
            published.add(port)
            lease = leases.get(name)
            if lease is None or lease.port != port:
                yield f"{name} is published at {port}, and its lease says {lease}"
    for port, owner in _listening().items():
        if port not in published and ENGINES_PROXY not in owner:
            yield f"{owner!r} listens on port {port}, which is published for no sandbox"


def _listening() -> dict[int, str]:
    """Return who listens on which port of PORT_RANGE."""
    by_inode = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, _, _, _, _, _, inode, *_ = line.split()
        port = int(local.partition(":")[2], 16)
        if state == LISTENING and port in PORTS:
            by_inode[f"socket:[{inode}]"] = port
    if not by_inode:
        return {}
    owners = {}
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue
        if target in by_inode:
            owners[by_inode[target]] = command_of(int(descriptor.parts[2]))
    return {port: owners.get(port, "nobody") for port in by_inode.values()}


def every_workspace_belongs_to_a_sandbox(
    world: World, client: docker.DockerClient
) -> Iterator[str]:
    kept = Sandbox.objects.restorable().values("pk")
    needed = Sandbox.objects.exclude(state=State.STOPPED) | Sandbox.objects.filter(pk__in=kept)
    folders = {Path(folder).name for folder in needed.values_list("workspace", flat=True)}
    there = {entry.name for entry in world.workspaces.iterdir()}
    for name in there - folders:
        yield f"the workspace {name} is there, and no sandbox needs it"
    for name in folders - there:
        yield f"the workspace {name} is not there, and a sandbox needs it"


def nothing_runs_that_is_not_of_this_server(
    world: World, client: docker.DockerClient
) -> Iterator[str]:
    for pid in world.strangers():
        yield f"process {pid} of a server that was killed still runs"


def only_our_network_is_there(world: World, client: docker.DockerClient) -> Iterator[str]:
    ours = f"sandboxplatform-{Installation.current_id()}"
    for network in client.networks.list(filters={"label": INSTANCE_LABEL}):
        if network.name != ours:
            yield f"the network {network.name} is there"


def the_image_is_one_that_was_checked(world: World, client: docker.DockerClient) -> Iterator[str]:
    if open_builds := ImageBuild.objects.open().count():
        yield f"{open_builds} builds are open, and no builder runs"
    # A builder that is killed behind the tagging leaves a row that only knows what it built.
    built = set(ImageBuild.objects.values_list("digest", flat=True))
    if client.images.get(IMAGE).id not in {*built, client.images.get(ORIGINAL).id}:
        yield f"{IMAGE} is an image that no build has made"


def no_image_of_a_killed_build_is_left(world: World, client: docker.DockerClient) -> Iterator[str]:
    """What holds after a build that nobody disturbed."""
    succeeded = ImageBuild.objects.filter(state=BuildState.SUCCEEDED)
    replaced = set(succeeded.values_list("digest", flat=True))
    for image in client.images.list(filters={"dangling": True}):
        if image.id not in replaced:
            yield f"the image {image.short_id} of a build that was killed is left"


SETTLED: tuple[Check, ...] = (
    every_container_has_a_row_and_every_row_a_container,
    every_container_has_an_address_of_its_own,
    no_step_is_left_unfinished,
    the_pool_is_full,
    every_port_is_leased_by_the_sandbox_that_has_it,
    every_workspace_belongs_to_a_sandbox,
    nothing_runs_that_is_not_of_this_server,
    only_our_network_is_there,
    the_image_is_one_that_was_checked,
)
"""What holds when the load rests."""


def nothing_is_left(world: World, client: docker.DockerClient) -> Iterator[str]:
    """What holds when a server that removes all has closed."""
    for name in _containers(client):
        yield f"the container {name} is left"
    for network in client.networks.list(filters={"label": INSTANCE_LABEL}):
        yield f"the network {network.name} is left"
    for sandbox in Sandbox.objects.exclude(state=State.STOPPED):
        yield f"the row {sandbox.name} is left, {sandbox.state}"
    for lease in PortLease.objects.all():
        yield f"the lease of port {lease} is left"
    for folder in world.workspaces.iterdir():
        yield f"the workspace {folder.name} is left"
    for pid in world.strangers():
        yield f"process {pid} of the server still runs"
