"""Pipeline declarations as typed values: steps, inputs, values read from file names, ingestion by Crucible."""
