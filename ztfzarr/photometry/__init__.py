"""Stars on science: detection, apertures, positions on the sky, and which are the same in many exposures.

``quadrant.quadrant_stars`` measures the arrays of a quadrant, ``measure.measure`` given positions on them,
``wcs.fit_sky`` finds where a quadrant looks, ``matching.match_stars`` joins the tables of many exposures.
"""
