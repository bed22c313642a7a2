"""The catalogue: what is known of datasets, samples, projects, instruments and users, and who may see it."""
