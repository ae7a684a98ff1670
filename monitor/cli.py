"""The command line. Heavy modules are imported by the command that needs them, so that ``--help`` is quick."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="liqmon",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="""Watches leveraged accounts in real time: where liquidations cluster near the price, what would set them off, how far
they would run, and how much of the answer is known.

Exit codes: 0 done, 1 failed while running, 2 bad input or configuration (all errors are listed).""",
)

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="Configuration file (TOML); see deploy/examples.", show_default=False)
]


class Speed(enum.StrEnum):
    """How fast recorded time passes."""

    MAX = "max"
    REAL = "1"
    TENFOLD = "10"


class Scenario(enum.StrEnum):
    """What happens on the simulated exchange."""

    CALM = "calm"
    TREND = "trend"
    CRASH = "crash"


class ForeignFormat(enum.StrEnum):
    """Formats of other people's recordings."""

    TARDIS = "tardis"
    HFTBACKTEST = "hftbacktest"
    CRYPTOFEED = "cryptofeed"
    HYPERLIQUID_ARCHIVE = "hyperliquid-archive"


@app.command()
def run(config: ConfigOption) -> None:
    """Run the daemon: connect to venues and account feeds, project, serve metrics and the page, send alerts.

    Stops on SIGTERM or Ctrl-C after letting notifications leave.
    """
    from monitor.commands.run import run_daemon

    raise typer.Exit(run_daemon(config))


@app.command()
def demo(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")] = 9477,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulated exchange; the same seed gives the same market.")] = 1,
    scenario: Annotated[Scenario, typer.Option(help="What happens on the simulated exchange.")] = Scenario.CRASH,
    duration: Annotated[
        float | None, typer.Option(min=1.0, metavar="SECONDS", help="Stop after this many seconds.  \\[default: run until Ctrl-C]")
    ] = None,
) -> None:
    """Show everything at work without any network: a simulated exchange, and the daemon watching it over a real socket.

    All that is shown is marked as simulated.
    """
    from monitor.commands.demo import run_demo

    raise typer.Exit(run_demo(port=port, seed=seed, scenario=scenario.value, duration_s=duration))


@app.command()
def record(
    config: ConfigOption,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Directory for the recording; made when missing.", show_default=False)
    ],
    duration: Annotated[
        float | None, typer.Option(min=1.0, metavar="SECONDS", help="Stop after this many seconds.  \\[default: run until Ctrl-C]")
    ] = None,
) -> None:
    """Record what the configured venues and account feeds send, REST answers included, so that it can be replayed.

    Polls accounts and resynchronises books as the daemon does, but serves no page and sends no alerts.
    """
    from monitor.commands.record import run_record

    raise typer.Exit(run_record(config, output, duration))


@app.command()
def replay(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", help="Recordings: ours, tardis.dev raw, hftbacktest or cryptofeed.", show_default=False),
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="Configuration file, needed for private account feeds.  \\[default: every symbol in the recording is watched]",
        ),
    ] = None,
    speed: Annotated[Speed, typer.Option(help="How fast recorded time passes.")] = Speed.MAX,
    venue: Annotated[
        str | None, typer.Option(help="Venue of recordings that do not say it themselves.", show_default=False)
    ] = None,
    projections: Annotated[
        Path | None, typer.Option(help="Write every market projection as a line of JSON.", metavar="OUT.jsonl", show_default=False)
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(help="Write what was replayed as JSON.", metavar="OUT.json", show_default=False)
    ] = None,
    openmetrics: Annotated[
        Path | None,
        typer.Option(help="Write the metrics of every minute as OpenMetrics, for promtool.", metavar="OUT.om", show_default=False),
    ] = None,
) -> None:
    """Replay recordings through exactly the code that runs live; the same input gives the same bytes.

    Several files are joined in order of receive time.
    """
    from monitor.commands.replay import run_replay

    raise typer.Exit(
        run_replay(
            paths,
            config_path=config,
            speed=speed.value,
            venue=venue,
            projections=projections,
            summary=summary,
            openmetrics=openmetrics,
        )
    )


@app.command("import")
def import_(
    form: Annotated[
        ForeignFormat, typer.Argument(metavar="FORMAT", help="tardis, hftbacktest, cryptofeed or hyperliquid-archive.")
    ],
    paths: Annotated[list[Path], typer.Argument(metavar="IN", help="Files of one recording.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory for the imported recording.", show_default=False)],
    venue: Annotated[str | None, typer.Option(help="Venue, where the files do not say it themselves.", show_default=False)] = None,
) -> None:
    """Turn recordings of other tools into ours."""
    from monitor.commands.import_ import run_import

    raise typer.Exit(run_import(form.value, paths, output, venue))


@app.command("check-config")
def check_config(
    config: Annotated[Path, typer.Argument(metavar="FILE", help="Configuration file (TOML).", show_default=False)],
) -> None:
    """Check a configuration and list every error in it, with line and hint; show what it means if there is none."""
    from monitor.commands.check_config import run_check_config

    raise typer.Exit(run_check_config(config))


@app.command()
def playback(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Recordings of one venue.", show_default=False)],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve on; 0 takes a free one.")] = 9478,
    speed: Annotated[Speed, typer.Option(help="How fast recorded time passes.")] = Speed.REAL,
    sockets: Annotated[int, typer.Option(min=1, help="Start once this many websockets have subscribed.")] = 1,
    venue: Annotated[str | None, typer.Option(help="Venue, where the files do not say it themselves.", show_default=False)] = None,
) -> None:
    """Serve a recording on loopback as the venue itself would: handshake, subscriptions, heartbeats, REST.

    Point websocket_url and rest_url of a configuration at it.
    """
    from monitor.commands.playback import run_playback

    raise typer.Exit(run_playback(paths, port=port, speed=speed.value, sockets=sockets, venue=venue))


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
