"""Figures and pages of an audit, made from its document alone."""
