"""JSON Schema of pipeline files for editors: generated from the models, with a line on each key."""

from __future__ import annotations

from crucible_lineage.json_types import JsonObject
from crucible_lineage.pipeline.declare.faults import INTERNAL_FIELDS
from crucible_lineage.pipeline.declare.load import DEFAULTS, INPUT_DEFAULTS
from crucible_lineage.pipeline.spec.inputs import INPUT_KINDS
from crucible_lineage.pipeline.spec.pipeline import RUNNERS, PipelineSpec

MODELINE = "# yaml-language-server: $schema={path}"
_REFERENCE = {"type": "string", "pattern": "^\\$\\{(params|env)\\..+\\}$"}


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
_PAIRED = {**_IN_TIME, "match": _MATCH, "label": _LABEL, "checks": _CHECKS}
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

# By definition name in the schema; the empty name is the file itself.
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
        "metadata": "declared: declared fields of files win, even if Crucible has other values now",
        "include": "files whose inputs, steps, params and defaults are included",
        "runner": f"what steps run on: {RUNNERS}, or dask=ADDRESS; all but slurm under Prefect only",
        "schedule": "when it runs, once deployed",
        "trigger": "the event on which it runs, once deployed",
        "fresh": "how often a new result is expected",
    },
    "FileInput": {
        **_RECORD,
        **_PAIRED,
        "file": "a name, a pattern (*, ?, [...], **), an address (gs://bucket/name) or a list of them",
        "each": "true: every file is a dataset of its own, with one instance of the steps for each",
        "header": "a function (module:name) that reads fields of the record and metadata from each file; or `ingested`",
        "timestamp": "when it was measured, with the time zone; orders ids",
        "known_since": "if that time is unknown: a moment at which the data existed; orders ids, is not recorded",
        "samples": "MFIDs of the measured samples; results inherit them",
        "block": "the Prefect block that gives access to remote files",
        "optional": "true: the file may not exist yet; without it, that is a fault",
        "grows": "true: a file that is appended to (a log); once it has grown, its dataset replaces the previous one",
        "salt": "any text: gives new data another id, if the regular one is already in use",
        "copy": "for remote files: false leaves the bytes there; Crucible gets a record of them",
    },
    "Ingest": {
        "wait": "true: the dataset is complete only after its files were read, whatever the outcome",
        "timeout": "the longest wait: seconds, or as in 90s, 10m, 2h",
    },
    "DatasetInput": {
        **_PAIRED,
        "dataset": "the MFID of a dataset, or a list",
        "each": _EACH,
    },
    "SelectInput": {
        **_PAIRED,
        "select": "filters that datasets of the project must match, or a list of such filters",
        "superseded": "true: superseded results are selected too",
        "each": _EACH,
    },
    "ResultInput": {
        **_PAIRED,
        "pipeline": "the pipeline whose results are taken",
        "step": "the step that made them",
        "output": "which of its outputs, if it has several",
        "each": _EACH,
    },
    "CalibrationInput": {
        "calibration": "the kind of calibration, as certificates have it: chosen for each dataset by its time",
        "for": "the input (with `each`) whose data are calibrated",
        "take": "before: the one that is valid (default); after: the one that becomes valid next; or both, in a list",
        "within": _IN_TIME["within"],
        "else": "where none is valid: block (default), nearest in time, or none (the role stays empty)",
        "label": _LABEL,
        "checks": _CHECKS,
    },
    "EachInput": {
        **_PAIRED,
        "each": "the datasets, one by one, each as an input; one instance of the steps for each",
    },
    "StepSpec": {
        "uses": "the function, as in module:name",
        "shell": "true: the command is one line for sh, with pipes and redirections; inserted values are quoted",
        "run": "the command instead: {inputs.ROLE}, {params.NAME} and {out} are filled in; no shell sees it",
        "inputs": "the source of each role: an input, a step, step.output, or a list of them",
        "params": "values of the function's keyword-only arguments",
        "matrix": "parameters to sweep: a list of values for each (every combination), or a list of combinations",
        "output": "description of the resulting dataset",
        "group_by": "group_by of the first input: one list, and one instance, for each group",
        "across": "across of the first input: swept parameters that are joined in one group",
        "env": "environment variables of a command, besides the few that every command gets",
        "salt": "any text: gives the results other ids, if the regular ones are already in use",
        "retries": "how often a failed step is tried again",
        "timeout": "seconds after which the step is stopped, with everything it started",
        "reads": "files beside the declaration that the step reads: their bytes are part of the recipe",
        "strict": "true: reading a file that was not given and that `reads` does not name is a failure",
        "approve": "whose signatures the results need: until then they are candidates, and nothing is made from them",
        "certify": "the result is certified as a calibration of the data of its instrument, from its own time on",
        "reproduce": "how a remade result is compared",
        "checks": "conditions on the results, by name: evaluated when results are made, and on existing ones",
        "tags": "tags of the task in Prefect, for concurrency limits",
        "resources": "resources of a cluster: {GPU: 1}; of Slurm: cpus, gpus, memory (bytes), time (min), partition",
    },
    "Certify": {
        "for": "fields, as instrument_name: it is a calibration of data with the same values",
        "from": "when its validity begins: {ROLE.timestamp}, or a moment",
        "until": "when it ends: next (default), when the next one is certified, or a moment",
        "kind": "the kind of calibration; by default the measurement of the result",
        "where": "a further condition on the data",
    },
    "Approve": {
        "by": "names or ids of the accounts that may sign; by default all whose statements count in the project",
        "count": "how many different accounts have to sign",
        "not": "maker: the account that made the result does not count",
    },
    "Reproduce": {
        "rtol": "the relative tolerance of numbers (1e-9)",
        "files": "what files are, by name or pattern: numbers, picture or bytes",
        "ignore": "names of values that do not count, as created_at",
    },
    "Check": {
        "that": "a condition in the language of tables, over results.NAME, params.NAME and metadata.NAME",
        "else": "if it does not hold: warn (a flag), hold (nothing is made from it), fail (the step fails, too)",
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
    "Freshness": {
        "within": "the time within which a new result is expected: seconds, or as in 90m, 24h",
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


def pipeline_schema() -> dict[str, object]:
    """Return the schema (draft 2020-12)."""
    schema = PipelineSpec.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    for model in (schema, *definitions.values()):
        _remove_internal_fields(model)
        _allow_references(model)
    step = definitions["StepSpec"]
    step["properties"]["inputs"] = {"type": "object", "additionalProperties": _source_forms()}
    step["oneOf"] = [{"required": ["uses"]}, {"required": ["run"]}]
    definitions["DatasetInput"]["properties"]["dataset"] = _one_or_more()
    for fields in ("group_by", "across", "same"):
        definitions["Source"]["properties"][fields] = _one_or_more()
    step["properties"] |= {name: _one_or_more() for name in ("group_by", "across", "reads")}
    kinds = [model.__name__ for model in INPUT_KINDS.values()]
    for properties in (definitions[kind]["properties"] for kind in kinds):
        properties |= {"match": _match()} if "match" in properties else {}
    each = definitions["EachInput"]
    each["additionalProperties"] = True  # keys beside `each` apply to every entry
    each["properties"]["each"] = {"type": "array", "minItems": 1, "items": {"type": "object"}}
    forms = [{"$ref": f"#/$defs/{kind}"} for kind in kinds]
    properties = schema["properties"]
    properties["inputs"] = {"type": "object", "additionalProperties": {"anyOf": forms}}
    properties["params"] = {"type": "object"}
    of_files = definitions["FileInput"]["properties"]
    shared = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: of_files[name] for name in INPUT_DEFAULTS},
        "description": "fields of all inputs of measured files that do not set them",
    }
    properties["defaults"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {**{name: step["properties"][name] for name in DEFAULTS}, "inputs": shared},
    }
    properties["include"] = _one_or_more()
    properties["runner"] = _or_text("Runner", f"{RUNNERS}, or dask=ADDRESS")
    definitions["OutputFields"]["properties"]["publish"] = _or_text("Publish", "gs://bucket/prefix/")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "crucible-lineage pipeline"
    for name, model in {"": schema, **definitions}.items():
        _set_descriptions(model, KEY_DESCRIPTIONS.get(name, {}))
    return schema


def _set_descriptions(model: JsonObject, descriptions: dict[str, str]) -> None:
    """Set the descriptions: of the model the first paragraph of its docstring, of each key a line."""
    model["description"] = " ".join(model.get("description", "").partition("\n\n")[0].split())
    for key, declared in model["properties"].items():
        if key in descriptions:
            declared["description"] = descriptions[key]


def _or_text(model: str, example: str) -> dict[str, object]:
    """Return the schema of a mapping or its short form."""
    return {"anyOf": [{"type": "string", "description": example}, {"$ref": f"#/$defs/{model}"}]}


def _remove_internal_fields(model: JsonObject) -> None:
    for name in INTERNAL_FIELDS:
        model.get("properties", {}).pop(name, None)
    if "required" in model:
        model["required"] = [name for name in model["required"] if name not in INTERNAL_FIELDS]


def _allow_references(model: JsonObject) -> None:
    """Allow references to variables where numbers and booleans are expected."""
    for name, declared in model.get("properties", {}).items():
        if declared.get("type") in ("integer", "number", "boolean"):
            annotations = {key: declared.pop(key) for key in ("description", "default", "title") if key in declared}
            model["properties"][name] = {"anyOf": [declared, _REFERENCE], **annotations}
        elif isinstance(declared.get("anyOf"), list):
            declared["anyOf"].append(_REFERENCE)


def _source_forms() -> dict[str, object]:
    single = [{"type": "string"}, {"$ref": "#/$defs/Source"}]
    return {"anyOf": [*single, {"type": "array", "minItems": 1, "items": {"anyOf": single}}]}


def _one_or_more() -> dict[str, object]:
    return {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


def _match() -> dict[str, object]:
    return {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": _one_or_more()}
