"""Corrections and statements from a dataset's page: a form for each act, and the same acts as the commands'."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.responses import RedirectResponse, Response

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.inputs.corrections import (
    FIELDS,
    OF_METADATA,
    add_sample,
    apply_changes,
    changes_of,
    link_datasets,
    link_sample,
    read_value,
    unlink_datasets,
)
from crucible_lineage.queries.catalogue.reference import find_mfid
from crucible_lineage.queries.deletion import ask_deletion
from crucible_lineage.session import Session
from crucible_lineage.statements import FLAG, HOLD, About
from crucible_lineage.stating import lift, project_of, sign, state
from crucible_lineage.web.reader import Reader

__all__ = ["SET_FIELDS", "correct"]

SET_FIELDS = tuple(field for field in FIELDS if field != "dataset_name")  # which `rename` gives

Form = Mapping[str, str]


def correct(reader: Reader, form: Form) -> Response:
    """Do what a form of a dataset's page asks for, in the reader's name, and show the page again."""
    mfid = reader.mfid
    if (act := _ACTS.get(form.get("act", ""))) is None:
        raise InputError(f"correct {mfid}: there is no act {form.get('act', '')!r}; nothing was changed")
    with reader.sign_in.session() as session:
        act(session, mfid, form)
    return RedirectResponse("/" if act is _delete else f"/datasets/{mfid}", 303)


def _set(session: Session, mfid: str, form: Form) -> None:
    field = _given(form, "field", "which field")
    field = f"{OF_METADATA}{_given(form, 'key', 'which key')}" if field == "metadata" else field
    changes = changes_of(session, mfid, {field: read_value(field, form.get("value", ""))})
    apply_changes(session, changes, _why(form))


def _rename(session: Session, mfid: str, form: Form) -> None:
    changes = changes_of(session, mfid, {"dataset_name": _given(form, "name", "the name")})
    apply_changes(session, changes, _why(form))


def _link(session: Session, mfid: str, form: Form) -> None:
    link_datasets(session, _parent(session, form), mfid, _why(form))


def _unlink(session: Session, mfid: str, form: Form) -> None:
    unlink_datasets(session, _parent(session, form), mfid, _why(form))


def _sample(session: Session, mfid: str, form: Form) -> None:
    if name := form.get("new", "").strip():
        project = session.client.datasets.get(mfid).project_id or ""
        add_sample(session, project, name, [mfid], _why(form))
    else:
        link_sample(
            session, _given(form, "sample", "the MFID of a sample, or the name of a new one"), [mfid], _why(form)
        )


def _delete(session: Session, mfid: str, form: Form) -> None:
    way_out = "look at its lineage, or tick that it is to be deleted all the same"
    ask_deletion(session, mfid, _why(form), even_if_used=form.get("even_if_used") == "yes", else_say=way_out)


def _hold(session: Session, mfid: str, form: Form) -> None:
    flag = form.get("flag", "").strip()
    why, where = _given(form, "why", "why"), project_of(session, (mfid,), "hold")
    state(session, where, FLAG if flag else HOLD, About((mfid,)), why=why, body={"flag": flag} if flag else {})


def _unhold(session: Session, mfid: str, form: Form) -> None:
    where = project_of(session, (mfid,), "unhold")
    lift(session, About((mfid,)), _why(form), project=where, flag=form.get("flag", "").strip())


def _sign(session: Session, mfid: str, form: Form) -> None:
    sign(session, (mfid,), _why(form))


_ACTS: Mapping[str, Callable[[Session, str, Form], None]] = {
    "set": _set,
    "rename": _rename,
    "link": _link,
    "unlink": _unlink,
    "sample": _sample,
    "delete": _delete,
    "hold": _hold,
    "unhold": _unhold,
    "sign": _sign,
}


def _parent(session: Session, form: Form) -> str:
    return find_mfid(session, _given(form, "parent", "the parent, by its MFID or its name"))


def _why(form: Form) -> str:
    return form.get("why", "").strip()


def _given(form: Form, name: str, what: str) -> str:
    if value := form.get(name, "").strip():
        return value
    raise InputError(f"correct: say {what}; nothing was changed")
