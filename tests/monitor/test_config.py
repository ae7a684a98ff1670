"""The config file: what is accepted, and that everything wrong is told at once, at its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monitor.config import CONFIG_BYTES_MAX, Config, ConfigError, describe, load_config, parse_config
from monitor.config_problems import PROBLEMS_MAX, Problem

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "deploy" / "examples").glob("*.toml"))
ADDRESS = "0x2e3d94f0562703b25c83308a05046ddaf9a8dd14"
OTHER = "0xB0A55F13D22F66E6D495AC98113841B2326E9540"
VENUE = '[[venues]]\nname = "hyperliquid"\nsymbols = ["BTC"]\n'
FEED = '[[account_feeds]]\nname = "house"\nvenue = "desk"\nsymbols = ["BTC-PERP"]\n'
FILE = 'source = {type = "file", path = "accounts.jsonl"}\n'


def problems_of(text: str, folder: Path = Path("/nonexistent"), environment: dict[str, str] | None = None) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, folder, environment)
    return caught.value.problems


def only_problem(text: str, folder: Path = Path("/nonexistent"), environment: dict[str, str] | None = None) -> Problem:
    problems = problems_of(text, folder, environment)
    assert len(problems) == 1, problems
    return problems[0]


def test_there_is_an_example_for_each_venue() -> None:
    assert [path.name for path in EXAMPLES] == ["binance.toml", "hyperliquid.toml"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_load(path: Path) -> None:
    config = load_config(path, {})
    assert config.venues[0].name == path.stem
    assert config.recording.directory == str(path.parent / "recordings")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_examples_leave_as_comments_is_right_as_well(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    for commented in ("[[sinks]]", "type =", "url_file =", "host =", "username =", "password_file =", "seed_accounts ="):
        text = text.replace(f"# {commented}", commented)
    config = parse_config(text, tmp_path)
    assert len(config.sinks) == 2


def test_the_smallest_file_is_one_venue_and_the_rest_are_safe_defaults() -> None:
    config = parse_config(VENUE, Path("/etc/liqmon"))
    assert config.http.host == "127.0.0.1"
    assert config.projection.interval_ms == 100
    assert config.projection.exogenous_flow_multiples == (1.0, 5.0, 20.0)
    assert not config.recording.enabled
    assert config.recording.directory == "/etc/liqmon/recordings"
    assert config.venues[0].settings().symbols == ("BTC",)
    assert not config.venues[0].simulated
    assert config.sinks == ()


def test_a_config_cannot_be_changed_after_loading() -> None:
    config = parse_config(VENUE, Path("/"))
    with pytest.raises(ValueError, match="frozen"):
        config.instance = "other"


def test_every_problem_is_listed_with_its_line_and_a_hint() -> None:
    text = """\
instanse = "desk"
[http]
prot = 80
[projection]
interval_ms = 5
bucket_ratio = "0.1%"
book_s = 3
[log]
level = "verbose"
[[venues]]
name = "hyperliquidd"
symbols = ["BTC", "E TH"]
[[venues]]
name = "binance"
symbols = []
[projections]
"""
    expected = [
        (1, "instanse", "did you mean instance?"),
        (3, "http.prot", "did you mean port?"),
        (5, "projection.interval_ms", "20 to 10000 milliseconds"),
        (6, "projection.bucket_ratio", "0.001 is 0.1 %"),
        (7, "projection.book_s", "it belongs in [staleness]"),
        (9, "log.level", "default info"),
        (11, "venues[0].name", "did you mean hyperliquid?"),
        (12, "venues[0].symbols", ""),
        (15, "venues[1].symbols", "1 to 300 market names"),
        (16, "projections", "did you mean projection?"),
    ]
    problems = problems_of(text)
    assert [(problem.line, problem.key) for problem in problems] == [(line, key) for line, key, _ in expected]
    for problem, (_, key, hint) in zip(problems, expected, strict=True):
        assert hint in problem.hint, key
    assert "not 5" in problems[2].message
    assert "not '0.1%'" in problems[3].message
    assert "'E TH'" in problems[7].message


def test_the_error_text_names_the_file_and_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "liqmon.toml"
    path.write_text(VENUE + "simulatd = true\n\n[http]\nport = -1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{path}: line 4: venues[0].simulatd: unknown key (did you mean simulated?")
    assert second.startswith(f"{path}: line 7: http.port: ")


@pytest.mark.parametrize(
    ("content", "message", "line"),
    [
        (b"instance = \xff\n", "is not UTF-8 text", 1),
        (b"# x\n\nlog = '\xc3'\n", "is not UTF-8 text", 3),
        (b"a = 1\nb = \n", "is no valid TOML", 2),
        (b"a = 1\na = 2\n", "is no valid TOML", 2),
        (b"[http\n", "is no valid TOML", 1),
        (b"a = " + b"9" * 5_000, "is no valid TOML", None),
        (b"a = " + b"[" * 3_000 + b"]" * 3_000, "is nested too deeply", None),
        (b"\n[http]\nport = " + b"[" * 60 + b"]" * 60, "is nested too deeply", 3),
        (b"#" * (CONFIG_BYTES_MAX + 1), "cannot be read: it is larger", None),
    ],
    ids=["bytes", "cut character", "no value", "repeated key", "open header", "huge number", "deep", "nested", "large"],
)
def test_files_that_are_no_config_at_all(tmp_path: Path, content: bytes, message: str, line: int | None) -> None:
    path = tmp_path / "liqmon.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    (problem,) = caught.value.problems
    assert problem.message.startswith(message)
    assert problem.line == line


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.toml", "No such file"), (tmp_path, "directory"), (Path("a\0b"), "null byte")):
        with pytest.raises(ConfigError, match=reason):
            load_config(path)
    with pytest.raises(ConfigError, match="larger than"):
        load_config(Path("/dev/zero"))


def test_a_file_that_fails_while_it_is_read_says_so() -> None:
    with pytest.raises(ConfigError, match="Input/output error"):
        load_config(Path("/proc/self/mem"))


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('instance = "Desk 1"', "instance"),
        ('instance = ""', "instance"),
        (f'instance = "{"a" * 33}"', "instance"),
        ('instance = "desk\\n"', "instance"),
        ("projection.interval_ms = 19", "projection.interval_ms"),
        ("projection.interval_ms = 10001", "projection.interval_ms"),
        ("projection.interval_ms = 100.0", "projection.interval_ms"),
        ("projection.interval_ms = true", "projection.interval_ms"),
        ('projection.interval_ms = "100"', "projection.interval_ms"),
        ("projection.interval_ms = 99999999999999999999999", "projection.interval_ms"),
        ("projection.bucket_ratio = nan", "projection.bucket_ratio"),
        ("projection.bucket_ratio = 0", "projection.bucket_ratio"),
        ("projection.max_distance_ratio = inf", "projection.max_distance_ratio"),
        ("projection.max_distance_ratio = 1.0", "projection.max_distance_ratio"),
        ("projection.cluster_min_share = -0.1", "projection.cluster_min_share"),
        ("projection.exogenous_flow_multiples = [5, 1]", "projection.exogenous_flow_multiples"),
        ("projection.exogenous_flow_multiples = [1, -5]", "projection.exogenous_flow_multiples[1]"),
        ("projection.exogenous_notional_usd = [1e6, 1e6]", "projection.exogenous_notional_usd"),
        ("projection = {exogenous_flow_multiples = [], exogenous_notional_usd = []}", "projection"),
        ("projection = {bucket_ratio = 0.0001, max_distance_ratio = 0.95}", "projection"),
        ("projection.barrier_levels_max = 5", "projection.barrier_levels_max"),
        ("staleness.mark_s = 0", "staleness.mark_s"),
        ("staleness.mark_s = 1e9", "staleness.mark_s"),
        ("staleness = 5", "staleness"),
        ('recording.enabled = "yes"', "recording.enabled"),
        ('recording.directory = ""', "recording.directory"),
        ('log.format = "xml"', "log.format"),
        ("log.level = 1979-05-27", "log.level"),
        ("log.level = 07:32:00", "log.level"),
        ('http.host = "0.0.0.0"', "http"),
        ('http = {host = "0.0.0.0", password = "short"}', "http.password"),
        ("alerts.repeat_interval_s = 1", "alerts.repeat_interval_s"),
        ("rules.large_cluster_near.notional_usd = 0", "rules.large_cluster_near.notional_usd"),
        ('rules.markets."hyperliquid/ETH".stale_feed.for_s = 1', 'rules.markets."hyperliquid/ETH"'),
        ('rules.markets."hyperliquid/BTC".stale_feed.for = 1', 'rules.markets."hyperliquid/BTC".stale_feed.for'),
        ("sinks = {}", "sinks"),
        ('recording.directory = "a\\u0000b"', "recording.directory"),
    ],
)
def test_one_wrong_value_is_one_problem_at_its_line(line: str, key: str) -> None:
    problem = only_problem(f"# a comment\n{line}\n{VENUE}")
    assert (problem.line, problem.key) == (2, key)
    assert problem.message


@pytest.mark.parametrize(
    ("line", "key", "words"),
    [
        ("symbols = []", "venues[0].symbols", "must not be empty"),
        ('symbols = "BTC"', "venues[0].symbols", "must be a list"),
        ('symbols = ["BTC", "ETH", "BTC"]', "venues[0].symbols", "'BTC' is listed twice"),
        ('symbols = ["BTC/USD"]', "venues[0].symbols", "no market name"),
        ('symbols = ["#"]', "venues[0].symbols", "no market name"),
        ('symbols = [""]', "venues[0].symbols", "no market name"),
        ("symbols = [1]", "venues[0].symbols[0]", "must be a valid string"),
        (f"symbols = {json.dumps([f'S{number}' for number in range(301)])}", "venues[0].symbols", "301 items, more than 300"),
        ('symbols = ["BTC"]\nwebsocket_url = "http://127.0.0.1"', "venues[0].websocket_url", "ws://"),
        ('symbols = ["BTC"]\nwebsocket_url = "ws://u:p@127.0.0.1"', "venues[0].websocket_url", "password"),
        ('symbols = ["BTC"]\nwebsocket_url = "ws://127.0.0.1:99999"', "venues[0].websocket_url", "valid URL"),
        ('symbols = ["BTC"]\nrest_url = "127.0.0.1"', "venues[0].rest_url", "http://"),
        ('symbols = ["BTC"]\nrest_url = "http://127.0.0.1/?key=1"', "venues[0].rest_url", "query"),
        ('symbols = ["BTC"]\nwatch_accounts = ["0x12"]', "venues[0].watch_accounts", "'0x12' is no address"),
        (f'symbols = ["BTC"]\nseed_accounts = ["{ADDRESS}g"]', "venues[0].seed_accounts", "is no address"),
        (
            f'symbols = ["BTC"]\nwatch_accounts = {json.dumps([f"0x{number:040x}" for number in range(11)])}',
            "venues[0].watch_accounts",
            "11 items, more than 10",
        ),
        (f'symbols = ["BTC"]\nwatch_accounts = ["{OTHER}", "{OTHER.lower()}"]', "venues[0].watch_accounts", "listed twice"),
        ('symbols = ["BTC"]\nbrackets_path = "b.json"', "venues[0].brackets_path", "No such file"),
        ('symbols = ["BTC"]\nseed_accounts_file = "a.txt"', "venues[0].seed_accounts_file", "No such file"),
        ('symbols = ["BTC"]\naccounts_max = 0', "venues[0].accounts_max", "greater than or equal to 1"),
        (f'symbols = ["BTC"]\naccounts_max = 1\nseed_accounts = ["{ADDRESS}", "{OTHER}"]', "venues[0]", "2 seed accounts"),
        ('symbols = ["BTC-USD"]', "venues[0]", "'BTC-USD' is not a coin"),
        ('symbols = ["BTC"]\nsimulated = 1', "venues[0].simulated", "boolean"),
    ],
)
def test_wrong_values_of_a_venue(line: str, key: str, words: str) -> None:
    problems = problems_of(f'[[venues]]\nname = "hyperliquid"\n{line}\n')
    assert any(problem.key == key and words in problem.message for problem in problems), problems
    assert {problem.line for problem in problems} <= {1, 3, 4}


def test_settings_of_the_other_venue_are_refused() -> None:
    binance = '[[venues]]\nname = "binance"\nsymbols = ["btcusdt"]\n'
    problems = problems_of(f'{binance}watch_accounts = ["{ADDRESS}"]\nseed_accounts = ["{ADDRESS}"]\n')
    assert [problem.key for problem in problems] == ["venues[0].symbols", "venues[0].watch_accounts", "venues[0].seed_accounts"]
    assert "'BTCUSDT'" in problems[0].message


def test_a_missing_key_is_told_at_the_section_that_lacks_it() -> None:
    problems = problems_of('instance = "a"\n[[venues]]\n')
    assert [(problem.line, problem.key, problem.message) for problem in problems] == [
        (2, "venues[0].name", "required, but missing"),
        (2, "venues[0].symbols", "required, but missing"),
    ]
    assert "at least one [[venues]] or [[account_feeds]] section is needed" in only_problem("").message
    assert only_problem('[venues]\nname = "binance"').hint == "write [[venues]], with double brackets"


def test_two_venues_or_sinks_of_one_name_are_refused() -> None:
    sinks = '[[sinks]]\ntype = "stdout"\n' * 2
    problems = problems_of(VENUE + VENUE.replace("BTC", "ETH") + "websocket_url = 'ws://127.0.0.1:1'\n" + sinks)
    assert [(problem.line, problem.key) for problem in problems] == [(5, "venues[1].name"), (11, "sinks[1].name")]
    assert "in line 2" in problems[0].message
    assert "in line 9" in problems[1].message


def test_checks_of_several_keys_run_although_other_keys_are_wrong() -> None:
    text = "[http]\nhost = '0.0.0.0'\nport = 'x'\n[projection]\nexogenous_flow_multiples = []\nexogenous_notional_usd = []\nx = 1\n"
    assert [(problem.line, problem.key) for problem in problems_of(text + VENUE)] == [
        (1, "http"),
        (3, "http.port"),
        (4, "projection"),
        (7, "projection.x"),
    ]


def test_a_mistake_in_general_rules_is_not_repeated_for_markets_that_inherit_it() -> None:
    text = f'{VENUE}[rules.low_barrier]\nmultiple = -1\n[rules.markets."hyperliquid/BTC".low_barrier]\nfor_s = 5\n'
    problem = only_problem(text)
    assert (problem.line, problem.key) == (5, "rules.low_barrier.multiple")


def test_a_rule_for_an_unwatched_market_suggests_the_watched_one() -> None:
    problem = only_problem(f'{VENUE}[rules.markets."hyperliquid/BTCC"]\n')
    assert (problem.line, problem.hint) == (4, "did you mean 'hyperliquid/BTC'?")


def test_markets_inherit_what_they_do_not_set() -> None:
    config = parse_config(
        f'{VENUE}[rules.low_barrier]\nmultiple = 7.0\n[rules.markets."hyperliquid/BTC".low_barrier]\nfor_s = 5.0\n', Path("/")
    )
    rules = config.rules.for_market("hyperliquid", "BTC").low_barrier
    assert (rules.multiple, rules.for_s) == (7.0, 5.0)


def test_sinks_are_checked_by_their_type() -> None:
    text = (
        f'{VENUE}[[sinks]]\ntype = "mqt"\n[[sinks]]\n[[sinks]]\ntype = "mqtt"\nhots = "x"\n[[sinks]]\ntype = "webhook"\nurl = "x"\n'
    )
    problems = problems_of(text)
    assert [(problem.line, problem.key, problem.hint) for problem in problems if problem.key != "sinks[2].host"] == [
        (5, "sinks[0].type", "did you mean mqtt?"),
        (6, "sinks[1].type", "one of mqtt, stdout, webhook"),
        (9, "sinks[2].hots", "did you mean host?"),
        (12, "sinks[3].url", ""),
    ]
    assert any(problem.key == "sinks[2].host" and problem.line == 7 for problem in problems)


def test_secrets_are_tried_only_when_an_environment_is_given(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("https://127.0.0.1/hook\n")
    text = (
        f'{VENUE}[[sinks]]\ntype = "webhook"\nurl_file = "url"\n'
        '[[sinks]]\ntype = "mqtt"\nhost = "127.0.0.1"\nusername = "u"\npassword_env = "MQTT_PASSWORD"\n'
    )
    assert len(parse_config(text, tmp_path).sinks) == 2
    assert len(parse_config(text, tmp_path, {"MQTT_PASSWORD": "p"}).sinks) == 2
    problem = only_problem(text, tmp_path, {})
    assert (problem.line, problem.key) == (7, "sinks[1]")
    assert "MQTT_PASSWORD is not set" in problem.message


def test_no_message_repeats_a_secret() -> None:
    secret = "hunter2-hunter2"
    text = (
        f'[http]\npassword = 5\n[[venues]]\nname = "hyperliquid"\nsymbols = ["BTC"]\nwebsocket_url = "ws://me:{secret}@x"\n'
        f'[[sinks]]\ntype = "webhook"\nurl = "ftp://x/{secret}"\nheaders = ["{secret}"]\n'
        f'[[sinks]]\ntype = "mqtt"\nhost = "x"\npassword = "{secret}"\nusername = ["{secret}"]\n'
    )
    problems = problems_of(text)
    assert len(problems) >= 5
    assert secret not in "\n".join(str(problem) for problem in problems)


def test_seed_accounts_come_from_the_section_and_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "accounts.txt").write_text(f"# whales\n{OTHER}  # second\n\n{OTHER.lower()}\n{ADDRESS.upper().replace('X', 'x')}\n")
    config = parse_config(f'{VENUE}seed_accounts = ["{ADDRESS}"]\nseed_accounts_file = "accounts.txt"\n', tmp_path)
    assert config.venues[0].seed_accounts == (ADDRESS, OTHER.lower())
    assert config.venues[0].seed_accounts_file == str(tmp_path / "accounts.txt")


def test_bad_lines_of_a_seed_file_are_told_by_their_number_up_to_a_few(tmp_path: Path) -> None:
    (tmp_path / "accounts.txt").write_text(f"{ADDRESS}\n0x12\n" + "nonsense\n" * 10)
    problems = problems_of(f'{VENUE}seed_accounts_file = "accounts.txt"\n', tmp_path)
    assert [problem.line for problem in problems] == [4, 4, 4, 4]
    assert "line 2: '0x12' is no address" in problems[0].message
    assert "and 8 more lines" in problems[3].message


def test_margin_brackets_are_checked_with_the_config(tmp_path: Path) -> None:
    text = '[[venues]]\nname = "binance"\nsymbols = ["BTCUSDT"]\nbrackets_path = "brackets.json"\n'
    (tmp_path / "brackets.json").write_text('{"version": "1", "source": "", "symbols": {"BTCUSDT": [[0, 0.9, 0, 100]]}}')
    assert only_problem(text, tmp_path).line == 4
    (tmp_path / "brackets.json").write_text('{"version": "1", "source": "", "symbols": {"BTCUSDT": [[0, 0.004, 0, 125]]}}')
    assert parse_config(text, tmp_path).venues[0].settings().brackets_path == str(tmp_path / "brackets.json")


def test_a_recording_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recordings").write_text("")
    assert only_problem(f"{VENUE}[recording]\nenabled = true\n", tmp_path).key == "recording.directory"
    assert only_problem(f'{VENUE}[recording]\ndirectory = "{"x" * 300}"\n', tmp_path).line == 5


def test_the_list_of_problems_is_cut_where_nobody_reads_on() -> None:
    text = VENUE + "".join(f"wrong_{number} = 1\n" for number in range(1_000))
    problems = problems_of(text)
    assert len(problems) == PROBLEMS_MAX + 1
    assert problems[-1].message == "and 800 more problems"


def test_the_description_is_complete_and_without_secrets(tmp_path: Path) -> None:
    secret = "hunter2-hunter2"
    seeds = json.dumps([f"0x{number:040x}" for number in range(99)])
    text = (
        f'[http]\nhost = "0.0.0.0"\npassword = "{secret}"\n{VENUE}seed_accounts = {seeds}\n'
        f'[[sinks]]\ntype = "webhook"\nurl = "https://x/{secret}"\nheaders = {{X-Key = "{secret}"}}\n'
    )
    described = describe(parse_config(text, tmp_path))
    text = json.dumps(described)
    assert secret not in text
    assert described["venues"][0]["seed_accounts"] == "99 items"
    assert described["projection"]["interval_ms"] == 100
    assert set(described) == set(Config.model_fields)


# -------------------------------------------------------------------------------------------------------------- account feeds


def test_feeds_of_a_private_and_of_a_public_venue_stand_beside_each_other() -> None:
    public = '[[account_feeds]]\nname = "fund"\nvenue = "hyperliquid"\nsource = {type = "websocket", url = "ws://127.0.0.1:1"}\n'
    config = parse_config(VENUE + FEED + FILE + public, Path("/"), {})
    assert [(feed.name, feed.venue, feed.symbols, feed.has_connector) for feed in config.account_feeds] == [
        ("house", "desk", ("BTC-PERP",), False),
        ("fund", "hyperliquid", (), True),
    ]


def test_paths_of_feeds_and_of_a_node_are_relative_to_the_config_file(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    text = (
        f'{VENUE}node_directory = "hl/data"\n{FEED}{FILE}'
        f'{FEED.replace("house", "a")}source = {{type = "websocket", url = "wss://x", bearer_token_file = "secrets/token"}}\n'
        f'{FEED.replace("house", "b")}[account_feeds.source]\ntype = "mqtt"\nhost = "x"\ntls = true\nusername = "liqmon"\n'
        f'password_file = "secrets/password"\ntls_ca_file = "/ca.pem"\n'
    )
    path = folder / "liqmon.toml"
    path.write_text(text)
    config = load_config(path)
    assert config.venues[0].node_directory == str(folder / "hl" / "data")
    sources = [feed.source.model_dump() for feed in config.account_feeds]
    assert sources[0]["path"] == str(folder / "accounts.jsonl")
    assert sources[1]["bearer_token_file"] == folder / "secrets" / "token"
    assert sources[2]["password_file"] == folder / "secrets" / "password"
    assert sources[2]["tls_ca_file"] == Path("/ca.pem"), "an absolute path stays what it is"


def test_a_node_folder_that_is_a_file_is_refused_and_one_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    problem = only_problem(f'{VENUE}node_directory = "data"\n', tmp_path)
    assert (problem.line, problem.key) == (4, "venues[0].node_directory")
    assert "is a file, not a folder" in problem.message
    assert parse_config(f'{VENUE}node_directory = "later"\n', tmp_path).venues[0].settings().has_node_fills


def test_secrets_of_feeds_are_tried_like_those_of_sinks(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    sources = (
        ('type = "websocket", url = "wss://x", bearer_token_file = "missing"', "No such file"),
        ('type = "websocket", url = "wss://x", bearer_token_file = "empty"', "is empty"),
        ('type = "mqtt", host = "x", username = "u", password_env = "DESK_PASSWORD"', "DESK_PASSWORD is not set"),
    )
    for source, words in sources:
        text = f"{VENUE}{FEED}source = {{{source}}}\n"
        assert len(parse_config(text, tmp_path).account_feeds) == 1, "a replay needs no secrets"
        problem = only_problem(text, tmp_path, {})
        assert (problem.line, problem.key) == (8, "account_feeds[0].source")
        assert words in problem.message
    parse_config(text, tmp_path, {"DESK_PASSWORD": "hunter2"})


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        (VENUE + FEED + FILE + FEED + FILE, 10, "account_feeds[1].name", "'house' is used already, in line 5"),
        (VENUE + FEED.replace("house", "binance") + FILE, 5, "account_feeds[0].name", "is a venue with a connector"),
        (
            VENUE + FEED + FILE + FEED.replace('"desk"', '"other"').replace('"house"', '"desk"') + FILE,
            10,
            "account_feeds[1].name",
            "'desk' is the venue of another feed",
        ),
        (
            VENUE + '[[account_feeds]]\nname = "fund"\nvenue = "binance"\n' + FILE,
            6,
            "account_feeds[0].venue",
            "'binance' has a connector, but no [[venues]] section",
        ),
        (VENUE + FEED.replace("desk", "hyperliquid") + FILE, 4, "account_feeds[0]", "symbols are those of the [[venues]] section"),
        (VENUE + FEED.replace('symbols = ["BTC-PERP"]', "") + FILE, 4, "account_feeds[0]", "symbols are needed"),
        (VENUE + FEED, 4, "account_feeds[0].source", "required, but missing"),
        (VENUE + FEED + 'source = {type = "fiel", path = "x"}', 8, "account_feeds[0].source.type", "must be one of"),
        (VENUE + FEED + "source.path = 'x'", 8, "account_feeds[0].source.type", "required, but missing"),
        (VENUE + FEED + FILE + "silence_s = 0.5", 9, "account_feeds[0].silence_s", "greater than or equal to 1"),
        (VENUE + FEED + FILE + "slience_s = 5.0", 9, "account_feeds[0].slience_s", "unknown key"),
        (VENUE + "account_feeds = {}", 4, "venues[0].account_feeds", "unknown key"),
        ("account_feeds = {}\n" + VENUE, 1, "account_feeds", "must be a list"),
    ],
)
def test_what_is_wrong_with_a_feed_is_one_problem_at_its_line(text: str, line: int, key: str, words: str) -> None:
    problem = only_problem(text)
    assert (problem.line, problem.key) == (line, key)
    assert words in problem.message


def test_a_feed_may_bear_the_name_of_its_own_venue() -> None:
    assert parse_config(VENUE + FEED.replace("house", "desk") + FILE, Path("/")).account_feeds[0].name == "desk"


def test_hints_for_sources_are_those_of_their_type() -> None:
    assert only_problem(VENUE + FEED + "source = {}").hint == "one of file, mqtt, websocket"
    assert only_problem(VENUE + FEED + 'source = {type = "fiel"}').hint == "did you mean file?"
    problems = problems_of(VENUE + FEED + 'source = {type = "mqtt", host = "x", url = "y"}')
    assert [(problem.key, "bearer_token" in problem.hint) for problem in problems] == [("account_feeds[0].source.url", False)]
    problem = only_problem(VENUE + FEED + 'source = {type = "file", path = "a.jsonl", token = "x"}')
    assert problem.hint == "known here: path, poll_interval_ms, type"


def test_a_key_that_one_other_section_has_is_sent_there_though_a_name_here_is_similar() -> None:
    problem = only_problem("redact_accounts = true\n" + VENUE)
    assert (problem.message, problem.hint) == ("unknown key", "it belongs in [http]")


def test_a_name_of_the_wrong_form_is_told_in_our_own_words() -> None:
    problem = only_problem(VENUE + FEED.replace('"house"', '"our house"') + FILE)
    assert problem.message.startswith("must match pattern")


def test_rules_may_be_about_markets_of_a_private_venue() -> None:
    text = f'{VENUE}{FEED}{FILE}[rules.markets."desk/BTC-PERP".stale_feed]\nfor_s = 5.0\n'
    assert parse_config(text, Path("/")).rules.for_market("desk", "BTC-PERP").stale_feed.for_s == 5.0
    problem = only_problem(text.replace("desk/BTC-PERP", "desk/BTC-PREP"))
    assert problem.hint == "did you mean 'desk/BTC-PERP'?"


def test_the_description_of_feeds_hides_their_secrets(tmp_path: Path) -> None:
    secret = "hunter2-hunter2"
    text = (
        f'{VENUE}{FEED}source = {{type = "websocket", url = "wss://desk.example/{secret}", bearer_token_env = "{secret[:7]}"}}\n'
        f'{FEED.replace("house", "b")}source = {{type = "mqtt", host = "x", username = "u", password_file = "{secret}"}}\n'
    )
    described = describe(parse_config(text, tmp_path))
    shown = json.dumps(described)
    assert secret not in shown
    assert "hunter2" not in shown
    first, second = described["account_feeds"]
    assert (first["name"], first["venue"], first["symbols"]) == ("house", "desk", ["BTC-PERP"])
    assert first["source"]["url"] == "wss://desk.example/***"
    assert (second["source"]["host"], second["source"]["password_file"]) == ("x", "***")


def test_no_message_about_a_feed_repeats_a_secret(tmp_path: Path) -> None:
    secret = "hunter2-hunter2"
    (tmp_path / "token").write_text(f"{secret}\n{secret}")
    text = (
        f'{VENUE}{FEED}source = {{type = "websocket", url = "wss://u:{secret}@x", bearer_token_file = ["{secret}"]}}\n'
        f'{FEED.replace("house", "b")}source = {{type = "mqtt", host = "x", password = "{secret}"}}\n'
        f'{FEED.replace("house", "c")}source = {{type = "websocket", url = "wss://x", bearer_token_file = "token"}}\n'
    )
    problems = problems_of(text, tmp_path, {})
    assert {problem.line for problem in problems} == {8, 13, 18}
    assert secret not in "\n".join(str(problem) for problem in problems)


def test_the_margin_call_level_is_a_section_of_its_own() -> None:
    assert parse_config(VENUE, Path("/")).accounts.margin_call_ratio == 0.5
    assert parse_config(f"{VENUE}[accounts]\nmargin_call_ratio = 0.0\n", Path("/")).accounts.margin_call_ratio == 0.0
    problem = only_problem(f"{VENUE}[accounts]\nmargin_call_ratio = -0.1\n")
    assert (problem.line, problem.key) == (5, "accounts.margin_call_ratio")
