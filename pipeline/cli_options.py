"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

RunOption = Annotated[str, typer.Option("--run", help="Run folder: a local path, s3://… or gs://…", show_default=False)]
