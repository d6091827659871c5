"""Command-line options: argparse, click, typer. Only their defaults count, for the text tells no more."""

from __future__ import annotations

from oomdoctor.script import folding, libraries
from oomdoctor.script.domain import UNKNOWN, Abstract, Const, Made, Mapping, Named, Options, Sequence, UserFunction

_GROUPS = frozenset({"add_argument_group", "add_mutually_exclusive_group", "add_parser"})
METHODS = frozenset({"add_argument", "parse_args", "parse_known_args", "parse_intermixed_args", "set_defaults",
                     "add_subparsers", "print_help", "error", *_GROUPS})  # fmt: skip
_WRAPPERS = frozenset({"option", "argument", "field", "input", "query", "body", "form", "parameter", "param", "ib", "path",
                       "attrib", "cell", "header"})  # fmt: skip
_WRAPPING = frozenset({"typer", "dataclasses", "pydantic", "cog", "fastapi", "attr", "attrs", "modal", "click", "cyclopts",
                       "simple_parsing", "sqlmodel"})  # fmt: skip


def is_parser(qualified: str) -> bool:
    """Whether calling it makes an option parser."""
    return libraries.last(qualified) in (
        "ArgumentParser",
        "HfArgumentParser",
        "SimpleParsing",
        "FlexibleArgumentParser",
    )


def parser_method(parser: Options, name: str, positional: list[Abstract], keywords: dict[str, Abstract]) -> Abstract:
    """A method of an argparse parser (or group)."""
    if name == "add_argument":
        destination = _destination(positional, keywords)
        if destination:
            parser.defaults[destination] = _default(positional, keywords)
    elif name in _GROUPS or name in ("parse_args", "add_subparsers", "parse_intermixed_args"):
        return parser
    elif name == "parse_known_args":
        return Sequence([parser, UNKNOWN])
    elif name == "set_defaults":
        parser.defaults.update(keywords)
    return UNKNOWN


def _destination(positional: list[Abstract], keywords: dict[str, Abstract]) -> str | None:
    given = folding.as_text(keywords.get("dest", UNKNOWN))
    if given:
        return given
    names = [text for text in map(folding.as_text, positional) if text]
    long = [n for n in names if n.startswith("--")] or names
    return long[0].lstrip("-").replace("-", "_") if long else None


def _default(positional: list[Abstract], keywords: dict[str, Abstract]) -> Abstract:
    kind = keywords.get("type")
    type_name = libraries.last(kind.qualified) if isinstance(kind, Named) else None
    if "default" in keywords:
        return folding.convert(folding.derived(keywords["default"]), type_name)
    action = folding.as_text(keywords.get("action", UNKNOWN))
    if action in ("store_true", "store_false"):
        return Const(action == "store_false", literal=False)
    required = folding.truth(keywords.get("required", Const(False)))
    names = [text for text in map(folding.as_text, positional) if text]
    if required is not False or (names and not names[0].startswith("-")):
        return UNKNOWN
    return Const(None, literal=False)


def click_option(decorator: Abstract, function: UserFunction) -> None:
    """``@click.option("--steps", default=30)`` gives a parameter of the function its default."""
    if not isinstance(decorator, Made) or libraries.last(decorator.qualified) not in ("option", "argument"):
        return
    names = [text for text in map(folding.as_text, decorator.positional) if text]
    plain = [n for n in names if not n.startswith("-")]
    long = [n for n in names if n.startswith("--")]
    if not names:
        return
    chosen = (plain or long or names)[0].lstrip("-").split("/")[0].replace("-", "_")
    if "default" in decorator.keywords:
        kind = decorator.keywords.get("type")
        type_name = libraries.last(kind.qualified) if isinstance(kind, Named) else None
        function.options[chosen] = folding.convert(folding.derived(decorator.keywords["default"]), type_name)
    elif folding.truth(decorator.keywords.get("is_flag", Const(False))):
        function.options[chosen] = Const(False, literal=False)
    else:
        function.options[chosen] = UNKNOWN


def parameter_default(value: Abstract) -> Abstract:
    """The default of a parameter or field: what typer, dataclass and web frameworks wrap around it is removed."""
    wraps = isinstance(value, Made) and libraries.root(value.qualified) in _WRAPPING
    if isinstance(value, Made) and wraps and libraries.last(value.qualified).lower() in _WRAPPERS:
        inner = value.keywords.get("default", value.positional[0] if value.positional else UNKNOWN)
        factory = value.keywords.get("default_factory")
        if inner is UNKNOWN and isinstance(factory, Named) and factory.qualified in ("list", "dict"):
            return Sequence([]) if factory.qualified == "list" else Mapping({})
        return folding.derived(inner)
    return value


def parsed(options: Options, name: str) -> Abstract:
    """``args.name``."""
    if name == "__dict__":
        return Mapping(dict(options.defaults))
    return folding.derived(options.defaults.get(name, UNKNOWN))
