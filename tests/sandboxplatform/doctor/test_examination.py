"""How checks are run, chosen and shown."""

from __future__ import annotations

import json
import threading

from sandboxplatform.doctor import output
from sandboxplatform.doctor.catalogue import CHECKS
from sandboxplatform.doctor.examination import Check, choose, examine
from sandboxplatform.doctor.findings import Finding, Result, Status, fail, ok, warn


def test_a_check_that_breaks_or_hangs_does_not_stop_the_others(subject):
    never = threading.Event()

    def breaks(_):
        yield ok("seen before")
        raise RuntimeError("out of luck")

    def hangs(_):
        yield ok("seen before")
        never.wait()

    checks = [
        Check(name="breaks", look=breaks),
        Check(name="hangs", look=hangs, seconds=0.1),
        Check(name="well", look=lambda _: iter([ok("fine")])),
        Check(name="follows", look=lambda _: iter([ok("fine")]), needs=("hangs",)),
    ]
    results = list(examine(checks, subject))
    never.set()
    assert [str(each.status) for each in results] == ["fail", "fail", "ok", "skip"]
    assert "RuntimeError: out of luck; seen before" in results[0].found
    assert results[1].found == "no end within 0.1 s; seen before"
    assert results[3].found == "needs hangs, which failed"


def test_the_most_serious_finding_comes_first_and_fixes_are_indented():
    result = Result("disk", [ok("a"), warn("b", "do\nthis"), fail("c\nd", "do that")], 1.234)
    assert output.as_text(result, width=6) == (
        "FAIL  disk    c d; b; a\n      do that\n      do\n      this"
    )
    assert json.loads(json.dumps(output.as_json([result]))) == {
        "ok": False,
        "checks": [
            {
                "name": "disk",
                "status": "fail",
                "found": "c d; b; a",
                "fix": "do that do\nthis",
                "ms": 1.2,
            }
        ],
    }


def test_secrets_and_control_characters_never_reach_the_output(subject):
    subject.platform.BEARER_TOKEN = "very-secret-token"
    subject.platform.DATABASE_URL = "postgres://me:p%40ssword@host/name"
    said = "very-secret-token p@ssword tcp://me:hunter2@host \x1b[31mred"
    checks = [Check(name="talks", look=lambda _: iter([Finding(Status.WARN, said, said)]))]
    (result,) = examine(checks, subject)
    for text in (result.found, *result.fixes):
        assert text == "*** *** tcp://me:***@host \N{REPLACEMENT CHARACTER}[31mred"


def test_only_takes_along_what_a_check_needs():
    names = [check.name for check in choose(CHECKS, ["sandbox"])]
    assert names == ["database", "engine", "images", "sandbox"]
    assert [check.name for check in choose(CHECKS, [])] == [check.name for check in CHECKS]
