"""`fvlfp sweep`: a grid of parameters of any lesson, run through papermill, resumable.

`grid` reads the cells, `run` runs them, `cell` is one of them in its own process, `page` shows them.
"""
