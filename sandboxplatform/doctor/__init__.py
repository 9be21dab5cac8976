"""Looks at everything a server needs here, and says what is wrong and what to change."""
