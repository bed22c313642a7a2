"""Lineages as people see them: tree, SVG, PNG, HTML page, and the formats that other drawing programs read."""
