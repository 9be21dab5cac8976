"""Our own API, below /api/v1/: what the published SDK's wire has no words for."""
