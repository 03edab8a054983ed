"""`hyperfleet templates`: what machines are started from without booting."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from hyperfleet.cli.connect import connect
from hyperfleet.cli.output import say, say_json, say_table, span
from hyperfleet.client import to_json

app = typer.Typer(help="What machines are started from without booting; made by themselves.")

AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]
_MIB = 1 << 20


@app.callback(invoke_without_command=True)
def list_templates(context: typer.Context, as_json: AsJson = False) -> None:
    """List them, the last used first; `hyperfleet templates rm ID` removes one."""
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        templates = client.list_templates()
    if as_json:
        say_json({"templates": to_json(templates)})
        return
    now = datetime.now(UTC)
    say_table(
        ("ID", "CPUS", "MEMORY", "KERNEL", "TAKES", "MADE IN", "USED"),
        [
            (
                template.id,
                str(template.vcpu_count),
                f"{template.mem_size_mib} MiB",
                template.kernel_image_path,
                f"{template.size_bytes // _MIB} MiB",
                f"{template.made_in_ms / 1000:.1f} s",
                f"{span(now - template.used_at)} ago",
            )
            for template in templates
        ],
    )


@app.command("rm")
def remove(template_id: Annotated[str, typer.Argument(metavar="ID", help="As listed.")]) -> None:
    """Remove a template. Machines that were started from it run on; the next one boots."""
    with connect() as client:
        client.remove_template(template_id)
    say(f"Template {template_id} is removed.")
