"""Quantised layers over tensors without values: their storage, and the buffers that using them takes."""
