"""A lineage in formats that the world uses: W3C PROV, Workflow Run RO-Crate, OpenLineage. Pure: values in, text out.

Each format is in its own module, with the library that writes it (extra `export`), imported when it is used.
"""
