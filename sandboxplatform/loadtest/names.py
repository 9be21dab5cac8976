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


def sustained(clients: int) -> str:
    return f"shell true, {clients} client{'s' * (clients != 1)} without a pause"


def beside(row: str, sleepers: int) -> str:
    return f"{row}, beside {sleepers} sleeping calls"


def cycles(clients: int) -> str:
    return f"create and release, {clients} clients without a pause"
