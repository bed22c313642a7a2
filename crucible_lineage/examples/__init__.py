"""Three more pipelines on real data, as examples: Raman over ten instruments, electron backscatter, powder diffraction.

Their data does not come with the package: `python -m crucible_lineage.demo.fetch_data FOLDER` gets it.
"""
