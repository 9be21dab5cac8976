"""The server inside a sandbox. Run it as `python -P -m guest`, its parent on PYTHONPATH."""
