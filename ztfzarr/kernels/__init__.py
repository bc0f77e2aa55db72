"""Hot loops: numpy in, numpy out, compiled by numba, one pass over memory, the GIL released.

Kernels see only core dimensions and trust their callers, who have checked shapes and types.
"""
