from __future__ import annotations

import base64
import threading

import pytest

from tests.guest.running import is_alive
from tests.waiting import wait_until


def test_state_is_kept_across_cells(guest):
    guest.cell("kept = 41")
    result = guest.cell("kept + 1")
    assert result.stdout.startswith("Out[")
    assert result.stdout.endswith("]: 42\n")
    assert not result.failed


def test_only_stdout_and_a_stderr_that_is_not_empty(guest):
    quiet = guest.cell("print('out')")
    assert [item["description"] for item in quiet.content] == ["stdout"]
    loud = guest.cell("import sys; print('warning', file=sys.stderr)")
    assert (loud.stdout, loud.stderr, loud.failed) == ("", "warning\n", False)


def test_a_traceback_is_on_stdout_without_colours_and_is_a_failure(guest):
    result = guest.cell("print('before')\n1/0")
    assert result.failed
    assert result.stdout.startswith("before\n")
    assert "ZeroDivisionError: division by zero" in result.stdout
    assert "\x1b" not in result.stdout
    assert guest.cell("def broken(").failed


def test_shell_escapes_and_magics_work(guest):
    assert guest.cell("!echo from the shell").stdout.strip() == "from the shell"
    assert str(guest.workspace) in guest.cell("%pwd").stdout
    assert "Docstring" in guest.cell("len?").stdout
    assert guest.cell("%%bash\necho bash").stdout == "bash\n"


def test_output_of_child_processes_is_seen(guest):
    for number in range(20):
        code = f"import os; _ = os.system('echo child {number}')"
        assert guest.cell(code).stdout == f"child {number}\n"


def test_output_of_child_processes_stands_between_what_was_printed(guest):
    code = "import os\nfor i in range(50):\n  print('cell', i)\n  os.system(f'echo child {i}')"
    lines = [f"{who} {number}" for number in range(50) for who in ("cell", "child")]
    assert guest.cell(f"{code};").stdout.splitlines() == lines
    code = """import os; _ = os.system("yes é | head -c 199998; printf '\\\\303'")"""
    long = guest.cell(code).stdout
    assert long == "é\n" * 66_666 + "\ufffd"


def test_a_forked_child_leaves_its_parents_output_alone(guest):
    code = (
        "import os, sys\nread, write = os.pipe()\npid = os.fork()\n"
        "if not pid:\n  os.read(read, 1); sys.stdout.flush(); os._exit(0)\n"
        "_ = os.system('echo parent'), os.write(write, b'x'), os.waitpid(pid, 0)\nprint('end')"
    )
    assert guest.cell(code).stdout == "parent\nend\n"


def test_a_plot_comes_back_as_an_image_without_a_magic(guest):
    pytest.importorskip("matplotlib")
    result = guest.cell("import matplotlib.pyplot as plt\nplt.plot([1, 2])")
    assert "Line2D" in result.stdout
    [image] = result.images
    assert image["mimeType"] == "image/png"
    assert base64.b64decode(image["data"]).startswith(b"\x89PNG")


def test_images_of_every_kind_come_back(guest):
    result = guest.cell(
        "from IPython.display import Image, SVG, display\n"
        "display(SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'))\n"
        "display(Image(b'\\xff\\xd8\\xff\\xd9', format='jpeg'))"
    )
    assert [image["mimeType"] for image in result.images] == ["image/svg+xml", "image/jpeg"]
    assert b"<svg" in base64.b64decode(result.images[0]["data"])
    assert base64.b64decode(result.images[1]["data"]) == b"\xff\xd8\xff\xd9"


def test_displays_are_shown_updated_and_cleared(guest):
    shown = guest.cell("from IPython.display import *\ndisplay('text')\ndisplay(Markdown('# h'))")
    assert shown.stdout == "'text'\n# h\n"
    cleared = guest.cell("print('gone'); clear_output(wait=True); print('kept')")
    assert cleared.stdout == "kept\n"
    updated = guest.cell(
        "h = display(Image(b'\\xff\\xd81', format='jpeg'), display_id=True)\n"
        "h.update(Image(b'\\xff\\xd82', format='jpeg'))"
    )
    assert [base64.b64decode(image["data"])[-1:] for image in updated.images] == [b"2"]


def test_input_is_answered_with_a_clear_error(guest):
    result = guest.cell("input('name? ')")
    assert result.failed
    assert "nobody can answer input()" in result.stderr


def test_a_cell_that_takes_too_long_is_interrupted_and_state_is_kept(guest):
    guest.cell("survives = 1")
    result = guest.cell("import time\nprint('begun')\ntime.sleep(60)", timeout=0.5)
    assert result.failed
    assert result.stdout.startswith("begun\n")
    assert "timed out after 0.5 s" in result.stderr
    assert "variables are kept" in result.stderr
    assert guest.cell("survives").stdout.endswith(": 1\n")


def test_a_cell_that_ignores_the_interrupt_costs_the_kernel(guest):
    guest.cell("lost = 1")
    stubborn = "import time\nwhile True:\n  try:\n    time.sleep(60)\n  except KeyboardInterrupt:\n    pass"
    result = guest.cell(stubborn, timeout=0.3)
    assert result.failed
    assert "variables are lost" in result.stderr
    after = guest.cell("'lost' in globals()")
    assert after.stdout == "Out[1]: False\n"
    assert after.stderr is None


def test_a_kernel_that_dies_in_a_cell_is_reported_and_replaced(guest):
    result = guest.cell("import os; os._exit(3)")
    assert result.failed
    assert "exit code 3" in result.stderr
    assert guest.cell("1 + 1").stdout == "Out[1]: 2\n"


def test_a_kernel_that_dies_between_cells_is_noted_in_the_next(guest):
    pid = int(guest.cell("import os; print(os.getpid())").stdout)
    guest.shell(f"kill -9 {pid}")
    wait_until(lambda: not is_alive(pid))
    result = guest.cell("2")
    assert (result.stdout, result.failed) == ("Out[1]: 2\n", False)
    assert "had died since the last cell" in result.stderr
    assert "SIGKILL" in result.stderr


def test_exit_gives_the_next_cell_a_fresh_kernel(guest):
    guest.cell("gone = 1")
    assert not guest.cell("exit").failed
    assert guest.cell("'gone' in globals()").stdout == "Out[1]: False\n"


def test_two_cells_at_once_do_not_mix(guest):
    code = "import time\nfor _ in range(5):\n  print({0}, flush=True); time.sleep(0.02)"
    answers = {}

    def run(number: int) -> None:
        answers[number] = guest.cell(code.format(number)).stdout

    threads = [threading.Thread(target=run, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: f"{number}\n" * 5 for number in range(3)}


def test_a_queued_cell_waits_no_longer_than_its_limit(guest):
    marker = guest.workspace / "running"
    code = f"import time\nopen({str(marker)!r}, 'w').close()\ntime.sleep(1.5)"
    first = threading.Thread(target=guest.cell, args=[code])
    first.start()
    wait_until(marker.exists)
    result = guest.cell("print('ran')", timeout=0.2)
    first.join()
    marker.unlink()
    assert result.failed
    assert "not run" in result.stderr


def test_a_caller_that_hangs_up_frees_the_kernel(guest):
    marker = guest.workspace / "cell_runs"
    code = f"import time\nopen({str(marker)!r}, 'w').close()\ntime.sleep(60)"
    with guest.client() as client:
        client.timeout = 1
        with pytest.raises(Exception, match="timed out"):
            client.post("/fastapi/tools/run_ipython_cell", json={"code": code})
    assert marker.exists()
    assert guest.cell("print('free')", timeout=10).stdout == "free\n"
    marker.unlink()


def test_endless_output_is_cut_in_the_middle(guest):
    result = guest.cell("print('first')\nfor i in range(400): print('x' * 10_000)\nprint('last')")
    assert result.stdout.startswith("first\n")
    assert result.stdout.endswith("last\n")
    assert "bytes cut here" in result.stdout
    assert len(result.stdout) < 1_100_000


def test_no_message_is_lost_when_they_come_fast(guest):
    result = guest.cell("for i in range(3000): print(i, flush=True)")
    assert result.stdout.split() == [str(number) for number in range(3000)]


def test_the_kernel_sees_neither_the_secret_nor_the_guests_settings(guest):
    result = guest.cell("import os\n[n for n in os.environ if n.startswith(('SECRET', 'GUEST'))]")
    assert result.stdout.endswith(": []\n")


def test_a_kernel_that_cannot_start_says_why(start_guest):
    result = start_guest(GUEST_KERNEL_PYTHON="/nowhere/python").cell("1")
    assert result.failed
    assert "did not start: /nowhere/python: No such file" in result.stderr


def test_a_first_cell_too_short_for_the_start_leaves_a_kernel_for_the_next(start_guest):
    guest = start_guest()
    result = guest.cell("1", timeout=0.05)
    assert result.failed
    assert "still starting" in result.stderr
    assert guest.cell("2").stdout == "Out[1]: 2\n"


def test_the_kernel_and_its_files_go_with_the_guest(start_guest):
    guest = start_guest()
    pid = int(guest.cell("import os; print(os.getpid())").stdout)
    connection = guest.cell("print(get_ipython().kernel.config['IPKernelApp'].connection_file)")
    directory = guest.workspace.joinpath(connection.stdout.strip()).parent
    assert directory.stat().st_mode & 0o777 == 0o700
    assert guest.end() == 0
    assert not is_alive(pid)
    assert not directory.exists()
