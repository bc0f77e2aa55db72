"""The store: objects, lock, the raw group, and how readers see it."""

import warnings

from zarr.errors import ZarrUserWarning

# pcodec is registered by numcodecs, not by zarr's specification; every reader of a store would be told so for
# every array. The docs name the packages that a reader needs.
warnings.filterwarnings("ignore", "Numcodecs codecs are not in the Zarr version 3", ZarrUserWarning)
