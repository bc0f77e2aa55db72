"""The array store for detrending wide-field CCD surveys: raw ZTF exposures as one Zarr cube."""
