"""Everything that knows FITS."""
