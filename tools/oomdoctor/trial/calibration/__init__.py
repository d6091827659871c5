"""Measure on the real card what no catalogue knows. The child side (:mod:`child`) is not imported here."""
