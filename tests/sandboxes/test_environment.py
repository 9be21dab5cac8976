from __future__ import annotations

import pytest

from sandboxes.environment import check_environment


@pytest.mark.parametrize(
    "environment", [{}, {"LANG": ""}, {"_a": "b=c"}, {"java.home": "/opt"}, {"MY-KEY2": "é\n"}]
)
def test_what_every_infrastructure_can_carry_is_taken(environment):
    check_environment(environment)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (["A=1"], "must be an object of names and strings, not a list"),
        ("A=1", "must be an object of names and strings, not a string"),
        (None, "must be an object of names and strings, not null"),
        ({"": "x"}, "'' cannot be the name"),
        ({"A=B": "x"}, "'A=B' cannot be the name"),
        ({"A\0": "x"}, "cannot be the name"),
        ({"1A": "x"}, "'1A' cannot be the name"),
        ({"A\n": "x"}, "cannot be the name"),
        ({"A": 1}, "A must be a string, not a number"),
        ({"A": True}, "A must be a string, not a boolean"),
        ({"A": None}, "A must be a string, not null"),
        ({"A": "x\0"}, "A holds a character"),
        ({"A": "\ud800"}, "A holds a character"),
        ({"SECRET_TOKEN": "x"}, "SECRET_TOKEN belongs to the platform"),
        ({"NGINX_TIMEOUT": "1"}, "NGINX_TIMEOUT belongs to the platform"),
        ({"WORKSPACE_DIR": "/"}, "WORKSPACE_DIR belongs to the platform"),
        ({"GUEST_PORT": "1"}, "GUEST_PORT belongs to the platform"),
    ],
)
def test_what_no_sandbox_can_be_given_is_refused_by_name(environment, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_environment(environment)


def test_a_value_never_stands_in_the_refusal():
    with pytest.raises(ValueError, match="KEY") as caught:
        check_environment({"KEY": "hunter2\0"})
    assert "hunter2" not in str(caught.value)
