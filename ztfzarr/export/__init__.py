"""Products as FITS files and CCDData, and positions on the sky looked up in a store."""
