"""Cloud SQL's connection names, `PROJECT:REGION:INSTANCE`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ConnectionName:
    project: str
    region: str
    instance: str

    @classmethod
    def parse(cls, text: str) -> ConnectionName:
        # The id of an old project may contain a colon: example.com:my-project.
        parts = text.rsplit(":", 2)
        if len(parts) != 3 or not all(parts):
            raise ValueError(
                f"{text!r} isn't a connection name, such as my-project:us-central1:my-instance"
            )
        return cls(project=parts[0], region=parts[1], instance=parts[2])

    def __str__(self) -> str:
        return f"{self.project}:{self.region}:{self.instance}"

    @property
    def database_id(self) -> str:
        """Returns the instance's name in Cloud Monitoring."""
        return f"{self.project}:{self.instance}"
