"""Files of the workspace, over HTTP."""
