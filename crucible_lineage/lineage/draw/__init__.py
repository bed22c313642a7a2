"""Drawings of a lineage: tree, SVG, PNG, HTML page, and the formats of other drawing programs."""
