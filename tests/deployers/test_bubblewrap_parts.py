"""What the local deployer decides without starting anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployers.bubblewrap import BubblewrapDeployer, cgroups, host, network
from deployers.bubblewrap.plan import make_plan
from deployers.errors import Rejected, Unavailable, UnsupportedSpec
from deployers.specs import Limits, Mount, Network, SandboxSpec, SecurityLevel


def make_spec(**fields):
    return SandboxSpec(name="a", image="", **fields)


def test_limits_come_from_the_spec_then_the_type_then_the_defaults():
    plan = make_plan(make_spec())
    assert (plan.memory_mb, plan.processes, plan.cpus) == (1024, 256, None)
    config = {"mem_limit": "2g", "nano_cpus": 500_000_000, "pids_limit": 40}
    plan = make_plan(make_spec(runtime_config=config))
    assert (plan.memory_mb, plan.processes, plan.cpus) == (2048, 40, 0.5)
    limits = Limits(cpus=2, memory_mb=64, processes=9, file_size_mb=3)
    plan = make_plan(make_spec(runtime_config=config, limits=limits))
    assert (plan.memory_mb, plan.processes, plan.cpus, plan.file_size_mb) == (64, 9, 2, 3)


@pytest.mark.parametrize(
    "config",
    [
        {"privileged": True},
        {"tmp_mb": "many"},
        {"tmp_mb": 0},
        {"shm_size": "64q"},
        {"mem_limit": "12"},
        {"pids_limit": True},
        {"private_networks": "yes"},
    ],
)
def test_a_wrong_setting_is_refused_by_name(config):
    with pytest.raises(UnsupportedSpec, match=next(iter(config))):
        make_plan(make_spec(runtime_config=config))


@pytest.mark.parametrize("limits", [{"cpus": 0}, {"memory_mb": -1}, {"file_size_mb": 0}])
def test_a_limit_must_be_above_zero(limits):
    with pytest.raises(UnsupportedSpec, match=next(iter(limits))):
        make_plan(make_spec(limits=Limits(**limits)))


def test_security_level_high_allows_no_outbound_network():
    with pytest.raises(UnsupportedSpec, match="high"):
        make_plan(make_spec(security_level=SecurityLevel.HIGH, network=Network.OUTBOUND))


@pytest.mark.parametrize("env", [{"A B": ""}, {"A": "b\0--bind\0/\0/mnt"}, {"": ""}, {"1A": ""}])
def test_an_environment_that_could_become_something_else_is_refused(env):
    with pytest.raises(UnsupportedSpec):
        make_plan(make_spec(env=env))


@pytest.mark.parametrize(
    "target",
    ["data", "/", "/usr/lib/x", "/etc", "/opt", "/mnt/../etc", "/workspace", "/tmp", "/x\0"],
)
def test_a_mount_may_not_hide_the_sandbox_itself(target):
    mount = Mount(source=Path("/srv"), target=target)
    with pytest.raises(UnsupportedSpec, match="target"):
        make_plan(make_spec(mounts=(mount,)))


def test_a_mount_below_the_workspace_is_fine():
    make_plan(make_spec(mounts=(Mount(source=Path("/srv"), target="/workspace/data"),)))


def test_a_state_directory_too_long_for_sockets_is_refused(tmp_path):
    with pytest.raises(Rejected, match="state_dir"):
        BubblewrapDeployer(instance="a", state_dir=tmp_path / ("x" * 90), guest_dir=tmp_path)


def test_check_says_how_to_install_bubblewrap(tmp_path, monkeypatch):
    deployer = BubblewrapDeployer(instance="a", state_dir=tmp_path, guest_dir=tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="apt-get install bubblewrap"):
        deployer.check()


@pytest.mark.parametrize(
    ("setting", "value", "advice"),
    [
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
    ],
)
def test_a_forbidding_kernel_is_named_with_the_remedy(tmp_path, setting, value, advice):
    path = tmp_path / "proc/sys" / setting
    path.parent.mkdir(parents=True)
    path.write_text(f"{value}\n")
    said = host.explain("bwrap: No permissions to create new namespace", tmp_path)
    assert f"sysctl -w {advice}" in said
    assert "No permissions" in said


def test_a_forbidding_container_is_thought_of(tmp_path):
    assert "seccomp" in host.explain("bwrap: Operation not permitted", tmp_path)


def test_outbound_network_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "slirp4netns" in network.missing()
    deployer = BubblewrapDeployer(instance="a", state_dir=tmp_path, guest_dir=tmp_path)
    with pytest.raises(UnsupportedSpec, match="apt-get install slirp4netns"):
        deployer.validate(make_spec(network=Network.OUTBOUND))


def test_the_hosts_addresses_are_read_without_loopback():
    trie = """Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 172.17.0.1
        /32 host LOCAL
     |-- 192.0.2.2
        /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
"""
    assert network.host_addresses(trie) == ["172.17.0.1", "192.0.2.2"]


def test_version_1_and_2_of_cgroups_are_told_the_same_ceilings(tmp_path):
    group = tmp_path / "group"
    group.mkdir()
    for name in ("memory.memsw.limit_in_bytes", "memory.swap.max"):
        (group / name).touch()
    parents = dict.fromkeys(("memory", "pids", "cpu"), tmp_path)
    for version in (1, 2):
        cgroups.Cgroups(version, parents).make("group", memory_mb=64, processes=10, cpus=0.5)
    written = {path.name: path.read_text() for path in group.iterdir()}
    assert written == {
        "memory.limit_in_bytes": "67108864",
        "memory.memsw.limit_in_bytes": "67108864",
        "memory.max": "67108864",
        "memory.swap.max": "0",
        "pids.max": "12",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "50000",
        "cpu.max": "50000 100000",
    }


def test_cgroups_are_made_below_our_own_group_or_above_it_where_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(cgroups.Cgroups, "works", lambda self: True)
    top = tmp_path / "unified"
    own = top / "user.slice" / "server.service"
    own.mkdir(parents=True)
    (own / "cgroup.subtree_control").write_text("")
    (own / "cgroup.subtree_control").chmod(0o400)
    (own.parent / "cgroup.subtree_control").write_text("memory pids")
    (tmp_path / "mountinfo").write_text(
        f"30 24 0:26 / {top} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    )
    (tmp_path / "cgroup").write_text("0::/user.slice/server.service\n")
    monkeypatch.setattr(cgroups, "_enable", lambda path: read_controllers(path))
    assert cgroups.find(tmp_path) == cgroups.Cgroups(2, {"memory": own.parent, "pids": own.parent})


def read_controllers(path):
    return set((path / "cgroup.subtree_control").read_text().split())


def test_memory_kills_are_counted_in_both_versions(tmp_path):
    for name, text in (
        ("memory.events", "oom 3\noom_kill 2\noom_group_kill 0\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    ):
        (tmp_path / name).write_text(text)
        assert cgroups.out_of_memory_kills([tmp_path]) == 2
        (tmp_path / name).unlink()
    assert cgroups.out_of_memory_kills([tmp_path]) == 0
