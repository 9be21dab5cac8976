"""The load tester: what a running server can do, beside the floor that its machine sets."""
