"""Metrics, and the evaluation of a trained method on a split."""
