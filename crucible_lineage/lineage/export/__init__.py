"""A lineage in standard formats: W3C PROV, Workflow Run RO-Crate. Pure: values in, text out.

Each format has its own module, which imports the library that writes it (extra `export`) on first use.
"""
