"""The base of every component."""

from __future__ import annotations

from typing import Any

import pulumi


class Component(pulumi.ComponentResource):
    """A component whose children wait for what it waits for.

    Pulumi keeps a component's `depends_on` to the component itself, which creates nothing:
    children that are not told to wait start at once. Depending *on* a component does mean
    all its children: https://github.com/pulumi/pulumi/pull/7732.

    Nor has a URN its parent's name: where a program has several servers, their own names start
    those of all that belongs to them.
    """

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        self._after = opts.depends_on if opts else None
        parent = opts.parent if opts else None
        self._start: str = parent._start if isinstance(parent, Component) else ""
        super().__init__(f"mlflow-gcp:infra:{type(self).__name__}", self.named(name), None, opts)

    def named(self, name: str) -> str:
        """The name of a resource that belongs to this component."""
        return f"{self._start}{name}"

    def child(self, **more: Any) -> pulumi.ResourceOptions:
        """The options of a resource that belongs to this component."""
        return pulumi.ResourceOptions(parent=self, depends_on=self._after, **more)
