"""Eq. 11 as an optimization problem: ADMM and its reference. Knows no network."""
