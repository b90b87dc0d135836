"""Figures of merit, and the evaluation that produces them."""
