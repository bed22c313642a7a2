"""The catalogue: datasets, samples, projects, instruments and users, and access to them."""
