"""run_ipython_cell: a real IPython kernel, in a process of its own."""
