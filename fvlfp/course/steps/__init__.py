"""What the graded steps of the lessons want, one module a lesson: a reference, and a way to draw inputs.

A reference is the library's own function wherever there is one. Whoever reads these modules reads the
answers; they are here, and not hidden, because a check that cannot be read cannot be trusted.
"""
