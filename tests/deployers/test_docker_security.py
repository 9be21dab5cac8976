"""What a security level means, looked at from inside the sandbox."""

from __future__ import annotations

import logging
import secrets

import pytest

from deployers.docker import DockerDeployer
from deployers.docker.body import container_body
from deployers.errors import Rejected, Unavailable, UnsupportedSpec
from deployers.specs import Limits, Network, SandboxSpec, SecurityLevel
from tests.deployers.docker_steps import DockerSteps
from tests.deployers.tiny_image import TINY, build_image

pytestmark = pytest.mark.docker

LOW, MEDIUM, HIGH = SecurityLevel

# Bit numbers of linux/capability.h.
ROOT_CAPABILITIES = sum(1 << bit for bit in (0, 1, 3, 5, 6, 7, 10))
NET_RAW = 1 << 13
SYS_PTRACE = 1 << 19
SYS_ADMIN = 1 << 21


class Inside(DockerSteps):
    @pytest.fixture
    def root_image(self, deployer, tmp_path):
        (tmp_path / "Dockerfile").write_text(f"FROM {TINY}\nUSER root\n")
        reference = f"sandboxplatform-test-root-{secrets.token_hex(4)}:latest"
        image_id = build_image(deployer, tmp_path, reference)
        yield reference
        for container in self.engine.containers.list(all=True, filters=self.ours(deployer)):
            container.remove(force=True)
        deployer.remove_image(image_id)

    def status(self, deployer, name) -> dict[str, str]:
        """Return /proc/self/status of a child of the guest."""
        lines = self.inside(deployer, name, "cat /proc/self/status").splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def capabilities(self, deployer, name) -> int:
        status = self.status(deployer, name)
        assert status["CapEff"] == status["CapPrm"]
        return int(status["CapEff"], 16)


class TestMedium(Inside):
    def test_no_capabilities_no_new_privileges_not_root(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        status = self.status(deployer, spec.name)
        for kind in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"):
            assert int(status[kind], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        assert status["Uid"].split() == ["1000"] * 4

    def test_an_image_without_user_is_root_with_few_capabilities(
        self, deployer, make_spec, root_image, caplog
    ):
        for spec in (make_spec(image=root_image), make_spec(image=root_image)):
            self.start(deployer, spec)
        status = self.status(deployer, spec.name)
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == ROOT_CAPABILITIES
        assert status["NoNewPrivs"] == "1"
        assert status["Uid"].split()[0] == "0"
        warnings = [one for one in caplog.records if one.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert root_image in warnings[0].getMessage()
        assert "buildimage" in warnings[0].getMessage()

    def test_there_are_limits_where_none_are_given(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        assert self.limits(deployer, spec.name) == (1024 << 20, 2.0, 512)
        assert self.inside(deployer, spec.name, "ulimit -c") == "0"

    def test_limits_of_the_spec_win_over_the_runtime_config(self, deployer, make_spec):
        config = {"mem_limit": "2g", "nano_cpus": 500_000_000, "pids_limit": 99}
        spec = make_spec(runtime_config=config)
        self.start(deployer, spec)
        assert self.limits(deployer, spec.name) == (2048 << 20, 0.5, 99)
        # More CPUs than any machine has are no error: the sandbox just gets all there are.
        limits = Limits(memory_mb=300, cpus=5000, processes=77)
        spec = make_spec(runtime_config=config, limits=limits)
        self.start(deployer, spec)
        assert self.limits(deployer, spec.name) == (300 << 20, 5000, 77)

    def limits(self, deployer, name) -> tuple[int, float, int]:
        """Return bytes of memory, CPUs and processes from the cgroup files, version 1 or 2."""
        version_1 = """
            cd /sys/fs/cgroup && cat memory/memory.limit_in_bytes \
                cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us pids/pids.max
        """
        version_2 = "cd /sys/fs/cgroup && cat memory.max cpu.max pids.max"
        is_2 = self.run_inside(deployer, name, "test -e /sys/fs/cgroup/pids.max")[0] == 0
        output = self.inside(deployer, name, version_2 if is_2 else version_1)
        memory, quota, period, pids = (int(word) for word in output.split())
        return memory, quota / period, pids

    def test_there_is_no_swap_beyond_the_memory(self, deployer, make_spec):
        spec = make_spec(limits=Limits(memory_mb=100))
        self.start(deployer, spec)
        config = self.engine.containers.get(spec.name).attrs["HostConfig"]
        assert config["Memory"] == config["MemorySwap"] == 100 << 20

    def test_its_log_is_bounded_and_nobody_restarts_it(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        config = self.engine.containers.get(spec.name).attrs["HostConfig"]
        assert config["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "1"}
        assert config["RestartPolicy"]["Name"] == "no"
        assert config["Init"] is True

    def test_a_set_user_id_program_gives_nothing(self, deployer, make_spec):
        spec = make_spec()
        self.start(deployer, spec)
        code, _ = self.run_inside(deployer, spec.name, "ls -l /bin/su && su -c id root </dev/null")
        assert code != 0


class TestHigh(Inside):
    def test_it_is_read_only_but_for_memory_and_workspace(self, deployer, make_spec):
        spec = make_spec(security_level=HIGH)
        self.start(deployer, spec)
        assert self.capabilities(deployer, spec.name) == 0
        for path in ("/etc/new", "/usr/new", "/var/new", "/home/new", "/run/new"):
            assert self.run_inside(deployer, spec.name, f"touch {path}")[0] != 0
        for path in ("/tmp", "/var/tmp", "/workspace"):
            script = f"cd {path} && printf '#!/bin/sh\necho ran' > x && chmod +x x && ./x"
            assert self.inside(deployer, spec.name, script) == "ran"
        assert self.inside(deployer, spec.name, "echo $HOME") == "/tmp"

    def test_its_workspace_goes_with_it(self, deployer, make_spec):
        before = {volume.id for volume in self.engine.volumes.list()}
        spec = make_spec(security_level=HIGH)
        self.start(deployer, spec)
        mounts = self.engine.containers.get(spec.name).attrs["Mounts"]
        ours = {mount["Name"] for mount in mounts if mount["Type"] == "volume"}
        assert len(ours) == 1
        assert not ours & before
        deployer.remove(spec.name)
        assert not ours & {volume.id for volume in self.engine.volumes.list()}

    def test_its_workspace_survives_a_stop(self, deployer, make_spec):
        spec = make_spec(security_level=HIGH)
        self.start(deployer, spec)
        self.inside(deployer, spec.name, "echo kept > /workspace/f")
        deployer.stop(spec.name)
        self.start(deployer, spec)
        assert self.inside(deployer, spec.name, "cat /workspace/f") == "kept"

    def test_it_is_on_the_network_without_a_way_out_unless_told(self, deployer, make_spec):
        shut, opened = (make_spec(security_level=HIGH, network=n) for n in (None, Network.OUTBOUND))
        for spec, internal in ((shut, True), (opened, False)):
            self.start(deployer, spec)
            found = self.engine.containers.get(spec.name).attrs["NetworkSettings"]["Networks"]
            (network,) = found.values()
            attrs = self.engine.networks.get(network["NetworkID"]).attrs
            assert attrs["Internal"] is internal

    def test_an_image_without_user_is_refused(self, deployer, make_spec, root_image):
        with pytest.raises(Rejected, match=f"{root_image}.*buildimage"):
            deployer.start(make_spec(image=root_image, security_level=HIGH))
        assert self.leftovers(deployer) == []


class TestLow(Inside):
    def test_it_is_docker_s_default_without_raw_sockets(self, deployer, make_spec, root_image):
        spec = make_spec(image=root_image, security_level=LOW)
        self.start(deployer, spec)
        has = self.capabilities(deployer, spec.name)
        assert has & ROOT_CAPABILITIES == ROOT_CAPABILITIES
        assert not has & (NET_RAW | SYS_ADMIN)
        status = self.status(deployer, spec.name)
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("0", "2")

    def test_a_capability_can_be_added(self, deployer, make_spec, root_image):
        config = {"cap_add": ["SYS_PTRACE"]}
        spec = make_spec(image=root_image, security_level=LOW, runtime_config=config)
        self.start(deployer, spec)
        assert self.capabilities(deployer, spec.name) & SYS_PTRACE

    def test_it_can_be_privileged(self, deployer, make_spec, root_image):
        config = {"privileged": True}
        spec = make_spec(image=root_image, security_level=LOW, runtime_config=config)
        try:
            self.start(deployer, spec)
        except Unavailable as error:
            if "unable to apply caps" not in str(error):
                raise
            pytest.skip("the engine has not all capabilities itself")
        assert self.capabilities(deployer, spec.name) & (NET_RAW | SYS_ADMIN)


class TestRuntimeConfig(DockerSteps):
    def test_what_it_takes_reaches_the_inside(self, deployer, make_spec):
        config = {
            "shm_size": "32m",
            "tmpfs": {"/scratch": "size=1m,mode=1777"},
            "extra_hosts": {"registry.test": "198.51.100.9"},
            "dns": ["198.51.100.53"],
            "devices": ["/dev/null:/dev/nothing:rw"],
        }
        spec = make_spec(runtime_config=config)
        self.start(deployer, spec)
        assert "32768" in self.inside(deployer, spec.name, "df -k /dev/shm")
        assert "1024" in self.inside(deployer, spec.name, "df -k /scratch; touch /scratch/x")
        assert "198.51.100.9" in self.inside(deployer, spec.name, "cat /etc/hosts")
        self.inside(deployer, spec.name, "echo gone > /dev/nothing")
        config = self.engine.containers.get(spec.name).attrs["HostConfig"]
        assert config["Dns"] == ["198.51.100.53"]

    @pytest.mark.parametrize(
        ("config", "level", "words"),
        [
            ({"network_mode": "host"}, LOW, "network_mode.*mem_limit"),
            ({"volumes": {"/": {"bind": "/host"}}}, LOW, "volumes"),
            ({"privileged": True}, MEDIUM, "privileged.*low"),
            ({"cap_add": ["SYS_ADMIN"]}, HIGH, "cap_add.*low"),
            ({"devices": ["/dev/kvm"]}, HIGH, "devices.*low or medium"),
            ({"mem_limit": "much"}, MEDIUM, "mem_limit.*much"),
            ({"mem_limit": -1}, MEDIUM, "positive"),
            ({"nano_cpus": True}, MEDIUM, "positive"),
            ({"privileged": "yes"}, LOW, "true or false"),
            ({"dns": "198.51.100.53"}, MEDIUM, "list"),
            ({"tmpfs": ["/x"]}, MEDIUM, "object"),
        ],
    )
    def test_what_it_does_not_take_is_named(self, deployer, make_spec, config, level, words):
        with pytest.raises(UnsupportedSpec, match=words):
            deployer.validate(make_spec(runtime_config=config, security_level=level))

    @pytest.mark.parametrize("limit", ["cpus", "memory_mb", "processes", "file_size_mb"])
    def test_a_limit_of_nothing_is_refused(self, deployer, make_spec, limit):
        with pytest.raises(UnsupportedSpec, match=limit):
            deployer.validate(make_spec(limits=Limits(**{limit: 0})))

    def test_a_runtime_that_the_engine_lacks_is_named(self, deployer, make_spec):
        with pytest.raises(Rejected, match=r"no-such-runtime.*daemon\.json"):
            deployer.start(make_spec(runtime_config={"runtime": "no-such-runtime"}))

    def test_the_engine_s_socket_is_never_mounted(self):
        spec = SandboxSpec(name="any", image="any", security_level=LOW)
        body = container_body(spec, instance="i", network_id="n")
        assert body["HostConfig"]["Mounts"] == []

    def test_the_deployer_s_runtime_is_passed_on(self, deployer, make_spec):
        other = DockerDeployer(instance=deployer.instance, runtime="no-such-runtime")
        with pytest.raises(Rejected, match="no-such-runtime"):
            other.start(make_spec())
        other.close()
