"""The base of every component."""

from __future__ import annotations

from typing import Any, ClassVar

import pulumi


class Component(pulumi.ComponentResource):
    """A component that passes its `depends_on` and its name's prefix on to its children.

    Pulumi applies a component's `depends_on` only to the component itself, which creates nothing:
    its children would start at once. Depending *on* a component does include all its children:
    https://github.com/pulumi/pulumi/pull/7732.

    A URN doesn't include the parent's name, so a program with several servers needs their names as
    prefixes of their resources' names.
    """

    # The APIs that the component's resources require, which `Apis` switches on before them.
    APIS: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        self._after = opts.depends_on if opts else None
        parent = opts.parent if opts else None
        self._start: str = parent._start if isinstance(parent, Component) else ""
        super().__init__(f"mlflow-gcp:infra:{type(self).__name__}", self.named(name), None, opts)

    def named(self, name: str) -> str:
        """Returns the name for a resource of this component."""
        return f"{self._start}{name}"

    def child(self, **more: Any) -> pulumi.ResourceOptions:
        """Returns the options for a resource of this component.

        A replacement is created before the old resource is deleted, which others may still use. The
        provider would delete first: all names are given here, and it assumes that they are taken.
        Most properties that force a replacement change the name as well.
        """
        more = {"delete_before_replace": False, **more}
        return pulumi.ResourceOptions(parent=self, depends_on=self._after, **more)
