"""What each key of a pipeline file says, in a line: shown by editors (JSON Schema) and in the documentation."""

from __future__ import annotations

__all__ = ["KEY_DESCRIPTIONS"]

_MATCH = "pairs this input with another: its name, and the fields of both records that have to be equal"
_LABEL = "what instances of steps are called by for each dataset, as in {metadata.power_mW} mW"
_EACH = "true: one run of the steps for each dataset, instead of one with all of them"

_IN_TIME = {
    "nearest": "the partner in time of what the step is about: the nearest before it, after it, or on either side",
    "take": "partners on both sides, as in [before, after]: for interpolation",
    "within": "the greatest distance of a partner, as in 90s, 10min, 2h, 3d, 1w; nothing farther is taken",
    "else": "what where nothing fits: nearest, earliest, or none (the role stays without); else that one is blocked",
    "undated": "of data without a time of measurement: skip leaves them out, registered goes by their ids",
}
_RECORD = {
    "dataset_name": "the dataset's name; of a step's output a template: {ROLE.dataset_name}, {params.NAME}, {step}",
    "measurement": "what was measured, as Crucible names it",
    "data_type": "what kind of data it is, for people",
    "session_name": "the session in which it was measured",
    "instrument_name": "the instrument, by its name",
    "instrument_id": "the instrument, by its identifier at Crucible",
    "keywords": "keywords of the dataset",
    "metadata": "scientific metadata of the dataset",
    "public": "whether everybody may read it",
    "ingest": "whether Crucible reads the file into metadata and thumbnails, and whether that is waited for",
    "ingestor": "which of Crucible's ingestors reads it; without it, Crucible chooses",
}

# By kind of mapping, as the schema names it; the empty name is the file itself.
KEY_DESCRIPTIONS: dict[str, dict[str, str]] = {
    "": {
        "pipeline": "its name: a letter, then letters, digits, _ and -; results carry the keyword pipeline:NAME",
        "description": "for people",
        "project": "the project at Crucible that results belong to",
        "project_title": "the title of the project, where it is made anew",
        "env": "names of the environment variables that the file may take values from",
        "inputs": "the data, by names that steps use; an input that no step uses is a fault",
        "steps": "what is made, by name, in any order: the order of work follows from the inputs",
        "params": "values that stand for ${params.NAME}, and that --set changes",
        "defaults": "what all steps share, unless they say otherwise",
        "timezone": "where nights are counted from noon to noon (group_by: night), as in America/Los_Angeles; else UTC",
        "metadata": "declared: what is declared of files holds, also where Crucible says something else by now",
        "include": "files whose inputs, steps, params and defaults are taken over",
        "runner": "what steps run on under Prefect: threads, processes, dask, ray, slurm or dask=ADDRESS",
        "schedule": "when it runs by itself, once it is deployed",
        "trigger": "the event upon which it runs by itself, once it is deployed",
    },
    "FileInput": {
        **_RECORD,
        **_IN_TIME,
        "file": "a name, a pattern (*, ?, [...], **), an address (gs://bucket/name) or a list of them",
        "each": "true: every file is a dataset of its own, with one run of the steps for each",
        "match": _MATCH,
        "label": _LABEL,
        "header": "a function (module:name) that reads fields of the record and metadata from each file; or `ingested`",
        "timestamp": "when it was measured, with its time zone; it orders ids",
        "known_since": "where that is not known: a moment at which the data existed; orders ids, claims nothing",
        "samples": "MFIDs of the samples that it was measured on; results inherit them",
        "block": "the Prefect block that gives access to files elsewhere",
        "optional": "true: there may be no such file yet; otherwise that is a fault",
        "grows": "true: a file that is written on (a log); once it has grown, its dataset replaces the former one",
        "salt": "any text: gives new data another id, where somebody else has taken the one without it",
        "copy": "of files elsewhere: false leaves their bytes where they are, Crucible holds a record of them",
    },
    "Ingest": {
        "wait": "true: the dataset is complete only when its files are read, however that ended",
        "timeout": "for how long that is waited for at most: seconds, or as in 90s, 10m, 2h",
    },
    "DatasetInput": {
        **_IN_TIME,
        "dataset": "MFID of a dataset, or several",
        "each": _EACH,
        "match": _MATCH,
        "label": _LABEL,
    },
    "SelectInput": {
        **_IN_TIME,
        "select": "filters that datasets of the project have to fit, or a list of such filters",
        "superseded": "whether results that another one has superseded are taken too",
        "each": _EACH,
        "match": _MATCH,
        "label": _LABEL,
    },
    "ResultInput": {
        **_IN_TIME,
        "pipeline": "the pipeline whose results are taken",
        "step": "the step that made them",
        "output": "which of its outputs, where it has several",
        "each": _EACH,
        "match": _MATCH,
        "label": _LABEL,
    },
    "EachInput": {
        **_IN_TIME,
        "each": "the datasets, one by one, each as an input; one run of the steps for each",
        "match": _MATCH,
        "label": _LABEL,
    },
    "StepSpec": {
        "uses": "the function, as in module:name",
        "shell": "true: the command is one line for sh, with pipes and redirections; values are filled in quoted",
        "run": "the command instead: {inputs.ROLE}, {params.NAME} and {out} are filled in; no shell sees it",
        "inputs": "where each role comes from: an input, a step, step.output, or a list of them",
        "params": "values of the function's keyword-only arguments",
        "matrix": "sweeps parameters: a list of values each (every combination is made), or a list of combinations",
        "output": "how the child dataset is described",
        "group_by": "the same of its first input: one list, and one instance, for each group",
        "across": "the same of its first input: swept parameters that are joined in one group",
        "env": "environment variables of a command, beside the few that every command gets",
        "salt": "any text: gives the results other ids, where somebody else has taken those without it",
        "retries": "how often it is tried again when it fails",
        "timeout": "seconds, after which it is stopped with all that it started",
        "reads": "files beside the declaration that it reads: their bytes belong to the identity of the results",
        "strict": "true: the step has failed if it reads a file that it was not given and that `reads` does not name",
        "tags": "tags of its task at Prefect, for concurrency limits",
        "resources": "what it needs of a cluster: {GPU: 1}; of Slurm cpus, gpus, memory (bytes), time (min), partition",
    },
    "OutputFields": {
        **_RECORD,
        "samples": "inherit: the samples of its parents are its samples too",
        "publish": "an address (gs://bucket/prefix/) where its files are copied to, beside Crucible",
    },
    "Publish": {"to": "an address, as in gs://bucket/prefix/", "block": "the Prefect block that gives access to it"},
    "Source": {
        **_IN_TIME,
        "same": "fields that partners in time have in common: of records, metadata.NAME, or params.NAME",
        "across": "swept parameters above that are joined in one group; else there is a group for each combination",
        "gaps": "allow: what is blocked is left out of the list, and the result says so",
        "from": "an input of the pipeline, or a step",
        "output": "which output of the step, where it has several",
        "files": "which of its files: a name or a pattern",
        "collect": "true: all instances of the source as one list; without it, a role that takes a list collects",
        "group_by": "fields of records (instrument_name, metadata.NAME): one list, and one instance, for each group",
        "expect": "how many datasets there have to be; with any other number the step is blocked",
    },
    "Runner": {
        "type": "what steps run on",
        "workers": "how many at a time",
        "address": "of a dask or ray cluster that runs",
        "cluster": "class of a Dask cluster that is started for the run",
        "options": "keywords for that class",
    },
    "Schedule": {
        "cron": "five fields: minute, hour, day of the month, month, day of the week",
        "interval": "seconds between runs",
        "rrule": "a recurrence rule (RFC 5545)",
        "timezone": "as in America/Los_Angeles",
    },
    "Trigger": {
        "event": "what has happened",
        "match": "attributes of the event, and the values that they have; * at the end stands for any rest",
    },
}
