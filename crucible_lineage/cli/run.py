"""`run`, `rerun`, `push` and `reproduce`: make, make again, deliver; and print what steps returned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from crucible_lineage.ask.answer import MOST_CELL, Answer, Done, next_command
from crucible_lineage.ask.names import find_mfid, find_project, shared_name
from crucible_lineage.ask.plans import AsOf, Forced, PlanAnswer, hold_in, notes_text, parse_overrides, undeclared_text
from crucible_lineage.ask.question import BEFORE, Overrides, Project, argument, option
from crucible_lineage.ask.runs import damaged_lines, unread_lines, waiting_lines
from crucible_lineage.cli.asking import PATIENCE, Jobs, Patience, act, announce
from crucible_lineage.cli.engines import AUTO, PREFECT, engine_entry, run_with_engine
from crucible_lineage.cli.printing import ProgressDisplay, print_line, terminal_width, wants_json, warn
from crucible_lineage.cli.progress import Progress
from crucible_lineage.core.datasets import fetch_datasets
from crucible_lineage.errors import FAILURE, INTERRUPTED, ON_HOLD, UNREACHABLE, InputError, LineageError
from crucible_lineage.lineage.labels import plain, value_text
from crucible_lineage.lineage.records import returned_values
from crucible_lineage.machine.process import collector_frozen
from crucible_lineage.pipeline.declare.inputs import located
from crucible_lineage.pipeline.declare.pipeline import INHERIT
from crucible_lineage.pipeline.job.job import Outcome
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.bound import BoundPipeline
from crucible_lineage.pipeline.plan.planner import by_project
from crucible_lineage.pipeline.run.result import MAX_RETURNED, RunResult, StepChoice
from crucible_lineage.pipeline.run.run import noting_unstarted, plan_and_run
from crucible_lineage.session import Session
from crucible_lineage.settings import JOBS_AT_ONCE
from crucible_lineage.statements.consent import Consent, ask_in_terminal
from crucible_lineage.statements.stating import account_ids, project_of
from crucible_lineage.text.amounts import amount

if TYPE_CHECKING:  # imported on use
    from crucible_lineage.remake.driver import Outcome as Reproduced
    from crucible_lineage.remake.reproduce import RestoredFile

MOST_TRACEBACKS = 3  # more are in the logs that the errors name
MOST_VALUE = 60  # characters

Returned = dict[tuple[str, str], tuple[str, Mapping[str, object]]]


@act("run")
def run_command(
    session: Session, pipeline: Annotated[str, argument()], *,
    engine: Annotated[
        str, option(
            "auto: Prefect if its API is configured, else threads of this process. NAME: an engine of another package.",
            metavar="[auto|prefect|local|NAME]",
        )
    ] = "auto",
    jobs: Jobs = JOBS_AT_ONCE, overrides: Overrides = (), forced: Forced = (),
    only: Annotated[
        Sequence[str], option("Make just this step, or STEP[INSTANCE]; repeatable.", metavar="STEP")
    ] = (),
    from_: Annotated[
        Sequence[str], option("Make this step and all steps that depend on it.", "--from", metavar="STEP")
    ] = (),
    keep_going: Annotated[
        bool, option("What to do once a step has failed.  [default: continue]", "--keep-going/--fail-fast")
    ] = True,
    patience: Patience = PATIENCE, as_of: AsOf = "",
    quiet: Annotated[bool, option("Print failures only.", "-q", "--quiet")] = False,
    verbose: Annotated[bool, option("Also show what steps print.", "-v", "--verbose")] = False,
) -> Done:  # fmt: skip
    """Run the pipeline declared in the file PIPELINE: make and register what is missing or stale.

    Exit code 0 if every step has its result at Crucible, 1 if a step failed or a result waits for delivery (run
    again to continue), 2 if the input is wrong, 3 if Crucible is away and no step had to run, as far as known
    here, 4 if nothing but a hold or a missing signature stopped a step or doubts a result, 130 if the run was stopped
    by Ctrl-C or SIGTERM.
    """
    if engine not in (AUTO, PREFECT):
        engine_entry(engine)  # refuse an unknown one before anything else
    if not quiet:
        announce(session)
    values = parse_overrides(overrides)
    path = located(pipeline)
    with collector_frozen(), noting_unstarted(session, path) if not values else nullcontext():
        bound = bind_file(path, session.store, values)
    last = session.journal.declaration(bound.name)
    if last and last.is_file() and last.resolve() != bound.spec.path.resolve():
        both = shared_name([last, bound.spec.path])
        click.echo(plain(f"note: pipeline {bound.name!r} was last run from {last}: {both}"), err=True)
    choice = StepChoice(tuple(forced), tuple(only), tuple(from_), keep_going, patience, as_of)
    choice.require_steps(bound)  # refuse unknown names before any request

    def run(one: BoundPipeline) -> Done:
        with Progress(list(one.steps), quiet=quiet, silent=wants_json(), verbose=verbose) as progress:
            result = run_with_engine(engine, one, session, progress, jobs, values, choice)
            returned = {} if wants_json() or quiet else returned_by(session, result)
        return _done(result, quiet=quiet, verbose=verbose, returned=returned)

    if bound.spec.project != INHERIT:
        return run(bound)
    return _done_by_project(by_project(bound, session), run, quiet=quiet)


def _done_by_project(pipelines: Sequence[BoundPipeline], run: Callable[[BoundPipeline], Done], *, quiet: bool) -> Done:
    """Run a pipeline in each project; one that cannot be run hinders no other."""
    done = dict[str, Done]()
    for pipeline in pipelines:
        project = pipeline.spec.project
        if not wants_json() and not quiet:
            click.echo(f"project {project}:")
        try:
            done[project] = run(pipeline)
        except LineageError as error:
            done[project] = Done({"error": str(error)}, (), error.exit_code, [f"{project}: {error}"])
        warn(done[project].warnings)
        for line in done[project].lines():
            print_line(line)
        if done[project].exit_code == INTERRUPTED:
            break
    codes = {one.exit_code for one in done.values()} - {0}
    code = next((code for code in (INTERRUPTED, FAILURE) if code in codes), min(codes, default=0))
    return Done({"projects": {project: one.document for project, one in done.items()}}, (), code)


def _done(result: RunResult, *, quiet: bool = False, verbose: bool = False, returned: Returned) -> Done:
    """Report what a run did, in a few lines; with `quiet` only what failed, with `verbose` also our tracebacks."""
    if wants_json():
        return Done(result, (), exit_code(result))
    lines, notes = ((), ()) if quiet else (_lines(result, returned), _notes(result))
    return Done(result, lines, exit_code(result), [*error_lines(result, verbose), *notes])


def exit_code(result: RunResult) -> int:
    """Return the exit code of a command that ran a pipeline."""
    if result.stopped:
        return INTERRUPTED
    if result.is_held and not result.unseen:
        return ON_HOLD
    is_unseen = bool(result.unseen) and not result.waiting and not result.is_failed
    return 0 if result.ok else UNREACHABLE if is_unseen else FAILURE


def _lines(result: RunResult, returned: Returned) -> Iterator[str]:
    """Yield the outcomes, kept results, deliveries, and what the steps returned."""
    outcomes = list(result.outcomes.values())
    kinds = (Outcome.EXECUTED, Outcome.REUSED, Outcome.FAILED, Outcome.STOPPED, Outcome.SKIPPED, Outcome.LEFT_OUT)
    counted = ", ".join(f"{outcomes.count(kind)} {kind}" for kind in kinds if kind in outcomes)
    yield counted or "nothing to do"
    if result.stayed:
        made, kept = f"{len(result.executed)} of {len(outcomes)}", len(result.stayed)
        yield f"{made} changed; {amount(kept, 'later result')} kept, because the bytes are identical"
    if result.current_again:
        named = ", ".join(result.current_again[:6])
        yield f"current again: {named}{' ...' if len(result.current_again) > 6 else ''}"
    if result.delivered:
        yield f"delivered {amount(len(result.delivered), 'dataset')} from an earlier run"
    if outcomes and not result.executed and result.ok and not result.held:
        chosen = "what was chosen" if Outcome.LEFT_OUT in outcomes else "everything"
        yield f"{chosen} is up to date; nothing was run"
    yield from _returned_lines(returned, len(result.executed))
    for mfid in list(result.datasets.values())[-1].values() if result.datasets else ():
        yield f"see it: {next_command('lineage', mfid)}"


def error_lines(result: RunResult, verbose: bool) -> Iterator[str]:
    """Yield what failed, what was not asked, and what is on hold."""
    for step, log in result.logs.items() if verbose else ():
        if step not in result.tracebacks and Path(log).name.startswith("fault-"):
            yield Path(log).read_text(encoding="utf-8")
    failed = [(step, error) for step, error in result.errors.items() if result.outcomes[step] == Outcome.FAILED]
    shown: set[tuple[str, ...]] = {()}
    for step, error in failed:
        yield result.error_line(step)
        frames = tuple(result.tracebacks.get(step, "").rstrip().splitlines())
        frames = frames[:-1] if frames and frames[-1].strip() in error else frames  # the error is a line already
        if frames not in shown and len(shown) <= MOST_TRACEBACKS:
            shown.add(frames)
            yield from (f"  {line}" for line in frames)
    if result.unseen:
        yield f"existing results are those known to this machine; Crucible was not asked: {result.unseen}"
    if result.is_held:
        reasons = dict.fromkeys(hold_in(reason) or reason for reason in result.held.values())
        yield f"{'made, with holds: ' if result.executed else 'on hold: '}{'; '.join(reasons)}"
    if result.stopped:
        yield "the run was stopped; registered results are kept; run the same command again to continue"


def _notes(result: RunResult) -> Iterator[str]:
    """Yield notes, and results that wait."""
    undeclared = filter(None, [undeclared_text(result.undeclared)])
    steps = (f"{step}: {note}" for step, note in result.notes.items())
    yield from (f"note: {note}" for note in (*steps, *notes_text(result.input_notes), *undeclared))
    yield from unread_lines(result.not_ingested)
    yield from waiting_lines(result.waiting)


def returned_by(session: Session, result: RunResult) -> Returned:
    """Return {(step, output): (MFID, returned values)} of the last datasets that a run made and delivered."""
    waiting = {mfid for row in result.waiting for mfid in row.mfids}
    made = [
        (step, output, mfid)
        for step, outputs in result.datasets.items()
        for output, mfid in outputs.items()
        if result.outcomes.get(step) == Outcome.EXECUTED and mfid not in waiting
    ][-MAX_RETURNED:]
    if not made:
        return {}
    known = {mfid: values for step, output, mfid in made
             if (values := result.returned.get(step, {}).get(output)) is not None}  # fmt: skip
    if elsewhere := {mfid for *_, mfid in made if mfid not in known}:  # another process or machine made them
        with suppress(LineageError):  # the run itself succeeded
            fetched = fetch_datasets(session.client, elsewhere).found
            known |= {mfid: returned_values(record) for mfid, record in fetched.items()}
    return {(step, output): (mfid, known[mfid]) for step, output, mfid in made if mfid in known}


def _returned_lines(returned: Returned, executed: int) -> Iterator[str]:
    """Yield a line for each dataset: the step, the id, and the returned values."""
    names = {key: plain(key[0] if key[1] == "out" else f"{key[0]}.{key[1]}") for key in returned}
    widest = min(max(map(len, names.values()), default=0), MOST_CELL)
    for key, (mfid, values) in returned.items():
        text = "  ".join(f"{plain(name)} {value_text(value, MOST_VALUE)}" for name, value in values.items())
        prefix = f"{names[key]:{widest}}  {mfid}"
        room = max(terminal_width() * 2, 120, len(prefix) + MOST_VALUE)
        line = f"{prefix}  {text}".rstrip()
        yield line if len(line) <= room else f"{line[: room - 1]}…"
    if returned and executed > len(returned):
        step = next(reversed(returned))[0].partition("[")[0]
        yield f"all of them: {next_command('table', '--step', step)}"


@act("rerun")
def rerun_command(
    session: Session, mfid: Annotated[str | None, argument()] = None, *,
    stale: Annotated[bool, option("Everything stale in the project, in dependency order.")] = False,
    project: Project = None,
    folder: Annotated[
        Path | None, option(
            "The folder of the steps' modules and scripts; by default the one their pipeline was last run from.",
            metavar="DIR", exists=True,
        )
    ] = None,
    overrides: Overrides = (),
    forced: Annotated[
        bool, option("Rerun even if nothing has changed, and keep the earlier result.", "--force")
    ] = False,
    dry_run: Annotated[bool, option("Show what would be done.")] = False, jobs: Jobs = JOBS_AT_ONCE,
) -> Answer:  # fmt: skip
    """Rerun the step of the dataset MFID with its recorded parameters, the current code and current parents.

    Stale ancestors are made first. If nothing has changed, nothing is run. --set changes a parameter of the step.
    """
    from crucible_lineage.pipeline.engines.local import LocalEngine  # `run` and `plan` start faster without
    from crucible_lineage.pipeline.rerun import plan_rerun, plan_stale  # likewise: networkx

    if (mfid is None) == (not stale):
        raise InputError("name what to rerun: the MFID of a dataset, or --stale")
    if mfid is not None:
        values = {name.rpartition(".")[2]: value for name, value in parse_overrides(overrides).items()}
        found = plan_rerun(find_mfid(session, mfid), session, folder, values, forced=forced)
    else:
        found = plan_stale(find_project(session, project), session, folder)
    warn(f"{dataset} is left out: {reason}" for dataset, reason in found.left_out.items())
    if dry_run:
        return PlanAnswer(found.pipeline.name, found.planned)
    with Progress(list(found.pipeline.steps), silent=wants_json()) as progress:
        engine, listen, stop = lambda: LocalEngine(session, jobs), progress.listen, progress.stop
        result = plan_and_run(found.pipeline, session, engine, listen, found.choice, stop, planned=found.planned)
        returned = {} if wants_json() else returned_by(session, result)
    return _done(result, returned=returned)


@act("push", announced=BEFORE)
def push_command(session: Session, patience: Patience = PATIENCE, *, tell: ProgressDisplay) -> Done:
    """Deliver results that were made while Crucible was away.

    Exit code 0 if everything is at Crucible, 1 if something still waits or is damaged.
    """
    from crucible_lineage.pipeline.job.delivering import deliver_all  # not needed by a run if all is fresh

    delivered, left = deliver_all(session, patience, lambda reason: tell.print_line(f"  {reason}"), tell)
    damaged = session.outbox.set_aside()
    lines = [f"{len(delivered)} delivered" if delivered or left else "nothing waits here"]
    warnings = [*waiting_lines(left), *damaged_lines(damaged)]
    document = {"mfids": delivered, "waiting": left, "damaged": damaged}
    return Done(document, lines, FAILURE if warnings else 0, warnings)


@act("reproduce")
def reproduce_command(
    session: Session, results: Annotated[Sequence[str], argument("MFID|BUNDLE.zip...")] = (), *,
    is_all: Annotated[bool, option("Remake all steps, starting from the measured files.", "--all")] = False,
    here: Annotated[bool, option("Use the environment of this Python, and report how it differs.")] = False,
    rtol: Annotated[
        float | None, option("Relative tolerance of numbers (1e-9, or as declared).", kind=click.FloatRange(0, 1))
    ] = None,
    project: Annotated[str | None, option("With --sample: random results of this project.", metavar="P")] = None,
    sample: Annotated[
        int | None, option("The number of results of --project.", metavar="N", least=1, needs="project")
    ] = None,
    keep: Annotated[
        Path | None, option("A new folder for the remade files; by default they are removed.", metavar="DIR")
    ] = None,
    network: Annotated[bool, option("Let the steps use the network.")] = False,
    accounts: Annotated[
        Sequence[str], option(
            "Run what this account, or the maker of a bundle with this SHA-256, recorded; repeatable.",
            "--run-code-of", metavar="ACCOUNT",
        )
    ] = (),
    show_code: Annotated[bool, option("Print who wrote what would run, and run nothing.")] = False,
    restored: Annotated[
        bool, option("Send files that Crucible has lost or damaged again: from copies, or else remade.", "--restore")
    ] = False,
    folders: Annotated[
        Sequence[Path], option(
            "With --restore: another data folder or a backup that may have copies; repeatable.", "--from",
            metavar="DIR", exists=True, needs="restored",
        )
    ] = (),
) -> Done:  # fmt: skip
    """Remake results from their recorded source, environment, parameters and inputs, and compare.

    Code of others runs only with consent: asked for in a terminal, by --run-code-of, or by `project trust --code`. A
    bundle has to lead to its ids. Steps get no network, an empty home, and bounds of time, memory and size.

    Nothing at Crucible is changed, except that --restore sends files with the recorded hashes again, also of measured
    data. Exit code 0 if everything is the same within the tolerance, 1 if something differs or could not be made, 2
    for code of others without consent.
    """
    from crucible_lineage.remake.driver import Options
    from crucible_lineage.remake.reproduce import code_to_show, reproduce, restore, sampled

    bundle = _bundle(results, project, keep, restored=restored)

    def progress(line: str) -> None:
        if not wants_json():
            click.echo(plain(line), err=True)

    options = Options(here, rtol, session.settings.data / "environments", is_all, network)
    mfids = [] if bundle else [find_mfid(session, result) for result in results]
    if project:
        mfids = sampled(session, project, sample or 1)
    if show_code:
        shown = list(code_to_show(session, bundle or mfids))
        return Done({"code": shown}, [line for text in shown for line in text.splitlines()])
    if accounts and mfids:
        accounts = [*account_ids(session, project or project_of(session, mfids, "reproduce"), accounts)]
    consent = Consent(accounts, ask_in_terminal)
    if restored:
        return _restored(
            [file for mfid in mfids for file in restore(session, mfid, folders, options, progress, consent)]
        )
    if not bundle:
        announce(session)
    return _reproduced(reproduce(session, bundle or mfids, options, progress, keep, consent))


def _reproduced(found: Sequence[Reproduced]) -> Done:
    """Report the outcomes of steps that were made again."""
    good = sum(outcome.is_good for outcome in found)
    lines = [line for outcome in found for line in outcome.lines()]
    reproduced = f"{good} of {amount(len(found), 'result')} reproduced"
    return Done({"results": found}, [*lines, reproduced], 0 if good == len(found) else FAILURE)


def _restored(files: Sequence[RestoredFile]) -> Done:
    """Report what became of each file that Crucible lacked."""
    lines = [
        f"restored {file.filename} of {file.mfid}, from {file.source}" if file.source else
        f"{file.filename} of {file.mfid} is lost: no copy was found, and no step gave these bytes"
        for file in files
    ]  # fmt: skip
    return Done({"restored": files}, lines or ["no file is lost"], 0 if all(file.source for file in files) else FAILURE)


def _bundle(results: Sequence[str], project: str | None, keep: Path | None, *, restored: bool) -> Path | None:
    """Return the bundle that is named, if one is. Raises InputError for what does not fit together."""
    if bool(results) == bool(project):
        raise InputError("reproduce: name results, a bundle, or --project with --sample")
    if keep is not None and keep.exists():
        raise InputError(f"reproduce: {keep} already exists; name a new folder")
    bundles = [Path(result) for result in results if result.endswith(".zip") or Path(result).is_dir()]
    if bundles and len(results) > 1:
        raise InputError("reproduce: name one bundle and nothing else")
    if restored and (bundles or keep):
        raise InputError("reproduce: --restore is for datasets at Crucible, without --keep")
    return bundles[0] if bundles else None
