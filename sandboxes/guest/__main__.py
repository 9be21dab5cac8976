"""Start the guest: read the environment, hide the secret, serve."""

from __future__ import annotations

import gc
import os
import sys

from .config import Config, ConfigError
from .secrecy import hide_secret


def main() -> int:
    try:
        config = Config.from_environment(os.environ)
    except ConfigError as error:
        print(f"The guest cannot start: {error}", file=sys.stderr)  # noqa: T201
        return 2
    hide_secret("SECRET_TOKEN")
    if os.getpid() == 1:
        from .init import run_under_init

        # The server itself has to be a child: PID 1 inherits every orphan of the sandbox.
        run_under_init()
    # Imported last, so that PID 1 stays as small as a bare interpreter. What imports make stays:
    # looking through it for garbage takes a tenth of their time, and finds none.
    gc.disable()
    from .server import serve

    gc.freeze()
    gc.enable()
    return serve(config)


if __name__ == "__main__":
    sys.exit(main())
