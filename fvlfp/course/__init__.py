"""Lessons: what notebooks share, the tour through all of them, copies for students, grading, sweeps."""
