# ruff: noqa: F403, F405 (the twins of the tasks)
from crucible_lineage.step import step as step
from crucible_lineage.tasks.api import *
from crucible_lineage.tasks.credentials import CrucibleCredentials as CrucibleCredentials
from crucible_lineage.tasks.flow import registering as registering
from crucible_lineage.tasks.materialization import materialize as materialize
from crucible_lineage.tasks.sessions import CrucibleConnection as CrucibleConnection
from crucible_lineage.tasks.sessions import asynchronous
from crucible_lineage.tasks.sessions import session_for as session_for
from crucible_lineage.tasks.values import Kind as Kind
from crucible_lineage.tasks.values import add_kind as add_kind

API_TASKS: tuple[str, ...]
aadd_files = asynchronous(add_files)
aadd_keywords = asynchronous(add_keywords)
aadd_thumbnail = asynchronous(add_thumbnail)
acheck_lineage = asynchronous(check_lineage)
acount_datasets = asynchronous(count_datasets)
acreate_dataset = asynchronous(create_dataset)
acreate_sample = asynchronous(create_sample)
adelete_dataset = asynchronous(delete_dataset)
adownload_dataset = asynchronous(download_dataset)
aensure_project = asynchronous(ensure_project)
aget_dataset = asynchronous(get_dataset)
aget_download_links = asynchronous(get_download_links)
aget_keywords = asynchronous(get_keywords)
aget_metadata = asynchronous(get_metadata)
aget_thumbnails = asynchronous(get_thumbnails)
alink_parent_child = asynchronous(link_parent_child)
alink_sample = asynchronous(link_sample)
alist_children = asynchronous(list_children)
alist_datasets = asynchronous(list_datasets)
alist_files = asynchronous(list_files)
alist_parents = asynchronous(list_parents)
alist_projects = asynchronous(list_projects)
alist_samples = asynchronous(list_samples)
aregister_child = asynchronous(register_child)
arender_lineage = asynchronous(render_lineage)
areplace_metadata = asynchronous(replace_metadata)
arequest_ingestion = asynchronous(request_ingestion)
asearch_datasets = asynchronous(search_datasets)
asearch_metadata = asynchronous(search_metadata)
aunlink = asynchronous(unlink)
aunlink_sample = asynchronous(unlink_sample)
aupdate_dataset = asynchronous(update_dataset)
aupdate_metadata = asynchronous(update_metadata)
aupload_file = asynchronous(upload_file)
await_for_ingestion = asynchronous(wait_for_ingestion)
