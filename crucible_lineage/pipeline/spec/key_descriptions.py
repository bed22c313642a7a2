"""What each key of a pipeline file says, in a line: shown by editors (JSON Schema) and in the documentation."""

from __future__ import annotations

__all__ = ["KEY_DESCRIPTIONS"]

_MATCH = "pairs this input with another: its name, and the fields that must be equal in both records"
_LABEL = "the label of instances of steps for each dataset, as in {metadata.power_mW} mW"
_CHECKS = "conditions on the metadata of the data, by name: metadata.NAME"
_EACH = "true: one instance of the steps for each dataset, instead of one with all"

_IN_TIME = {
    "nearest": "choose a partner in time: the nearest before, after, or on either side of what the step is about",
    "take": "partners on both sides, as in [before, after]: for interpolation",
    "within": "the largest distance of a partner, as in 90s, 10min, 2h, 3d, 1w",
    "else": "if nothing fits: nearest, earliest, or none (the role stays empty); without it, the instance is blocked",
    "undated": "data without a time of measurement: skip leaves them out, registered uses the time in their ids",
}
_RECORD = {
    "dataset_name": "the dataset's name; for a step's output a template: {ROLE.dataset_name}, {params.NAME}, {step}",
    "measurement": "what was measured, as Crucible names it",
    "data_type": "the kind of data, for people",
    "session_name": "the session in which it was measured",
    "instrument_name": "the instrument, by its name",
    "instrument_id": "the instrument, by its identifier at Crucible",
    "keywords": "keywords of the dataset",
    "metadata": "scientific metadata of the dataset",
    "public": "true: everybody with a key may read it",
    "ingest": "whether Crucible reads metadata and a thumbnail from the file, and whether to wait for that",
    "ingestor": "the ingestor that reads the file; without it, Crucible chooses",
}

# By kind of mapping, as the schema names it; the empty name is the file itself.
KEY_DESCRIPTIONS: dict[str, dict[str, str]] = {
    "": {
        "pipeline": "the name: a letter, then letters, digits, _ and -; results get the keyword pipeline:NAME",
        "description": "a description for people",
        "project": "the project in Crucible that results belong to",
        "project_title": "the title of the project, if it does not exist yet",
        "env": "names of the environment variables that the file may take values from",
        "inputs": "the data, by names that steps use; an input that no step uses is a fault",
        "steps": "what is made, by name; inputs determine the order of work",
        "params": "values for ${params.NAME}, which --set can change",
        "defaults": "settings of all steps that do not override them",
        "timezone": "time zone of nights (group_by: night), which run from noon to noon; default UTC",
        "metadata": "declared: declared fields of files win, even if Crucible says something else by now",
        "include": "files whose inputs, steps, params and defaults are included",
        "runner": "what steps run on under Prefect: threads, processes, dask, ray, slurm or dask=ADDRESS",
        "schedule": "when it runs, once deployed",
        "trigger": "the event on which it runs, once deployed",
    },
    "FileInput": {
        **_RECORD,
        **_IN_TIME,
        "file": "a name, a pattern (*, ?, [...], **), an address (gs://bucket/name) or a list of them",
        "each": "true: every file is a dataset of its own, with one instance of the steps for each",
        "match": _MATCH,
        "label": _LABEL,
        "checks": _CHECKS,
        "header": "a function (module:name) that reads fields of the record and metadata from each file; or `ingested`",
        "timestamp": "when it was measured, with the time zone; orders ids",
        "known_since": "if that time is unknown: a moment at which the data existed; orders ids, claims nothing",
        "samples": "MFIDs of the measured samples; results inherit them",
        "block": "the Prefect block that gives access to files elsewhere",
        "optional": "true: the file may not exist yet; without it, that is a fault",
        "grows": "true: a file that is written on (a log); once it has grown, its dataset replaces the former one",
        "salt": "any text: gives new data another id, if somebody else has taken the regular one",
        "copy": "for files elsewhere: false leaves the bytes there; Crucible gets a record of them",
    },
    "Ingest": {
        "wait": "true: the dataset is complete only after its files were read, whatever the outcome",
        "timeout": "the longest wait: seconds, or as in 90s, 10m, 2h",
    },
    "DatasetInput": {
        **_IN_TIME,
        "dataset": "the MFID of a dataset, or a list",
        "each": _EACH,
        "match": _MATCH,
        "label": _LABEL,
        "checks": _CHECKS,
    },
    "SelectInput": {
        **_IN_TIME,
        "select": "filters that datasets of the project must match, or a list of such filters",
        "superseded": "true: superseded results are taken too",
        "each": _EACH,
        "match": _MATCH,
        "label": _LABEL,
        "checks": _CHECKS,
    },
    "ResultInput": {
        **_IN_TIME,
        "pipeline": "the pipeline whose results are taken",
        "step": "the step that made them",
        "output": "which of its outputs, if it has several",
        "each": _EACH,
        "match": _MATCH,
        "label": _LABEL,
        "checks": _CHECKS,
    },
    "EachInput": {
        **_IN_TIME,
        "each": "the datasets, one by one, each as an input; one instance of the steps for each",
        "match": _MATCH,
        "label": _LABEL,
        "checks": _CHECKS,
    },
    "StepSpec": {
        "uses": "the function, as in module:name",
        "shell": "true: the command is one line for sh, with pipes and redirections; inserted values are quoted",
        "run": "the command instead: {inputs.ROLE}, {params.NAME} and {out} are filled in; no shell sees it",
        "inputs": "the source of each role: an input, a step, step.output, or a list of them",
        "params": "values of the function's keyword-only arguments",
        "matrix": "parameters to sweep: a list of values for each (every combination), or a list of combinations",
        "output": "how the child dataset is described",
        "group_by": "group_by of the first input: one list, and one instance, for each group",
        "across": "across of the first input: swept parameters that are joined in one group",
        "env": "environment variables of a command, besides the few that every command gets",
        "salt": "any text: gives the results other ids, if somebody else has taken the regular ones",
        "retries": "how often a failed step is tried again",
        "timeout": "seconds after which the step is stopped, with everything it started",
        "reads": "files beside the declaration that the step reads: their bytes are part of the recipe",
        "strict": "true: reading a file that was not given and that `reads` does not name is a failure",
        "approve": "whose signatures the results need: until then they are candidates, and nothing is made from them",
        "checks": "conditions on the results, by name: evaluated once they are made, and for those made before",
        "tags": "tags of the task in Prefect, for concurrency limits",
        "resources": "resources of a cluster: {GPU: 1}; of Slurm: cpus, gpus, memory (bytes), time (min), partition",
    },
    "Approve": {
        "by": "names or ids of the accounts that may sign; by default all whose statements count in the project",
        "count": "how many different accounts have to sign",
        "not": "maker: the account that made the result does not count",
    },
    "Check": {
        "that": "a condition in the language of tables, over results.NAME, params.NAME and metadata.NAME",
        "else": "where it does not hold: warn (a flag), hold (nothing is made of it), fail (the step has failed, too)",
    },
    "OutputFields": {
        **_RECORD,
        "samples": "inherit (the samples of the parents) or none",
        "publish": "an address (gs://bucket/prefix/) to which its files are copied too",
    },
    "Publish": {"to": "an address, as in gs://bucket/prefix/", "block": "the Prefect block that gives access to it"},
    "Source": {
        **_IN_TIME,
        "same": "fields that partners in time share: of the record, metadata.NAME, or params.NAME",
        "across": "swept parameters that are joined in one group; without it, each combination has its own groups",
        "gaps": "allow: blocked instances are left out of the list, and the result says so",
        "from": "an input of the pipeline, or a step",
        "output": "which output of the step, if it has several",
        "files": "which of its files: a name or a pattern",
        "collect": "true: all instances of the source as one list; without it, a role that takes a list collects",
        "group_by": "fields of records (instrument_name, metadata.NAME): one list, and one instance, for each group",
        "expect": "the required number of datasets; any other number blocks the instance",
    },
    "Runner": {
        "type": "what steps run on",
        "workers": "how many at a time",
        "address": "the address of a running Dask or Ray cluster",
        "cluster": "the class of a Dask cluster to start for the run",
        "options": "keywords for that class",
    },
    "Schedule": {
        "cron": "five fields: minute, hour, day of the month, month, day of the week",
        "interval": "seconds between runs",
        "rrule": "a recurrence rule (RFC 5545)",
        "timezone": "as in America/Los_Angeles",
    },
    "Trigger": {
        "event": "the name of the event",
        "match": "attributes of the event and their values; * at the end matches any rest",
    },
}
