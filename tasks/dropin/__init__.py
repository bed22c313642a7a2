"""The drop-in: tasks of ordinary Prefect flows whose results become datasets, while the flow keeps its values."""
