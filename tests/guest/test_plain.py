"""Commands that are started without bash do exactly what they do in bash."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from sandboxes.guest import processes
from sandboxes.guest.plain import PlainCommands
from tests.waiting import wait_until

PATH = "/usr/local/bin:/usr/bin:/bin"


@pytest.fixture
def environment(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    return {"PATH": f"{own}:{PATH}", "HOME": str(tmp_path), "LANG": "C.UTF-8", "odd name": "x"}


@pytest.fixture
def place(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    return place


def learned(env, cwd, shell="/bin/bash"):
    """Return a PlainCommands that has had its chance to learn."""

    def run(command):
        limits = {"limit": 10, "output_limit": 100_000}
        return processes.run([shell, "-c", command], cwd=str(cwd), env=env, **limits)

    async def learn():
        plain = PlainCommands(shell, env, str(cwd), run)
        assert plain.find("true") is None
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            await task
        return plain

    return asyncio.run(learn())


def run(argv, cwd, env, **more):
    ended = subprocess.run(
        argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False, **more
    )
    return sorted(ended.stdout.split(b"\0")), ended.stderr, ended.returncode


@pytest.mark.parametrize(
    "line",
    [
        "true",
        "false",
        "echo",
        "echo a b=c 'd  e' \"it's\"",
        "env -0",
        "env -0 A=b",
        "/usr/bin/env -0",
        "./env -0",
        "ls -la /",
        "ls /nonexistent",
        "seq 1 3",
        "grep -E '^(Sig|Shd)' /proc/self/status",
        "readlink /proc/self/fd/0",
        "printenv PWD SHLVL _",
        "sh -c 'echo $0 $PPID >/dev/null; kill -9 $$'",
        "python3 -c \"print('a', 1 + 1, 'b' * 3, [1, 2], {3}, not 4 > 5)\"",
        "expr 2 '*' 3",
        "date +%Y",
        "git --version",
    ],
)
def test_a_plain_line_does_what_bash_does(line, environment, place):
    (place / "env").symlink_to("/usr/bin/env")
    plain = learned(environment, place).find(line)
    assert plain is not None
    direct = run(plain.argv, place, plain.env, executable=plain.program)
    assert direct == run(["/bin/bash", "-c", line], place, environment)


@pytest.mark.parametrize(
    "line",
    [
        "",
        " true",
        "true ",
        "true  x",
        "true x",
        "true\n",
        "echo -n a",
        "echo '-n' a",
        "echo 'a\\tb'",
        "echo 'ä'",
        "echo 'a\x01b'",
        "echo a\tb",
        "ls ~",
        "ls *",
        "ls a?",
        "ls [a]",
        "ls {a,b}",
        "ls $HOME",
        'ls "$HOME"',
        'ls "`pwd`"',
        'ls "a\\b"',
        "ls 'a'b",
        "ls 'a",
        "ls a;ls",
        "ls|cat",
        "ls >a",
        "ls &",
        "ls #a",
        "!ls",
        "A=b env",
        "'ls'",
        "cd /",
        "pwd",
        "time ls",
        "exec ls",
        "kill 1",
        "printf a",
        "test a",
        "if",
        "-c",
        "+x",
        "nonexistent-program",
        "/",
        "/etc/passwd",
        "./nonexistent",
        "env " + "a" * 5000,
    ],
)
def test_every_other_line_is_left_to_bash(line, environment, place):
    assert learned(environment, place).find(line) is None


def test_a_users_program_never_stands_in_for_a_builtin(environment, place):
    own = environment["PATH"].partition(":")[0]
    for name in ("true", "mine"):
        Path(own, name).symlink_to("/bin/false")
    plain = learned(environment, place)
    assert plain.find("true").program == "/bin/true"
    assert plain.find("mine").program == f"{own}/mine"


@pytest.mark.parametrize(
    "setting",
    [
        {"BASH_ENV": "/dev/null"},
        {"BASH_FUNC_ls%%": "() { echo mine; }"},
        {"SHELLOPTS": "xtrace"},
        {"LC_ALL": "xx_XX"},  # bash warns of it each time
        {"PATH": f".:{PATH}"},
        {"PATH": f"{PATH}:"},
    ],
)
def test_where_bash_has_settings_every_line_is_left_to_it(setting, environment, place):
    assert learned({**environment, **setting}, place).find("ls") is None


def test_another_shell_is_never_replaced(environment, place):
    assert learned(environment, place, "/bin/sh").find("ls") is None


def test_a_replaced_working_directory_is_learned_again(environment, place):
    plain = learned(environment, place)
    assert plain.find("ls") is not None
    place.rename(place.with_name("before"))
    place.mkdir()

    async def find():
        return plain.find("ls")

    assert asyncio.run(find()) is None


def test_a_guest_answers_the_same_before_and_after_it_has_learned(guest):
    def shown():
        return sorted(guest.shell("env -0").stdout.split("\0"))

    first = shown()
    assert all(shown() == first for _ in range(20))


def test_a_program_that_only_bash_can_start_is_started_by_bash(guest, workspace):
    guest.shell("true")
    script = workspace / "script"
    script.write_text("echo ${BASH_VERSION:+bash} $0\n")  # without a #! exec refuses it
    script.chmod(0o755)
    broken = workspace / "broken"
    broken.write_text("#!/nonexistent\n")
    broken.chmod(0o755)
    wait_until(lambda: guest.shell("./script").stdout == "bash ./script\n")
    for _ in range(10):
        assert guest.shell("./script").stdout == "bash ./script\n"
        result = guest.shell("./broken")
        assert "/bin/bash: line 1: ./broken:" in result.stderr
        assert result.exit_code in ("126", "127")


def test_a_directly_started_program_is_ended_like_any_other(guest):
    for _ in range(5):
        result = guest.shell("sleep 60", timeout=0.1)
        assert result.exit_code == "-15"
        assert "timed out" in result.stderr
