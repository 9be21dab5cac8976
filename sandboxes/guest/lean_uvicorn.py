"""
uvicorn without its command line.

Importing the package imports that too, with click and the reloaders: 17 of the 97 ms that a
guest's imports took, for what it never uses.
"""

from __future__ import annotations

import sys
from types import ModuleType

_NAME = "uvicorn.main"

_absent = _NAME not in sys.modules
if _absent:
    _stand_in = ModuleType(_NAME)
    _stand_in.__dict__.update(Server=None, main=None, run=None)
    sys.modules[_NAME] = _stand_in
try:
    from uvicorn.config import Config
    from uvicorn.server import Server
finally:
    if _absent:
        del sys.modules[_NAME]

__all__ = ["Config", "Server"]
