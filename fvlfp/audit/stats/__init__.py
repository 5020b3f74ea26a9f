"""Counts, rates, gaps, intervals and tests: arithmetic on contingency tables."""
