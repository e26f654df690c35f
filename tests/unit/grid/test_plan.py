"""What the configuration of `jobwatt grid` asks for, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from jobwatt.budgets import AccountBudget
from jobwatt.config import Config, load_config
from jobwatt.errors import UsageError
from jobwatt.grid.board import Site
from jobwatt.grid.plan import Plan
from jobwatt.grid_app import make_plan

ENVIRONMENT = {"EM_TOKEN": "hidden-token", "WT_PASSWORD": "hidden-password"}
EM = "providers: {electricity_maps: {token_env: EM_TOKEN}}\n"
WT = "providers: {watttime: {user: ada, password_env: WT_PASSWORD}}\n"


def plan(folder: Path, text: str, environment: Mapping[str, str] = ENVIRONMENT) -> Plan:
    path = folder / "jobwatt.yml"
    path.write_text(text)
    return make_plan(load_config({"config.file": str(path)}, {}, command="grid"), environment)


def error_of(folder: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        plan(folder, text)
    said = str(caught.value)
    assert "hidden" not in said
    assert said.count("\n") == 0
    return said


def test_zones_and_their_sites(tmp_path: Path) -> None:
    """PUE, price and currency of each; the table for each, with its year."""
    text = "zones: {FR: {pue: 1.2, price: 0.18, currency: EUR}, 'NO': {}, DE: , GB: {pue: 1}}"
    made = plan(tmp_path, text).snapshot
    assert made.sites == (Site("FR", 1.2, 0.18, "EUR"), Site("NO"), Site("DE"), Site("GB", 1.0))
    assert [(v.zone, v.provider, v.intensity.grams_per_kwh) for v in made.fixed] == [
        ("FR", "owid", 44.2),
        ("NO", "owid", 30.7),
        ("DE", "owid", 344.1),
        ("GB", "owid", 210.9),
    ]


def test_a_bare_norway(tmp_path: Path) -> None:
    """YAML takes NO for false; as a zone it can only be Norway."""
    made = plan(tmp_path, "zones: {NO: {pue: 1.1}, fjord: {country: NO}}").snapshot
    assert [site.zone for site in made.sites] == ["NO", "fjord"]
    assert {value.intensity.note for value in made.fixed} == {"Norway"}


def test_live_providers(tmp_path: Path) -> None:
    """Each is polled for each zone that names it."""
    (tmp_path / "week.yml").write_text('{time_zone: UTC, grams_per_kwh: {daily: {"00:00": 1}}}')
    feeds = plan(
        tmp_path,
        f"""
zones:
  FR: {{providers: [rte_eco2mix, electricity_maps]}}
  GB: {{providers: [uk_carbon_intensity, electricity_maps: {{zone: GB, boundary: direct}}]}}
  US-CAL-CISO: {{providers: [watttime: {{region: CAISO_NORTH}}]}}
  campus: {{country: FR, providers: [schedule: {{file: {tmp_path}/week.yml}}, rte_eco2mix]}}
providers:
  electricity_maps: {{token_env: EM_TOKEN, url: "https://proxy.example/em/", interval: 10m}}
  watttime: {{user: ada, password_env: WT_PASSWORD, timeout: 3s}}
""",
    ).feeds
    assert [(feed.zone, feed.provider.name, feed.interval) for feed in feeds] == [
        ("FR", "rte_eco2mix", 300.0),
        ("FR", "electricity_maps", 600.0),
        ("GB", "uk_carbon_intensity", 300.0),
        ("GB", "electricity_maps", 600.0),
        ("US-CAL-CISO", "watttime", 300.0),
        ("campus", "schedule", 20.0),
        ("campus", "rte_eco2mix", 300.0),
    ]
    shown = repr(feeds)
    assert "url='https://proxy.example/em'" in shown
    assert "hidden" not in shown


def test_one_user_logs_in_once(tmp_path: Path) -> None:
    """All of WattTime's regions share their bearer."""
    zones = "US-A: {providers: [watttime: {region: A}]}, US-B: {providers: [watttime: {region: B}]}"
    first, second = (feed.provider for feed in plan(tmp_path, f"zones: {{{zones}}}\n{WT}").feeds)
    assert first.login is second.login  # type: ignore[attr-defined]


def test_a_constant_takes_the_tables_place(tmp_path: Path) -> None:
    """Its year shows that it is no live value."""
    made = plan(
        tmp_path,
        "zones: {FR: {providers: [constant: {grams_per_kwh: 52, year: 2022, boundary: direct}]},"
        " hut: {providers: [constant: {grams_per_kwh: 0, year: 2024}]}}",
    ).snapshot
    shown = [(v.zone, v.provider, v.intensity.boundary.value, v.intensity.year) for v in made.fixed]
    assert shown == [
        ("FR", "constant", "direct", "2022"),
        ("hut", "constant", "lifecycle", "2024"),
    ]


def test_budgets_of_accounts(tmp_path: Path) -> None:
    """They need no zone."""
    text = """
account_budgets:
  - {account: vision, period: month, budget: 2MWh}
  - {account: vision, period: day, budget: 90 MJ}
"""
    assert plan(tmp_path, text).snapshot.budgets == (
        AccountBudget("vision", "month", 7.2e9),
        AccountBudget("vision", "day", 9e7),
    )


def test_one_file_for_all_commands(tmp_path: Path) -> None:
    """`serve` leaves unread what is the grid's, right or wrong; `grid` reads it."""
    path = tmp_path / "jobwatt.yml"
    path.write_text("grid: {zone: FR}\nbudgets: []\nzones: {FR: {pue: 7.77}}\naccount_budgets: 5\n")
    given = {"config.file": str(path)}
    serving = load_config(given, {}, command="serve")
    assert (serving.grid_zone, dict(serving.zones), serving.account_budgets) == ("FR", {}, ())
    with pytest.raises(UsageError, match="account_budgets: write a list"):
        load_config(given, {}, command="grid")


def test_nothing_to_export() -> None:
    """Neither zones nor budgets: the error shows what to write."""
    with pytest.raises(UsageError, match=r"such as zones: \{FR: \{pue: 1\.2"):
        make_plan(Config())


ZONE = "--config.file: zones: FR"
OWN = f"{ZONE}: providers"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("zones: 5", "zones: a mapping of names is expected, not int"),
        ("zones: [FR]", "zones: a mapping of names is expected, not list"),
        ("zones: {FR: 5}", f"{ZONE}: keys with values are expected, not 5"),
        ("zones: {5: {}}", "zones: 5 is not the name of a zone; quote it"),
        ("zones: {'': {}}", "zones: '' is not the name of a zone"),
        ('zones: {"a\\nb": {}}', "zones: 'a\\nb' is not the name of a zone"),
        ("zones: {FR: {peu: 1}}", f"{ZONE}: unknown key 'peu'; did you mean pue?"),
        ("zones: {FR: {zzz: 1}}", f"{ZONE}: unknown key 'zzz'; known: country, currency, price"),
        ("zones: {FR: {5: 1}}", f"{ZONE}: unknown key 5"),
        ("zones: {FR: {pue: 0.9}}", f"{ZONE}: pue: 0.9 is not from 1 to 10"),
        ("zones: {FR: {pue: .nan}}", f"{ZONE}: pue: nan is not from 1 to 10"),
        ("zones: {FR: {pue: 'x'}}", f"{ZONE}: pue: 'x' is not a number"),
        ("zones: {FR: {pue: true}}", f"{ZONE}: pue: True is not a number"),
        ("zones: {FR: {price: 1}}", f"{ZONE}: currency: missing; price and currency go together"),
        ("zones: {FR: {currency: EUR}}", f"{ZONE}: price: missing"),
        ("zones: {FR: {price: -1, currency: EUR}}", f"{ZONE}: price: -1 is not from 0"),
        (
            "zones: {Frankreich: {}}",
            "'Frankreich' is no zone that the table knows; did you mean FR",
        ),
        ("zones: {campus: {country: UK}}", "'UK' is no zone that the table knows; did you mean GB"),
        ("zones: {'@@@': {}}", "it begins with no country's code. A zone of your own takes"),
        ("zones: {FR: {country: XX}}", "'XX' is no zone that the table knows"),
        ("zones: {FR: {providers: rte_eco2mix}}", f"{OWN}: write a list, of electricity_maps, "),
        ("zones: {FR: {providers: [rte]}}", f"{OWN}: 'rte' is none of electricity_maps, "),
        ("zones: {FR: {providers: [5]}}", f"{OWN}: '5' is none of"),
        ("zones: {FR: {providers: [{}]}}", f"{OWN}: '{{}}' is none of"),
        ("zones: {FR: {providers: [rte_eco2mix, rte_eco2mix]}}", "rte_eco2mix stands there twice"),
        ("zones: {FR: {providers: [rte_eco2mix: {x: 1}]}}", "rte_eco2mix: unknown key 'x'"),
        ("zones: {FR: {providers: [uk_carbon_intensity]}}", "is about GB only, and FR is not"),
        ("zones: {DE: {providers: [rte_eco2mix]}}", "is about FR only, and DE is not there"),
        ("zones: {FR: {providers: [electricity_maps]}}", "token_file (or token_env): missing, and"),
        (
            "zones: {FR: {providers: [watttime: {region: X}]}}",
            "watttime: user: missing, and --config.file: zones",
        ),
        (
            "providers: {watttime: {user: a}}\nzones: {FR: {providers: [watttime: {region: X}]}}",
            "watttime: password_file (or password_env): missing, and",
        ),
        (WT + "zones: {FR: {providers: [watttime]}}", "watttime: region: missing; write one of"),
        (
            EM + "zones: {FR: {providers: [electricity_maps: {boundary: all}]}}",
            "boundary: 'all' is none of lifecycle, direct",
        ),
        ("zones: {FR: {providers: [schedule]}}", "schedule: file: missing"),
        ("zones: {FR: {providers: [schedule: {file: a.yml}]}}", "file: write the file's full name"),
        ("zones: {FR: {providers: [schedule: {file: /gone.yml}]}}", "/gone.yml: No such file"),
        ("zones: {FR: {providers: [constant]}}", "constant: grams_per_kwh: missing"),
        (
            "zones: {FR: {providers: [constant: {grams_per_kwh: 5}]}}",
            "constant: year: missing; it shows how old the factor is",
        ),
        (
            "zones: {FR: {providers: [constant: {grams_per_kwh: 5000, year: 2024}]}}",
            "grams_per_kwh: 5000 is not from 0 to 3000",
        ),
        ("zones: {FR: }\nproviders: {em: {}}", "providers: unknown key 'em'"),
        ("zones: {FR: }\nproviders: 5", "providers: a mapping of names is expected"),
        (
            "zones: {FR: }\nproviders: {rte_eco2mix: {intervall: 5m}}",
            "providers: rte_eco2mix: unknown key 'intervall'; did you mean interval?",
        ),
        (
            "zones: {FR: }\nproviders: {rte_eco2mix: {interval: 1s}}",
            "providers: rte_eco2mix: interval: '1s' is not from 60s to 3600s",
        ),
        ("zones: {FR: }\nproviders: {rte_eco2mix: {timeout: soon}}", "timeout: 'soon' is no dur"),
        ("zones: {FR: }\nproviders: {electricity_maps: {token: hidden}}", "unknown key 'token'"),
        (
            "zones: {FR: }\nproviders: {electricity_maps: {token_file: hidden}}",
            "electricity_maps: token_file: write the file's full name, from / on",
        ),
        (
            "zones: {FR: }\nproviders: {electricity_maps: {token_env: hidden-token}}",
            "token_env: write the name of a variable of the environment",
        ),
        (
            "zones: {FR: }\nproviders: {electricity_maps: {token_env: A, token_file: /b}}",
            "token_env: token_file is given too; leave one of the two",
        ),
        (
            "zones: {FR: }\nproviders: {electricity_maps: {token_env: [hidden]}}",
            "token_env: a text is expected",
        ),
        (
            (
                "zones: {FR: {providers: [electricity_maps]}}\n"
                "providers: {electricity_maps: {token_env: GONE}}"
            ),
            "electricity_maps: token: $GONE is empty",
        ),
        (
            (
                "zones: {FR: {providers: [electricity_maps]}}\n"
                "providers: {electricity_maps: {token_file: /gone}}"
            ),
            "electricity_maps: token: /gone: No such file or directory",
        ),
        *(
            (
                f"zones: {{FR: }}\nproviders: {{rte_eco2mix: {{url: '{url}'}}}}",
                "rte_eco2mix: url: write http(s)://host[:port][/path], without user",
            )
            for url in (
                *(
                    "odre.example",
                    "ftp://odre.example",
                    "file:///etc/passwd",
                    "https://",
                    "http://[",
                ),
                *("https://ada:hidden@odre.example", "https://odre.example/?token=hidden"),
                *("https://odre.example:99999", "https://odre.example/a b", "https://é.example"),
            )
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    """The error has the section, the key and the remedy, and never a secret."""
    assert said in error_of(tmp_path, text)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("5", "budget 1: it must have account, period and budget, and nothing else"),
        ("{account: a, period: day}", "budget 1: it must have"),
        ("{account: 5, period: day, budget: 1kWh}", "budget 1: account is a name; quote numbers"),
        ("{account: '', period: day, budget: 1kWh}", "budget 1: account is a name"),
        ("{account: a, period: daily, budget: 1kWh}", "'daily' is none of day, week, month, year"),
        ("{account: a, period: [day], budget: 1kWh}", "is none of day, week, month, year"),
        ("{account: a, period: day, budget: 5}", "'5' is no energy"),
        ("{account: a, period: day, budget: 1kwh}", "did you mean 1kWh?"),
        (
            "{account: a, period: day, budget: 1kWh}, {account: a, period: day, budget: 2kWh}",
            "budget 2: a has a budget for each day already",
        ),
    ],
)
def test_what_is_no_budget_of_an_account(tmp_path: Path, item: str, said: str) -> None:
    """The error counts the entries."""
    assert said in error_of(tmp_path, f"account_budgets: [{item}]")
