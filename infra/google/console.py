"""Links to Google Cloud's console for a stack."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from ..facts.connection_name import ConnectionName
from .scope import Scope

_ROOT = "https://console.cloud.google.com"


@dataclass(frozen=True, kw_only=True)
class Console:
    scope: Scope

    def service(self, tab: str) -> str:
        return self.page(f"run/detail/{self.scope.region}/{self.scope.prefix}/{tab}")

    def page(self, path: str) -> str:
        return f"{_ROOT}/{path}?project={self.scope.project}"

    def links(
        self, *, bucket: pulumi.Output[str], connection_name: pulumi.Output[str]
    ) -> dict[str, pulumi.Input[str]]:
        """Returns the links, by what each page shows."""
        return {
            "service": self.service("metrics"),
            "logs": self.service("logs"),
            "database": connection_name.apply(
                lambda name: self.page(
                    f"sql/instances/{ConnectionName.parse(name).instance}/overview"
                )
            ),
            "artifacts": bucket.apply(lambda name: self.page(f"storage/browser/{name}")),
            "secrets": self.page("security/secret-manager"),
        }

    # Markdown links for the alerts' texts.

    @property
    def log(self) -> str:
        return f"[the log]({self.service('logs')})"

    @property
    def revision(self) -> str:
        return f"[revision]({self.service('revisions')})"

    @property
    def jobs(self) -> str:
        return f"[Cloud Run's jobs]({self.page('run/jobs')})"

    @property
    def database(self) -> str:
        return f"[the database]({self.page('sql/instances')})"
