"""What a deployer says of itself, and refuses before it is asked for anything."""

from __future__ import annotations

from dataclasses import replace
from threading import Event

import pytest

from deployers.base import Isolation
from deployers.errors import UnsupportedSpec
from deployers.specs import Mount, Network
from tests.deployers.contract.calls import TOKEN
from tests.deployers.contract.steps import DeployerSteps


class ValidationTests(DeployerSteps):
    def test_check_names_what_was_found(self, deployer):
        line = deployer.check()
        assert line
        assert "\n" not in line

    def test_flags_are_whole(self, deployer):
        assert isinstance(deployer.isolation, Isolation)
        if deployer.keeps_files_when_stopped:
            assert deployer.supports_stop

    def test_the_secret_is_not_in_the_text_of_a_spec(self, make_spec):
        spec = make_spec()
        assert TOKEN not in repr(spec)
        assert TOKEN not in str(spec)

    def test_validate_refuses_a_missing_ability(self, deployer, make_spec, tmp_path):
        deployer.validate(make_spec())
        if not deployer.supports_mounts:
            with pytest.raises(UnsupportedSpec):
                deployer.validate(make_spec(workspace=tmp_path))
            with pytest.raises(UnsupportedSpec):
                deployer.validate(make_spec(mounts=(Mount(source=tmp_path, target="/data"),)))
        if not deployer.supports_network:
            with pytest.raises(UnsupportedSpec):
                deployer.validate(make_spec(network=Network.NONE))
        if deployer.needs_host_port:
            with pytest.raises(UnsupportedSpec):
                deployer.validate(make_spec(host_port=None))

    def test_validate_names_an_unknown_setting(self, deployer, make_spec):
        with pytest.raises(UnsupportedSpec, match="no_such_setting"):
            deployer.validate(make_spec(runtime_config={"no_such_setting": 1}))

    @pytest.mark.parametrize("name", ["", "a" * 64, "../up", "-dash", "two words"])
    def test_validate_refuses_a_name_that_is_no_dns_label(self, deployer, make_spec, name):
        spec = replace(make_spec(), name=name)
        with pytest.raises(UnsupportedSpec):
            deployer.validate(spec)

    def test_what_is_not_supported_says_so(self, deployer):
        calls = {
            "supports_logs": lambda: deployer.logs("contract-never-was"),
            "supports_stop": lambda: deployer.stop("contract-never-was"),
            "supports_pause": lambda: deployer.pause("contract-never-was"),
            "supports_watch": lambda: deployer.watch(Event()),
            "supports_images": lambda: deployer.find_image("contract-never-was"),
        }
        for flag, call in calls.items():
            if not getattr(deployer, flag):
                with pytest.raises(UnsupportedSpec):
                    call()
