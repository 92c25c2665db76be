"""The options of `mailrail up`, from the command line and from variables."""

import argparse
from pathlib import Path

import pytest

from mailrail.errors import ConfigError
from mailrail.up.options import UpOptions, add_arguments, from_arguments


def read(*arguments: str, **variables: str) -> UpOptions:
    """Options of a command line, with `MAILRAIL_UP_…` variables by keyword."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    environment = {f"MAILRAIL_UP_{name.upper()}": text for name, text in variables.items()}
    return from_arguments(parser.parse_args(arguments), environment)


def test_nothing_given_means_the_defaults() -> None:
    assert read() == UpOptions()
    assert read().recipients == 20_000
    assert read().timeout_s == 300


def test_both_places_say_the_same() -> None:
    expected = UpOptions(
        demo=True,
        recipients=500,
        exit=True,
        timeout_s=60.0,
        summary=Path("s.json"),
        port=9000,
        data=Path("d"),
        ses="http://127.0.0.1:1",
        database="postgresql://h/d",
        kafka="k:9092",
    )
    command_line = "--demo --recipients 500 --exit --timeout 60 --summary s.json --port 9000 --data d"
    assert (
        read(
            *command_line.split(), "--ses", "http://127.0.0.1:1", "--database", "postgresql://h/d", "--kafka", "k:9092"
        )
        == expected
    )
    from_variables = read(
        demo="1", recipients="500", exit="on", timeout="60", summary="s.json", port="9000", data="d",
        ses="http://127.0.0.1:1", database="postgresql://h/d", kafka="k:9092",
    )  # fmt: skip
    assert from_variables == expected


def test_the_command_line_wins_and_empty_variables_count_for_nothing() -> None:
    options = read("--recipients", "7", recipients="9", exit="off", port="")
    assert (options.recipients, options.exit, options.port) == (7, False, None)


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (["--recipients", "0"], {}, "--recipients must be from 1"),
        (["--recipients", "many"], {}, "--recipients must be a whole number"),
        (["--timeout", "0"], {}, "--timeout must be more than 0"),
        (["--timeout", "inf"], {}, "--timeout must be more than 0"),
        (["--port", "65536"], {}, "--port must be from 1 to 65535"),
        ([], {"recipients": "x"}, "MAILRAIL_UP_RECIPIENTS must be a whole number"),
        ([], {"demo": "perhaps"}, "MAILRAIL_UP_DEMO must be on or off"),
        ([], {"recipient": "5"}, "MAILRAIL_UP_RECIPIENT is not an option"),
    ],
)
def test_a_bad_option_is_one_sentence(arguments: list[str], variables: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(*arguments, **variables)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
