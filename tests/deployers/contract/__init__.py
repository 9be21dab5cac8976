"""
What every deployer must do, as tests. A backend's test class inherits DeployerContract.

The subclass gives the fixture `deployer` and the hooks below; what its deployer does not
support by flag is skipped here, and validate() must then refuse it. The guest may be any HTTP
server that answers GET /fastapi/healthz with 200 and whatever run_inside() and let_die() need.
Every test ends with all its sandboxes removed and leftovers() empty.
"""

from __future__ import annotations

from tests.deployers.contract.inside import InsideTests
from tests.deployers.contract.lifecycle import LifecycleTests
from tests.deployers.contract.limits import LimitTests
from tests.deployers.contract.observation import ObservationTests
from tests.deployers.contract.pausing import PausingTests
from tests.deployers.contract.stopping import StoppingTests
from tests.deployers.contract.validation import ValidationTests
from tests.deployers.contract.watching import WatchingTests


class DeployerContract(
    ValidationTests,
    LifecycleTests,
    ObservationTests,
    InsideTests,
    StoppingTests,
    PausingTests,
    WatchingTests,
    LimitTests,
):
    """The whole contract, for every deployer alike."""
