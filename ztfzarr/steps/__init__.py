"""Steps of the detrending: DataArray in, DataArray out, lazy if the input is, inputs unchanged.

The order of the steps is data: see :data:`ztfzarr.steps.detrend.DETREND`.
"""
