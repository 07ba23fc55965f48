"""Typed configuration: a dataclass, YAML files that state only what differs, `--a.b=value` on top.

Layers, later ones win: the defaults of the dataclass; `configs/STAGE.yaml` of the study, if it is there (for the
demo's own study: configs/demo of the repository); every `--config` file; options on the command line.
"""

import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from encoders.runs.errors import InputError
from encoders.runs.signals import Stop
from encoders.runs.study import DEMO, DEMO_SETTINGS

Config = TypeVar("Config")


def parse(
    config_class: type[Config],
    argv: list[str] | None,
    *,
    prog: str,
    description: str,
    own_file: Path | None = None,
) -> Config:
    """Read one configuration from the command line and `--config` files (several may be layered).

    Args:
        config_class: The dataclass to fill.
        argv: Arguments; default: those of the process.
        prog: Name of the command, for messages.
        description: What it does, for `--help`.
        own_file: Settings that the study itself holds for this stage; used if the file exists.

    Raises:
        InputError: unknown key, wrong type or missing file, in one line.
    """
    files = [str(own_file)] if own_file is not None and own_file.exists() else []
    parser = ArgumentParser(
        prog=prog,
        description=description,
        exit_on_error=False,
        allow_abbrev=False,
        default_config_files=files,
    )
    parser.add_argument(
        "--config", action="config", help="YAML file with any of the options below; repeatable"
    )
    parser.add_class_arguments(config_class, as_group=False)
    try:
        arguments = sys.argv[1:] if argv is None else argv
        namespace = parser.parse_args(_as_declared(arguments, config_class))
        options = vars(parser.instantiate(namespace))
        return config_class(
            **{option.name: options[option.name] for option in dataclasses.fields(config_class)}
        )
    except ArgumentError as cause:
        sentence = " ".join(str(cause).split())
        raise InputError(f"{sentence.rstrip('.')}; see {prog} --help") from cause


def _as_declared(arguments: list[str], config_class: type[Any]) -> list[str]:
    """`--dry-run` for `--dry_run=true`: hyphens in names, and switches without a value, as people type them."""
    kinds = get_type_hints(config_class)
    declared = []
    for argument, following in itertools.pairwise([*arguments, "--"]):
        name, equals, value = argument.partition("=")
        known = name.removeprefix("--").replace("-", "_")
        if name.startswith("--") and known in kinds:
            argument = f"--{known}{equals}{value}"
            if kinds[known] is bool and not equals and following.startswith("--"):
                argument += "=true"
        declared.append(argument)
    return declared


def command(main: Callable[[Any], int | None]) -> Callable[..., int]:
    """Turn `main(config)` of a script into `main(argv=None) -> exit code`.

    The configuration class is the annotation of its one parameter, the description the docstring of its
    module. Wrong input becomes one line on stderr and exit code 2; Ctrl-C says that work can be resumed (130).
    """
    (config_class,) = (t for name, t in get_type_hints(main).items() if name != "return")
    module = sys.modules[main.__module__]
    prog = Path(module.__file__ or "script").name

    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> int:
        try:
            arguments = sys.argv[1:] if argv is None else argv
            return main(_parse_with_study(config_class, arguments, prog, module.__doc__ or "")) or 0
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except Stop as stop:
            print(f"{prog}: {stop}", file=sys.stderr)
            return stop.code
        except KeyboardInterrupt:
            print(f"\n{prog}: interrupted; run the same command again to resume", file=sys.stderr)
            return 130

    del run.__wrapped__  # so that type checkers at test time see run's own signature
    run.config_class = config_class
    return run


def _parse_with_study(
    config_class: type[Config], arguments: list[str], prog: str, description: str
) -> Config:
    study = _study_of(arguments)
    while True:
        folder = DEMO_SETTINGS if study == DEMO else study / "configs"
        own_file = folder / Path(prog).with_suffix(".yaml")
        config = parse(config_class, arguments, prog=prog, description=description, own_file=own_file)
        named = getattr(config, "study", study)
        if named == study:
            return config
        study = named  # a `--config` file names another study: its settings are the first layer


def _study_of(arguments: list[str]) -> Path:
    """The study named on the command line, before it is parsed: its own settings are the first layer."""
    for k, argument in enumerate(arguments):
        if argument.startswith("--study="):
            return Path(argument.removeprefix("--study=")).expanduser()
        if argument == "--study" and k + 1 < len(arguments):
            return Path(arguments[k + 1]).expanduser()
    return DEMO


def to_plain(config: Any) -> dict[str, Any]:
    """A dataclass as nested dictionaries of JSON values; paths become text."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config))


def to_yaml(config: Any) -> str:
    """The resolved configuration as YAML that `--config` reads back."""
    return yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True)


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """`key: old -> new` for every leaf that differs between two nested dictionaries."""
    lines = []
    for key in list(dict.fromkeys([*old, *new])):
        a, b = old.get(key, "(absent)"), new.get(key, "(absent)")
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {_shown(a)} -> {_shown(b)}")
    return lines


def _shown(value: Any) -> Any:
    """A value as a message shows it; of a file that was new or has gone, only where it lies."""
    return value["path"] if isinstance(value, dict) and "path" in value else value
