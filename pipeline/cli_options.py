"""Options that several commands have, and the configuration that some of them make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

RunOption = Annotated[str, typer.Option("--run", help="Run folder: a local path, s3://… or gs://…", show_default=False)]
ConfigOption = Annotated[
    str | None, typer.Option("--config", help="TOML file, or a preset: laptop, cluster, rr7k.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Override one setting; may be repeated.", show_default=False),
]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Tasks at a time.", show_default="one per CPU")]


def load_config(config_file: str | None, overrides: list[str]) -> Any:
    """Put the steps' sections together and load the whole. Raises `UsageError`."""
    from pydantic import create_model

    from pipeline.config import ClusterConfig, Section, load
    from stages.audit import AuditConfig
    from stages.decisions import ScreeningConfig
    from stages.engines.base import EngineConfig
    from stages.grounded_sam import GroundConfig
    from stages.head_tail import HeadTailConfig
    from stages.manifest import ManifestConfig
    from stages.naming_settings import NamesConfig
    from stages.pairing import PairsConfig
    from stages.queue import QueueConfig
    from stages.verification_settings import VerifyConfig

    sections: dict[str, type[BaseModel]] = {
        "cluster": ClusterConfig,
        "manifest": ManifestConfig,
        "names": NamesConfig,
        "namer": EngineConfig,
        "ground": GroundConfig,
        "pairs": PairsConfig,
        "head_tail": HeadTailConfig,
        "verify": VerifyConfig,
        "verifier": EngineConfig,
        "queue": QueueConfig,
        "screening": ScreeningConfig,
        "audit": AuditConfig,
    }
    fields: dict[str, Any] = {name: (kind, kind()) for name, kind in sections.items()}
    return load(create_model("Config", __base__=Section, **fields), config_file, overrides)
