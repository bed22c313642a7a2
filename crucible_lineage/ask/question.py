"""Questions: one typed function each. A command, a tool of assistants, a page and a method of notebooks follow from it.

Its docstring is the help; its parameters carry theirs in `Annotated[type, option(...)]`. Its module is imported on use.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from keyword import iskeyword
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from crucible_lineage.ask.answer import Answer
from crucible_lineage.errors import InputError
from crucible_lineage.machine.process import Tell
from crucible_lineage.session import Session

F = TypeVar("F", bound=Callable[..., Answer])
BEFORE, AFTER = "before", "after"  # when a command says which Crucible answers
COMMAND, TOOL, PAGE, NOTEBOOK = "command", "tool", "page", "notebook"
NEEDED: Any = inspect.Parameter.empty  # default of a required parameter after optional ones
EVERYWHERE, ELSEWHERE = (COMMAND, TOOL, PAGE, NOTEBOOK), (TOOL, PAGE, NOTEBOOK)
HERE = (COMMAND, NOTEBOOK)  # it concerns files of this machine
NOT_PAGE = (COMMAND, TOOL, NOTEBOOK)  # it imports modules of pipelines of this machine

MODULES: Mapping[str, str] = {
    "list": "listing",
    "show": "view",
    "table": "table",
    "runs": "runs",
    "why": "explain",
    "lineage": "lineage",
    "diff": "explain",
    "impact": "impact",
    "verify": "verify",
    "statements": "view",
    "status": "status",
    "plan": "plans",
}
"""The module of each question."""


@dataclass(frozen=True)
class Param:
    """Help of a parameter, its names on the command line (by default --NAME), and the doors that have it."""

    help: str
    flags: tuple[str, ...]
    metavar: str | None = None
    is_argument: bool = False
    least: int | None = None
    exists: bool = False  # of paths
    choices: tuple[str, ...] = ()
    needs: str = ""  # the parameter, by its name in Python, without which it is refused
    kind: Any = None  # on the command line, if not the parameter's type
    doors: tuple[str, ...] = EVERYWHERE


def option(text: str, *flags: str, **more: Any) -> Param:
    """Describe an option."""
    return Param(text, flags, **more)


def argument(metavar: str | None = None, text: str = "", **more: Any) -> Param:
    """Describe an argument."""
    return Param(text, (), metavar, is_argument=True, **more)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a question: its name for people and in Python, its type without None, and its default."""

    name: str
    target: str
    type: type
    is_list: bool
    default: Any
    param: Param

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return self.param.flags[-1] if self.param.flags else f"--{self.name.replace('_', '-')}"

    @property
    def annotation(self) -> Any:
        """Its type as an assistant's schema has it."""
        kind: Any = Literal[self.param.choices] if self.param.choices else self.type
        return list[kind] if self.is_list else kind if self.is_required or self.type is bool else kind | None

    def read(self, given: list[str]) -> Any:
        """Return the value of the texts in a form. Raises InputError for one that is none."""
        try:
            values = tuple(self.type(text) for text in given)
        except ValueError:
            raise InputError(f"{self.name}={given[-1]} is no {self.type.__name__}") from None
        return values if self.is_list else values[-1]


@dataclass(frozen=True)
class Question:
    """A question, or an act, with its parameters.

    `tells` says whether it reports progress, `opens` whether it needs a session; `check` refuses a wrong request.
    """

    name: str
    function: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    tells: bool
    opens: bool
    is_table: bool = False
    announced: str = ""
    doors: tuple[str, ...] = EVERYWHERE
    patience_s: float | None = None
    check: Callable[..., None] | None = None

    @property
    def help(self) -> str:
        """The docstring."""
        return inspect.getdoc(self.function) or ""

    def help_at(self, door: str) -> str:
        """Return the docstring, and the help of each parameter that a door has."""
        described = (parameter for parameter in self.parameters_at(door) if parameter.param.help)
        lines = (f"{parameter.name}: {parameter.param.help}" for parameter in described)
        return "\n".join((self.help.replace("\b\n", ""), "", *lines))

    def parameters_at(self, door: str) -> list[Parameter]:
        """Return the parameters that a door has."""
        return [parameter for parameter in self.parameters if door in parameter.param.doors]

    def named(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is given, by its names in Python."""
        return {parameter.target: given[parameter.name] for parameter in self.parameters if parameter.name in given}

    def require(self, named: Mapping[str, Any]) -> None:
        """Raise InputError for what cannot be asked."""
        for parameter in self.parameters:
            given, choices = named.get(parameter.target, parameter.default), parameter.param.choices
            values = given if parameter.is_list else (given,)
            if choices and given != parameter.default and not set(values) <= {*choices}:
                raise InputError(f"{parameter.name}={given} is none of {', '.join(choices)}")
            if given != parameter.default and (needs := parameter.param.needs) and not named.get(needs):
                others = {other.target: other.flag for other in self.parameters}
                raise InputError(f"{self.name}: {parameter.flag} needs {others[needs]}")
        if self.check:
            self.check(**named)

    def __call__(self, session: Session | None, tell: Tell | None = None, /, **given: Any) -> Any:
        """Ask, with parameters by their names for people. `tell` gets the progress."""
        named = self.named(given)
        self.require(named)
        return self.function(*([session] if self.opens else []), **named, **({"tell": tell} if self.tells else {}))


_DECLARED: dict[str, Question] = {}


def question(name: str, **more: Any) -> Callable[[F], F]:
    """Declare a function a question of this name, with `more` fields of Question."""

    def declare(function: F) -> F:
        _DECLARED[name] = question_of(name, function, **more)
        return function

    return declare


def question_of(name: str, function: Callable[..., Any], **more: Any) -> Question:
    """Return the question, or act, of a function, with the parameters in its signature."""
    given = inspect.signature(function).parameters
    namespace = function.__globals__
    parameters = tuple(
        _parameter(parameter, namespace) for parameter in given.values() if parameter.name not in ("session", "tell")
    )
    return Question(name, function, parameters, "tell" in given, "session" in given, **more)


def find_question(name: str) -> Question:
    """Return a question."""
    import_module(f"{__package__}.{MODULES[name]}")
    return _DECLARED[name]


def questions_at(door: str) -> list[Question]:
    """Return the questions of a door."""
    return [found for found in map(find_question, MODULES) if door in found.doors]


def _parameter(given: inspect.Parameter, namespace: dict[str, Any]) -> Parameter:
    hint = eval(given.annotation, namespace) if isinstance(given.annotation, str) else given.annotation  # noqa: S307 (ours)
    param = Param("", ())
    if get_origin(hint) is Annotated:
        hint, param = get_args(hint)
    if isinstance(hint, UnionType):
        hint = next(arg for arg in get_args(hint) if arg is not NoneType)
    is_list = get_origin(hint) is Sequence
    kind = get_args(hint)[0] if is_list else hint
    name = param.flags[-1].partition("/")[0].lstrip("-").replace("-", "_") if param.flags else given.name
    name = given.name if iskeyword(name) else name  # --from
    return Parameter(name, given.name, kind, is_list, given.default, param)


Project = Annotated[str | None, option("The project; by default, the folder's, or the only one.", metavar="P")]
Projects = Annotated[
    Sequence[str], option("Where to look; by default, the folder's, or the only one.", "--project", metavar="P")
]
OneProject = Annotated[str | None, option("Only this project; by default, all that this key can see.", metavar="P")]
Step = Annotated[str | None, option("Only what this step made.", metavar="S")]
Pipeline = Annotated[str | None, option("Only what this pipeline made.", metavar="N")]
Overrides = Annotated[
    Sequence[str], option("A parameter for this run; repeatable.", "--set", metavar="STEP.PARAM=VALUE", doors=NOT_PAGE)
]


def read_pair(option: str, text: str, expected: str, *, may_be_empty: bool = False) -> tuple[str, str]:
    """Return the name and the value in `NAME=VALUE`. The message of the InputError says what is `expected`."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not (value.strip() or may_be_empty):
        raise InputError(f"{option} {text}: write {expected}")
    return name.strip(), value
