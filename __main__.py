"""The Pulumi program: reads the stack's settings, declares all resources, exports the outputs.

`infra/deployment.py` shows the whole deployment on one page.
"""

import pulumi

from infra.deployment import declare
from infra.settings.reader import load, stack_config

for name, output in declare(load(stack_config())).items():
    pulumi.export(name, output)
