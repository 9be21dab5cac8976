"""The rows' names, by which targets find them."""

CREATE = "create"
FIRST = "cold create → first result"
RELEASE = "release"
HEALTH = "/health"
INFO = "get_info"
SHELL = "shell true, through the server"
SHELL_ASYNC = "shell true, through the server (_async)"
SHELL_STRAIGHT = "shell true, straight to the guest"
CELL = "cell 1+1, through the server"
CELL_STRAIGHT = "cell 1+1, straight to the guest"
PROXY = "guest's health, through /proxy"
IDLE_SANDBOX = "an idle sandbox"
WORKER = "a server worker"
ALL_PROCESSES = "all server processes together"
CLAIM = "warm claim"
CLAIM_FIRST = "warm claim → first result"
PERSONAL = "personalised warm claim"
PERSONAL_FIRST = "personalised warm claim → its variables shown"
REFILL = "pool lent out → full again"
RESTART_COMMAND = "restart: the command"
RESTART_EACH = "restart: command's end → a sandbox answers"
RESTART_ALL = "restart: command's end → all sandboxes answer"
IDLE_WARM = "an idle warm sandbox, never called"
FROZEN = "a frozen warm sandbox"


def sustained(clients: int) -> str:
    return f"shell true, {_clients(clients)}"


def beside(row: str, sleepers: int) -> str:
    return f"{row}, beside {sleepers} sleeping calls"


def cycles(clients: int) -> str:
    return f"create and release, {_clients(clients)}"


def burst(count: int) -> str:
    return f"{count} at once, warm"


def burst_as_it_is(count: int) -> str:
    return f"{count} at once, pool as it is"


def burst_claim(what: str) -> str:
    return f"{what}: create"


def burst_first(what: str) -> str:
    return f"{what}: first result"


def burst_ready(what: str) -> str:
    return f"{what}: all ready"


def burst_release(what: str) -> str:
    return f"{what}: release"


def _clients(count: int) -> str:
    return f"{count} client{'s' * (count != 1)} without a pause"


def cold_cycles(clients: int) -> str:
    return f"cold create and release, {_clients(clients)}"


def cold_used_cycles(clients: int) -> str:
    return f"cold create, first result and release, {_clients(clients)}"


def raw_cycles(what: str, clients: int) -> str:
    return f"{what}, {_clients(clients)}"
