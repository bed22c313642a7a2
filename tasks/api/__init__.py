"""One Prefect task for each step of Crucible's API, sync and async: typed, repeatable, retried when that may help."""
