"""The base of every component."""

from __future__ import annotations

from typing import Any

import pulumi


class Component(pulumi.ComponentResource):
    """A component whose children wait for what it waits for.

    Pulumi keeps a component's `depends_on` to the component itself, which creates nothing:
    children that are not told to wait start at once. Depending *on* a component does mean
    all its children: https://github.com/pulumi/pulumi/pull/7732.
    """

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        self._after = opts.depends_on if opts else None
        super().__init__(f"mlflow-gcp:infra:{type(self).__name__}", name, None, opts)

    def child(self, **more: Any) -> pulumi.ResourceOptions:
        """The options of a resource that belongs to this component."""
        return pulumi.ResourceOptions(parent=self, depends_on=self._after, **more)
